"""ImageNet weights of the backbones, fetched by torchvision and timm when a recipe asks for them."""

from collections.abc import Collection, Mapping

from torch import Tensor, nn
from torchvision.models import get_weight

from bench.errors import BenchError, one_line
from bench.experiments.backbones import BACKBONES, Backbone
from models.backbones.swin import load_imagenet as load_swin

# What a DCNv2 downsampling has beyond the convolution that it replaces.
DEFORMABLE_EXTRAS = (".deform.bias", ".offset.weight", ".offset.bias")


def for_deformable(state: Mapping[str, Tensor], expected: Collection[str]) -> dict[str, Tensor]:
    """The state dict with each convolution's weight where a DCNv2 downsampling of `expected` takes it."""
    moved = {}
    for name, value in state.items():
        deformable = name.removesuffix("weight") + "deform.weight"
        moved[deformable if deformable in expected else name] = value
    return moved


def load_imagenet(model: nn.Module, backbone: Backbone) -> str:
    """Fill a backbone's model with its ImageNet weights (`Backbone.imagenet`); returns which, for the record.

    R50 and Swin-S: ImageNet-1K, Swin-L: ImageNet-22K (section 3.2). A DCNv2 downsampling takes the weight of the
    convolution that it replaces. Raises BenchError when the weights cannot be fetched or the backbone has none.
    """
    if backbone.imagenet is None:
        known = ", ".join(name for name, other in BACKBONES.items() if other.imagenet)
        raise BenchError(f"backbone '{backbone.name}' has no ImageNet weights: known are {known}")
    source, _, name = backbone.imagenet.partition(" ")
    try:
        if source == "torchvision":
            load_torchvision_state(model, get_weight(name).get_state_dict(progress=False, check_hash=True))
        else:
            load_swin(model, **backbone.arguments)
    except (OSError, RuntimeError, ValueError) as error:
        reason = one_line(error)
        remedy = "go online, or fill the download cache"
        raise BenchError(f"no ImageNet weights for {backbone.name} ({reason}): {remedy}") from error
    return backbone.imagenet


def load_torchvision_state(backbone: nn.Module, state: dict) -> None:
    """Load a torchvision ResNet state dict; every weight of ours but the DCNv2 extras must be in it."""
    state = {name: value for name, value in state.items() if not name.startswith("fc.")}
    state = for_deformable(state, backbone.state_dict())
    extra = {name for name in backbone.state_dict() if name.endswith(DEFORMABLE_EXTRAS)}
    missing, unexpected = backbone.load_state_dict(state, strict=False)
    if set(missing) != extra or unexpected:
        raise BenchError(f"the ImageNet weights do not fit: missing {sorted(set(missing) - extra)}, left {unexpected}")
