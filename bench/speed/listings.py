"""Clustering and decoding as the paper prints them (appendix C): what the fast forms are measured against."""

import torch
import torch.nn.functional as F
from torch import Tensor


def listing_1(fine: Tensor, coarse: Tensor, scale: Tensor) -> Tensor:
    """Soft clustering with unfold, einsum and fold. fine [B, C, 2h, 2w], coarse [B, C, h, w] -> [B, 9, 2h, 2w].

    Both maps hold unit vectors. The listing's undefined name is read as the downsampled feature; its zero padding
    takes part in the softmax.
    """
    batch, channels, height, width = fine.shape
    clusters = F.unfold(coarse, 3, padding=1).reshape(batch, channels, 9, -1)
    pixels = F.unfold(fine, 2, stride=2).reshape(batch, channels, 4, -1)
    similarity = torch.einsum("bkcn,bkpn->bcpn", clusters, pixels).reshape(batch * 9, 4, -1)
    similarity = F.fold(similarity, (height, width), 2, stride=2).reshape(batch, 9, height, width)
    return (similarity / scale.abs()).softmax(1)


def listing_2(masks: Tensor, assignment: Tensor) -> Tensor:
    """Decoding with unfold, einsum and fold. masks [B, Q, h, w], assignment [B, 9, 2h, 2w] -> [B, Q, 2h, 2w]."""
    batch, _, height, width = assignment.shape
    queries = masks.shape[1]
    clusters = F.unfold(masks, 3, padding=1).reshape(batch, queries, 9, -1)
    shares = F.unfold(assignment, 2, stride=2).reshape(batch, 9, 4, -1)
    decoded = torch.einsum("bkcn,bcpn->bkpn", clusters, shares).reshape(batch, queries * 4, -1)
    return F.fold(decoded, (height, width), 2, stride=2)
