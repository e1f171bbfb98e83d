"""ResNet (torchvision's blocks) that also yields the pairs for clustering, optionally with DCNv2 downsampling."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from models.deformable import DeformableDownsampling
from models.outputs import BackboneOutput

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
MAX_LEVEL = 3


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation with fixed statistics and affine values: buffers only, no parameters."""

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        state_dict.pop(prefix + "num_batches_tracked", None)  # public checkpoints hold it; it has no meaning here
        super()._load_from_state_dict(state_dict, prefix, *args)


class ResNet(nn.Module):
    """blocks: bottlenecks a stage; width: planes of the first stage (64 in ResNet-50); norm: batch norm's class.

    deformable_level: the downsamplings of that many coarsest stages become DCNv2 (0: none). stem_pool: the usual
    max-pooling after the first convolution; without it the strides are 2, 4, 8, 16. dilated_stages: that many of the
    coarsest stages keep the resolution and dilate their convolutions instead, two for output stride 8; they are no
    downsampling, so the pairs are those of the other stages.
    """

    def __init__(
        self, blocks: tuple[int, ...], width: int = 64, norm=FrozenBatchNorm2d, deformable_level: int = 0,
        stem_pool: bool = True, dilated_stages: int = 0,
    ):  # fmt: skip
        super().__init__()
        if not 0 <= dilated_stages <= MAX_LEVEL:
            raise ValueError(f"dilated_stages {dilated_stages} is not in 0..{MAX_LEVEL}")
        if not 0 <= deformable_level <= MAX_LEVEL:
            raise ValueError(f"deformable_level {deformable_level} is not in 0..{MAX_LEVEL}")
        if deformable_level and dilated_stages:
            raise ValueError("a dilated stage has no downsampling to make deformable: deformable_level must be 0")
        self.stem_pool = stem_pool
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = norm(width)
        channels, dilation = width, 1
        for i, depth in enumerate(blocks):
            stride = 1 if i == 0 or i > MAX_LEVEL - dilated_stages else 2
            before, dilation = dilation, dilation * 2 if i and stride == 1 else dilation
            stage = _stage(channels, width * 2**i, depth, stride, norm, before, dilation)
            channels = width * 2**i * Bottleneck.expansion
            self.add_module(f"layer{i + 1}", stage)
        self.channels = tuple(width * 2**i * Bottleneck.expansion for i in range(4))
        pairs = tuple(zip(self.channels[:-1], self.channels[1:], strict=True))
        self.pair_channels = pairs[: MAX_LEVEL - dilated_stages]
        self._initialise()
        for stage in (self.layer2, self.layer3, self.layer4)[MAX_LEVEL - deformable_level :]:
            stage[0].conv2 = DeformableDownsampling(stage[0].conv2)
            stage[0].downsample[0] = DeformableDownsampling(stage[0].downsample[0])

    def forward(self, images: Tensor) -> BackboneOutput:
        """images [B, 3, H, W] -> features of four stages and a (fine, downsampled) pair for each downsampling."""
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        if self.stem_pool:
            x = F.max_pool2d(x, 3, 2, 1)
        features: list[Tensor] = []
        pairs: list[tuple[Tensor, Tensor]] = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            first = stage[0](x)
            if features and len(pairs) < len(self.pair_channels):
                pairs.append((features[-1], first))
            x = first
            for block in stage[1:]:
                x = block(x)
            features.append(x)
        return BackboneOutput(tuple(features), tuple(pairs))

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Bottleneck) and isinstance(module.bn3.weight, nn.Parameter):
                nn.init.zeros_(module.bn3.weight)  # residual branches start at zero: trains from scratch faster


def _stage(
    channels: int, planes: int, depth: int, stride: int, norm, first_dilation: int, dilation: int
) -> nn.Sequential:
    """first_dilation: of the first block, which still sees the pixels of the stage before."""
    out = planes * Bottleneck.expansion
    shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), norm(out))
    first = Bottleneck(channels, planes, stride, shortcut, dilation=first_dilation, norm_layer=norm)
    others = (Bottleneck(out, planes, dilation=dilation, norm_layer=norm) for _ in range(depth - 1))
    return nn.Sequential(first, *others)


def resnet(depth: int, deformable_level: int = 0, dilated_stages: int = 0, norm=FrozenBatchNorm2d) -> ResNet:
    """ResNet-50 or -101, random weights; batch norm is frozen unless `norm` is another. Raises ValueError for another
    depth."""
    if depth not in BLOCKS:
        raise ValueError(f"no ResNet of depth {depth}: known depths are {sorted(BLOCKS)}")
    return ResNet(BLOCKS[depth], norm=norm, deformable_level=deformable_level, dilated_stages=dilated_stages)


def small_resnet(deformable_level: int = 0, blocks: int = 1, width: int = 16, dilated_stages: int = 0) -> ResNet:
    """A backbone for training from scratch: `blocks` bottlenecks a stage, trainable batch norm, no stem pooling."""
    return ResNet((blocks,) * 4, width, nn.BatchNorm2d, deformable_level, False, dilated_stages)
