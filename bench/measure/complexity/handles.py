"""What every operator counts: fvcore's convention, plus the operators that fvcore silently counts as zero.

One multiply-add counts one. A handle maps (arguments, output) of an ATen operator to its number of multiply-adds.
Beyond matrix products and convolutions the convention is fvcore's own estimate: batch norm 2 an element (evaluation),
layer and group norm 5, bilinear resizing and sampling 4 an output element, element-wise operators 0.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from bench.errors import BenchError

Handle = Callable[[Sequence[Any], Any], int]


class UncountedOperator(BenchError):
    """An operator that may hold multiply-adds has no handle, so that a total would be wrong."""

    def __init__(self, name: str):
        super().__init__(
            f"operator '{name}' has no FLOPs handle: add one to HANDLES in bench/measure/complexity/handles.py, "
            "or to FREE if it holds no multiply-adds"
        )
        self.operator = name


def linear(args: Sequence[Any], output: Tensor) -> int:
    """x [..., C_in], weight [C_out, C_in]: one multiply-add for every output element and input channel."""
    return output.numel() * args[1].shape[-1]


def matrix_product(first: int) -> Handle:
    """Handle for [b,] n x k times [b,] k x m; `first` is the position of the left factor among the arguments."""

    def handle(args: Sequence[Any], output: Tensor) -> int:
        return args[first].numel() * args[first + 1].shape[-1]

    return handle


def convolution(args: Sequence[Any], output: Tensor) -> int:
    """weight [C_out, C_in/groups, *kernel] is applied at every output position (transposed: input position)."""
    image, weight, transposed = args[0], args[1], args[6]
    positions = (image if transposed else output).shape[2:]
    return image.shape[0] * weight.numel() * prod(positions)


def deform_conv2d(args: Sequence[Any], output: Tensor) -> int:
    """The convolution it replaces: C_out * C_in/groups * kh * kw * H_out * W_out; the sampling is not counted."""
    return output.numel() * prod(args[1].shape[1:])


def scaled_dot_product_attention(args: Sequence[Any], output: Tensor) -> int:
    """query [..., L_q, d], key [..., L_k, d], value [..., L_k, d_v]: both products, L_q * L_k * (d + d_v) a head."""
    query, key, value = args[:3]
    return prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def roi_align(args: Sequence[Any], output: Tensor) -> int:
    """Every output element is the mean of sampling_ratio^2 bilinear samples of 4 each. (fvcore: 0.)

    Raises UncountedOperator for adaptive sampling, where their number depends on the boxes.
    """
    sampling_ratio = args[5]
    if sampling_ratio < 1:
        raise UncountedOperator("torchvision::roi_align with adaptive sampling")
    return 4 * sampling_ratio**2 * output.numel()


def multi_head_attention(batch: int, queries: int, keys: int, width: int) -> int:
    """Projections of query, key, value and output, and the two products of the attention itself."""
    projections = (2 * queries + 2 * keys) * width * width
    return batch * (projections + 2 * queries * keys * width)


def native_multi_head_attention(args: Sequence[Any], output: Any) -> int:
    """The fused fast path of nn.MultiheadAttention; query [B, L_q, E], key [B, L_k, E]."""
    batch, queries, width = args[0].shape
    return multi_head_attention(batch, queries, args[1].shape[1], width)


def transformer_encoder_layer(args: Sequence[Any], output: Tensor) -> int:
    """The fused fast path of nn.TransformerEncoderLayer: self-attention, two layer norms, two linear layers."""
    batch, length, width = args[0].shape
    feed_forward = args[14].shape[0]
    attention = multi_head_attention(batch, length, length, width)
    return attention + batch * length * width * (2 * feed_forward + 2 * 5)


def per_element(of_output: int = 0, of_input: int = 0) -> Handle:
    """Handle for operators that count a constant for every output (input) element."""

    def handle(args: Sequence[Any], output: Tensor) -> int:
        return of_output * output.numel() if of_output else of_input * args[0].numel()

    return handle


def avg_pool2d(args: Sequence[Any], output: Tensor) -> int:
    """Every output element is the mean of a window: one an element of it, as `adaptive_avg_pool2d`. (fvcore: 0.)"""
    kernel = args[1]
    return output.numel() * (kernel[0] ** 2 if len(kernel) == 1 else prod(kernel))


def norm(weight: int) -> Handle:
    """Layer, group and instance norm: 5 an element, 4 without affine map; `weight` is the position of the scale."""

    def handle(args: Sequence[Any], output: Any) -> int:
        affine = len(args) > weight and args[weight] is not None  # trailing defaults are not passed on
        return args[0].numel() * (5 if affine else 4)

    return handle


def batch_norm(args: Sequence[Any], output: Tensor) -> int:
    """Evaluation: a scale and a shift an element (1 without affine map); training as the other norms."""
    training = args[5]
    return norm(1)(args, output) if training else args[0].numel() * (1 if args[1] is None else 2)


HANDLES: dict[str, Handle] = {
    "aten::linear": linear,
    "aten::mm": matrix_product(0),
    "aten::bmm": matrix_product(0),
    "aten::addmm": matrix_product(1),
    "aten::baddbmm": matrix_product(1),
    "aten::convolution": convolution,
    "torchvision::deform_conv2d": deform_conv2d,
    "torchvision::roi_align": roi_align,
    "aten::scaled_dot_product_attention": scaled_dot_product_attention,
    "aten::_native_multi_head_attention": native_multi_head_attention,
    "aten::_transformer_encoder_layer_fwd": transformer_encoder_layer,
    "aten::batch_norm": batch_norm,
    "aten::instance_norm": norm(1),
    "aten::layer_norm": norm(2),
    "aten::group_norm": norm(2),
    "aten::upsample_nearest2d": per_element(of_output=1),
    "aten::upsample_bilinear2d": per_element(of_output=4),
    "aten::grid_sampler": per_element(of_output=4),  # bilinear, the only mode the models use
    "aten::adaptive_avg_pool2d": per_element(of_input=1),
    "aten::avg_pool2d": avg_pool2d,
    "aten::addcmul": per_element(of_output=1),  # ConvNeXt V2's response normalisation. (fvcore: 0.)
    # A square and an addition an element: l2 normalisation of the embeddings of eq. 3. (fvcore: 0.)
    "aten::linalg_vector_norm": per_element(of_input=1),
}

# Point-wise by their tag, yet a multiply-add an element: not free.
FUSED_POINTWISE = {"aten::addcmul", "aten::addcdiv", "aten::lerp"}

# No multiply-adds: creation, copies, indexing, comparisons, searches, plain sums, and soft-max as in fvcore.
# In-place variants are meant too; views and point-wise operators are recognised by PyTorch's own description of them.
FREE: set[str] = {
    f"aten::{name}"
    for name in (
        # creation
        "arange empty empty_like full full_like linspace meshgrid new_empty new_full new_ones new_zeros ones "
        "ones_like scalar_tensor zeros zeros_like eye "
        # copies and indexing
        "_to_copy _unsafe_view cat constant_pad_nd copy detach fill flip gather im2col index index_put index_select "
        "lift_fresh masked_fill masked_scatter pad repeat repeat_interleave replication_pad2d roll scatter stack "
        # comparisons, searches, sums, soft-max
        "_local_scalar_dense _softmax amax amin aminmax any all argmax argmin argsort cumsum dropout equal "
        "floor_divide log_softmax _log_softmax max max_pool2d max_pool2d_with_indices mean min nonzero prod remainder "
        "softmax sort sum topk _unique2 "
        # point-wise activations that PyTorch does not tag so
        "hardswish hardtanh leaky_relu"
    ).split()
} | {"torchvision::nms"}  # overlaps of boxes, element by element, and comparisons


def is_free(operator: torch._ops.OpOverload) -> bool:
    """Whether the operator only moves, creates, compares or transforms elements one by one."""
    name = operator._schema.name
    pointwise = torch.Tag.pointwise in operator.tags and name not in FUSED_POINTWISE
    return name.rstrip("_") in FREE or operator.is_view or pointwise
