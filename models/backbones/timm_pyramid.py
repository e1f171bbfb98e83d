"""Any timm model with a feature pyramid as a backbone: its `features_only` maps, and by rule the clustering's pairs."""

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import timm
import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from timm.models import PretrainedCfg, get_pretrained_cfg
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from models.backbones.resnet import FrozenBatchNorm2d
from models.outputs import BackboneOutput

STRIDES = (4, 8, 16, 32)
PROBE = (129, 193)  # every stride leaves a remainder, and no height of any map is also a width, padded or not


class TimmPyramid(nn.Module):
    """Built by `timm_pyramid`. channels, pair_channels: as every backbone's.

    model: timm's own model, pruned of what no map needs. indices: of timm's features with strides 4 to 32.
    padded: images are padded with zeros at the right and bottom to a multiple of 32, and the maps cropped.
    downsamplings: names of the modules in `model` that return the downsampled maps, finest first.
    channels_last: which of these maps are [B, H, W, C].
    """

    def __init__(self, features: FeatureGetterNet):
        super().__init__()
        self.model = features.model
        self.indices = list(features.out_indices)
        self.channels = tuple(features.feature_info.channels())
        self.padded, calls = _probe(self)
        sizes = _sizes(_whole(PROBE) if self.padded else PROBE)
        depths = [name.count(".") + 1 for name in features.feature_info.module_name()[:-1]]
        found = [_downsampling(calls, *each) for each in zip(sizes[:-1], sizes[1:], depths, strict=True)]
        self.downsamplings = tuple(call.module for call in found)
        self.channels_last = tuple(call.shape[1:3] == size for call, size in zip(found, sizes[1:], strict=True))
        coarse = (call.shape[-1 if last else 1] for call, last in zip(found, self.channels_last, strict=True))
        self.pair_channels = tuple(zip(self.channels[:-1], coarse, strict=True))

    def forward(self, images: Tensor) -> BackboneOutput:
        """images [B, 3, H, W] of any size, normalised -> maps of strides 4, 8, 16, 32, sizes rounded up, and pairs."""
        outputs: dict[str, Tensor] = {}
        with _watch(self.model, self.downsamplings, outputs.__setitem__):
            features = self.maps(images, self.padded)
        sizes = _sizes((int(images.shape[-2]), int(images.shape[-1])))
        features = [_cropped(x, size) for x, size in zip(features, sizes, strict=True)]
        coarse = [outputs[name] for name in self.downsamplings]
        coarse = [x.permute(0, 3, 1, 2) if last else x for x, last in zip(coarse, self.channels_last, strict=True)]
        coarse = [_cropped(x, size) for x, size in zip(coarse, sizes[1:], strict=True)]
        return BackboneOutput(tuple(features), tuple(zip(features[:-1], coarse, strict=True)))

    def maps(self, images: Tensor, padded: bool) -> list[Tensor]:
        """timm's features [B, C_i, H_i, W_i] of the images, or of the padded images."""
        if padded:
            height, width = (int(n) for n in images.shape[-2:])
            rows, cols = _whole((height, width))
            images = F.pad(images, (0, cols - width, 0, rows - height))
        return self.model.forward_intermediates(
            images, indices=self.indices, norm=False, output_fmt="NCHW", intermediates_only=True
        )


def timm_pyramid(name: str, drop_path: float = 0.0, freeze_norms: bool = False) -> TimmPyramid:
    """timm's model `name` (with or without the tag of its weights) as a backbone; random weights, nothing is fetched.

    Features and fine maps are timm's `features_only`, without output norms. The downsampled map of a pair is found in
    one pass at construction: of the first leaf module of half size after the last module of full size, the direct
    child of its stage (the block, where the stage holds its blocks in `blocks`). In resnet50 these are layer2.0,
    layer3.0 and layer4.0, the choice of `models.backbones.resnet`. All convolutions are timm's: there is no DCNv2.

    drop_path: largest rate of stochastic depth in training, for models that have it. freeze_norms: batch norms become
    the fixed ones that `resnet` has by default, without parameters; otherwise all norms are timm's own and train.
    State dict: timm's names behind "model.", so a classifier's weights load with
    `backbone.model.load_state_dict(state, strict=False)`: nothing is missing, its head and final norm are left over.

    Raises ValueError, one line, for a name that timm does not have, and for a model that has no pyramid of strides 4
    to 32, or a fixed input size, or no downsampled map by the rule.
    """
    _configuration(name)
    try:
        features = _features(name, {"drop_path_rate": drop_path, "strict_img_size": False})
        strides = tuple(features.feature_info.reduction())
        if strides != STRIDES:
            raise LookupError(f"its last four maps have strides {strides}, not {STRIDES}")
        if freeze_norms:
            _freeze_norms(features.model)
        return TimmPyramid(features)
    except (AssertionError, LookupError, RuntimeError, TypeError) as error:  # timm's models refuse in several ways
        raise ValueError(
            f"timm's '{name}' has no feature pyramid for images of any size ({_reason(error)}): take another model, "
            "such as convnext_tiny"
        ) from error


