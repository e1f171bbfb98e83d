"""Verdicts, the tidy table, its markdown, and that a report needs records alone."""

import re
import shutil
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from bench.errors import BenchError
from bench.experiments import TABLES, experiment, find_row, get_table
from bench.experiments.published import Published, load_published
from bench.records import Store
from bench.report import write_overview, write_report
from bench.report.verdict import VerdictKind, judge
from bench.report.write import COLUMNS
from tests.report.fakes import (
    LATENCY_DETAILS,
    R50,
    SMALL,
    accuracy,
    cell,
    complexity,
    csv_of,
    full_store,
    latency,
    page,
    read_csv,
    released,
)

REPOSITORY = Path(__file__).resolve().parents[2]
TABLE = get_table("table1")
PLUS = experiment("hcformer+", "r50", "coco_panoptic", "paper")
PQ = Published(47.7, "%", 0.5, False, "")
FLOPS = Published(87.0, "G", 3.0, True, "")
PARAMS = Published(38.0, "M", 0.6, False, "")
TIME = Published(48.7, "ms", 25.0, True, "")


@pytest.mark.parametrize(
    ("published", "measured", "n", "kind", "scale", "expected"),
    [
        (PQ, None, 0, "accuracy", "paper", "not measured"),
        (None, None, 0, "latency", "paper", "not measured"),
        (None, 900.0, 30, "latency", "paper", "no published value"),
        (TIME, 48.7, 30, "latency", "paper", "other device"),
        (TIME, 900.0, 1, "latency", "paper", "other device"),
        (PQ, 47.7, 1, "accuracy", "paper", "single run"),
        (PQ, 47.7, 2, "accuracy", "paper", "2 of 3 seeds"),
        (PQ, 47.2, 3, "accuracy", "paper", "reproduced"),
        (PQ, 48.2, 5, "accuracy", "paper", "reproduced"),
        (PQ, 47.1, 3, "accuracy", "paper", "off by -0.6"),
        (PQ, 49.0, 3, "accuracy", "paper", "off by +1.3"),
        (FLOPS, 87.9, 1, "complexity", "paper", "reproduced"),
        (FLOPS, 89.61, 1, "complexity", "paper", "reproduced"),
        (FLOPS, 91.35, 1, "complexity", "paper", "off by +5.0 %"),
        (FLOPS, 80.0, 1, "complexity", "paper", "off by -8.0 %"),
        (PARAMS, 38.6, 1, "complexity", "paper", "reproduced"),
        (PARAMS, 37.36, 1, "complexity", "paper", "off by -0.64 M"),
        (None, 40.0, 3, "accuracy", "small", "other scale"),
        (None, 40.0, 1, "accuracy", "small", "other scale"),
        (None, None, 0, "accuracy", "small", "not measured"),
        (PQ, 47.7, 1, "released", "paper", "released checkpoint (+0.0)"),
        (PQ, 47.4, 1, "released", "paper", "released checkpoint (-0.3)"),
        (PQ, 60.0, 1, "released", "paper", "released checkpoint (+12.3)"),
        (None, 47.4, 1, "released", "paper", "released checkpoint"),
        (PQ, None, 0, "released", "paper", "not measured"),
    ],
)
def test_verdict(published, measured, n, kind, scale, expected):
    assert str(judge(published, measured, n, kind, scale)) == expected


def test_a_part_of_the_data_is_held_against_nothing():
    trained = judge(PQ, 47.7, 3, "accuracy", "paper", part=(8, 118_287))
    tested = judge(PQ, 47.7, 1, "released", "paper", part=(5, 5000))
    assert trained.kind is tested.kind is VerdictKind.PART
    assert [str(trained), str(tested)] == ["other data, 8 of 118287 images", "released checkpoint, 5 of 5000 images"]


