"""The pages of Tables 2 to 5 and I to VII: their columns, footnotes and verdicts, and what they leave out."""

import re
from dataclasses import replace

import pandas as pd
import pytest

from bench.experiments import TABLES, get_table
from bench.experiments.datasets import get_dataset
from bench.experiments.published import load_published
from bench.records import Store
from bench.report.text import wrap_prose
from tests.report.fakes import PROVENANCE, accuracy, cell, complexity, csv_of, latency, page
from tests.report.test_report import tables_of

NAMES = [name for name, table in TABLES.items() if table.rows and name != "table1"]


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_store_shows_every_printed_number_and_no_other(tmp_path, name):
    table, published = get_table(name), load_published(name)
    frame, text = csv_of(table, Store(tmp_path)), wrap_prose(page(table, Store(tmp_path)))
    shown = {(line["row"], line["metric"]): line["published"] for line in frame.to_dict("records")}
    assert {key: value for key, value in shown.items() if pd.notna(value)} == {k: p.value for k, p in published.items()}
    assert frame.measured.isna().all() and set(frame.verdict) == {"not measured"}
    cells = [
        c
        for head, _, *lines in tables_of(text)
        for line in lines
        for name, c in zip(head, line, strict=True)
        if name != "ratio"
    ]
    printed = [float(n) for c in cells for n in re.findall(r"(\S+) →", c)]
    assert sorted(printed) == sorted(p.value for p in published.values())
    assert "No records yet" in text
    assert text.count("## Small scale") == len(table.small_blocks)
    for note in table.notes:
        assert " ".join(text.split()).count(f"- {note.text}") == 1
    assert max(len(line) for line in text.splitlines() if not line.startswith("|")) <= 120
    assert max(map(len, (line for line in text.splitlines() if line.startswith("|")))) <= 150


@pytest.mark.parametrize("name", NAMES)
def test_blocks_are_those_of_the_columns(tmp_path, name):
    shown = {column.kind for column in get_table(name).columns}
    text = page(get_table(name), Store(tmp_path))
    assert ("## Complexity" in text) == ("complexity" in shown) and "## Latency" in text
    assert ("RTX8000" in text) == ("*other device*" in text) == name.startswith(("tableIa", "tableIb"))


def test_one_record_serves_all_tables_of_its_experiment(tmp_path):
    """HCFormer with R50 in Tables 1, 4, 5 and II (a); the record kinds that a table does not show leave no trace."""
    store = Store(tmp_path)
    store.write(complexity(flops=88.1, cpu="Another CPU"))
    assert "No records yet" in page(get_table("tableIV"), store)
    store.write(latency())
    for name, row in {"table1": 5, "table4": 4, "table5": 4, "tableIIa": 4}.items():
        frame = csv_of(get_table(name), store)
        line = cell(frame, row, "flops")
        assert (line["measured"], line["verdict"]) == (88.1, "reproduced")
        assert cell(frame, row, "latency_network")["measured"] == 900.0
    text = page(get_table("table4"), store)
    assert "- Records: 2 (1 complexity, 1 latency)" in text
    assert tables_of(text)[1][5][3:] == ["38 → 38.39", "reproduced (+0.39 M)", "87 → 88.1", "reproduced (+1.3 %)"]
    text = page(get_table("tableIV"), store)
    assert "- Records: 1 (1 latency)" in text and "Another CPU" not in text


def test_rows_of_several_data_sets_have_their_own_metric_and_tolerance(tmp_path):
    table, store = get_table("tableIV"), Store(tmp_path)
    ade20k = table.rows[7].experiment
    for seed in range(3):
        metrics = {"mIoU": {"value": 45.0 + seed / 10, "unit": "%", "n": 2000}}
        store.write(replace(accuracy(ade20k, seed), metrics=metrics))
    whole = csv_of(table, store)
    frame = whole[(whole.scale == "paper") & (whole.unit == "%")]
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
    metrics, samples = record.metrics | metrics, record.samples | samples
    store.write(replace(record, metrics=metrics, samples=samples))
    line = cell(csv_of(table, store), 2, "latency_end_to_end")
    assert (line["published"], line["measured"], line["verdict"]) == (19.0, 900.0, "other device")
    header, _, *rows = tables_of(page(table, store))[1]
    assert header == ["#", "method", "backbone", "n", "network", "ratio", "end to end", "ratio", "verdict"]
    assert rows[1][3:] == ["3", "900 (890..925)", "", "19.0 → 900 (890..925)", "0.39 →", "other device"]
    assert rows[0][3:] == ["", "", "", "48.7 →", "1.00 →", "not measured"]


def test_ratios_of_an_ablation_are_to_the_papers_default(tmp_path):
    """Level 3: 900 ms, level 0: 600 ms, level 1: timed in another run."""
    table, store = get_table("tableIIb"), Store(tmp_path)
    store.write(latency(table.rows[3].experiment, 900.0, offsets=(0, 0, 0)))
    store.write(latency(table.rows[0].experiment, 600.0, offsets=(0, 0, 0)))
    store.write(latency(table.rows[1].experiment, 700.0, run="b"))
    text = page(table, store)
    assert "Ratio: to row 4 (HCFormer, level 3), median of the ratios of each round" in text
    header, _, *rows = tables_of(text)[2]
    assert header[3:] == ["n", "network", "ratio", "end to end", "ratio", "FLOPs ratio", "verdict"]
    assert [[row[5], row[7]] for row in rows] == [["0.67", "0.75"], ["", ""], ["", ""], ["1.00", "1.00"]]


