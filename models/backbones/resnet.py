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
    max-pooling after the first convolution; without it the strides are 2, 4, 8, 16.
    """

    def __init__(
        self, blocks: tuple[int, ...], width: int = 64, norm=FrozenBatchNorm2d, deformable_level: int = 0,
        stem_pool: bool = True,
    ):  # fmt: skip
        super().__init__()
        if not 0 <= deformable_level <= MAX_LEVEL:
            raise ValueError(f"deformable_level {deformable_level} is not in 0..{MAX_LEVEL}")
        self.stem_pool = stem_pool
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = norm(width)
        channels = width
        for i, depth in enumerate(blocks):
            stage = _stage(channels, width * 2**i, depth, 1 if i == 0 else 2, norm)
            channels = width * 2**i * Bottleneck.expansion
            self.add_module(f"layer{i + 1}", stage)
        self.channels = tuple(width * 2**i * Bottleneck.expansion for i in range(4))
        self.pair_channels = tuple(zip(self.channels[:-1], self.channels[1:], strict=True))
        self._initialise()
        for stage in (self.layer2, self.layer3, self.layer4)[MAX_LEVEL - deformable_level :]:
            stage[0].conv2 = DeformableDownsampling(stage[0].conv2)
            stage[0].downsample[0] = DeformableDownsampling(stage[0].downsample[0])

    def forward(self, images: Tensor) -> BackboneOutput:
        """images [B, 3, H, W] -> features at four strides and the three (fine, downsampled) pairs."""
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        if self.stem_pool:
            x = F.max_pool2d(x, 3, 2, 1)
        features, pairs = [], []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            first = stage[0](x)
            if features:
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


def _stage(channels: int, planes: int, depth: int, stride: int, norm) -> nn.Sequential:
    out = planes * Bottleneck.expansion
    shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), norm(out))
    first = Bottleneck(channels, planes, stride, shortcut, norm_layer=norm)
    return nn.Sequential(first, *(Bottleneck(out, planes, norm_layer=norm) for _ in range(depth - 1)))


def resnet(depth: int, deformable_level: int = 0) -> ResNet:
    """ResNet-50 or -101 with frozen batch norm, random weights. Raises ValueError for another depth."""
    if depth not in BLOCKS:
        raise ValueError(f"no ResNet of depth {depth}: known depths are {sorted(BLOCKS)}")
    return ResNet(BLOCKS[depth], deformable_level=deformable_level)


def small_resnet(deformable_level: int = 0, blocks: int = 1, width: int = 16) -> ResNet:
    """A backbone for training from scratch: `blocks` bottlenecks a stage, trainable batch norm, no stem pooling."""
    return ResNet((blocks,) * 4, width, nn.BatchNorm2d, deformable_level, stem_pool=False)
