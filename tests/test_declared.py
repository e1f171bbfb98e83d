"""What is declared and what is refused is what `tests/fixtures/declared.json` holds.

A new table, method or data set adds to it (`python -m tests.declared`); what it held changes only on purpose, since
keys, recipes and models decide whether the committed records are of what is measured today.
"""

import pytest

from tests import declared

WRITTEN = declared.unpack(declared.FIXTURE.read_text(encoding="utf-8"))


def names(part: str):
    return pytest.mark.parametrize("name", list(WRITTEN[part]))


def changes(today, written, path: str = "") -> dict[str, str]:
    """What is another, by its path in nested dictionaries: a message that names it."""
    if isinstance(today, dict) and isinstance(written, dict):
        found = {}
        for key in sorted({*today, *written}):
            found |= changes(today.get(key, "(gone)"), written.get(key, "(none)"), f"{path}/{key}")
        return found
    return {} if today == written else {path: f"{today!r}, was {written!r}"}


def test_no_table_experiment_or_small_model_is_new_or_gone():
    assert set(declared.TABLES) == set(WRITTEN["tables"])
    experiments = declared.experiments()
    assert set(experiments) == set(WRITTEN["experiments"]) == set(WRITTEN["parameters"])
    assert {key for key, of in experiments.items() if of.scale == "small"} == set(WRITTEN["small_models"])
    assert set(declared.METHODS) == set(WRITTEN["combinations"])


@names("tables")
def test_rows_columns_and_measurements_of_a_table(name):
    assert changes(declared.table(name), WRITTEN["tables"][name]) == {}


@names("experiments")
def test_factors_and_recipe_with_their_sources(name):
    assert changes(declared.declaration(name), WRITTEN["experiments"][name]) == {}


@names("parameters")
def test_parameters_of_the_model(name):
    assert changes(declared.parameters(name), WRITTEN["parameters"][name]) == {}


@names("small_models")
def test_seeded_weights_and_losses_of_a_small_model(name):
    measured, written = declared.small_model(name), WRITTEN["small_models"][name]
    assert measured.keys() == written.keys()
    assert measured["absolute"] == pytest.approx(written["absolute"], rel=1e-6)
    assert measured["sum"] == pytest.approx(written["sum"], abs=1e-6 * written["absolute"])
    assert measured == pytest.approx(written, rel=1e-4)


@names("combinations")
def test_backbones_data_sets_and_scales_of_a_method(name):
    assert changes(declared.combinations(name), WRITTEN["combinations"][name]) == {}


def test_refusals():
    assert changes(declared.refusals(), WRITTEN["refusals"]) == {}


def test_committed_records_are_current():
    assert changes(declared.records(), WRITTEN["records"]) == {}
