"""From the names in a public checkpoint to ours: rules, and the format that they make up."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

# (pattern, replacement) in order, their name to ours; a name that nothing matches stays as it is.
Rules = Iterable[tuple[str, str]]
State = Mapping[str, Tensor]

# What a file may hold beyond a model's weights, by the end or (with a dot) the beginning of the name, and why not.
NOT_NEEDED = {
    "relative_position_index": "computed from the window size",
    "attn_mask": "computed from the window size",
    "num_batches_tracked": "batch norm is frozen",
    "criterion.": "weights of the training loss",
    "pixel_mean": "the normalisation is fixed",
    "pixel_std": "the normalisation is fixed",
}


@dataclass(frozen=True)
class Format:
    """One kind of public checkpoint.

    title, holds: the kind and its model, for people. method: of a whole model, None for an ImageNet backbone.
    recognise: whether the names in a file are of this kind and no other; raises BenchError for a near relative that
    must not be taken.
    rules: tables from their names to ours. reshape: of the renamed tensors, where ours are cut otherwise.
    factors: those of `Experiment` that our names and shapes show. class_head: our name of the weight [K + 1, C] of the
    classes and "no object". not_needed: as NOT_NEEDED.
    """

    title: str
    holds: str
    method: str | None
    recognise: Callable[[Collection[str]], bool]
    rules: tuple[Rules, ...]
    factors: Callable[[State], dict[str, int | str]] = lambda ours: {}
    reshape: Callable[[State], dict[str, Tensor]] = dict
    class_head: str = "decoder.heads.class_embed.weight"
    not_needed: Mapping[str, str] = field(default_factory=lambda: NOT_NEEDED)

    def to_ours(self, tensors: State) -> dict[str, Tensor]:
        """The tensors under our names; those that no model of ours has stay in the result."""
        return self.reshape(rename(tensors, *self.rules))

    def why_not_needed(self, name: str) -> str | None:
        """The reason why a tensor of such a file has no place in our models; None where none is known."""
        for part, reason in self.not_needed.items():
            if name.endswith(part) or (part.endswith(".") and name.startswith(part)):
                return reason
        return None


def rename(state: State, *tables: Rules) -> dict[str, Tensor]:
    """Apply every rule of every table, in order, to all names."""
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in (rule for table in tables for rule in table):
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def starts(names: Collection[str], *beginnings: str) -> bool:
    """Whether any name begins so."""
    return any(name.startswith(beginnings) for name in names)


def split_in_proj(state: State, pattern: str) -> dict[str, Tensor]:
    """Replace each `<name>.in_proj_*` [3C, ...] whose name matches by q_proj, k_proj and v_proj."""
    result = {}
    for name, value in state.items():
        owner, _, kind = name.rpartition(".in_proj_")
        if owner and re.search(pattern, owner) and value.ndim:
            for part, chunk in zip("qkv", value.tensor_split(3), strict=True):
                result[f"{owner}.{part}_proj.{kind}"] = chunk
        else:
            result[name] = value
    return result


_QUERY = re.compile(r"(.*\.(attn|self_attention|cross_attention)\.)q_proj\.(weight|bias)")
_FUSED = {"attn": "qkv.", "self_attention": "in_proj_", "cross_attention": "in_proj_"}


def join_attention(state: State) -> dict[str, Tensor]:
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