def test_empty_store_shows_the_paper_and_nothing_else(tmp_path):
    frame = csv_of(TABLE, Store(tmp_path))
    assert list(frame.columns) == COLUMNS
    assert frame[["reference", "measured", "min", "max", "n"]].isna().all(axis=None)
    assert set(frame.verdict) == {"not measured"} and frame.record.isna().all()
    assert frame.published.notna().sum() == len(load_published("table1"))
    assert "No records yet" in page(TABLE, Store(tmp_path))


@pytest.mark.parametrize(("values", "middle"), [([50.0], 50.0), ([50.0, 51.0], 50.5), ([52.0, 50.0, 50.3], 50.3)])
def test_median_range_and_n_of_seeds(tmp_path, values, middle):
    store = Store(tmp_path)
    for seed, value in enumerate(values):
        store.write(accuracy(PLUS, seed, value))
    line = cell(csv_of(TABLE, store), 6, "PQ")
    assert (line["measured"], line["min"], line["max"], line["n"]) == (middle, min(values), max(values), len(values))
    assert line["published"] == 50.2 and line["tolerance"] == "0.5"
    assert line["verdict"] == {1: "single run", 2: "2 of 3 seeds", 3: "reproduced"}[len(values)]
    assert line["record"].split(";") == [f"records/{PLUS.key}/accuracy-{seed}.json" for seed in range(len(values))]


# Released checkpoints


def accuracy_part(store: Store, reference: Store | None = None) -> str:
    text = page(TABLE, store, reference)
    return text.split("## Accuracy")[1].split("## Complexity")[0]


def test_released_checkpoint_in_the_table_and_the_csv(tmp_path):
    store = Store(tmp_path)
    store.write(released())  # PQ 47.9 of 47.7, then 48.9 of 51.9, 49.9 of 41.2, 50.9 of 35.7, 51.9 of 59.8
    csv, _ = write_report("table1", store)
    line = cell(read_csv(csv), 5, "PQ")
    assert (line["measured"], line["min"], line["max"], line["n"]) == (47.9, 47.9, 47.9, 1)
    assert line["verdict"] == "released checkpoint (+0.2)"
    assert line["record"] == f"records/{R50.key}/released.json"
    part = accuracy_part(store)
    row = tables_of(part)[0][6]
    assert row[3] == "47.7 → 47.9"
    assert row[-1] == "released checkpoint (PQ +0.2, PQ_th -3.0, PQ_st +8.7, AP_pan_th +15.2, mIoU_pan -7.9)"
    assert "*released checkpoint*: trained by others, evaluated here (n = 1)" in part
    assert (
        "- Row 5, HCFormer R50: `maskformer.safetensors` (SHA-256 0123456789ab), made from `hub_model.bin` "
        "(SHA-256 `fedcba987654`); 5000 images\n"
    ) in part
    assert not re.search("reproduced|single run|off by", row[-1])


def test_released_checkpoint_on_a_part_of_the_data_set_gets_no_verdict(tmp_path):
    store = Store(tmp_path)
    store.write(released(official_images=9999))
    assert cell(csv_of(TABLE, store), 5, "PQ")["verdict"] == "released checkpoint, 5000 of 9999 images"


def test_metric_that_a_released_checkpoint_lacks(tmp_path):
    store, record = Store(tmp_path), released()
    kept = {name: metric for name, metric in record.metrics.items() if name in ("PQ", "PQ_th")}
    store.write(replace(record, metrics=kept))
    row = tables_of(accuracy_part(store))[0][6]
    assert row[-1] == "PQ_st, AP_pan_th, mIoU_pan not measured; released checkpoint (PQ +0.2, PQ_th -3.0)"


def test_trained_seeds_are_shown_instead_of_a_released_checkpoint(tmp_path):
    alone, both = Store(tmp_path / "alone"), Store(tmp_path / "both")
    for store in (alone, both):
        store.write(accuracy(PLUS, 0, 50.0))
    both.write(released(PLUS))
    pd.testing.assert_frame_equal(csv_of(TABLE, alone), csv_of(TABLE, both))
    assert accuracy_part(alone) == accuracy_part(both)


