"""MaskFormer against the reference implementation and against transformers' MaskFormer."""

import pytest
import torch

from baselines.maskformer import maskformer
from models.backbones.resnet import resnet
from models.backbones.swin import swin
from tests.reference import reference_image, reference_outputs, reference_state, relative_error, rename
from tests.reference_names import MASKFORMER

CASES = {
    "maskformer_r50": lambda: maskformer(133, resnet(50), encoder_layers=6),
    "maskformer_swins": lambda: maskformer(133, swin("swin_s")),
}


@pytest.mark.parametrize("name", CASES)
def test_model_equals_the_reference(shared, name):
    model = CASES[name]().eval()
    model.load_state_dict(rename(reference_state(shared, name), MASKFORMER))
    expected = reference_outputs(shared, name)
    with torch.inference_mode():
        prediction = model(reference_image(shared))
    assert relative_error(prediction.class_logits, expected["pred_logits"]) < 1e-4
    assert relative_error(prediction.mask_logits, expected["pred_masks"]) < 1e-4
