"""HCFormer's pieces against what the reference implementation returned (whole models: tests/test_parity.py)."""

import pytest

from bench.weights.formats import hcformer
from models.clustering import Clustering, decode, decode_through
from tests.reference import reference_outputs, relative_error, strip


@pytest.mark.parametrize("unit", ["clustering", "clustering1"])
def test_clustering_equals_the_reference(unit):
    tensors = reference_outputs("units")
    fine, coarse = tensors[f"{unit}.fine"], tensors[f"{unit}.coarse"]
    state = {f"clustering.0.{k}": v for k, v in strip(tensors, f"{unit}.state.").items()}
    module = Clustering(fine.shape[1], coarse.shape[1], 16)
    module.load_state_dict(strip(hcformer.FORMAT.to_ours(state), "clustering.0."))
    assert relative_error(module(fine, coarse), tensors[f"{unit}.out"]) < 1e-5


def test_decoding_equals_the_reference():
    tensors = reference_outputs("units")
    assert relative_error(decode(tensors["decode.x"], tensors["decode.assign"]), tensors["decode.out"]) < 1e-5
    assignments = tuple(tensors[f"upsampling.assign{i}"] for i in range(2))
    masks = tensors["upsampling.x"].unflatten(0, (3, 2)).transpose(0, 1).flatten(1, 2)  # 3 predictions, batch of 2
    decoded = decode_through(masks, assignments).unflatten(1, (3, -1)).transpose(0, 1).flatten(0, 1)
    assert relative_error(decoded, tensors["upsampling.out"]) < 1e-5
