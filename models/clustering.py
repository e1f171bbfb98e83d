"""Attention as clustering (eq. 3) and cluster-based decoding (eq. 5), with the local attention of section 2.4.

Every pixel of the fine map belongs to the 2x2 window of one pixel of the downsampled map. It is assigned to that
pixel or to one of its eight neighbours, so an assignment has nine entries, in row-major order of the neighbourhood.

`cluster` and `decode` come in forms that compute the same: "reference", the definition, which is also the eager form;
"compiled" (`models/shifted.py`), bound by memory, for which torch.compile has to find a compiler; "triton", fused
kernels for CUDA (`models/triton_kernels/`). Compilation takes half a minute once a process, so it must be asked for:
`use_form(model, fast_form(device))`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import shifted
from models.precision import in_float32
from models.shifted import NEIGHBOURS, NORM_EPSILON, SCALE_EPSILON

FORMS = ("reference", "compiled", "triton")


def cluster(fine: Tensor, coarse: Tensor, scale: Tensor, form: str = "reference") -> Tensor:
    """Soft assignment of fine pixels to clusters by cosine similarity, eq. 3.

    fine: [B, C, H, W]; coarse: [B, C, ceil(H/2), ceil(W/2)]; both are l2-normalised here, over C.
    scale: s, a tensor of one element, used as |s|. form: one of FORMS.
    Returns [B, 9, H, W], non-negative, summing to 1 over the nine neighbours, of fine's type; computed in float32.

    Neighbours outside the map take no part in the softmax: their entry is exactly 0. (Listing 1 of the paper pads
    with zeros, which lets a non-existing cluster of similarity 0 draw probability at the border.)
    Raises ValueError if the sizes do not belong together or the form is unknown.
    """
    height, width = fine.shape[-2:]
    rows, cols = coarse.shape[-2:]
    if (rows, cols) != ((height + 1) // 2, (width + 1) // 2) or fine.shape[:2] != coarse.shape[:2]:
        raise ValueError(
            f"cannot cluster {tuple(fine.shape)} with {tuple(coarse.shape)}: the coarse map must be half as large"
        )
    result = None
    if _check(form) == "triton":
        from models import triton_kernels  # here, as importing Triton takes time

        result = triton_kernels.cluster(fine, coarse, scale)
    elif form == "compiled" and min(rows, cols) > 1:  # a single row or column would be compiled apart
        result = shifted.cluster(fine, coarse, scale)
    return _cluster(fine, coarse, scale).to(fine.dtype) if result is None else result


def decode(masks: Tensor, assignment: Tensor, form: str = "reference") -> Tensor:
    """Upsample cluster values to the pixels of the clusters, eq. 5 (without its sigmoid: it works on logits too).

    masks: [B, Q, ceil(H/2), ceil(W/2)]; assignment: [B, 9, H, W]; form: one of FORMS. Returns [B, Q, H, W] of the
    masks' type, summed in float32 (the reference form: in the masks' type).
    Raises ValueError if the sizes do not belong together or the form is unknown.
    """
    height, width = assignment.shape[-2:]
    rows, cols = masks.shape[-2:]
    if (rows, cols) != ((height + 1) // 2, (width + 1) // 2) or len(masks) != len(assignment):
        raise ValueError(
            f"cannot decode {tuple(masks.shape)} by {tuple(assignment.shape)}: the masks must be half as large"
        )
    result = None
    if _check(form) == "triton":
        from models import triton_kernels

        result = triton_kernels.decode(masks, assignment)
    elif form == "compiled" and min(rows, cols) > 1:
        result = shifted.decode(masks, assignment)
    return _decode(masks, assignment) if result is None else result


def fast_form(device: torch.device | str) -> str:
    """The fastest form on a device: "triton" on CUDA where Triton is installed, else "compiled".

    "reference" once it has shown that no compiler works.
    """
    if torch.device(device).type == "cuda":
        from models import triton_kernels

        if triton_kernels.is_available():
            return "triton"
    return "reference" if shifted.Compiled.works is False else "compiled"


def use_form(model: nn.Module, form: str) -> nn.Module:
    """Let a model cluster and decode in this form from now on; models without clustering stay as they are.

    Raises ValueError for an unknown form.
    """
    for module in model.modules():
        if hasattr(module, "form"):
            module.form = _check(form)
    return model


def hard_assignment(assignment: Tensor) -> Tensor:
    """One-hot assignment to the most similar cluster, eq. 2: the limit of eq. 3 for s -> 0. [B, 9, H, W]."""
    return torch.zeros_like(assignment).scatter_(1, assignment.argmax(1, keepdim=True), 1.0)


def decode_through(masks: Tensor, assignments: tuple[Tensor, ...], form: str = "reference") -> Tensor:
    """Apply eq. 5 level after level. assignments: coarsest first. [B, Q, h, w] -> [B, Q, H, W]."""
    for assignment in assignments:
        masks = decode(masks, assignment, form)
    return masks


def _check(form: str) -> str:
    if form not in FORMS:
        raise ValueError(f"form '{form}' is none of {', '.join(FORMS)}")
    return form


@in_float32
def _cluster(fine: Tensor, coarse: Tensor, scale: Tensor) -> Tensor:
    height, width = fine.shape[-2:]
    rows, cols = coarse.shape[-2:]
    fine, coarse = (F.normalize(x, dim=1, eps=NORM_EPSILON) for x in (fine, coarse))
    similarity = torch.bmm(_windows(fine), _neighbourhoods(coarse).mT).view(len(fine), rows * cols, 4, 9)
    logits = similarity / (scale.abs() + SCALE_EPSILON)
    inside = _neighbourhoods(coarse.new_ones(1, 1, rows, cols)).view(1, rows * cols, 1, 9)
    assignment = logits.masked_fill(inside == 0, float("-inf")).softmax(3)
    return _from_windows(assignment, rows, cols)[..., :height, :width]


def _decode(masks: Tensor, assignment: Tensor) -> Tensor:
    height, width = assignment.shape[-2:]
    rows, cols = masks.shape[-2:]
    decoded = torch.bmm(_windows(assignment).to(masks.dtype), _neighbourhoods(masks))
    return _from_windows(decoded.view(len(masks), rows * cols, 4, -1), rows, cols)[..., :height, :width]


def _windows(x: Tensor) -> Tensor:
    """The 2x2 windows of a map [B, C, H, W], padded to even size: [B*h*w, 4, C]."""
    height, width = x.shape[-2:]
    if height % 2 or width % 2:
        x = F.pad(x, (0, width % 2, 0, height % 2))
    x = x.permute(0, 2, 3, 1).unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # [B, h, 2, w, 2, C]
    return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def _from_windows(x: Tensor, rows: int, cols: int) -> Tensor:
    """Inverse of `_windows`: [B, h*w, 4, C] -> [B, C, 2h, 2w]."""
    return x.unflatten(2, (2, 2)).unflatten(1, (rows, cols)).permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def _neighbourhoods(x: Tensor) -> Tensor:
    """The 3x3 neighbourhood of every pixel of [B, C, h, w], zeros outside the map: [B*h*w, 9, C].

    Channels last, so that the copies are of whole rows: several times faster than `unfold` on a CPU.
    """
    rows, cols = x.shape[-2:]
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    shifted_ = [padded[:, 1 + dy : 1 + dy + rows, 1 + dx : 1 + dx + cols] for dy, dx in NEIGHBOURS]
    return torch.stack(shifted_, 3).flatten(0, 2)


class Clustering(nn.Module):
    """The clustering module of figure 2: LayerNorm, bias-free 1x1 convolution, l2 normalisation, eq. 3.

    fine_channels, coarse_channels: channels of the map before and after the downsampling.
    embedding_channels: C_F, 128 in the paper. The scale s starts at 0.1 (appendix D). form: see `cluster`.
    """

    def __init__(self, fine_channels: int, coarse_channels: int, embedding_channels: int = 128):
        super().__init__()
        self.form = "reference"
        self.fine_norm = nn.LayerNorm(fine_channels)
        self.coarse_norm = nn.LayerNorm(coarse_channels)
        self.fine_embedding = nn.Conv2d(fine_channels, embedding_channels, 1, bias=False)
        self.coarse_embedding = nn.Conv2d(coarse_channels, embedding_channels, 1, bias=False)
        self.scale = nn.Parameter(torch.full((1,), 0.1))
        nn.init.xavier_normal_(self.fine_embedding.weight)
        nn.init.xavier_normal_(self.coarse_embedding.weight)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """fine [B, C1, H, W], coarse [B, C2, ceil(H/2), ceil(W/2)] -> soft assignment [B, 9, H, W]."""
        fine = self._embed(fine, self.fine_norm, self.fine_embedding)
        coarse = self._embed(coarse, self.coarse_norm, self.coarse_embedding)
        return cluster(fine, coarse, self.scale, self.form)

    @staticmethod
    def _embed(x: Tensor, norm: nn.LayerNorm, embedding: nn.Conv2d) -> Tensor:
        """The 1x1 convolution as a linear map of channels-last rows: nothing is transposed, nothing copied."""
        return F.linear(norm(x.permute(0, 2, 3, 1)), embedding.weight.flatten(1)).permute(0, 3, 1, 2)


class HierarchicalClustering(nn.ModuleList):
    """The clustering modules of the coarsest `hierarchical_level` downsamplings, coarsest first.

    pair_channels: channels before and after each downsampling, finest first, as a backbone names them.
    Raises ValueError where the backbone has fewer downsamplings than `hierarchical_level`.
    """

    def __init__(self, pair_channels: Sequence[tuple[int, int]], hierarchical_level: int, embedding_channels: int):
        if not 0 <= hierarchical_level <= len(pair_channels):
            raise ValueError(f"hierarchical level {hierarchical_level} is not in 0..{len(pair_channels)}")
        coarsest_first = pair_channels[::-1][:hierarchical_level]
        super().__init__(Clustering(fine, coarse, embedding_channels) for fine, coarse in coarsest_first)

    def forward(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, ...]:
        """A backbone's pairs (before, after), finest first -> soft assignments, coarsest first."""
        used = pairs[::-1][: len(self)]
        return tuple(module(*pair) for module, pair in zip(self, used, strict=True))

    def scales(self) -> Tensor | None:
        """[L] the scales s^(i), coarsest first; None at level 0."""
        return torch.cat([module.scale for module in self]) if len(self) else None
