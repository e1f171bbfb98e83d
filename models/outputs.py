"""What backbones and models return; every consumer (criterion, post-processing, evaluator) sees only these."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class BackboneOutput:
    """Feature pyramid and the pairs that the clustering attaches to.

    features: four maps [B, C_i, H/s_i, W/s_i], strides 4, 8, 16, 32 (without stem pooling 2 to 16), finest first.
        Dilated stages keep the stride of the stage before.
    pairs: (fine, downsampled) of the downsamplings (three, fewer with dilated stages), finest first; the downsampled
        map has half the size, rounded up. Section 2.2 of the paper: F^(i) and F_d^(i) before normalisation and 1x1
        convolution.
    """

    features: tuple[Tensor, ...]
    pairs: tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True)
class MaskPrediction:
    """A set of Q masks with classes.

    class_logits: [B, Q, K+1], the last entry is "no object".
    mask_logits: [B, Q, h, w], before the sigmoid.
    intermediate: (class_logits, mask_logits) of the earlier predictions, first to last; empty in evaluation.
    assignments: soft assignments [B, 9, h, w] of eq. 3, coarsest first; empty for models without clustering.
    scales: [L] the learnable scales s^(i) of eq. 3 (signed), None without clustering.
    """

    class_logits: Tensor
    mask_logits: Tensor
    intermediate: tuple[tuple[Tensor, Tensor], ...] = ()
    assignments: tuple[Tensor, ...] = ()
    scales: Tensor | None = None


@dataclass(frozen=True)
class PixelPrediction:
    """A class for every pixel (or cluster, decoded to pixels).

    logits: [B, K, h, w], before the softmax, at the model's own resolution: whoever needs the input's resizes them.
    auxiliary: [B, K, h', w'] of the auxiliary head on the third stage, in training only; None without such a head.
    assignments, scales: as in `MaskPrediction`.
    """

    logits: Tensor
    auxiliary: Tensor | None = None
    assignments: tuple[Tensor, ...] = ()
    scales: Tensor | None = None
