"""ResNet (torchvision's blocks) that also yields the pairs for clustering, optionally with DCNv2 downsampling."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck
from torchvision.ops import DeformConv2d

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


class DeformableDownsampling(nn.Module):
    """Modulated deformable convolution (DCNv2) in place of a strided convolution (section 2.5, appendix E.2).

    Offsets and modulation come from one zero-initialised 3x3 convolution of the same stride: 2 k^2 channels of
    offsets in torchvision's (y, x)-interleaved order, then k^2 of modulation through a sigmoid.
    """

    def __init__(self, replaced: nn.Conv2d):
        super().__init__()
        kernel, stride, padding = replaced.kernel_size, replaced.stride, replaced.padding
        self.offset = nn.Conv2d(replaced.in_channels, 3 * kernel[0] * kernel[1], 3, stride, padding=1)
        self.deform = DeformConv2d(replaced.in_channels, replaced.out_channels, kernel, stride, padding)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)
        nn.init.zeros_(self.deform.bias)
        self.deform.weight.data.copy_(replaced.weight.data)

    def forward(self, x: Tensor) -> Tensor:
        prediction = self.offset(x)
        taps = prediction.shape[1] // 3
        offsets, modulation = prediction[:, : 2 * taps], prediction[:, 2 * taps :].sigmoid()
        if x.device.type != "cpu":
            return self.deform(x, offsets, modulation)
        return _sampled_convolution(x, offsets, modulation, self.deform)


def _sampled_convolution(x: Tensor, offsets: Tensor, modulation: Tensor, conv: DeformConv2d) -> Tensor:
    """`torchvision.ops.deform_conv2d` as bilinear sampling and a matrix product: the same values and gradients.

    On a CPU it is two times faster forward and three to seven times backward. offsets [B, 2 k^2, h, w] in pixels,
    (y, x) interleaved; modulation [B, k^2, h, w].
    """
    height, width = x.shape[-2:]
    rows, cols = offsets.shape[-2:]
    (kernel, _), (stride, _), (padding, _) = conv.kernel_size, conv.stride, conv.padding
    taps = torch.arange(kernel, device=x.device)
    y = (torch.arange(rows, device=x.device) * stride - padding)[:, None] + taps.repeat_interleave(kernel)[
        :, None, None
    ]
    x_ = (torch.arange(cols, device=x.device) * stride - padding)[None] + taps.repeat(kernel)[:, None, None]
    y, x_ = y + offsets[:, 0::2], x_ + offsets[:, 1::2]  # [B, k^2, h, w], in pixels
    grid = torch.stack(((2 * x_ + 1) / width - 1, (2 * y + 1) / height - 1), -1).flatten(2, 3)
    sampled = F.grid_sample(x, grid, align_corners=False) * modulation.flatten(2)[:, None]  # [B, C, k^2, h*w]
    result = conv.weight.flatten(1) @ sampled.flatten(1, 2) + conv.bias[:, None]
    return result.unflatten(2, (rows, cols))


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
