"""How a model is made ready to predict, and predicts: the one place that decides on layout, form and batch norms."""

import torch
from torch import Tensor, nn

from bench.data.transforms import normalisation_of, preprocess, resize_image
from bench.evaluation.postprocess import Sizes
from bench.experiments.inference_rules import InferenceRules
from bench.training.engine import MEMORY_FORMAT
from models.clustering import fast_form, use_form
from models.folding import fold_batch_norms

_PROBE = (64, 96)  # shows how a model is connected


def batch_norms_text(folded: bool) -> str:
    """What the details of a record say."""
    return "folded" if folded else "not folded"


def prepare_for_inference(
    model: nn.Module, device: torch.device | str, *, fold: bool, many_images: bool
) -> nn.Module:  # fmt: skip
    """The model in evaluation mode on `device`, channels last, as fast as it gets there.

    fold: its batch norms become part of its convolutions, in a copy. Predictions are equal to rounding (1e-5): nothing
    for the small scale, whose records are reproduced to the last digit. many_images: clustering and decoding in the
    fast form, whose compilation costs half a minute. The model that is given is moved, not folded.
    """
    model = model.eval().to(device).to(memory_format=MEMORY_FORMAT)
    if fold:
        image = torch.randn(1, 3, *_PROBE, generator=torch.Generator().manual_seed(0))
        model = fold_batch_norms(model, image.to(device, memory_format=MEMORY_FORMAT))
    return use_form(model, fast_form(device)) if many_images else model


@torch.inference_mode()
def predict_one(model: nn.Module, image: Tensor, rules: InferenceRules) -> tuple[object, Sizes]:
    """The model's prediction for an image uint8 [3, H, W], resized and padded by the rules, and its three sizes."""
    resized = resize_image(image, rules.shorter_side, rules.longer_side)
    batch = preprocess([resized], rules.size_divisibility, normalisation_of(model))
    batch = batch.to(next(model.parameters()).device, memory_format=MEMORY_FORMAT)
    prediction = model.eval()(batch)
    return prediction, (tuple(batch.shape[-2:]), tuple(resized.shape[-2:]), tuple(image.shape[-2:]))
