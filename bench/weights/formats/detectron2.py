"""What the published checkpoints of detectron2's mask classifiers have in common: backbones, head, decoder."""

from collections.abc import Collection

from bench.weights.formats.imagenet_resnet import DETECTRON2_RESNET
from bench.weights.formats.imagenet_swin import SWIN
from bench.weights.rules import Rules, starts

PREDICTOR = r"^sem_seg_head\.predictor\."
PIXELS = r"^sem_seg_head\.pixel_decoder\."

# The model zoos' first files lack the pixel decoder's own prefix and name the query features otherwise.
FIRST_VERSION: Rules = [
    (r"^sem_seg_head\.(?!predictor\.|pixel_decoder\.)", "sem_seg_head.pixel_decoder."),
    (PREDICTOR + r"static_query\.", "sem_seg_head.predictor.query_feat."),
]


def _below(prefix: str, rules: Rules) -> Rules:
    return [(pattern.replace("^", rf"^{prefix}\.", 1), f"{prefix}.{new}") for pattern, new in rules]


BACKBONES: Rules = [
    (r"^backbone\.stem\.0\.", "backbone.conv1."),  # HCFormer's ResNet is torchvision's but for its stem
    (r"^backbone\.stem\.1\.", "backbone.bn1."),
    *_below("backbone", DETECTRON2_RESNET),
    *_below("backbone", SWIN),
]

ATTENTION_PARTS: Rules = [
    (r"\.self_attn\.", ".self_attention."),
    (r"\.multihead_attn\.", ".cross_attention."),
    (r"\.linear(\d)\.", r".feed_forward.linear\1."),
]
DECODER: Rules = [
    (PREDICTOR + r"transformer_self_attention_layers\.(\d+)\.norm\.", r"decoder.layers.\1.self_norm."),
    (PREDICTOR + r"transformer_cross_attention_layers\.(\d+)\.norm\.", r"decoder.layers.\1.cross_norm."),
    (PREDICTOR + r"transformer_ffn_layers\.(\d+)\.norm\.", r"decoder.layers.\1.feed_forward_norm."),
    (PREDICTOR + r"transformer_self_attention_layers\.(\d+)\.self_attn\.", r"decoder.layers.\1.self_attn."),
    (PREDICTOR + r"transformer_cross_attention_layers\.(\d+)\.multihead", r"decoder.layers.\1.multihead"),
    (PREDICTOR + r"transformer_ffn_layers\.(\d+)\.linear", r"decoder.layers.\1.linear"),
    (PREDICTOR + r"transformer\.decoder\.norm\.", "decoder.heads.norm."),
    (PREDICTOR + r"transformer\.decoder\.layers\.", "decoder.layers."),
    (r"^(decoder\.layers\.\d+)\.norm1\.", r"\1.self_norm."),
    (r"^(decoder\.layers\.\d+)\.norm2\.", r"\1.cross_norm."),
    (r"^(decoder\.layers\.\d+)\.norm3\.", r"\1.feed_forward_norm."),
    (PREDICTOR + r"decoder_norm\.", "decoder.heads.norm."),
    (PREDICTOR + r"(class_embed|mask_embed)\.", r"decoder.heads.\1."),
    (PREDICTOR + r"query_feat\.", "decoder.query_features."),
    (PREDICTOR + r"query_embed\.", "decoder.query_positions."),
    (PREDICTOR + r"level_embed\.", "decoder.level_embedding."),
    (PREDICTOR + r"input_proj\.", "decoder.input_proj."),
    (PREDICTOR + r"mask_proj\.", "mask_proj."),
]


def has_predictor(names: Collection[str]) -> bool:
    return starts(names, "sem_seg_head.predictor.")


def has_pixel_decoder(names: Collection[str], *parts: str) -> bool:
    """Whether a file of a mask classifier has such parts of a pixel decoder; the first files lack its prefix."""
    head = "sem_seg_head."
    below = {name.removeprefix(head).removeprefix("pixel_decoder.") for name in names if name.startswith(head)}
    return has_predictor(names) and starts(below, *parts)
