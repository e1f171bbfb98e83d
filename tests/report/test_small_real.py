"""The table of small real data sets: blocks of two tasks, nothing published, data sets that are not generated."""

from dataclasses import replace

import pytest

from bench.experiments import get_table
from bench.records import Store
from bench.report.write import write_report
from bench.run import plan as runner
from tests.report.fakes import SMALL, accuracy, cell, csv_of, page

TABLE = get_table("small_real")


@pytest.fixture
def store(tmp_path):
    """Three seeds of every row; the value of a metric is 10 times the row plus the seed, its place after the comma."""
    store = Store(tmp_path / "store")
    for block in TABLE.small_blocks:
        for row in block.rows:
            for seed in (0, 1, 2):
                metrics = {
                    column.metric: {"value": 10.0 * row.number + seed + place / 10, "unit": column.unit, "n": 5}
                    for place, column in enumerate(block.columns)
                }
                store.write(replace(accuracy(row.experiment, seed), metrics=metrics))
    return store


def test_each_data_set_has_its_own_metrics(store):
    frame = csv_of(TABLE, store)
    assert set(frame[frame.dataset == "camvid"].metric) == {"mIoU", "pixel_accuracy"}
    assert {"PQ", "PQ_th", "AP_pan_th"} < set(frame[frame.dataset == "nuclei"].metric)
    assert len(frame) == 4 * 2 + 4 * 5 and frame.published.isna().all() and set(frame.verdict) == {"other scale"}
    line = frame[(frame.row == 3) & (frame.metric == "pixel_accuracy")].iloc[0]
    assert (line.method, line.measured, line["min"], line["max"], line.n) == ("HCFormer", 31.1, 30.1, 32.1, 3)


def test_page_shows_both_blocks_and_no_part_of_the_papers(store):
    _, page = write_report("small_real", store)
    text = page.read_text()
    assert text.count("\n## ") == 2 and "## Small scale: camvid" in text and "## Small scale: nuclei" in text
    assert "→" not in text and "published" not in text and "Nothing here is printed in the paper" in text
    assert text.count("What this can say") == text.count("Not comparable") == 1, "shared notes once"
    lines = [line.split("|") for line in text.splitlines() if line.startswith("| HCFormer+")]
    assert [[cell.strip().replace("**", "") for cell in line[3:5]] for line in lines] == [
        ["41.0 (40.0..42.0)", "41.1 (40.1..42.1)"],
        ["81.0 (80.0..82.0)", "81.1 (80.1..82.1)"],
    ]


def test_blocks_without_records_are_one_sentence(tmp_path):
    text = write_report("small_real", Store(tmp_path))[1].read_text()
    assert text.count("\n## ") == 2 and "|" not in text and "Not comparable" not in text
    for dataset in ("camvid", "nuclei"):
        assert f"Not measured yet on {dataset}: MaskFormer; Mask2Former; HCFormer; HCFormer+.\n" in text


def test_only_real_data_are_looked_for_below_the_data_root(tmp_path):
    assert runner.root_of(SMALL, tmp_path) is None
    for row in TABLE.small_rows:
        assert runner.root_of(row.experiment, tmp_path) == str(tmp_path)
        assert runner.root_of(row.experiment, None) is None


def test_every_row_is_trained_with_three_seeds_and_nothing_else_is_measured():
    measurements = TABLE.measurements()
    assert len(measurements) == 24 and {m.kind for m in measurements} == {"accuracy"}
    assert {m.seed for m in measurements} == {0, 1, 2}


def test_what_was_trained_on_a_part_of_the_data_gets_no_verdict(tmp_path):
    """Also at the paper's scale: generated scenes in COCO's layout must not stand against the paper's numbers."""
    table, store = get_table("table1"), Store(tmp_path)
    what = table.rows[4].experiment
    for seed in (0, 1, 2):
        details = {"train_images": 8, "official_train_images": 118_287, "val_images": 5000, "official_images": 5000}
        store.write(replace(accuracy(what, seed, pq=47.7), details=details))
    assert cell(csv_of(table, store), 5, "PQ")["verdict"] == "other data, 8 of 118287 images"
    assert "other data, 8 of 118287 images" in page(table, store)
