"""Names of the Hugging Face hub's MaskFormer and Mask2Former checkpoints in terms of ours.

They hold transformers' `MaskFormerForInstanceSegmentation` and `Mask2FormerForUniversalSegmentation` with a Swin, a
ResNet or a timm ResNet. Most names have two generations: as transformers 4 wrote them and 5 still does
(`attention.self.query`), and as version 5 has them in memory (`attention.q_proj`); see its `conversion_mapping`.
"""

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from bench.weights.rules import Rules, origin, rename

_ENCODER = r"^model\.pixel_level_module\.encoder\."
_PIXELS = r"^model\.pixel_level_module\.decoder\."
_TRANSFORMER = r"^model\.transformer_module\."

_SWIN_MODEL = _ENCODER + r"(?:model\.|swin\.)?"
_SWIN_BLOCK = r"^(backbone\.layers\.\d+\.blocks\.\d+\.)"
_SWIN: Rules = [
    (_SWIN_MODEL + r"embeddings\.patch_embeddings\.projection\.", "backbone.patch_embed.proj."),
    (_SWIN_MODEL + r"embeddings\.norm\.", "backbone.patch_embed.norm."),
    (_SWIN_MODEL + r"encoder\.layers\.", "backbone.layers."),
    # transformers attaches a patch merging to the stage it leaves, timm to the stage it leads into.
    *((rf"^backbone\.layers\.{i}\.downsample\.", f"backbone.layers.{i + 1}.downsample.") for i in (2, 1, 0)),
    *((_ENCODER + rf"hidden_states_norms\.(?:{i}|stage{i + 1})\.", f"backbone.norm{i}.") for i in range(4)),
    (_SWIN_BLOCK + r"layernorm_before\.", r"\1norm1."),
    (_SWIN_BLOCK + r"layernorm_after\.", r"\1norm2."),
    (_SWIN_BLOCK + r"attention\.(?:self|relative_position_bias)\.relative_", r"\1attn.relative_"),
    (_SWIN_BLOCK + r"attention\.(?:self\.query|q_proj)\.", r"\1attn.q_proj."),
    (_SWIN_BLOCK + r"attention\.(?:self\.key|k_proj)\.", r"\1attn.k_proj."),
    (_SWIN_BLOCK + r"attention\.(?:self\.value|v_proj)\.", r"\1attn.v_proj."),
    (_SWIN_BLOCK + r"attention\.(?:output\.dense|o_proj)\.", r"\1attn.proj."),
    (_SWIN_BLOCK + r"intermediate\.dense\.", r"\1mlp.fc1."),
    (_SWIN_BLOCK + r"output\.dense\.", r"\1mlp.fc2."),
]
_BOTTLENECK = r"^(backbone\.layer\d\.\d+\.)"
_RESNET: Rules = [
    (_ENCODER + r"_backbone\.", "backbone."),  # timm's ResNet has torchvision's names
    (_ENCODER + r"embedder\.embedder\.convolution\.", "backbone.conv1."),
    (_ENCODER + r"embedder\.embedder\.normalization\.", "backbone.bn1."),
    *((_ENCODER + rf"encoder\.stages\.{i}\.layers\.", f"backbone.layer{i + 1}.") for i in range(4)),
    (_BOTTLENECK + r"shortcut\.convolution\.", r"\1downsample.0."),
    (_BOTTLENECK + r"shortcut\.normalization\.", r"\1downsample.1."),
    *((_BOTTLENECK + rf"layer\.{i}\.convolution\.", rf"\1conv{i + 1}.") for i in range(3)),
    *((_BOTTLENECK + rf"layer\.{i}\.normalization\.", rf"\1bn{i + 1}.") for i in range(3)),
]
_LAYER = r"^(decoder\.layers\.\d+\.)"
_MASKFORMER: Rules = [
    (_PIXELS + r"fpn\.stem\.", "pixel_decoder.top."),
    # transformers counts the pyramid from the coarsest feature, we from the finest.
    *((_PIXELS + rf"fpn\.layers\.{i}\.proj\.", f"pixel_decoder.laterals.{2 - i}.") for i in range(3)),
    *((_PIXELS + rf"fpn\.layers\.{i}\.block\.", f"pixel_decoder.smooth.{2 - i}.") for i in range(3)),
    (_PIXELS + r"mask_projection\.", "pixel_decoder.mask_features."),
    (_TRANSFORMER + r"queries_embedder\.", "decoder.query_positions."),
    (_TRANSFORMER + r"input_projection\.", "decoder.input_proj."),
    (_TRANSFORMER + r"decoder\.layernorm\.", "decoder.heads.norm."),
    (_TRANSFORMER + r"decoder\.layers\.", "decoder.layers."),
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
_MASK2FORMER: Rules = [  # ours has transformers' own decoders
    (_PIXELS, "pixel_decoder."),
    (_TRANSFORMER, "transformer."),
]
_TABLES = {"maskformer": _MASKFORMER, "mask2former": _MASK2FORMER}
_MARKS = {
    "maskformer": "model.pixel_level_module.decoder.fpn.",
    "mask2former": "model.transformer_module.decoder.mask_predictor.",
}

_QUERY = re.compile(r"(.*\.(attn|self_attention|cross_attention)\.)q_proj\.(weight|bias)")
_FUSED = {"attn": "qkv.", "self_attention": "in_proj_", "cross_attention": "in_proj_"}


def hub_method(names: Collection[str]) -> str | None:
    """The method whose hub checkpoint has these names, "maskformer" or "mask2former"; None for any other file."""
    for method, mark in _MARKS.items():
        if any(name.startswith(mark) for name in names):
            return method
    return None


def from_hub(tensors: Mapping[str, Tensor], method: str) -> dict[str, Tensor]:
    """A hub checkpoint's tensors under our names, its separate queries, keys and values joined where ours are one.

    What our models do not have (the loss's class weights, Swin's position index, the unused last norm of the Swin
    classifier) stays in the result.
    """
    return _join_attention(rename(tensors, _SWIN, _RESNET, _TABLES[method]))


def hub_name(ours: str, method: str, present: Collection[str]) -> str:
    """How a hub checkpoint with the names `present` calls our parameter; our name where that cannot be told."""
    return origin(ours, present, _SWIN, _RESNET, _TABLES[method])


def _join_attention(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """q_proj, k_proj and v_proj to one matrix; parts that are incomplete or unlike stay, for the caller to report."""
    joined = dict(state)
    for owner, attention, kind in (match.groups() for match in map(_QUERY.fullmatch, state) if match):
        names = [f"{owner}{part}_proj.{kind}" for part in "qkv"]
        parts = [state[name] for name in names if name in state]
        if len(parts) == 3 and parts[0].dim() and len({(part.shape, part.dtype) for part in parts}) == 1:
            joined[f"{owner}{_FUSED[attention]}{kind}"] = torch.cat(parts)
            for name in names:
                del joined[name]
    return joined
