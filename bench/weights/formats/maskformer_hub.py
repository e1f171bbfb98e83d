"""Names of the Hugging Face hub's MaskFormer checkpoints in terms of ours."""

from bench.weights.formats.maskformer import factors
from bench.weights.formats.transformers_hub import HUB_NOT_NEEDED, PIXELS, RESNET, SWIN, TRANSFORMER
from bench.weights.rules import Format, Rules, join_attention, starts

_LAYER = r"^(decoder\.layers\.\d+\.)"
_MASKFORMER: Rules = [
    (PIXELS + r"fpn\.stem\.", "pixel_decoder.top."),
    # transformers counts the pyramid from the coarsest feature, we from the finest.
    *((PIXELS + rf"fpn\.layers\.{i}\.proj\.", f"pixel_decoder.laterals.{2 - i}.") for i in range(3)),
    *((PIXELS + rf"fpn\.layers\.{i}\.block\.", f"pixel_decoder.smooth.{2 - i}.") for i in range(3)),
    (PIXELS + r"mask_projection\.", "pixel_decoder.mask_features."),
    (TRANSFORMER + r"queries_embedder\.", "decoder.query_positions."),
    (TRANSFORMER + r"input_projection\.", "decoder.input_proj."),
    (TRANSFORMER + r"decoder\.layernorm\.", "decoder.heads.norm."),
    (TRANSFORMER + r"decoder\.layers\.", "decoder.layers."),
    (_LAYER + r"self_attn_layer_norm\.", r"\1self_norm."),
    (_LAYER + r"encoder_attn_layer_norm\.", r"\1cross_norm."),
    (_LAYER + r"final_layer_norm\.", r"\1feed_forward_norm."),
    (_LAYER + r"self_attn\.", r"\1self_attention."),
    (_LAYER + r"encoder_attn\.", r"\1cross_attention."),
    (_LAYER + r"(\w+_attention)\.o_proj\.", r"\1\2.out_proj."),
    (_LAYER + r"(?:mlp\.)?fc(\d)\.", r"\1feed_forward.linear\2."),
    (r"^class_predictor\.", "decoder.heads.class_embed."),
    (r"^mask_embedder\.(\d)\.0\.", r"decoder.heads.mask_embed.layers.\1."),
]

FORMAT = Format(
    title="MaskFormer of the transformers hub",
    holds="MaskFormer",
    method="maskformer",
    recognise=lambda names: starts(names, "model.pixel_level_module.decoder.fpn."),
    rules=(SWIN, RESNET, _MASKFORMER),
    factors=factors,
    reshape=join_attention,  # our Swin and decoder have one matrix for queries, keys and values
    not_needed=HUB_NOT_NEEDED,
)
