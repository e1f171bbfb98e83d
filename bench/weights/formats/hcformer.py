"""Names of the published HCFormer and HCFormer+ checkpoints in terms of ours."""

import re
from collections.abc import Collection, Mapping
from dataclasses import replace

from torch import Tensor

from bench.weights import shown
from bench.weights.formats.detectron2 import (
    ATTENTION_PARTS,
    BACKBONES,
    DECODER,
    FIRST_VERSION,
    has_pixel_decoder,
    has_predictor,
)
from bench.weights.rules import Format, Rules, starts

_CLUSTERING: Rules = [
    (r"^backbone\.clustering_layers\.(\d)\.", r"clustering.\1."),
    *((rf"^backbone\.layers\.{i}\.clustering\.", f"clustering.{2 - i}.") for i in range(3)),
    (r"^(clustering\.\d)\.temp$", r"\1.scale"),
    (r"^(clustering\.\d\.\w+)_emb\.", r"\1_embedding."),
]
_ENCODER: Rules = [  # of HCFormer+
    (r"^backbone\.aux\.input_proj\.", "encoder."),
    (r"^backbone\.aux\.encoder\.", "encoder.2."),
]


def _has_encoder(names: Collection[str]) -> bool:
    return starts(names, "backbone.aux.")


def _recognise(names: Collection[str]) -> bool:
    others = has_pixel_decoder(names, "adapter_", "layer_", "mask_features.", "input_proj.0.")
    return has_predictor(names) and not others and not _has_encoder(names)


def _factors(ours: Mapping[str, Tensor]) -> dict[str, int | str]:
    found = shown.mask_classifier(ours, "decoder.layers", "encoder.2.layers", "decoder.query_positions.weight")
    offsets = any(re.match(r"^backbone\..*\.offset\.", name) for name in ours)
    masked = starts(ours, "decoder.query_features.", "decoder.level_embedding.")
    return found | {
        "hierarchical_level": shown.layers(ours, "clustering"),
        "downsampling": "deformable" if offsets else "conv",
        "transformer_decoder": "masked" if masked else "standard",
    }


FORMAT = Format(
    title="HCFormer, published checkpoint (detectron2 names)",
    holds="HCFormer",
    method="hcformer",
    recognise=_recognise,
    rules=(FIRST_VERSION, BACKBONES, _CLUSTERING, _ENCODER, DECODER, ATTENTION_PARTS),
    factors=lambda ours: {"encoder_layers": 0} | _factors(ours),
)
PLUS = replace(
    FORMAT,
    title="HCFormer+, published checkpoint (detectron2 names)",
    holds="HCFormer+",
    method="hcformer+",
    recognise=lambda names: has_predictor(names) and _has_encoder(names),
    factors=_factors,
)
