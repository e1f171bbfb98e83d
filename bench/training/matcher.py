"""Hungarian matching of predicted masks to targets (DETR, MaskFormer), on sampled points."""

import torch
import torch.nn.functional as F
from torch import Tensor

CLASS_COST, MASK_COST, DICE_COST = 2.0, 5.0, 5.0


@torch.no_grad()
def matching_costs(class_logits: Tensor, logits: Tensor, labels: Tensor, target: Tensor) -> Tensor:
    """Cost of every (query, target) pair, [M, Q, N]: 2 class + 5 point-sampled cross-entropy + 5 dice.

    class_logits [M, Q, K+1]; labels [M, N]; mask logits [M, Q, P] and target [M, N, P] (0..1) at the same P points.
    """
    probability = class_logits.float().softmax(-1)
    cost_class = -probability.gather(2, labels[:, None].expand(-1, probability.shape[1], -1))
    product = logits @ target.mT
    cost_mask = (F.softplus(logits).sum(-1, keepdim=True) - product) / logits.shape[2]  # bce(x, t) = softplus(x) - x t
    logits = logits.sigmoid()
    total = logits.sum(-1)[:, :, None] + target.sum(-1)[:, None]
    cost_dice = 1 - (2 * (logits @ target.mT) + 1) / (total + 1)
    return CLASS_COST * cost_class + MASK_COST * cost_mask + DICE_COST * cost_dice


def assign(costs: Tensor, counts: list[int]) -> list[tuple[Tensor, Tensor]]:
    """Minimum-cost assignment of each problem: costs [M, Q, N], the first counts[m] columns are its targets.

    Returns M pairs (query index, target index), each of length min(Q, counts[m]), queries ascending.
    """
    from scipy.optimize import linear_sum_assignment  # here: speed and counts must do without scipy

    costs = torch.nan_to_num(costs, nan=1e9, posinf=1e9, neginf=1e9)  # the loss will tell, not the solver
    result = []
    for cost, count in zip(costs.cpu(), counts, strict=True):
        query, target = linear_sum_assignment(cost[:, :count].numpy())
        result.append((torch.as_tensor(query), torch.as_tensor(target)))
    return result