def test_ratios_of_per_pixel_methods_are_to_the_same_head(tmp_path):
    table, store = get_table("tableIb"), Store(tmp_path)
    for row in table.rows:
        store.write(latency(row.experiment, 100.0 * row.number, offsets=(0, 0, 0)))
    text = page(table, store)
    bases = "row 1 (FCN-32s) in rows 1 3, to row 4 (PSPNet) in rows 4 5, to row 6 (DeepLabv3) in rows 6 7"
    assert f"Ratio (`paper → measured`): to {bases}, median of" in text
    ratios = [row[5] for row in tables_of(text)[1][2:]]
    assert ratios == ["1.00", "", "3.00", "1.00", "1.25", "1.00", "1.17"]


def test_the_protocol_of_several_data_sets_names_them(tmp_path):
    table, store = get_table("tableIV"), Store(tmp_path)
    sizes = {"coco_panoptic": "800x1067", "ade20k": "512x512", "cityscapes": "1024x2048"}
    for row in table.rows:
        record = latency(row.experiment, 100.0 * row.number, run=row.experiment.dataset)
        load = f"{row.number}.0 to 1.5"
        details = record.details | {"image_size": sizes[row.experiment.dataset], "load_average": load}
        store.write(replace(record, details=details))
    text = page(table, store)
    assert "image size 800x1067 (COCO) / 512x512 (ADE20K) / 1024x2048 (Cityscapes), original" in text
    assert "batch 1, weights random" in text and "load average" not in text
    assert "to row 3 (HCFormer, COCO, 100 queries) in rows 1 2 3 4 5, to row 8 (HCFormer, ADE20K, 100 qu" in text
    assert "FLOPs ratio" not in text and tables_of(text)[1][7][5] == f"{600 / 800:.2f}"


def test_the_protocol_of_one_data_set_names_backbones_that_differ(tmp_path):
    table, store = get_table("table3a"), Store(tmp_path)
    for row in (row for row in table.rows if row.experiment):
        record = latency(row.experiment)
        size = "640x640" if row.backbone in ("Swin-L", "MiT-B5") else "512x512"
        facts = dict(record.details) | {"image_size": size}
        if row.number == 1:
            del facts["warm_up"]
        store.write(replace(record, details=facts))
    text = page(table, store)
    assert "image size 512x512 (R50, MiT-B2, Swin-S) / 640x640 (MiT-B5, Swin-L), original size 480x640" in text
    assert "warm up" not in text, "not said of all"
    assert "Ratio: to MaskFormer with the same backbone, median" in text


def test_methods_that_are_not_measured_keep_their_printed_numbers(tmp_path):
    frame = csv_of(get_table("table3a"), Store(tmp_path))
    lines = frame[(frame.method == "SegFormer") & (frame.unit != "ms")]
    assert list(lines.published) == [46.5, 62.0, 51.0, 184.0] and set(lines.verdict) == {"not measured"}
    assert set(lines.dataset) == {"ade20k"}
    assert "Mask R-CNN: not trained here" in page(get_table("table2"), Store(tmp_path))


def test_pages_name_the_images_that_the_profiler_counts():
    protocol = pytest.importorskip("bench.measure.complexity.protocol").protocol
    for table in (get_table(name) for name in NAMES):
        if any(column.kind == "complexity" for column in table.columns):
            for row in (row for row in table.rows if row.experiment):
                images = protocol(row.experiment)["images"]
                facts = re.findall(r"\d+x\d+", images) or ["first 100"]
                assert all(fact in get_dataset(table.dataset).counted.text for fact in facts), images


# The command line


def test_plan_and_report_of_per_pixel_methods(bench, tmp_path):
    code, out, errors = bench("plan", "tableIb", "--store", tmp_path)
    assert (code, errors) == (0, "") and "0 of 31 there" in out and out.count("latency") == 7
    for row in get_table("tableIb").rows:
        Store(tmp_path).write(latency(row.experiment))
    for row in get_table("tableIb").small_rows:
        for seed in range(3):
            Store(tmp_path).write(accuracy(row.experiment, seed))
    code, out, _ = bench("run", "tableIb", "--store", tmp_path)
    assert code == 0 and "# Table I" in out and (tmp_path / "tables" / "tableIb.csv").is_file()


def test_plan_and_report_of_an_ablation(bench, tmp_path):
    store, table = Store(tmp_path), get_table("table4")
    for row in table.rows:
        store.write(complexity(row.experiment))
        store.write(latency(row.experiment))
    assert "2 of 25 there" in bench("plan", "table5", "--store", tmp_path)[1]  # eight layers are Table 4's level 3
    code, out, _ = bench("plan", "table4", "--store", tmp_path)
    assert code == 0 and "8 of 20 there" in out
    for row in table.small_rows:
        for seed in range(3):
            store.write(accuracy(row.experiment, seed))
    code, out, _ = bench("run", "table4", "--store", tmp_path, "--reference", tmp_path)
    assert code == 0 and out.count("reproduced (") >= 2 and out.count("3 of 3") == 4 and PROVENANCE["cpu"] in out
    assert "8 of 20 there" in bench("plan", "table4", "--store", tmp_path, "--scale", "paper")[1]


def test_report_of_a_table_with_a_backbone_of_timm(bench, tmp_path):
    store, name = Store(tmp_path), "table1@timm:convnext_tiny"
    for row in get_table(name).rows:
        store.write(complexity(row.experiment))
        store.write(latency(row.experiment))
    code, out, _ = bench("report", name, "--store", tmp_path)
    assert code == 0 and out.count("convnext_tiny") >= 8 and "no published value" in out and "Tolerance" not in out
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {
        f"table1@timm_convnext_tiny.{ending}" for ending in ("md", "csv", "tex")
    }
