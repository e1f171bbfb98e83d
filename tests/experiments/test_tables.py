"""Table 1 as declared and as published, against the paper's text."""

import re

import pytest

from bench.errors import BenchError
from bench.experiments import TABLES, experiment, find_row, get_table
from bench.experiments.tables import row_names
from bench.report.published import load_published

METRICS = ("PQ", "PQ_th", "PQ_st", "AP_pan_th", "mIoU_pan", "params", "flops")


@pytest.fixture(scope="module")
def paper_rows(shared):
    text = (shared / "paper" / "hcformer.txt").read_text(encoding="utf-8")
    block = text[text.index("Table 1: Evaluation results") :].split("\n\n")[1]
    return [line.split("\t") for line in block.splitlines()[1:]]


def test_sixteen_rows_in_the_papers_order(paper_rows):
    table = get_table("table1")
    declared = [(row.method.lower(), row.backbone) for row in table.rows]
    assert declared == [(re.sub(r"\[\d+\]", "", line[0]).lower(), line[1]) for line in paper_rows]
    assert [row.number for row in table.rows] == list(range(1, 17))
    assert [row.number for row in table.rows if row.experiment is None] == [1, 3, 11, 13]


def test_every_published_number_is_the_papers(paper_rows):
    expected = {
        (number, metric): float(text.rstrip("MG"))
        for number, line in enumerate(paper_rows, start=1)
        for metric, text in zip(METRICS, line[2:], strict=True)
        if text != "-"
    }
    assert {cell: published.value for cell, published in load_published("table1").items()} == expected


def test_published_file_agrees_with_the_declaration():
    table = get_table("table1")
    units = {column.metric: column.unit for column in table.columns}
    numbers = {row.number for row in table.rows}
    for (number, metric), published in load_published("table1").items():
        assert number in numbers and published.unit == units[metric]
        assert published.basis and 0 < published.tolerance <= 3


def test_row_labels_match_their_experiments():
    for row in get_table("table1").rows:
        if row.experiment:
            assert row.method.lower() == row.experiment.method
            assert row.backbone.lower().replace("-", "_") == row.experiment.backbone


def test_measurements():
    table = get_table("table1")
    small, paper = table.measurements(), table.measurements("paper")
    assert [sum(m.kind == k for m in small) for k in ("complexity", "latency", "accuracy")] == [12, 12, 12]
    assert [sum(m.kind == k for m in paper) for k in ("complexity", "latency", "accuracy")] == [12, 12, 36]
    assert {m.experiment.scale for m in small if m.kind == "accuracy"} == {"small"}
    assert len(set(small)) == len(small)
    with pytest.raises(BenchError, match="unknown scale"):
        table.measurements("tiny")


def test_unknown_table_names_the_nearest():
    with pytest.raises(BenchError, match="unknown table 'tabel1': did you mean 'table1'"):
        get_table("tabel1")


def test_rows_by_name():
    table = get_table("table1")
    assert find_row("table1/hcformer-r50") == table.rows[4].experiment
    assert find_row("table1/hcformer+-swin_l") == table.rows[15].experiment
    assert find_row("table1/hcformer-small") == table.small_rows[2].experiment


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_every_row_has_one_name(table):
    names = row_names(table)
    built = {row.experiment for row in (*table.rows, *table.small_rows) if row.experiment}
    assert set(names.values()) == built and len(names) == len(built)
    assert all(find_row(f"{table.name}/{name}") == e for name, e in names.items())


def test_rows_of_several_data_sets_are_named_apart():
    for dataset in ("camvid", "nuclei"):
        assert find_row(f"small_real/hcformer-small-{dataset}") == experiment("hcformer", "small", dataset, "small")
    with pytest.raises(BenchError, match="unknown row of small_real 'hcformer-small': did you mean 'hcformer-small-"):
        find_row("small_real/hcformer-small")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("table1/hcformer-r500", "unknown row of table1 'hcformer-r500': did you mean 'hcformer-r50'"),
        ("table1", "'table1' names no row of a table: write TABLE/METHOD-BACKBONE"),
        ("tabel1/hcformer-r50", "unknown table 'tabel1': did you mean 'table1'"),
    ],
)
def test_unknown_row(name, message):
    with pytest.raises(BenchError, match=message):
        find_row(name)
