"""Whole networks with R50 at 800x1088. Run by `nox -s benchmark`; `bench benchmark` times them in turns."""

import pytest

from bench.speed.timings import METHODS, model_function


@pytest.mark.parametrize("method", METHODS)
def test_network(benchmark, method):
    benchmark.group = "networks, R50, 800x1088"
    benchmark.pedantic(model_function(method, "cpu"), rounds=3, warmup_rounds=1)
