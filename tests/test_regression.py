"""The function of every method stays what it was when it was compared with the reference (see tests.regression)."""

import json

import pytest

from tests.regression import CASES, EXPECTED, measure

RECORDED = json.loads(EXPECTED.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", CASES)
def test_function_has_not_changed(name):
    measured = measure(name)
    assert measured.keys() == RECORDED[name].keys()
    for output, expected in RECORDED[name].items():
        largest = max(map(abs, expected))
        assert measured[output] == pytest.approx(expected, rel=0, abs=1e-4 * largest), output


def test_numbers_are_worth_comparing():
    """Outputs that vary, so that a changed weight or index shows."""
    for name, outputs in RECORDED.items():
        for output, values in outputs.items():
            assert max(values) - min(values) > 1e-2 * max(map(abs, values)), (name, output)
