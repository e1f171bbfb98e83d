"""Renaming of state-dict entries by rules."""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

# (pattern, replacement) in order, their name to ours; a name that nothing matches stays as it is.
Rules = Iterable[tuple[str, str]]


def rename(state: Mapping[str, Tensor], *tables: Rules) -> dict[str, Tensor]:
    """Apply every rule of every table, in order, to all names."""
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in (rule for table in tables for rule in table):
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def strip(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries under prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def split_in_proj(state: Mapping[str, Tensor], pattern: str) -> dict[str, Tensor]:
    """Replace each `<name>.in_proj_*` [3C, ...] whose name matches by q_proj, k_proj and v_proj."""
    result = {}
    for name, value in state.items():
        owner, _, kind = name.rpartition(".in_proj_")
        if owner and re.search(pattern, owner):
            for part, chunk in zip("qkv", value.chunk(3), strict=True):
                result[f"{owner}.{part}_proj.{kind}"] = chunk
        else:
            result[name] = value
    return result
