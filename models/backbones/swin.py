"""Swin Transformer backbone, built from timm's blocks, for any input size.

timm rolls a map before it pads it to whole windows and drops the shift where one window covers the map; the
detection backbone that the paper builds on pads first and always shifts. The two agree only where no padding is
needed, so the window attention here follows the second order (see `ShiftedWindowBlock`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed, calculate_drop_path_rates, trunc_normal_
from timm.models.swin_transformer import PatchMerging, SwinTransformerBlock, window_partition, window_reverse
from torch import Tensor, nn

from models.outputs import BackboneOutput


@dataclass(frozen=True)
class SwinVariant:
    """Sizes of a variant and the timm name of its ImageNet weights."""

    embed_dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window_size: int
    weights: str


VARIANTS = {
    "swin_s": SwinVariant(96, (2, 2, 18, 2), (3, 6, 12, 24), 7, "swin_small_patch4_window7_224.ms_in1k"),
    "swin_l": SwinVariant(192, (2, 2, 18, 2), (6, 12, 24, 48), 12, "swin_large_patch4_window12_384.ms_in22k"),
}


def shifted_window_mask(height: int, width: int, window: int, like: Tensor) -> Tensor:
    """Additive mask [windows, window^2, window^2] of a map that was shifted by half a window.

    height and width are multiples of window. After the cyclic shift the last windows hold pieces that are not
    neighbours in the image; pairs from different pieces get -100, all others 0. Section 3.2 of the Swin paper.
    """
    shift = window // 2

    def pieces(size: int) -> Tensor:
        position = torch.arange(size, device=like.device)
        return (position >= size - window).to(like.dtype) + (position >= size - shift).to(like.dtype)

    piece = 3 * pieces(height)[:, None] + pieces(width)
    piece = window_partition(piece[None, :, :, None], (window, window)).flatten(1)
    return (piece[:, None, :] != piece[:, :, None]).to(like.dtype) * -100.0


class ShiftedWindowBlock(SwinTransformerBlock):
    """timm's block on maps that are padded to whole windows before the shift; the caller hands in the mask."""

    def __init__(self, dim: int, num_heads: int, window: int, shifted: bool, drop_path: float):
        super().__init__(
            dim,
            input_resolution=(window, window),
            num_heads=num_heads,
            window_size=window,
            shift_size=window // 2 if shifted else 0,
            always_partition=True,
            dynamic_mask=True,
            drop_path=drop_path,
        )
        self.attn.fused_attn = True  # scaled_dot_product_attention: less memory, and faster on CPU too

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """[B, H, W, C] to the same shape; mask as from `shifted_window_mask`, None for an unshifted block."""
        x = x + self.drop_path1(self._window_attention(self.norm1(x), mask))
        return x + self.drop_path2(self.mlp(self.norm2(x)))

    def _window_attention(self, x: Tensor, mask: Tensor | None) -> Tensor:
        height, width, channels = (int(n) for n in x.shape[1:])
        window, shift = self.window_size[0], self.shift_size[0]
        x = F.pad(x, (0, 0, 0, -width % window, 0, -height % window))
        if shift:
            x = torch.roll(x, (-shift, -shift), (1, 2))
        padded = int(x.shape[1]), int(x.shape[2])
        windows = window_partition(x, self.window_size).view(-1, self.window_area, channels)
        windows = self.attn(windows, mask=mask).view(-1, window, window, channels)
        x = window_reverse(windows, self.window_size, *padded)
        if shift:
            x = torch.roll(x, (shift, shift), (1, 2))
        return x[:, :height, :width]


