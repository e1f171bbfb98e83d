"""Names of the published Mask2Former checkpoints in terms of ours, which are those of transformers' modules."""

from collections.abc import Mapping
from functools import partial

from torch import Tensor

from bench.weights import shown
from bench.weights.formats.detectron2 import BACKBONES, FIRST_VERSION, PIXELS, PREDICTOR, has_pixel_decoder
from bench.weights.rules import Format, Rules, split_in_proj, starts

_ENCODER_LAYER = r"^(pixel_decoder\.encoder\.layers\.\d+\.)"
_SELF, _CROSS = (PREDICTOR + rf"transformer_{kind}_attention_layers\.(\d+)\." for kind in ("self", "cross"))
_FFN = PREDICTOR + r"transformer_ffn_layers\.(\d+)\."
_MASK2FORMER: Rules = [
    (PIXELS + r"input_proj\.", "pixel_decoder.input_projections."),
    (PIXELS + r"transformer\.(encoder|level_embed)", r"pixel_decoder.\1"),
    (PIXELS + r"mask_features\.", "pixel_decoder.mask_projection."),
    (PIXELS + r"(adapter_1|layer_1)\.norm\.", r"pixel_decoder.\1.1."),
    (PIXELS + r"(adapter_1|layer_1)\.", r"pixel_decoder.\1.0."),
    (_ENCODER_LAYER + r"norm1\.", r"\1self_attn_layer_norm."),
    (_ENCODER_LAYER + r"norm2\.", r"\1final_layer_norm."),
    (_ENCODER_LAYER + r"linear(\d)\.", r"\1fc\2."),
    (_SELF + r"norm\.", r"transformer.decoder.layers.\1.self_attn_layer_norm."),
    (_SELF + r"self_attn\.", r"transformer.decoder.layers.\1.self_attn."),
    (_CROSS + r"norm\.", r"transformer.decoder.layers.\1.cross_attn_layer_norm."),
    (_CROSS + r"multihead_attn\.", r"transformer.decoder.layers.\1.cross_attn."),
    (_FFN + r"norm\.", r"transformer.decoder.layers.\1.final_layer_norm."),
    (_FFN + r"linear(\d)\.", r"transformer.decoder.layers.\1.fc\2."),
    (PREDICTOR + r"decoder_norm\.", "transformer.decoder.layernorm."),
    (PREDICTOR + r"query_feat\.", "transformer.queries_features."),
    (PREDICTOR + r"query_embed\.", "transformer.queries_embedder."),
    (PREDICTOR + r"level_embed\.", "transformer.level_embed."),
    (PREDICTOR + r"class_embed\.", "class_predictor."),
    (PREDICTOR + r"mask_embed\.layers\.(\d)\.", r"transformer.decoder.mask_predictor.mask_embedder.\1.0."),
]


def factors(ours: Mapping[str, Tensor]) -> dict[str, int | str]:
    """The same for the hub's checkpoints."""
    layers = ("transformer.decoder.layers", "pixel_decoder.encoder.layers")
    return shown.mask_classifier(ours, *layers, "transformer.queries_embedder.weight")


FORMAT = Format(
    title="Mask2Former, published checkpoint (detectron2 names)",
    holds="Mask2Former",
    method="mask2former",
    recognise=lambda names: has_pixel_decoder(names, "input_proj.0.") and not starts(names, "backbone.aux."),
    rules=(FIRST_VERSION, BACKBONES, _MASK2FORMER),
    factors=factors,
    class_head="class_predictor.weight",
    # transformers has three matrices where the official model has one
    reshape=partial(split_in_proj, pattern=r"^transformer\..*\.self_attn$"),
)