def test_released_checkpoint_stands_in_where_the_trained_seeds_are_stale(tmp_path):
    store = Store(tmp_path)
    store.write(replace(accuracy(PLUS, 0, 10.0), recipe={"iterations": 1}))
    store.write(released(PLUS))
    assert cell(csv_of(TABLE, store), 6, "PQ")["verdict"] == "released checkpoint (-2.3)"


def test_released_checkpoint_of_the_reference_is_named(tmp_path):
    ours, theirs = Store(tmp_path / "ours"), Store(tmp_path / "theirs")
    theirs.write(released())
    part = accuracy_part(ours, theirs)
    assert tables_of(part)[0][6][3] == "47.7 → [47.9]" and tables_of(part)[0][6][-1] == "not measured"
    assert "- Row 5, HCFormer R50, in brackets: `maskformer.safetensors`" in part


def test_released_checkpoint_of_a_small_model_is_not_among_the_trained(tmp_path):
    store = Store(tmp_path)
    store.write(released(SMALL))
    assert csv_of(TABLE, store).measured.isna().all()
    assert "released" not in accuracy_part(store)


def test_names_of_files_cannot_leave_their_line(tmp_path):
    store = Store(tmp_path)
    weights = {"file": "a`b|c\n## Heading", "source": "x" * 1000, "source_sha256": None}
    store.write(released(weights=weights))
    note = accuracy_part(store).rstrip().split("\n\n- MaskFormer's")[0].split("\n\n")[-1]
    file = "`a'b|c ## Heading` (SHA-256 0123456789ab)"
    assert note == f"- Row 5, HCFormer R50: {file}, made from `{'x' * 100}`; 5000 images"
    store.write(released(weights={"source": None, "source_sha256": None}))
    assert "`maskformer.safetensors` (SHA-256 0123456789ab); 5000 images\n" in accuracy_part(store)


def test_overview_counts_released_checkpoints_where_there_are_any(tmp_path):
    for name in ("one", "two"):
        Store(tmp_path / name).write(complexity())
    header = tables_of(write_overview(tmp_path).read_text())[0][0]
    assert header == ["store", "complexity", "latency", "accuracy", "pages"]
    Store(tmp_path / "two").write(released())
    table = tables_of(write_overview(tmp_path).read_text())[0]
    assert [line[1:5] for line in (table[0], *table[2:])] == [
        ["complexity", "latency", "accuracy", "released"],
        ["1", "0", "0", "0"],
        ["1", "0", "0", "1"],
    ]


def test_committed_reference_renders_to_the_committed_pages(tmp_path):
    results = tmp_path / "results"
    shutil.copytree(REPOSITORY / "results" / "reference", results / "reference")
    pages = [path for path in (results / "reference").rglob("*") if path.suffix in (".md", ".csv", ".tex")]
    assert len(pages) == 3 * len(TABLES) + 2
    for path in pages:
        path.write_text("")
    write_report("table1", Store(results / "reference"))
    for path in (*pages, write_overview(results)):
        committed = REPOSITORY / "results" / path.relative_to(results)
        assert path.read_bytes() == committed.read_bytes(), path.name


def test_complexity_and_latency_cells(tmp_path):
    store = Store(tmp_path)
    store.write(complexity())
    store.write(latency())
    frame = csv_of(TABLE, store)
    flops, network = cell(frame, 5, "flops"), cell(frame, 5, "latency_network")
    assert (flops["measured"], flops["tolerance"], flops["verdict"]) == (87.9, "3 %", "reproduced")
    assert cell(frame, 5, "params")["tolerance"] == "0.6 M"
    assert (network["measured"], network["min"], network["max"], network["n"]) == (900.0, 890.0, 925.0, 3)
    assert network["verdict"] == "no published value" and pd.isna(network["published"])
    assert cell(frame, 5, "latency_end_to_end_p90")["measured"] == 1220.0
    assert (frame.measured.notna()).sum() == 6


