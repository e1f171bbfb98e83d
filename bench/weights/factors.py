"""The factors of an experiment that a checkpoint shows: read from our parameter names and their shapes."""

import re
from collections.abc import Mapping

from torch import Tensor

BACKBONES = {  # blocks of the third stage, channels of the first (Swin: of the patch embedding)
    (6, 64): "r50",
    (23, 64): "r101",
    (18, 96): "swin_s",
    (18, 192): "swin_l",
}
_LAYERS = {
    "hcformer": r"^decoder\.layers\.(\d{1,4})\.",
    "maskformer": r"^decoder\.layers\.(\d{1,4})\.",
    "mask2former": r"^transformer\.decoder\.layers\.(\d{1,4})\.",
}
_QUERIES = ("decoder.query_positions.weight", "transformer.queries_embedder.weight")


def factors(state: Mapping[str, Tensor], method: str) -> dict[str, int | str]:
    """Those factors of `Experiment` that the state dict (our names) of a whole model of the method shows."""
    family = method.rstrip("+")
    found = {"decoder_layers": _count(state, _LAYERS[family])} if _count(state, _LAYERS[family]) else {}
    encoder = (
        r"^encoder\.2\.layers\.(\d{1,4})\." if family == "hcformer" else r"^pixel_decoder\.encoder\.layers\.(\d{1,4})\."
    )
    if _count(state, encoder) or method in ("hcformer", "maskformer"):
        found["encoder_layers"] = _count(state, encoder)
    queries = next((state[name] for name in _QUERIES if name in state and state[name].ndim), None)
    if queries is not None:
        found["num_queries"] = len(queries)
    if family == "hcformer":
        found["hierarchical_level"] = _count(state, r"^clustering\.(\d{1,4})\.")
        offsets = any(re.match(r"^backbone\..*\.offset\.", name) for name in state)
        found["downsampling"] = "deformable" if offsets else "conv"
        masked = any(name.startswith(("decoder.query_features.", "decoder.level_embedding.")) for name in state)
        found["transformer_decoder"] = "masked" if masked else "standard"
    return found


def backbone(state: Mapping[str, Tensor]) -> str | None:
    """Name of the backbone that a state dict (our names) holds; None for one that is not known here."""
    depth = _count(state, r"^backbone\.(?:layer3|layers\.2\.blocks)\.(\d{1,4})\.")
    stem = next((state[f"backbone.{name}.weight"] for name in ("conv1", "patch_embed.proj") if
                 f"backbone.{name}.weight" in state), None)  # fmt: skip
    return BACKBONES.get((depth, len(stem))) if stem is not None and stem.ndim else None


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many layers are numbered so: the largest number and one."""
    numbers = [int(match[1]) for name in state if (match := re.match(pattern, name))]
    return max(numbers, default=-1) + 1
