"""Which kind of checkpoint a file is, told from the names of its tensors, and its tensors under our names."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

from bench.errors import BenchError
from bench.weights.hub import from_hub, hub_method, hub_name
from bench.weights.official import DETECTRON2_RESNET, SWIN, from_official, official_name
from bench.weights.rules import Rules, origin, rename

TITLES = {"hcformer": "HCFormer", "hcformer+": "HCFormer+", "maskformer": "MaskFormer", "mask2former": "Mask2Former"}
# What a file may hold beyond a model's weights, by the end or the beginning of the name, and why it is not needed.
NOT_NEEDED = {
    "relative_position_index": "computed from the window size",
    "attn_mask": "computed from the window size",
    "num_batches_tracked": "batch norm is frozen",
    "criterion.": "weights of the training loss",
    "layernorm.weight": "last norm of the classifier",
    "layernorm.bias": "last norm of the classifier",
    "pixel_mean": "the normalisation is fixed",
    "pixel_std": "the normalisation is fixed",
}
CLASSIFIER = ("fc.", "stem.fc.", "head.", "norm.")


@dataclass(frozen=True)
class Format:
    """title: for people. method: of a whole model, None for an ImageNet backbone. to_ours: renames all tensors.

    origin: (our name, names in the file) -> what the file would call it.
    """

    title: str
    method: str | None
    to_ours: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    origin: Callable[[str, Collection[str]], str]


def detect(names: Collection[str]) -> Format:
    """The format of a file with these tensors. Raises BenchError (without the file's name) for an unknown one."""
    if "conv1_w" in names and any(name.startswith("res2_0_branch") for name in names):
        raise BenchError(
            "holds the ResNet of MSRA (Caffe2 names), which takes BGR images and strides in other convolutions: "
            "use detectron2's torchvision/R-50.pkl"
        )
    method = hub_method(names)
    if method:
        return Format(
            f"{TITLES[method]} of the transformers hub",
            method,
            lambda tensors: from_hub(tensors, method),
            lambda ours, present: hub_name(ours, method, present),
        )
    method = _official_method(names)
    if method:
        return Format(
            f"{TITLES[method]}, published checkpoint (detectron2 names)",
            method,
            lambda tensors: from_official(tensors, method),
            lambda ours, present: official_name(ours, method, present),
        )
    if {"conv1.weight", "layer1.0.conv1.weight"} <= set(names):
        return _backbone("ImageNet ResNet (torchvision names)", [])
    if {"stem.conv1.weight", "res2.0.conv1.weight"} <= set(names):
        return _backbone("ImageNet ResNet (detectron2 names)", DETECTRON2_RESNET)
    if {"patch_embed.proj.weight", "layers.0.blocks.0.attn.qkv.weight"} <= set(names):
        own_stage = any(name.startswith("layers.0.downsample.") for name in names)
        title = "its authors' names" if own_stage else "timm names"
        return _backbone(f"ImageNet Swin ({title})", SWIN if own_stage else [])
    raise BenchError(
        "holds no model that is known here: HCFormer, MaskFormer and Mask2Former (their published checkpoints or the "
        "transformers hub's) and ImageNet backbones (torchvision, detectron2, timm) are"
    )


def why_not_needed(name: str) -> str | None:
    """The reason why a tensor of a foreign file has no place in our models; None where none is known."""
    for part, reason in NOT_NEEDED.items():
        if name.endswith(part) or (part.endswith(".") and name.startswith(part)):
            return reason
    return "the classifier of ImageNet" if name.startswith(CLASSIFIER) else None


def _backbone(title: str, rules: Rules) -> Format:
    return Format(
        title,
        None,
        lambda tensors: {f"backbone.{name}": value for name, value in rename(tensors, rules).items()},
        lambda ours, present: origin(ours.removeprefix("backbone."), present, rules),
    )


def _official_method(names: Collection[str]) -> str | None:
    head = "sem_seg_head."
    if not any(name.startswith(head + "predictor.") for name in names):
        return None
    if any(name.startswith("backbone.aux.") for name in names):
        return "hcformer+"
    # The first versions of the model zoos lack "pixel_decoder.".
    pixels = {name.removeprefix(head).removeprefix("pixel_decoder.") for name in names if name.startswith(head)}
    if any(name.startswith("input_proj.0.") for name in pixels):
        return "mask2former"
    return (
        "maskformer"
        if any(name.startswith(("adapter_", "layer_", "mask_features.")) for name in pixels)
        else "hcformer"
    )