def test_reference_stands_beside_never_instead(tmp_path):
    ours, theirs = Store(tmp_path / "ours"), Store(tmp_path / "theirs")
    ours.write(complexity(flops=88.0))
    theirs.write(complexity(flops=87.5))
    theirs.write(latency())
    frame = csv_of(TABLE, ours, theirs)
    assert (cell(frame, 5, "flops")["measured"], cell(frame, 5, "flops")["reference"]) == (88.0, 87.5)
    network = cell(frame, 5, "latency_network")
    assert pd.isna(network["measured"]) and network["reference"] == 900.0 and network["verdict"] == "not measured"


def test_own_store_as_reference_leaves_the_column_empty(tmp_path):
    store = full_store(TABLE, tmp_path / "store")
    csv, _ = write_report("table1", store, Store(tmp_path / "other" / ".." / "store"))
    assert read_csv(csv).reference.isna().all()


def test_stale_records_are_left_out_and_said(tmp_path):
    store = Store(tmp_path)
    store.write(replace(accuracy(SMALL), recipe={"iterations": 1}))
    frame = csv_of(TABLE, store)
    assert frame.measured.isna().all()
    assert "Left out: 1 record(s)" in page(TABLE, store)


def test_seeds_that_are_not_the_recipes_are_left_out_and_said(tmp_path):
    store = Store(tmp_path)
    for seed, value in ((0, 50.0), (1, 51.0), (7, 99.0)):
        store.write(accuracy(PLUS, seed, value))
    frame = csv_of(TABLE, store)
    line = cell(frame, 6, "PQ")
    assert (line["measured"], line["max"], line["verdict"]) == (50.5, 51.0, "2 of 3 seeds")
    text = page(TABLE, store)
    assert "Left out: 1 accuracy record(s) of seeds that are not the recipe's." in text and "2 accuracy)" in text


def test_every_record_is_read_once_for_all_pages(tmp_path, monkeypatch):
    store, reference = Store(tmp_path / "ours"), Store(tmp_path / "theirs")
    write_report("table4", store)
    read, load_all = [], Store.load_all
    monkeypatch.setattr(Store, "load_all", lambda self: read.append(self.path.name) or load_all(self))
    write_report("table1", store, reference)
    assert sorted(read) == ["ours", "theirs"]


def test_damaged_record_stops_the_report(tmp_path):
    store = Store(tmp_path)
    path = store.write(complexity())
    path.write_text("{")
    with pytest.raises(BenchError, match=re.escape(str(path))):
        write_report("table1", store)


def tables_of(text: str) -> list[list[list[str]]]:
    """Every pipe table of a markdown text as lists of cells, header first, as a browser shows them but for the bold."""
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    return [[[shown(cell) for cell in line.strip("|").split("|")] for line in block] for block in blocks]


def shown(cell: str) -> str:
    return " ".join(cell.replace("**", "").split())


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full")
    store, reference = full_store(TABLE, folder / "a"), full_store(TABLE, folder / "b", shift=0.2)
    for seed in range(3):
        store.write(accuracy(PLUS, seed, 50.0 + seed / 10))
    csv, markdown = write_report("table1", store, reference)
    assert (csv, markdown) == (store.path / "tables" / "table1.csv", store.path / "tables" / "table1.md")
    return read_csv(csv), markdown.read_text(encoding="utf-8")


def test_markdown_tables_are_whole(full):
    tables = tables_of(full[1])
    assert [len(table) - 2 for table in tables] == [16, 16, 16, 8]
    for table in tables:
        assert len({len(line) for line in table}) == 1
    for table in tables[:3]:
        assert [line[1:3] for line in table[2:]] == [[row.method, row.backbone] for row in TABLE.rows]
    lines = [line for line in full[1].splitlines() if line.startswith("|")]
    assert max(map(len, lines)) <= 205


