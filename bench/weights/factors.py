"""The factors of an experiment that a checkpoint shows: read from our parameter names and their shapes."""

import re
from collections.abc import Mapping

from torch import Tensor

RESNETS = {6: "r50", 23: "r101"}  # blocks of the third stage
SWINS = {(6, 96): "swin_t", (18, 96): "swin_s", (18, 128): "swin_b", (18, 192): "swin_l"}  # and first channels
_LAYERS = {
    "hcformer": r"^decoder\.layers\.(\d{1,9})\.",
    "maskformer": r"^decoder\.layers\.(\d{1,9})\.",
    "mask2former": r"^transformer\.decoder\.layers\.(\d{1,9})\.",
}
_QUERIES = ("decoder.query_positions.weight", "transformer.queries_embedder.weight")


def factors(state: Mapping[str, Tensor], method: str) -> dict[str, int | str]:
    """Those factors of `Experiment` that the state dict (our names) of a whole model of the method shows."""
    family = method.rstrip("+")
    found = {"decoder_layers": _count(state, _LAYERS[family])} if _count(state, _LAYERS[family]) else {}
    encoder = (
        r"^encoder\.2\.layers\.(\d{1,9})\." if family == "hcformer" else r"^pixel_decoder\.encoder\.layers\.(\d{1,9})\."
    )
    if _count(state, encoder) or method in ("hcformer", "maskformer"):
        found["encoder_layers"] = _count(state, encoder)
    queries = next((state[name] for name in _QUERIES if name in state and state[name].ndim), None)
    if queries is not None:
        found["num_queries"] = len(queries)
    if family == "hcformer":
        found["hierarchical_level"] = _count(state, r"^clustering\.(\d{1,9})\.")
        offsets = any(re.match(r"^backbone\..*\.offset\.", name) for name in state)
        found["downsampling"] = "deformable" if offsets else "conv"
        masked = any(name.startswith(("decoder.query_features.", "decoder.level_embedding.")) for name in state)
        found["transformer_decoder"] = "masked" if masked else "standard"
    return found


def backbone(state: Mapping[str, Tensor]) -> str | None:
    """Name of the backbone that a state dict (our names) shows, even if parts are missing; None if it is unclear."""
    blocks = _count(state, r"^backbone\.layer3\.(\d{1,9})\.")
    if blocks:
        return RESNETS.get(blocks)
    blocks = _count(state, r"^backbone\.layers\.2\.blocks\.(\d{1,9})\.")
    widths = (len(state[name]) // 2**i for i in range(4) for name in [f"backbone.layers.{i}.blocks.0.norm1.weight"]
              if name in state and state[name].ndim)  # fmt: skip
    return SWINS.get((blocks, next(widths, 0)))


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many layers are numbered so: the largest number and one."""
    numbers = [int(match[1]) for name in state if (match := re.match(pattern, name))]
    return max(numbers, default=-1) + 1
