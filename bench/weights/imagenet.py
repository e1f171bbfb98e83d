"""ImageNet weights of the backbones, fetched by torchvision and timm when a recipe asks for them."""

from collections.abc import Collection, Mapping

from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, ResNet101_Weights

from bench.errors import BenchError, one_line
from models.backbones.swin import load_imagenet as load_swin

RESNETS = {"r50": ResNet50_Weights.IMAGENET1K_V1, "r101": ResNet101_Weights.IMAGENET1K_V1}
SWINS = {
    "swin_s": "timm swin_small_patch4_window7_224, ImageNet-1K",
    "swin_l": "timm swin_large_patch4_window12_384.ms_in22k, ImageNet-22K",
}


# What a DCNv2 downsampling has beyond the convolution that it replaces.
DEFORMABLE_EXTRAS = (".deform.bias", ".offset.weight", ".offset.bias")


def for_deformable(state: Mapping[str, Tensor], expected: Collection[str]) -> dict[str, Tensor]:
    """The state dict with each convolution's weight where a DCNv2 downsampling of `expected` takes it."""
    moved = {}
    for name, value in state.items():
        deformable = name.removesuffix("weight") + "deform.weight"
        moved[deformable if deformable in expected else name] = value
    return moved


def load_imagenet(backbone: nn.Module, name: str) -> str:
    """Fill a backbone with its ImageNet weights; returns which, for the record.

    R50 and Swin-S: ImageNet-1K, Swin-L: ImageNet-22K (section 3.2). A DCNv2 downsampling takes the weight of the
    convolution that it replaces. Raises BenchError when the weights cannot be fetched or the backbone has none.
    """
    try:
        if name in RESNETS:
            load_torchvision_state(backbone, RESNETS[name].get_state_dict(progress=False, check_hash=True))
            return f"torchvision {RESNETS[name]}"
        if name in SWINS:
            load_swin(backbone, name)
            return SWINS[name]
    except (OSError, RuntimeError, ValueError) as error:
        reason = one_line(error)
        raise BenchError(f"no ImageNet weights for {name} ({reason}): go online, or fill the download cache") from error
    raise BenchError(f"backbone '{name}' has no ImageNet weights: known are {', '.join([*RESNETS, *SWINS])}")


def load_torchvision_state(backbone: nn.Module, state: dict) -> None:
    """Load a torchvision ResNet state dict; every weight of ours but the DCNv2 extras must be in it."""
    state = {name: value for name, value in state.items() if not name.startswith("fc.")}
    state = for_deformable(state, backbone.state_dict())
    extra = {name for name in backbone.state_dict() if name.endswith(DEFORMABLE_EXTRAS)}
    missing, unexpected = backbone.load_state_dict(state, strict=False)
    if set(missing) != extra or unexpected:
        raise BenchError(f"the ImageNet weights do not fit: missing {sorted(set(missing) - extra)}, left {unexpected}")