def test_numbers_stay_below_each_other_in_plain_text(full):
    """Also where some are bold: every point (and arrow) of the columns of numbers stands in one place."""
    blocks = [block.splitlines() for block in full[1].split("\n\n") if block.startswith("|")]
    for block in blocks:
        assert len({len(line) for line in block}) == 1
    accuracy_lines, complexity_lines = blocks[0][2:], blocks[1][2:]
    for lines, column in ((accuracy_lines, 4), (complexity_lines, 4), (complexity_lines, 6)):
        texts = [line.split("|")[column] for line in lines if "→" in line.split("|")[column]]
        assert len(texts) > 10 and any("**" in text for text in texts)
        assert len({text.index("→") for text in texts}) == 1
    places = [[i for i, sign in enumerate(line.split("|")[3]) if sign == "."] for line in blocks[3][2:]]
    assert all(len(found) == 5 and found[0] == places[0][0] for found in places)


def test_markdown_cells(full):
    accuracy_table, complexity_table, latency_table, small_table = tables_of(full[1])
    assert accuracy_table[7][3] == "50.2 → 50.1"
    assert accuracy_table[7][-1].startswith("PQ reproduced; off by: PQ_th -4.0, PQ_st +9.3, AP_pan_th")
    assert accuracy_table[2][3:] == ["44.3 →", "50.0 →", "35.6 →", "", "", "not measured"]
    assert complexity_table[6][3:5] == ["38 → 38.40 [38.60]", "reproduced (+0.40 M)"]
    assert complexity_table[6][5] == "87 → 87.9 [88.1]"
    assert complexity_table[6][6] == "reproduced (+1.0 %)"
    assert complexity_table[12][3:] == ["451 →", "not measured", "3692 →", "not measured"]
    # 5 ms a GFLOP and 300 ms: (300 + 5 * 87) / (300 + 5 * 181)
    assert latency_table[6][3:6] == ["3", "735 (725..760) [755]", "0.61"]
    assert latency_table[6][6:] == ["1035 (1025..1060) [1055]", "0.69", "0.47", "no published value"]
    assert small_table[2] == (
        "MaskFormer,measured,33.0 (32.0..34.0),34.0 (33.0..35.0),35.0 (34.0..36.0),36.0 (35.0..37.0),"
        "37.0 (36.0..38.0),3 of 3,other scale"
    ).split(",")
    assert small_table[3][:3] == ["MaskFormer", "reference", "33.2 (32.2..34.2)"]
    assert small_table[3][-2:] == ["3 of 3", ""]


def test_small_scale_never_mixes_with_the_papers(full):
    frame, text = full
    small = frame[frame.scale == "small"]
    assert len(small) == 20 and small.published.isna().all() and set(small.verdict) == {"other scale"}
    assert set(small.dataset) == {"synthetic_panoptic"} and set(frame[frame.row <= 16].scale) == {"paper"}
    paper = frame[(frame.scale == "paper") & frame.record.notna()]
    assert not paper.record.str.contains("small").any()
    upper, lower = text.split("## Small scale")
    assert "33.0 (32.0..34.0)" in re.sub(" +", " ", lower) and "→" not in lower
    assert not any("(32.0" in line for line in upper.splitlines())


def test_ratios_need_one_run_and_one_machine(tmp_path):
    base = experiment("maskformer", "r50", "coco_panoptic", "paper")
    for change, ratio in (({}, "0.50"), ({"run": "b"}, ""), ({"cpu": "Another CPU"}, "")):
        store = Store(tmp_path / f"store{len(str(change))}")
        store.write(latency(base, 1800.0))
        store.write(latency(R50, 900.0, **change))
        assert latency_line(store)["ratio"] == ratio


def test_ratio_to_a_base_that_was_timed_beside_it(tmp_path):
    """The base's own record is of another run, which says nothing of this row."""
    base, store = experiment("maskformer", "r50", "coco_panoptic", "paper"), Store(tmp_path)
    store.write(latency(base, 4000.0, run="b"))
    store.write(latency(R50, 900.0, beside={base: 1800.0}))
    assert latency_line(store)["ratio"] == "0.50"