class Stage(nn.Module):
    """Patch merging (not in the first stage) and blocks, alternately plain and shifted; names as in timm."""

    def __init__(self, dim: int, num_heads: int, window: int, drop_paths: Sequence[float], merge: bool):
        super().__init__()
        self.window = window
        self.downsample = PatchMerging(dim // 2, dim) if merge else nn.Identity()
        self.blocks = nn.ModuleList(
            ShiftedWindowBlock(dim, num_heads, window, shifted=i % 2 == 1, drop_path=rate)
            for i, rate in enumerate(drop_paths)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to the same shape. The downsampling is the caller's, who needs its output."""
        height, width = (int(n) + -int(n) % self.window for n in x.shape[1:3])
        # Once a call, for all shifted blocks: no state to keep by size, device and precision.
        mask = shifted_window_mask(height, width, self.window, x) if len(self.blocks) > 1 else None
        for i, block in enumerate(self.blocks):
            x = block(x, mask if i % 2 == 1 else None)
        return x


class Swin(nn.Module):
    """Four-stage Swin Transformer.

    forward: images [B, 3, H, W] of any size, normalised, to `BackboneOutput` with strides 4, 8, 16, 32 (sizes
    rounded up); a pair is (stage output before its output norm, output of patch merging).

    embed_dim, depths, num_heads, window_size: as in the Swin paper, a stage doubles the channels.
    drop_path_rate: stochastic depth of the last block, growing linearly from 0.
    out_norms: stages (0 to 3) whose features pass an output LayerNorm; the others are the raw stage outputs.
    """

    def __init__(
        self,
        embed_dim: int,
        depths: Sequence[int],
        num_heads: Sequence[int],
        window_size: int,
        drop_path_rate: float = 0.3,
        out_norms: Sequence[int] = (0, 1, 2, 3),
    ):
        super().__init__()
        if len(depths) != 4 or len(num_heads) != 4 or not set(out_norms) <= {0, 1, 2, 3}:
            raise ValueError("Swin: four depths, four head counts, and out_norms from 0 to 3 are required")
        dims = [embed_dim * 2**i for i in range(4)]
        self.channels = tuple(dims)
        self.pair_channels = tuple(zip(dims[:-1], dims[1:], strict=True))
        self.out_norms = tuple(out_norms)
        self.patch_embed = PatchEmbed(
            img_size=None,
            patch_size=4,
            embed_dim=embed_dim,
            norm_layer=nn.LayerNorm,
            output_fmt="NHWC",
            dynamic_img_pad=True,
        )
        rates = calculate_drop_path_rates(drop_path_rate, list(depths), stagewise=True)
        self.layers = nn.ModuleList(Stage(dims[i], num_heads[i], window_size, rates[i], merge=i > 0) for i in range(4))
        for i in self.out_norms:
            self.add_module(f"norm{i}", nn.LayerNorm(dims[i]))
        self.apply(_initialise)

    def forward(self, images: Tensor) -> BackboneOutput:
        x = self.patch_embed(images)
        features, pairs = [], []
        for i, stage in enumerate(self.layers):
            if i > 0:
                fine, x = x, stage.downsample(x)
                pairs.append((_channels_first(fine), _channels_first(x)))
            x = stage(x)
            features.append(_channels_first(getattr(self, f"norm{i}")(x) if i in self.out_norms else x))
        return BackboneOutput(tuple(features), tuple(pairs))


def _channels_first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def _initialise(module: nn.Module) -> None:
    """Truncated normal (0.02) linear layers with zero bias; timm's modules start the rest by themselves."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def swin(variant: str, drop_path: float = 0.3, out_norms: Sequence[int] = (0, 1, 2, 3)) -> Swin:
    """A variant of `VARIANTS` with new weights; raises ValueError for an unknown one. drop_path: the largest rate of
    stochastic depth; out_norms as `Swin`."""
    size = _variant(variant)
    return Swin(size.embed_dim, size.depths, size.num_heads, size.window_size, drop_path, out_norms)


def load_imagenet(model: Swin, variant: str) -> None:
    """Copy timm's ImageNet weights (swin_s: IN-1k at 224, swin_l: IN-22k at 384) into model, in place.

    Output norms are not part of a classifier and keep their values. Raises RuntimeError when the weights
    cannot be fetched, ValueError when they do not fit.
    """
    import timm

    name = _variant(variant).weights
    try:
        state = timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    except Exception as error:  # timm, hub and network layers raise many kinds
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise RuntimeError(f"cannot load the ImageNet weights {name}: {reason}") from error
    load_timm_state(model, state)


def load_timm_state(model: Swin, state: dict[str, Tensor]) -> None:
    """Copy a timm Swin state dict into model, all of it but timm's own final norm and classifier."""
    state = {name: value for name, value in state.items() if not name.startswith(("norm.", "head."))}
    missing, unexpected = model.load_state_dict(state, strict=False)
    wrong = unexpected + [name for name in missing if not name.startswith("norm")]
    if wrong:
        raise ValueError(f"timm state dict does not fit this Swin: {', '.join(wrong[:3])}")


def _variant(name: str) -> SwinVariant:
    if name not in VARIANTS:
        raise ValueError(f"unknown Swin variant {name!r}; known: {', '.join(VARIANTS)}")
    return VARIANTS[name]
