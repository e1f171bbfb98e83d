"""DCNv2 in place of a strided convolution (section 2.5, appendix E.2), in the fastest form that a device has."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import DeformConv2d

from models.precision import wide


class DeformableDownsampling(nn.Module):
    """Modulated deformable convolution (DCNv2) in place of a strided convolution.

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
        return gathered_convolution(x, offsets, modulation, self.deform)


def gathered_convolution(x: Tensor, offsets: Tensor, modulation: Tensor, conv: DeformConv2d) -> Tensor:
    """`torchvision.ops.deform_conv2d` as weighted sums of whole channel rows and one matrix product.

    The same values and gradients; on a CPU several times faster, more so backward. x [B, C, H, W], best channels
    last; offsets [B, 2 k^2, h, w] in pixels, (y, x) interleaved; modulation [B, k^2, h, w]. Returns [B, C', h, w].
    """
    batch, channels, height, width = x.shape
    rows, cols = offsets.shape[-2:]
    kernel, stride, padding = conv.kernel_size[0], conv.stride[0], conv.padding[0]
    tap = torch.arange(kernel, device=x.device)
    top = torch.arange(rows, device=x.device)[:, None, None] * stride - padding + tap.repeat_interleave(kernel)
    left = torch.arange(cols, device=x.device)[:, None] * stride - padding + tap.repeat(kernel)
    offsets = wide(offsets.permute(0, 2, 3, 1))  # [B, h, w, 2 k^2]
    y, y_weight = _neighbours(top + offsets[..., 0::2], height)
    x_, x_weight = _neighbours(left + offsets[..., 1::2], width)
    x_weight = x_weight * wide(modulation.permute(0, 2, 3, 1))[..., None]

    image = torch.arange(batch, device=x.device).view(-1, 1, 1, 1, 1, 1) * (height * width)
    index = image + y[..., :, None] * width + x_[..., None, :]  # [B, h, w, k^2, 2, 2]
    weight = (y_weight[..., :, None] * x_weight[..., None, :]).to(x.dtype)
    pixels = x.permute(0, 2, 3, 1).reshape(-1, channels)
    sampled = F.embedding_bag(index.view(-1, 4), pixels, per_sample_weights=weight.view(-1, 4), mode="sum")
    kernels = conv.weight.permute(0, 2, 3, 1).flatten(1)
    return F.linear(sampled.view(batch, rows, cols, -1), kernels, conv.bias).permute(0, 3, 1, 2)


def _neighbours(position: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The two whole positions around each one and their linear weights [..., 2]; outside the map a weight is 0."""
    low = position.floor()
    share = position - low
    both = torch.stack((low, low + 1), -1)
    weight = torch.stack((1 - share, share), -1) * ((both >= 0) & (both < size))
    return both.nan_to_num().clamp(0, size - 1).long(), weight  # a weight that is no number shows in the result
