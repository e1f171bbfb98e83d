"""The pages of Tables 2 to 5 and I to VII: their columns, footnotes and verdicts, and what they leave out."""

import re
from dataclasses import replace

import pandas as pd
import pytest

from bench.experiments import TABLES, get_table
from bench.experiments.declaration import PaperTable
from bench.records import Store
from bench.report import build_table, render_markdown, write_report
from bench.report.markdown import COUNTED
from bench.report.published import load_published
from tests.report.fakes import PROVENANCE, accuracy, complexity, latency
from tests.report.test_report import cell, tables_of

NAMES = [name for name, table in TABLES.items() if table.rows and name != "table1"]


def page(table: PaperTable, store: Store, reference: Store | None = None) -> str:
    return render_markdown(table, build_table(table, store, reference), store, reference)


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_store_shows_every_printed_number_and_no_other(tmp_path, name):
    table, published = get_table(name), load_published(name)
    csv, markdown = write_report(name, Store(tmp_path))
    frame, text = pd.read_csv(csv), markdown.read_text(encoding="utf-8")
    shown = {(line["row"], line["metric"]): line["published"] for line in frame.to_dict("records")}
    assert {key: value for key, value in shown.items() if pd.notna(value)} == {k: p.value for k, p in published.items()}
    assert frame.measured.isna().all() and set(frame.verdict) == {"not measured"}
    printed = [
        float(n) for block in tables_of(text) for line in block[2:] for c in line for n in re.findall(r"(\S+) →", c)
    ]
    assert sorted(printed) == sorted(p.value for p in published.values())
    assert "No records yet" in text
    assert ("small models belong to this table yet" in text) == (not table.small_blocks)
    assert text.count("## Small scale") == len(table.small_blocks)
    for note in table.notes:
        assert text.splitlines().count(f"- {note.text}") == 1
    assert max(map(len, (line for line in text.splitlines() if line.startswith("|")))) <= 150


@pytest.mark.parametrize("name", NAMES)
def test_blocks_are_those_of_the_columns(tmp_path, name):
    shown = {column.kind for column in get_table(name).columns}
    text = page(get_table(name), Store(tmp_path))
    assert ("## Complexity" in text, "## Latency" in text) == ("complexity" in shown, "latency" in shown)
    assert ("RTX8000" in text) == ("*other device*" in text) == name.startswith(("tableIa", "tableIb"))


def test_one_record_serves_all_tables_of_its_experiment(tmp_path):
    """HCFormer with R50 in Tables 1, 4, 5 and II (a); the record kinds that a table does not show leave no trace."""
    store = Store(tmp_path)
    store.write(complexity(flops=88.1))
    store.write(latency(cpu="Another CPU"))
    for name, row in {"table1": 5, "table4": 4, "table5": 4, "tableIIa": 4}.items():
        line = cell(build_table(get_table(name), store), row, "flops")
        assert (line["measured"], line["verdict"]) == (88.1, "reproduced")
    text = page(get_table("table4"), store)
    assert "- Records: 1 (1 complexity)" in text and "Another CPU" not in text
    assert tables_of(text)[1][5][3:] == ["38 → 38.39", "reproduced (+0.39 M)", "87 → 88.1", "reproduced (+1.3 %)"]
    assert "No records yet" in page(get_table("tableIV"), store)


def test_rows_of_several_data_sets_have_their_own_metric_and_tolerance(tmp_path):
    table, store = get_table("tableIV"), Store(tmp_path)
    ade20k = table.rows[7].experiment
    for seed in range(3):
        metrics = {"mIoU": {"value": 45.0 + seed / 10, "unit": "%", "n": 2000}}
        store.write(replace(accuracy(ade20k, seed), metrics=metrics))
    whole = build_table(table, store)
    frame = whole[whole.scale == "paper"]
    assert len(frame) == 15 and set(frame[frame.dataset == "coco_panoptic"].metric) == {"PQ"}
    assert set(frame[frame.row > 5].metric) == {"mIoU"} and set(frame.dataset[5:]) == {"ade20k", "cityscapes"}
    text = page(table, store)
    assert "Tolerance: PQ 0.5; mIoU 1 on ADE20K, 0.5 on Cityscapes." in text
    lines = tables_of(text)[0]
    assert lines[2][3:] == ["42.2 →", "", "not measured"]
    assert lines[9][3:] == ["", "45.5 → 45.1", "reproduced"]


def test_a_printed_latency_is_quoted_and_never_off(tmp_path):
    table, store = get_table("tableIa"), Store(tmp_path)
    metrics = {"latency_end_to_end": {"value": 900.0, "unit": "ms", "n": 3, "p90": 925.0}}
    record = latency(table.rows[1].experiment)
    samples = {"latency_end_to_end": [890.0, 900.0, 925.0]}
    store.write(replace(record, metrics=metrics, samples=samples))
    line = cell(build_table(table, store), 2, "latency_end_to_end")
    assert (line["published"], line["measured"], line["verdict"]) == (19.0, 900.0, "other device")
    header, _, *rows = tables_of(page(table, store))[1]
    assert header == ["#", "method", "backbone", "n", "end to end", "verdict"]  # no MaskFormer to be compared with
    assert rows[1][3:] == ["3", "19.0 → 900.0 (890.0..925.0)", "other device"]
    assert rows[0][3:] == ["", "48.7 →", "not measured"]


def test_methods_that_are_not_measured_keep_their_printed_numbers(tmp_path):
    frame = build_table(get_table("table3a"), Store(tmp_path))
    lines = frame[frame.method == "SegFormer"]
    assert list(lines.published) == [46.5, 62.0, 51.0, 184.0] and set(lines.verdict) == {"not measured"}
    assert set(lines.dataset) == {"ade20k"}
    assert "Mask R-CNN: not trained here" in page(get_table("table2"), Store(tmp_path))


def test_pages_name_the_images_that_the_profiler_counts():
    protocol = pytest.importorskip("bench.profiling.inputs").protocol
    for table in (get_table(name) for name in NAMES):
        if any(column.kind == "complexity" for column in table.columns):
            for row in (row for row in table.rows if row.experiment):
                images = protocol(row.experiment)["images"]
                facts = re.findall(r"\d+x\d+", images) or ["first 100"]
                assert all(fact in COUNTED[table.dataset] for fact in facts), images


# The command line


def test_tables_without_anything_to_measure_are_planned_and_run(bench, tmp_path):
    code, out, errors = bench("plan", "tableIb", "--store", tmp_path)
    assert (code, errors) == (0, "") and "0 of 0 there" in out
    code, out, _ = bench("run", "tableIb", "--store", tmp_path)
    assert code == 0 and "# Table I" in out and (tmp_path / "tables" / "tableIb.csv").is_file()


def test_plan_and_report_of_an_ablation(bench, tmp_path):
    store, table = Store(tmp_path), get_table("table4")
    for row in table.rows:
        store.write(complexity(row.experiment))
    assert "1 of 20 there" in bench("plan", "table5", "--store", tmp_path)[1]  # eight layers are Table 4's level 3
    code, out, _ = bench("plan", "table4", "--store", tmp_path)
    assert code == 0 and "4 of 16 there" in out and "latency" not in out
    for row in table.small_rows:
        for seed in range(3):
            store.write(accuracy(row.experiment, seed))
    code, out, _ = bench("run", "table4", "--store", tmp_path, "--reference", tmp_path)
    assert code == 0 and out.count("reproduced (") >= 2 and out.count("3 of 3") == 4 and PROVENANCE["cpu"] in out
    assert "4 of 16 there" in bench("plan", "table4", "--store", tmp_path, "--scale", "paper")[1]