def latency_line(store: Store) -> dict[str, str]:
    """Row 5 of the latency block by header; the first column of each name."""
    header, _, *rows = tables_of(page(TABLE, store))[2]
    return dict(reversed(list(zip(header, rows[4], strict=True))))


def test_ratio_is_the_median_of_the_rounds_ratios(tmp_path):
    base = experiment("maskformer", "r50", "coco_panoptic", "paper")
    slow_round_first, slow_round_last = (900, 0, 0), (0, 0, 400)
    store = Store(tmp_path / "a")
    store.write(latency(base, 1000.0, offsets=slow_round_first))
    store.write(latency(R50, 500.0, offsets=slow_round_last))
    expected = statistics.median([500 / 1900, 500 / 1000, 900 / 1000])
    assert latency_line(store)["ratio"] == f"{expected:.2f}" == "0.50"
    store.write(latency(R50, 500.0, offsets=(0, 400, 400)))
    assert latency_line(store)["ratio"] == "0.90"  # of 500/1900, 900/1000, 900/1000; the medians' quotient differs
    store.write(latency(R50, 500.0, offsets=(0, 0)))
    assert latency_line(store)["ratio"] == ""


def test_a_90th_percentile_is_shown_of_ten_rounds_or_more(tmp_path):
    other = experiment("maskformer", "r50", "coco_panoptic", "paper")
    few, many, store = (0,) * 9, (0,) * 10, Store(tmp_path)
    store.write(latency(R50, offsets=few))
    assert "p90" not in latency_line(store) and latency_line(store)["n"] == "9"
    store.write(latency(other, offsets=many))
    assert latency_line(store)["p90"] == ""
    assert cell(csv_of(TABLE, store), 5, "latency_network_p90")["measured"] == 920.0
    store.write(latency(R50, offsets=many))
    assert latency_line(store)["p90"] == "920"


def test_latency_note_states_the_protocol_and_threads(tmp_path):
    store = Store(tmp_path)
    store.write(latency(R50, 45.0))
    store.write(latency(PLUS, 50.0, threads=4))
    text = page(TABLE, store)
    assert "Protocol: n = 3 interleaved rounds, device cpu, batch 1, weights random" in text
    assert "image size 800x1067, original size 480x640" in text and "threads" not in text
    assert "Images are padded to a multiple of 32, but for MaskFormer. Protocol" in text
    assert latency_line(store)["network"] == "45.0 (35.0..70.0)"
    store.write(latency(PLUS, 50.0))
    assert ", 2 threads.\n" in page(TABLE, store)


def test_wrapping_makes_no_new_list():
    """A line must not begin with what markdown takes for an item."""
    folder = Path(__file__).resolve().parents[2] / "results"
    pages = [path.read_text(encoding="utf-8") for path in folder.rglob("*.md")]
    assert len(pages) > 15
    item = re.compile(r"^ *(?:[-+*]|\d+[.)])(?: |$)", re.MULTILINE)
    for text in pages:
        starts = [match.group() for match in item.finditer(text)]
        assert set(starts) <= {"- "} and text.count("\n- ") == len(starts)


def test_made_up_latency_details_are_those_of_the_profiler():
    profiler = pytest.importorskip("bench.measure.latency.timing")
    log = SimpleNamespace(run="a", loads=lambda: [1.0, 1.5], clustering=lambda: "compiled")
    assert profiler._details([R50], log, "cpu", profiler.CPU_PROTOCOL, profiler.timed_image(R50), 3) == LATENCY_DETAILS


def test_notes_stand_below_their_blocks(full):
    accuracy_part, rest = full[1].split("## Complexity")
    complexity_part, rest = rest.split("## Latency")
    latency_part, small_part = rest.split("## Small scale")
    parts = {"accuracy": accuracy_part, "complexity": complexity_part, "latency": latency_part}
    assert TABLE.notes
    for note in TABLE.notes:
        assert " ".join(parts[note.kind].split()).count(f"- {note.text}") == 1
    assert "one thread a run" in small_part and "above 0.8" in small_part


