"""Names of the published HCFormer, MaskFormer and Mask2Former checkpoints (detectron2) in terms of ours."""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from bench.weights.rules import Rules, origin, rename, split_in_proj

_PREDICTOR = r"^sem_seg_head\.predictor\."
_PIXELS = r"^sem_seg_head\.pixel_decoder\."

# The model zoos' first files lack the pixel decoder's own prefix and name the query features otherwise.
FIRST_VERSION: Rules = [
    (r"^sem_seg_head\.(?!predictor\.|pixel_decoder\.)", "sem_seg_head.pixel_decoder."),
    (_PREDICTOR + r"static_query\.", "sem_seg_head.predictor.query_feat."),
]
# timm attaches a patch merging to the stage it leads into, the official model to the stage it leaves.
SWIN: Rules = [(rf"^layers\.{i}\.downsample\.", f"layers.{i + 1}.downsample.") for i in (2, 1, 0)]
DETECTRON2_RESNET: Rules = [
    (r"^stem\.conv1\.norm\.", "bn1."),
    (r"^stem\.conv1\.", "conv1."),
    *((rf"^res{i}\.", f"layer{i - 1}.") for i in (2, 3, 4, 5)),
    (r"^(layer.*)\.shortcut\.norm\.", r"\1.downsample.1."),
    (r"^(layer.*)\.shortcut\.", r"\1.downsample.0."),
    (r"^(layer.*)\.conv(\d)\.norm\.", r"\1.bn\2."),
]


def _below(prefix: str, rules: Rules) -> Rules:
    return [(pattern.replace("^", rf"^{prefix}\.", 1), f"{prefix}.{new}") for pattern, new in rules]


