"""Which numbers are bold: best of a group as a reader sees them, and nothing where a comparison would mislead."""

from bench.experiments import get_table
from bench.records import Store
from tests.report.fakes import accuracy, complexity, latency, page, released, table_cells


def bold(name: str, store: Store) -> dict[tuple[str, str], set[int]]:
    """(metric, "published" or "measured") -> rows."""
    found: dict[tuple[str, str], set[int]] = {}
    for (row, metric), cell in table_cells(get_table(name), store).cells.items():
        for source in cell.best:
            found.setdefault((metric, source), set()).add(row)
    return found


def test_printed_numbers_of_table_1_by_backbone(tmp_path):
    """By hand, from the paper: Mask2Former leads but for mIoU with Swin-S; HCFormer is smallest; Max-L stands alone."""
    found = bold("table1", Store(tmp_path))
    assert found["PQ", "published"] == {4, 8, 14} and found["mIoU_pan", "published"] == {4, 10, 14}
    assert found["params", "published"] == found["flops", "published"] == {5, 9, 15}
    assert {which for _, which in found} == {"published"}


def test_printed_numbers_of_table_iv_by_data_set_with_ties(tmp_path):
    found = bold("tableIV", Store(tmp_path))
    assert found == {("PQ", "published"): {4, 5}, ("mIoU", "published"): {7, 8, 13}}


def test_numbers_that_are_equal_as_shown_are_not_bold(tmp_path):
    assert ("params", "published") in bold("table4", Store(tmp_path))
    assert bold("tableVI", Store(tmp_path)).keys() == {("PQ", "published"), ("flops", "published")}  # 62 M four times


def test_measured_counts_are_compared_among_each_other(tmp_path):
    store, rows = Store(tmp_path), get_table("table4").rows
    store.write(complexity(rows[0].experiment, params=38.001, flops=90.0))
    assert ("flops", "measured") not in bold("table4", store), "alone"
    store.write(complexity(rows[1].experiment, params=38.004, flops=89.0))
    found = bold("table4", store)
    assert found["flops", "measured"] == {2} and ("params", "measured") not in found


def test_accuracies_of_different_kinds_are_not_compared(tmp_path):
    rows, store = get_table("table1").rows, Store(tmp_path)
    for row, pq in ((rows[4], 47.0), (rows[5], 50.0)):
        for seed in range(3):
            store.write(accuracy(row.experiment, seed, pq + seed / 10))
    assert bold("table1", store)["PQ", "measured"] == {6}
    store.write(released(rows[1].experiment))
    assert ("PQ", "measured") not in bold("table1", store)
    few = Store(tmp_path / "few")
    few.write(accuracy(rows[4].experiment, 0, 47.0))
    for seed in range(3):
        few.write(accuracy(rows[5].experiment, seed, 50.0))
    assert ("PQ", "measured") not in bold("table1", few)


def test_small_scale_highest_median_alone(tmp_path):
    table, store = get_table("table1"), Store(tmp_path)
    for row in table.small_rows:
        store.write(latency(row.experiment))
        for seed in range(3):
            store.write(accuracy(row.experiment, seed, 90.0 - row.number + seed))
    found = bold("table1", store)
    assert found["PQ", "measured"] == {17}
    text = page(table, store)
    lines = text.split("## Small scale")[1].splitlines()
    assert ["**" in line for line in lines if line.startswith("| M") or line.startswith("| H")] == [True] + [False] * 3
    assert "| MaskFormer  | measured | **74.0** (73.0..75.0) |" in text


def test_latencies_are_never_bold(tmp_path):
    table, store = get_table("table1"), Store(tmp_path)
    for row in (row for row in table.rows if row.experiment):
        store.write(latency(row.experiment, 100.0 + row.number))
    text = page(table, store)
    assert "**" not in text.split("## Latency")[1] and "latency_network" not in {m for m, _ in bold("table1", store)}
