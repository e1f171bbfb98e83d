"""`bench recipe show` as a user types it."""

from dataclasses import fields

import pytest

from bench.experiments import TABLES, Recipe
from bench.experiments.methods import get_method
from bench.experiments.tables import row_names
from tests.conftest import mistake

EXPERIMENTS = {f"{table.name}/{name}": e for table in TABLES.values() for name, e in row_names(table).items()}
ROWS = [name for name, e in EXPERIMENTS.items() if get_method(e.method).trained]


def _table(out: str) -> dict[str, list[str]]:
    """Printed lines by their first word."""
    return {line.split()[0]: line.split() for line in out.splitlines() if line and not line.startswith(" ")}


def test_per_pixel_methods_follow_pspnets_protocol(bench):
    """Section 5.1 of PSPNet's paper: SGD, base rate 0.01, power 0.9, momentum 0.9, weight decay 0.0001."""
    _, out, _ = bench("recipe", "show", "tableIb/hc_pspnet-r101")
    printed = {name: words[1] for name, words in _table(out).items() if len(words) > 1}
    names = ("optimiser", "learning_rate", "poly_power", "momentum", "weight_decay", "iterations", "schedule")
    assert [printed[name] for name in names] == ["sgd", "0.01", "0.9", "0.9", "0.0001", "90000", "poly"]


@pytest.mark.parametrize("row", ROWS)
def test_every_row_prints_every_field_within_120_columns(bench, row):
    code, out, errors = bench("recipe", "show", row)
    assert (code, errors) == (0, "")
    assert all(len(line) <= 120 for line in out.splitlines())
    printed = _table(out)
    for field in fields(Recipe):
        assert len(printed[field.name]) >= 3, f"{field.name} needs a value and a source"
    assert {"decoder_layers", "num_queries", "oversampling", "importance", "flip", "pixel_mean"} <= set(printed)


@pytest.mark.parametrize("row", sorted(EXPERIMENTS.keys() - set(ROWS)))
def test_a_method_that_is_not_trained_has_no_recipe(bench, row):
    mistake(bench("recipe", "show", row), "not trained here", "choose another row")


def test_values_of_the_issues_example(bench):
    _, out, _ = bench("recipe", "show", "table1/hcformer-r50")
    printed = _table(out)
    assert printed["learning_rate"][1:4] == ["0.0001", "paper", "D.1,"]
    assert printed["iterations"][1:4] == ["368750", "paper", "D.1:"]
    assert printed["oversampling"][1] == "3" and printed["importance"][1] == "0.75"
    assert printed["num_points"][1] == "12544" and printed["clip_norm"][1] == "0.01"
    assert "327778 and 355092 of 368750" in out
    lines = out.splitlines()
    column = next(line.index("source") for line in lines if line.startswith("field"))
    rows = [
        line for line in lines if line.split(" ")[0] in ("batch_size", "weight_decay", "schedule", "test_longer_side")
    ]
    assert [line[column - 2 : column + 9] for line in rows] == ["  paper D.1"] * 4  # aligned


def test_methods_differ_only_as_the_paper_varies_them(bench):
    plain = bench("recipe", "show", "table1/hcformer-r50")[1].splitlines()[1:]
    plus = bench("recipe", "show", "table1/hcformer+-r50")[1].splitlines()[1:]
    changed = {line.split()[0] for line in set(plain) ^ set(plus) if line.strip()}
    assert changed == {"encoder_layers", "iterations"}


def test_mistakes_name_the_remedy(bench):
    mistake(bench("recipe", "show", "table1/hcformer-r51"), "unknown row of table1", "did you mean 'hcformer-r50'?")
    mistake(bench("recipe", "show", "tabel1/hcformer-r50"), "unknown table 'tabel1'", "did you mean 'table1'?")
    mistake(bench("recipe", "show", "hcformer-r50"), "TABLE/METHOD-BACKBONE", "table1/hcformer-r50")
    mistake(bench("recipe", "show", "table1/"), "unknown row of table1")


def test_help_names_the_command(bench):
    _, out, errors = bench("recipe", "--help")
    assert "show" in out + errors