BACKBONES: Rules = [
    (r"^backbone\.stem\.0\.", "backbone.conv1."),  # HCFormer's ResNet is torchvision's but for its stem
    (r"^backbone\.stem\.1\.", "backbone.bn1."),
    *_below("backbone", DETECTRON2_RESNET),
    *_below("backbone", SWIN),
]
_ATTENTION_PARTS: Rules = [
    (r"\.self_attn\.", ".self_attention."),
    (r"\.multihead_attn\.", ".cross_attention."),
    (r"\.linear(\d)\.", r".feed_forward.linear\1."),
]
_CLUSTERING: Rules = [
    (r"^backbone\.clustering_layers\.(\d)\.", r"clustering.\1."),
    *((rf"^backbone\.layers\.{i}\.clustering\.", f"clustering.{2 - i}.") for i in range(3)),
    (r"^(clustering\.\d)\.temp$", r"\1.scale"),
    (r"^(clustering\.\d\.\w+)_emb\.", r"\1_embedding."),
]
_DECODER: Rules = [
    (_PREDICTOR + r"transformer_self_attention_layers\.(\d+)\.norm\.", r"decoder.layers.\1.self_norm."),
    (_PREDICTOR + r"transformer_cross_attention_layers\.(\d+)\.norm\.", r"decoder.layers.\1.cross_norm."),
    (_PREDICTOR + r"transformer_ffn_layers\.(\d+)\.norm\.", r"decoder.layers.\1.feed_forward_norm."),
    (_PREDICTOR + r"transformer_self_attention_layers\.(\d+)\.self_attn\.", r"decoder.layers.\1.self_attn."),
    (_PREDICTOR + r"transformer_cross_attention_layers\.(\d+)\.multihead", r"decoder.layers.\1.multihead"),
    (_PREDICTOR + r"transformer_ffn_layers\.(\d+)\.linear", r"decoder.layers.\1.linear"),
    (_PREDICTOR + r"transformer\.decoder\.norm\.", "decoder.heads.norm."),
    (_PREDICTOR + r"transformer\.decoder\.layers\.", "decoder.layers."),
    (r"^(decoder\.layers\.\d+)\.norm1\.", r"\1.self_norm."),
    (r"^(decoder\.layers\.\d+)\.norm2\.", r"\1.cross_norm."),
    (r"^(decoder\.layers\.\d+)\.norm3\.", r"\1.feed_forward_norm."),
    (_PREDICTOR + r"decoder_norm\.", "decoder.heads.norm."),
    (_PREDICTOR + r"(class_embed|mask_embed)\.", r"decoder.heads.\1."),
    (_PREDICTOR + r"query_feat\.", "decoder.query_features."),
    (_PREDICTOR + r"query_embed\.", "decoder.query_positions."),
    (_PREDICTOR + r"level_embed\.", "decoder.level_embedding."),
    (_PREDICTOR + r"input_proj\.", "decoder.input_proj."),
    (_PREDICTOR + r"mask_proj\.", "mask_proj."),
]
_ENCODER: Rules = [  # of HCFormer+
    (r"^backbone\.aux\.input_proj\.", "encoder."),
    (r"^backbone\.aux\.encoder\.", "encoder.2."),
]
_FEATURE_PYRAMID: Rules = [  # MaskFormer's pixel decoder
    (_PIXELS + r"transformer\.encoder\.", "pixel_decoder.encoder."),
    *(
        rule
        for theirs, ours in (("adapter", "laterals"), ("layer", "smooth"))
        for i in (1, 2, 3)
        for rule in (
            (_PIXELS + rf"{theirs}_{i}\.norm\.", f"pixel_decoder.{ours}.{i - 1}.1."),
            (_PIXELS + rf"{theirs}_{i}\.", f"pixel_decoder.{ours}.{i - 1}.0."),
        )
    ),
    (_PIXELS + r"layer_4\.norm\.", "pixel_decoder.top.1."),
    (_PIXELS + r"layer_4\.", "pixel_decoder.top.0."),
    (_PIXELS, "pixel_decoder."),
]
_ENCODER_LAYER = r"^(pixel_decoder\.encoder\.layers\.\d+\.)"
_SELF, _CROSS = (_PREDICTOR + rf"transformer_{kind}_attention_layers\.(\d+)\." for kind in ("self", "cross"))
_FFN = _PREDICTOR + r"transformer_ffn_layers\.(\d+)\."
_MASK2FORMER: Rules = [  # to transformers' modules
    (_PIXELS + r"input_proj\.", "pixel_decoder.input_projections."),
    (_PIXELS + r"transformer\.(encoder|level_embed)", r"pixel_decoder.\1"),
    (_PIXELS + r"mask_features\.", "pixel_decoder.mask_projection."),
    (_PIXELS + r"(adapter_1|layer_1)\.norm\.", r"pixel_decoder.\1.1."),
    (_PIXELS + r"(adapter_1|layer_1)\.", r"pixel_decoder.\1.0."),
    (_ENCODER_LAYER + r"norm1\.", r"\1self_attn_layer_norm."),
    (_ENCODER_LAYER + r"norm2\.", r"\1final_layer_norm."),
    (_ENCODER_LAYER + r"linear(\d)\.", r"\1fc\2."),
    (_SELF + r"norm\.", r"transformer.decoder.layers.\1.self_attn_layer_norm."),
    (_SELF + r"self_attn\.", r"transformer.decoder.layers.\1.self_attn."),
    (_CROSS + r"norm\.", r"transformer.decoder.layers.\1.cross_attn_layer_norm."),
    (_CROSS + r"multihead_attn\.", r"transformer.decoder.layers.\1.cross_attn."),
    (_FFN + r"norm\.", r"transformer.decoder.layers.\1.final_layer_norm."),
    (_FFN + r"linear(\d)\.", r"transformer.decoder.layers.\1.fc\2."),
    (_PREDICTOR + r"decoder_norm\.", "transformer.decoder.layernorm."),
    (_PREDICTOR + r"query_feat\.", "transformer.queries_features."),
    (_PREDICTOR + r"query_embed\.", "transformer.queries_embedder."),
    (_PREDICTOR + r"level_embed\.", "transformer.level_embed."),
    (_PREDICTOR + r"class_embed\.", "class_predictor."),
    (_PREDICTOR + r"mask_embed\.layers\.(\d)\.", r"transformer.decoder.mask_predictor.mask_embedder.\1.0."),
]
_SPLIT = r"^transformer\..*\.self_attn$"  # transformers has three matrices where the official model has one
_TABLES: dict[str, tuple[Rules, ...]] = {
    "hcformer": (BACKBONES, _CLUSTERING, _ENCODER, _DECODER, _ATTENTION_PARTS),
    "maskformer": (BACKBONES, _FEATURE_PYRAMID, _DECODER, _ATTENTION_PARTS),
    "mask2former": (BACKBONES, _MASK2FORMER),
}


def from_official(state: Mapping[str, Tensor], method: str) -> dict[str, Tensor]:
    """A published checkpoint of "hcformer" (or "hcformer+"), "maskformer" or "mask2former" under our names."""
    renamed = rename(state, FIRST_VERSION, *_TABLES[method.rstrip("+")])
    return split_in_proj(renamed, _SPLIT) if method == "mask2former" else renamed


def official_name(ours: str, method: str, present: Iterable[str]) -> str:
    """How a checkpoint with the names `present` calls our parameter."""
    if method == "mask2former":
        ours = re.sub(_SPLIT[:-1] + r"\.[qkv]_proj\.", lambda match: match[0][:-7] + "in_proj_", ours)
    return origin(ours, present, *_TABLES[method.rstrip("+")])
