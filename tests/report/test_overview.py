"""The overview of committed stores, and the page of all complexities."""

import re
from pathlib import Path
from statistics import mean

import pytest

from bench.experiments import TABLES, get_table
from bench.experiments.published import load_published
from bench.records import Store
from bench.report import collect_cells, write_overview, write_report
from bench.report.overview import error, largest_error
from bench.report.verdict import VerdictKind
from tests.report.fakes import accuracy, complexity, full_store, latency, released, table_cells
from tests.report.test_report import tables_of


def overview(results: Path) -> tuple[str, dict[str, dict[str, str]]]:
    """The text, and the lines of the first store's table of counts by table and header."""
    text = write_overview(results).read_text(encoding="utf-8")
    header, _, *rows = tables_of(text)[1]
    names = [re.sub(r"\[(\w+)\].*", r"\1", row[0]) for row in rows]
    return text, {name: dict(zip(header, row, strict=True)) for name, row in zip(names, rows, strict=True)}


def test_counts_of_a_full_store(tmp_path):
    """Table 1 by hand: 16 rows with 5 accuracies, 2 counts, 2 latencies, 12 of them built; 4 small rows, 5 metrics."""
    store = full_store(get_table("table1"), tmp_path / "reference")
    write_report("table1", store)
    text, lines = overview(tmp_path)
    line = lines["table1"]
    assert [line[name] for name in ("reproduced", "off", "other scale", "no published value", "not measured")] == [
        "24", "0", "20", "24", str(16 * 9 - 48),
    ]  # fmt: skip
    assert line["largest FLOPs error"] == "+1.0 %" and line["largest params error"] == "+1.1 %"  # 0.4 M of 38 M
    kinds = ("all, counts", "all, latencies", "all, accuracies")
    assert list(lines) == [*TABLES, *kinds, "all"]
    assert [lines[kind]["reproduced"] for kind in kinds] == ["33", "0", "0"]  # 9 of them in other tables
    cells = collect_cells(store).tables
    for c in (c for c in VerdictKind if c in lines["all"]):
        assert (
            int(lines["all"][c]) == sum(int(lines[kind][c]) for kind in kinds) == sum(int(lines[t][c]) for t in TABLES)
        )
    for name in TABLES:
        assert sum(int(lines[name][c]) for c in VerdictKind if c in lines[name]) == len(cells[name].cells)
    assert (
        "- Machine: Example CPU @ 2.00GHz, 2 cores, no GPU\n- Software" in text and "- Commit: 0123456789ab\n" in text
    )
    assert "Off in" not in text and "part of the data" not in lines["table1"]


def test_every_category_is_counted(tmp_path):
    store, rows = Store(tmp_path / "reference"), get_table("table1").rows
    for seed in range(3):
        store.write(accuracy(rows[5].experiment, seed, 50.2))  # PQ reproduced, the other four are off
    store.write(accuracy(rows[6].experiment, 0))
    store.write(released(rows[7].experiment))
    store.write(released(rows[8].experiment, official_images=9999))
    store.write(latency(get_table("tableIa").rows[0].experiment))
    _, lines = overview(tmp_path)
    shown = ("reproduced", "off", "too few seeds", "released checkpoint", "part of the data")
    assert [lines["table1"][name] for name in shown] == ["1", "4", "5", "5", "5"]
    assert lines["tableIa"]["other device"] == "1" and lines["all"]["off"] == lines["table1"]["off"]


def test_links_lead_to_files(tmp_path):
    store = Store(tmp_path / "reference")
    store.write(complexity())
    Store(tmp_path / "local").write(complexity())
    for name in ("table1", "table4"):
        write_report(name, store)
    text, _ = overview(tmp_path)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text)]
    assert all((tmp_path / link).is_file() for link in links) and "local" not in text
    assert {f"reference/tables/table4.{ending}" for ending in ("md", "csv", "tex")} <= set(links)
    assert {"reference/complexity.md", "reference/claims.md"} <= set(links)
    assert "tables/table2.md" not in text and "| table2 " in text
    (tmp_path / "reference" / "claims.md").unlink()
    assert "claims" not in overview(tmp_path)[0]


