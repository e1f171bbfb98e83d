"""What the names and shapes of a checkpoint show, once the names are ours."""

import re
from collections.abc import Mapping

from torch import Tensor

RESNETS = {6: "r50", 23: "r101"}  # blocks of the third stage
SWINS = {(6, 96): "swin_t", (18, 96): "swin_s", (18, 128): "swin_b", (18, 192): "swin_l"}  # and first channels


def backbone(state: Mapping[str, Tensor]) -> str | None:
    """Name of the backbone that a state dict (our names) shows, even if parts are missing; None if it is unclear."""
    blocks = layers(state, "backbone.layer3")
    if blocks:
        return RESNETS.get(blocks)
    widths = (len(state[name]) // 2**i for i in range(4) for name in [f"backbone.layers.{i}.blocks.0.norm1.weight"]
              if name in state and state[name].ndim)  # fmt: skip
    return SWINS.get((layers(state, "backbone.layers.2.blocks"), next(widths, 0)))


def layers(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many layers are numbered below the prefix: the largest number and one."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d{1,9})\.")
    return max((int(match[1]) for match in map(pattern.match, state) if match), default=-1) + 1


def mask_classifier(state: Mapping[str, Tensor], decoder: str, encoder: str, queries: str) -> dict[str, int]:
    """Layers of the transformer decoder and of the encoder, and the number of queries, of what the state dict has.

    decoder, encoder: prefixes of their layers. queries: name of the queries' embedding [Q, C].
    """
    found = {"decoder_layers": layers(state, decoder), "encoder_layers": layers(state, encoder)}
    found = {name: count for name, count in found.items() if count}
    if queries in state and state[queries].ndim:
        found["num_queries"] = len(state[queries])
    return found
