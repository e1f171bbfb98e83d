"""`bench list`, `bench --version`, the panels of the help and what a shell completes."""

import re
import sys
from importlib.metadata import version

import pytest

from bench.experiments import TABLES, find_row
from bench.experiments.tables import row_names
from tests.conftest import mistake


def names(bench, *arguments) -> list[str]:
    """The first column of a listing."""
    code, out, errors = bench("list", *arguments)
    assert (code, errors) == (0, "")
    return [line.split()[0] for line in out.splitlines()[2:]]


def test_listed_tables_and_rows_are_those_that_commands_take(bench):
    assert names(bench, "tables") == list(TABLES)
    rows = names(bench, "rows")
    assert len(rows) == len(set(rows)) == sum(len(row_names(table)) for table in TABLES.values())
    assert all(find_row(row) for row in rows)


@pytest.mark.parametrize(
    "what, some",
    [
        ("methods", {"hcformer", "mask2former", "hc_pspnet", "segformer", "mask_rcnn"}),
        ("backbones", {"r50", "swin_l"}),
        ("datasets", {"coco_panoptic", "cityscapes", "nuclei"}),
    ],
)
def test_listed_names(bench, what, some):
    assert some <= set(names(bench, what))


def test_all_but_rows_without_an_argument(bench):
    _, out, _ = bench("list")
    assert all(re.search(rf"^{name}\b", out, re.M) for name in ("hcformer", "r50", "ade20k", "table1"))
    assert "table1/" not in out


def test_another_listing(bench):
    mistake(bench("list", "method"), "unknown listing 'method'", "did you mean 'methods'?")


def test_version(bench):
    assert bench("--version") == (0, f"hcformer-bench {version('hcformer-bench')}\n", "")


def test_help_has_panels(bench):
    _, out, _ = bench("--help")
    assert all(f" {panel} " in out for panel in ("Measure", "Train", "Use a checkpoint", "Data", "Check"))
    assert "Commands" not in out, "a command without a panel"


@pytest.mark.parametrize(
    "typed, some",
    [
        ("bench pl", {"plan"}),
        ("bench plan tableII", {"tableIIa", "tableIIb", "tableIII"}),
        ("bench report cl", {"claims"}),
        ("bench train tab", {"table1/", "table2/"}),
        ("bench recipe show table1/hcformer-", {"table1/hcformer-r50", "table1/hcformer-small"}),
        ("bench data check city", {"cityscapes"}),
        ("bench predict x.jpg --method hc_", {"hc_pspnet", "hc_fcn_32s"}),
        ("bench list m", {"methods"}),
    ],
)
def test_what_a_shell_completes(bench, monkeypatch, typed, some):
    monkeypatch.setattr(sys.modules["__main__"], "__package__", None)  # the program is called bench, not pytest
    monkeypatch.setenv("_BENCH_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(typed.count(" ")))
    code, out, _ = bench()
    begun = typed.split()[-1]
    assert code == 0 and some <= set(out.split()) and all(word.startswith(begun) for word in out.split())
