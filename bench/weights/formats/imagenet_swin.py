"""ImageNet Swins with the names of timm, which ours has, and of Swin's authors."""

from collections.abc import Collection
from dataclasses import replace

from bench.weights.rules import NOT_NEEDED, Format, Rules, starts

# timm attaches a patch merging to the stage it leads into, the official model to the stage it leaves.
SWIN: Rules = [(rf"^layers\.{i}\.downsample\.", f"layers.{i + 1}.downsample.") for i in (2, 1, 0)]


def _is_swin(names: Collection[str]) -> bool:
    return {"patch_embed.proj.weight", "layers.0.blocks.0.attn.qkv.weight"} <= set(names)


def _merges_on_leaving(names: Collection[str]) -> bool:
    return starts(names, "layers.0.downsample.")


TIMM = Format(
    title="ImageNet Swin (timm names)",
    holds="ImageNet Swin",
    method=None,
    recognise=lambda names: _is_swin(names) and not _merges_on_leaving(names),
    rules=([("^", "backbone.")],),
    not_needed=NOT_NEEDED | dict.fromkeys(("head.", "norm."), "the classifier of ImageNet"),
)
AUTHORS = replace(
    TIMM,
    title="ImageNet Swin (its authors' names)",
    recognise=lambda names: _is_swin(names) and _merges_on_leaving(names),
    rules=(SWIN, [("^", "backbone.")]),
)
