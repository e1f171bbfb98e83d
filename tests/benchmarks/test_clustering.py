"""Clustering and decoding, all forms, at the three sizes of R50 on COCO. Run by `nox -s benchmark`."""

import pytest

from bench.speed.timings import SIZES, clustering_functions

NAMES = ("clustering", "clustering, reference", "listing 1", "decoding", "decoding, reference", "listing 2")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_form(benchmark, name, size):
    benchmark.group = f"{'decoding' if name in NAMES[3:] else 'clustering'}, {size}"
    benchmark.pedantic(clustering_functions("cpu", size)[name], rounds=10, warmup_rounds=2)
