"""Names of the published MaskFormer checkpoints in terms of ours."""

from collections.abc import Collection, Mapping

from torch import Tensor

from bench.weights import shown
from bench.weights.formats.detectron2 import (
    ATTENTION_PARTS,
    BACKBONES,
    DECODER,
    FIRST_VERSION,
    PIXELS,
    has_pixel_decoder,
)
from bench.weights.rules import Format, Rules

_FEATURE_PYRAMID: Rules = [  # MaskFormer's pixel decoder
    (PIXELS + r"transformer\.encoder\.", "pixel_decoder.encoder."),
    *(
        rule
        for theirs, ours in (("adapter", "laterals"), ("layer", "smooth"))
        for i in (1, 2, 3)
        for rule in (
            (PIXELS + rf"{theirs}_{i}\.norm\.", f"pixel_decoder.{ours}.{i - 1}.1."),
            (PIXELS + rf"{theirs}_{i}\.", f"pixel_decoder.{ours}.{i - 1}.0."),
        )
    ),
    (PIXELS + r"layer_4\.norm\.", "pixel_decoder.top.1."),
    (PIXELS + r"layer_4\.", "pixel_decoder.top.0."),
    (PIXELS, "pixel_decoder."),
]


def _recognise(names: Collection[str]) -> bool:
    deformable = has_pixel_decoder(names, "input_proj.0.")  # Mask2Former's
    return has_pixel_decoder(names, "adapter_", "layer_", "mask_features.") and not deformable


def factors(ours: Mapping[str, Tensor]) -> dict[str, int | str]:
    """The same for the hub's checkpoints: its pixel decoder has no encoder unless layers of one are there."""
    layers = ("decoder.layers", "pixel_decoder.encoder.layers")
    return {"encoder_layers": 0} | shown.mask_classifier(ours, *layers, "decoder.query_positions.weight")


FORMAT = Format(
    title="MaskFormer, published checkpoint (detectron2 names)",
    holds="MaskFormer",
    method="maskformer",
    recognise=_recognise,
    rules=(FIRST_VERSION, BACKBONES, _FEATURE_PYRAMID, DECODER, ATTENTION_PARTS),
    factors=factors,
)
