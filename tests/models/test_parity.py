"""HCFormer's pieces and whole models against what the reference implementation returned."""

import pytest
import torch

from models.backbones.resnet import resnet
from models.backbones.swin import swin
from models.clustering import Clustering, decode, decode_through
from models.hcformer import hcformer
from tests.reference import reference_image, reference_outputs, reference_state, relative_error, rename, strip
from tests.reference_names import HCFORMER

CASES = {
    "hcformer_r50": lambda: hcformer(133, resnet(50, 3)),
    "hcformer_r50_level2": lambda: hcformer(133, resnet(50, 2), hierarchical_level=2),
    "hcformer_r50_mfdec": lambda: hcformer(133, resnet(50, 3), transformer_decoder="standard", decoder_layers=9),
    "hcformer_plus_r50": lambda: hcformer(133, resnet(50, 3), encoder_layers=6),
    "hcformer_swins": lambda: hcformer(133, swin("swin_s", out_norms=(3,))),
}


@pytest.mark.parametrize("name", CASES)
def test_model_equals_the_reference(shared, name):
    model = CASES[name]().eval()
    model.load_state_dict(rename(reference_state(shared, name), HCFORMER))
    expected = reference_outputs(shared, name)
    with torch.inference_mode():
        prediction = model(reference_image(shared))
    assert relative_error(prediction.class_logits, expected["pred_logits"]) < 1e-4
    assert relative_error(prediction.mask_logits, expected["pred_masks"]) < 1e-4
    for i, assignment in enumerate(prediction.assignments):
        assert relative_error(assignment, expected[f"assign.{i}"]) < 1e-4


@pytest.mark.parametrize("unit", ["clustering", "clustering1"])
def test_clustering_equals_the_reference(shared, unit):
    tensors = reference_outputs(shared, "units")
    fine, coarse = tensors[f"{unit}.fine"], tensors[f"{unit}.coarse"]
    state = {f"clustering.0.{k}": v for k, v in strip(tensors, f"{unit}.state.").items()}
    module = Clustering(fine.shape[1], coarse.shape[1], 16)
    module.load_state_dict(strip(rename(state, HCFORMER), "clustering.0."))
    assert relative_error(module(fine, coarse), tensors[f"{unit}.out"]) < 1e-5


def test_decoding_equals_the_reference(shared):
    tensors = reference_outputs(shared, "units")
    assert relative_error(decode(tensors["decode.x"], tensors["decode.assign"]), tensors["decode.out"]) < 1e-5
    assignments = tuple(tensors[f"upsampling.assign{i}"] for i in range(2))
    masks = tensors["upsampling.x"].unflatten(0, (3, 2)).transpose(0, 1).flatten(1, 2)  # 3 predictions, batch of 2
    decoded = decode_through(masks, assignments).unflatten(1, (3, -1)).transpose(0, 1).flatten(0, 1)
    assert relative_error(decoded, tensors["upsampling.out"]) < 1e-5