def timm_normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation, RGB of values in 0..255, of the images that timm's model `name` is trained with; the
    model is not built. Raises ValueError for a name that timm does not have."""
    config = _configuration(name)
    return tuple(255 * value for value in config.mean), tuple(255 * value for value in config.std)


def _configuration(name: str) -> PretrainedCfg:
    """Of the weights in `name`, or of timm's default ones."""
    model, _, _ = name.partition(".")
    if not timm.is_model(model):
        near = difflib.get_close_matches(model, timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models() names all"
        raise ValueError(f"timm has no model '{name}': {hint}")
    try:
        return get_pretrained_cfg(name)
    except RuntimeError as error:  # a tag that does not exist
        known = ", ".join(timm.list_pretrained(f"{model}.*")) or "none"
        raise ValueError(f"timm has no weights '{name}': known are {known}") from error


def _features(name: str, wishes: dict[str, object]) -> FeatureGetterNet:
    """timm's extractor of the four coarsest maps. wishes: arguments of which not every model takes all."""
    four_coarsest = {"features_only": True, "feature_cls": "getter", "out_indices": (-4, -3, -2, -1)}
    try:
        return timm.create_model(name, pretrained=False, **four_coarsest, **wishes)
    except TypeError as error:
        fewer = {wish: value for wish, value in wishes.items() if f"'{wish}'" not in str(error)}
        if len(fewer) == len(wishes):
            raise
        return _features(name, fewer)


class FrozenBatchNormAct2d(FrozenBatchNorm2d):
    """With the dropout and the activation that are part of timm's batch norm."""

    def __init__(self, norm: BatchNormAct2d):
        super().__init__(norm.num_features, norm.eps)
        self.drop, self.act = norm.drop, norm.act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


def _freeze_norms(model: nn.Module) -> None:
    """Scales start at 1, also those that timm starts at 0 for training: such a branch would stay dead."""
    for parent in list(model.modules()):
        for name, norm in parent.named_children():
            if isinstance(norm, BatchNormAct2d):
                setattr(parent, name, FrozenBatchNormAct2d(norm))
            elif isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, FrozenBatchNorm2d(norm.num_features, norm.eps))


class _Call(NamedTuple):
    """A module that returned a map in the probe."""

    module: str
    leaf: bool
    shape: tuple[int, ...]

    def has(self, size: tuple[int, int]) -> bool:
        return size in (self.shape[2:], self.shape[1:3])


def _probe(pyramid: TimmPyramid) -> tuple[bool, list[_Call]]:
    """Whether images must be padded, and the maps that modules return in a pass at PROBE, in the order of returning.

    Raises LookupError if the maps do not have the sizes that the strides ask for, padded or not.
    """
    image = torch.zeros(1, 3, *PROBE, device=next(pyramid.model.parameters()).device)
    modules, reason = dict(pyramid.model.named_modules()), ""
    pyramid.eval()
    for padded in (False, True):
        outputs: list[tuple[str, object]] = []
        try:
            with torch.no_grad(), _watch(pyramid.model, modules, lambda *call, to=outputs: to.append(call)):
                shapes = [tuple(x.shape) for x in pyramid.maps(image, padded)]
        except Exception as error:  # each model refuses a size in its own way
            reason = _reason(error)
            continue
        sizes = _sizes(_whole(PROBE) if padded else PROBE)
        if shapes == [(1, channels, *size) for channels, size in zip(pyramid.channels, sizes, strict=True)]:
            pyramid.train()
            maps = [(name, x.shape) for name, x in outputs if isinstance(x, Tensor) and x.dim() == 4]
            return padded, [_Call(name, not any(modules[name].children()), tuple(shape)) for name, shape in maps]
        reason = f"its maps are {', '.join('x'.join(map(str, shape[2:])) for shape in shapes)} at {PROBE[0]}x{PROBE[1]}"
    raise LookupError(reason)


def _downsampling(calls: list[_Call], fine: tuple[int, int], half: tuple[int, int], depth: int) -> _Call:
    """The module whose output is the downsampled map. depth: number of names in the path of a stage."""
    last = max((i for i, call in enumerate(calls) if call.has(fine)), default=len(calls))
    after = [call for call in calls[last + 1 :] if call.has(half)]
    path = next((call.module.split(".") for call in after if call.leaf), [])
    if path[depth : depth + 1] == ["blocks"]:
        depth += 1
    child = ".".join(path[: depth + 1])
    for call in after:
        if call.module == child:
            return call
    raise LookupError(f"no module returns a map of {half[0]}x{half[1]} after the last of {fine[0]}x{fine[1]}")


@contextmanager
def _watch(model: nn.Module, names: Iterable[str], note: Callable[[str, object], object]) -> Iterator[None]:
    """Within the context, note(name, output) whenever a module of that name returns."""

    def watch(name: str):
        return model.get_submodule(name).register_forward_hook(lambda module, inputs, output: note(name, output))

    handles = [watch(name) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _whole(size: tuple[int, int]) -> tuple[int, int]:
    """Rounded up to a multiple of the last stride."""
    return size[0] + -size[0] % STRIDES[-1], size[1] + -size[1] % STRIDES[-1]


def _sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Of the four maps of an image, rounded up."""
    return [(-(-size[0] // stride), -(-size[1] // stride)) for stride in STRIDES]


def _cropped(x: Tensor, size: tuple[int, int]) -> Tensor:
    return x[..., : size[0], : size[1]]


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
