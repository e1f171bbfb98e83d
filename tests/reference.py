"""The reference fixtures of ../shared/reference: their weights under our names, their input, their outputs."""

import importlib.util
import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

MEAN = torch.tensor([123.675, 116.28, 103.53])
STD = torch.tensor([58.395, 57.12, 57.375])

# (pattern, replacement) in order, official name to ours; a name that nothing matches stays as it is.
Rules = Iterable[tuple[str, str]]

# timm attaches a patch merging to the stage it leads into, the official model to the stage it leaves.
SWIN: Rules = [(rf"^layers\.{i}\.downsample\.", f"layers.{i + 1}.downsample.") for i in (2, 1, 0)]

_PIXEL_DECODER = r"^sem_seg_head\.pixel_decoder\."
_PREDICTOR = r"^sem_seg_head\.predictor\."
_ATTENTION = _PREDICTOR + r"transformer_(self|cross)_attention_layers\.(\d+)\."
_FFN = _PREDICTOR + r"transformer_ffn_layers\.(\d+)\."
_ENCODER = r"^(pixel_decoder\.encoder\.layers\.\d+\.)"
MASK2FORMER: Rules = [
    (_PIXEL_DECODER + r"input_proj\.", "pixel_decoder.input_projections."),
    (_PIXEL_DECODER + r"transformer\.", "pixel_decoder."),
    (_PIXEL_DECODER + r"mask_features\.", "pixel_decoder.mask_projection."),
    (_PIXEL_DECODER + r"(adapter_1|layer_1)\.norm\.", r"pixel_decoder.\1.1."),
    (_PIXEL_DECODER + r"(adapter_1|layer_1)\.", r"pixel_decoder.\1.0."),
    (_ENCODER + r"norm1\.", r"\1self_attn_layer_norm."),
    (_ENCODER + r"norm2\.", r"\1final_layer_norm."),
    (_ENCODER + r"linear(\d)\.", r"\1fc\2."),
    (_ATTENTION + r"norm\.", r"transformer.decoder.layers.\2.\1_attn_layer_norm."),
    (_ATTENTION + r"(?:self_attn|multihead_attn)\.", r"transformer.decoder.layers.\2.\1_attn."),
    (_FFN + r"norm\.", r"transformer.decoder.layers.\1.final_layer_norm."),
    (_FFN + r"linear(\d)\.", r"transformer.decoder.layers.\1.fc\2."),
    (_PREDICTOR + r"decoder_norm\.", "transformer.decoder.layernorm."),
    (_PREDICTOR + r"query_feat\.", "transformer.queries_features."),
    (_PREDICTOR + r"query_embed\.", "transformer.queries_embedder."),
    (_PREDICTOR + r"level_embed\.", "transformer.level_embed."),
    (_PREDICTOR + r"class_embed\.", "class_predictor."),
    (_PREDICTOR + r"mask_embed\.layers\.(\d)\.", r"transformer.decoder.mask_predictor.mask_embedder.\1.0."),
]


@cache
def _fill_module(shared: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference_fill", shared / "reference" / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def reference_state(shared: Path, model: str, seed: int = 0, prefix: str = "") -> dict[str, Tensor]:
    """Float parameters and buffers of a reference model under their official names that start with prefix.

    `tiny_*` models carry their weights in the fixture file; all others get theirs from `fill.py`.
    """
    if model.startswith("tiny_"):
        tensors = reference_outputs(shared, model, states=True)
        named = ((name.removeprefix("state."), value) for name, value in tensors.items())
        return {
            name: value
            for name, value in named
            if name.startswith(prefix) and value.is_floating_point() and name != "criterion.empty_weight"
        }
    entries = json.loads((shared / "reference" / "names" / f"{model}.json").read_text())
    fill = _fill_module(shared).fill
    return {
        name: torch.as_tensor(fill(name, tuple(shape), seed))
        for name, shape, _, _, filled in entries
        if filled and name.startswith(prefix)
    }


def reference_outputs(shared: Path, model: str, states: bool = False) -> dict[str, Tensor]:
    """What the reference returned (`pred_logits`, `pred_masks`, `res5`, `assign.i`, ...), or its `state.*`."""
    tensors = load_file(shared / "reference" / "outputs" / f"{model}.safetensors")
    return {name: value for name, value in tensors.items() if name.startswith("state.") == states}


def reference_image(shared: Path, hw: tuple[int, int] = (64, 96), seed: int = 0) -> Tensor:
    """The fixtures' input [1, 3, H, W]: normalised, then zero padded right and bottom to multiples of 32."""
    image = torch.as_tensor(_fill_module(shared).fill_image("input.image", (3, *hw), seed))
    image = (image - MEAN[:, None, None]) / STD[:, None, None]
    return F.pad(image, (0, -hw[1] % 32, 0, -hw[0] % 32))[None]


def rename(state: dict[str, Tensor], *tables: Rules) -> dict[str, Tensor]:
    """Apply every rule of every table, in order, to all names."""
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in (rule for table in tables for rule in table):
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def strip(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries under prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def split_in_proj(state: dict[str, Tensor], pattern: str) -> dict[str, Tensor]:
    """Replace each `<name>.in_proj_*` whose name matches by q_proj, k_proj and v_proj."""
    result = {}
    for name, value in state.items():
        owner, _, kind = name.rpartition(".in_proj_")
        if owner and re.search(pattern, owner):
            for part, chunk in zip("qkv", value.chunk(3), strict=True):
                result[f"{owner}.{part}_proj.{kind}"] = chunk
        else:
            result[name] = value
    return result


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """max |actual - expected| / max |expected|."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    return ((actual - expected).abs().max() / expected.abs().max()).item()