def test_what_is_off_is_listed_with_the_notes(tmp_path):
    store, table = Store(tmp_path / "reference"), get_table("table3a")
    store.write(complexity(table.rows[0].experiment, flops=58.3))  # 10 % above the printed 53
    write_report("table3a", store)
    text, _ = overview(tmp_path)
    assert tables_of(text)[2][2:] == [
        ["table3a", "1", "MaskFormer", "R50", "FLOPs", "53", "58.3", "off by +10.0 %",
         "[notes](reference/tables/table3a.md#complexity)"]
    ]  # fmt: skip
    assert "## Complexity" in (tmp_path / "reference" / "tables" / "table3a.md").read_text(encoding="utf-8")


def test_lines_are_aligned(tmp_path):
    write_report("table1", full_store(get_table("table1"), tmp_path / "reference"))
    text, _ = overview(tmp_path)
    for block in text.split("\n\n"):
        assert not block.startswith("|") or len({len(line) for line in block.splitlines()}) == 1


# Complexity


def test_every_printed_count_stands_on_the_page(tmp_path):
    store = Store(tmp_path)
    write_report("table1", store)
    (table,) = tables_of((tmp_path / "complexity.md").read_text(encoding="utf-8"))
    header, _, *rows = table
    assert header[4] == "FLOPs (G)" and header[8] == "params (M)"
    for name, paper in TABLES.items():
        published = load_published(name) if paper.rows else {}
        for metric, place in (("flops", 4), ("params", 8)):
            expected = {str(row): p.value for (row, m), p in published.items() if m == metric}
            assert {row[1]: float(row[place]) for row in rows if row[0] == name and row[place]} == expected
    assert list(dict.fromkeys(row[0] for row in rows)) == [name for name in TABLES if name in {row[0] for row in rows}]
    assert {row[7] for row in rows if row[4]} == {"not measured"} and not any(row[5] or row[6] for row in rows)


def test_errors_mean_and_largest(tmp_path):
    """Table 4 prints 82 and 87 G, 37 and 38 M at levels 0 and 3; the same model at level 3 stands in four tables."""
    store, rows = Store(tmp_path), get_table("table4").rows
    store.write(complexity(rows[0].experiment, params=37.0, flops=90.2))  # +10 %
    store.write(complexity(rows[3].experiment, params=36.1, flops=86.13))  # -5 %, -1 %
    write_report("table4", store)
    text = (tmp_path / "complexity.md").read_text(encoding="utf-8")
    found = {(row[0], row[1]): row for row in tables_of(text)[0][2:] if row[5]}
    assert found["table4", "1"][4:12] == ["82", "90.2", "+10.0 %", "off", "37", "37.00", "+0.0 %", "reproduced"]
    assert found["table4", "4"][4:12] == ["87", "86.1", "-1.0 %", "reproduced", "38", "36.10", "-5.0 %", "off"]
    assert found["table4", "4"][12] == "[notes](tables/table4.md#complexity)" and found["table1", "5"][12] != ""
    assert set(found) == {
        ("table1", "5"), ("table4", "1"), ("table4", "4"), ("table5", "4"), ("tableIIa", "1"), ("tableIIa", "4"),
        ("tableIIb", "1"),
    }  # fmt: skip
    errors = [10.0] * 3 + [-1.0] * 4
    assert f"7 counted here: 4 reproduced, 3 off. Error: mean {mean(errors):+.2f} %" in text
    assert f"absolute values {mean(map(abs, errors)):.2f} %, largest +10.0 % (table4 row 1)" in " ".join(text.split())
    assert "largest -5.0 % (table1 row 5)" in text


def test_the_largest_error_may_be_negative(tmp_path):
    store, table = Store(tmp_path), get_table("table4")
    store.write(complexity(table.rows[0].experiment, flops=86.1))  # +5 %
    store.write(complexity(table.rows[3].experiment, flops=78.3))  # -10 %
    cells = list(table_cells(table, store).cells.values())
    worst = largest_error(cells, "flops")
    assert worst.row.number == 4 and error(worst).amount == pytest.approx(-10.0)
    assert largest_error([], "flops") is None and largest_error(cells, "PQ") is None