def test_one_machine_with_different_threads_is_one_machine(full):
    assert "- Machine: Example CPU @ 2.00GHz, 2 cores, no GPU\n" in full[1]


def test_head_names_the_reference(tmp_path):
    ours, theirs = Store(tmp_path / "ours"), Store(tmp_path / "theirs")
    assert "- Reference:" not in page(TABLE, ours, theirs)
    theirs.write(complexity(cpu="Their CPU"))
    text = page(TABLE, ours, theirs)
    assert "- Reference: Their CPU, 2 cores, no GPU; commit 0123456789ab; 2025-01-02T03:04:05Z\n" in text


def test_head_names_every_source(tmp_path):
    store = Store(tmp_path)
    store.write(complexity())
    text = page(TABLE, store)
    assert "- Machine: Example CPU @ 2.00GHz, 2 cores, no GPU\n" in text
    assert "- Commit: 0123456789ab\n" in text and "- Measured: 2025-01-02T03:04:05Z\n" in text
    assert "- Records: 1 (1 complexity)" in text
    store.write(latency(commit="f" * 40, dirty=True, gpu="Example GPU", start="2025-02-02T00:00:00Z"))
    text = page(TABLE, store)
    assert "2 different machines" in text and "2 different commits" in text
    assert "uncommitted changes for 1 of 2 records" in text
    assert "2025-01-02T03:04:05Z to 2025-02-02T00:00:00Z" in text


def test_head_names_the_commits_of_most_records(tmp_path):
    store = Store(tmp_path)
    letters = "aaabbcde"  # a commit a letter
    for row, letter in zip((row for row in TABLE.rows if row.experiment), letters, strict=False):
        store.write(complexity(row.experiment, commit=letter * 40))
    text = page(TABLE, store)
    names = [f"{letter * 12} ({n} record{'s' if n > 1 else ''})" for letter, n in (("a", 3), ("b", 2), ("c", 1))]
    assert f"- Commit: 5 different commits: {'; '.join(names)}; 2 others (2 records)\n" in text


def test_unreadable_published_numbers_are_named(tmp_path):
    with pytest.raises(BenchError, match="table1.csv are missing"):
        load_published("table1", tmp_path)
    (tmp_path / "table1.csv").write_text("row,metric,published\n1,PQ,x\n")
    with pytest.raises(BenchError, match="table1.csv line 2 is malformed"):
        load_published("table1", tmp_path)


REPORT_ALONE = """
import sys
class Broken:
    def find_spec(self, name, path=None, target=None):
        banned = "torch torchvision transformers timm fvcore models baselines scipy pycocotools hotcoco".split()
        if name.split(".")[0] in banned:
            raise ImportError(f"{name} is broken")
sys.meta_path.insert(0, Broken())
from bench.records import Store
from bench.report import write_report
write_report("table1", Store(sys.argv[1]), Store(sys.argv[2]))
"""


def test_report_works_with_the_models_packages_broken(tmp_path):
    store = full_store(TABLE, tmp_path / "store")
    expected = write_report("table1", store)[1].read_text()
    command = [sys.executable, "-c", REPORT_ALONE, str(store.path), str(tmp_path / "absent")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (store.path / "tables" / "table1.md").read_text() == expected


def test_pages_of_other_tables_follow_the_records_that_they_share(tmp_path):
    store = Store(tmp_path)
    _, shared = write_report("table4", store)
    assert "88.8" not in shared.read_text(encoding="utf-8")
    store.write(complexity(find_row("table1/hcformer-r50"), flops=88.8))
    write_report("table1", store)
    assert "88.8" in shared.read_text(encoding="utf-8") and not (tmp_path / "tables" / "table5.md").exists()
