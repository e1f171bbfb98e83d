"""Counts the multiply-adds of a forward pass, on meta tensors if one likes (no arithmetic, no memory).

fvcore's own counter reads a `torch.jit` trace. On meta tensors no trace can be had: while tracing, sizes are tensors,
and the shape checks of the meta convolution (`torch._check`) refuse them. So the operators are observed where PyTorch
dispatches them instead. In inference mode the dispatcher shows the same operators that a trace names (`aten::linear`,
`aten::layer_norm`, ...), and a pass through Swin-L takes a tenth of a second; tests compare the counts with fvcore's.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from bench.measure.complexity.handles import HANDLES, UncountedOperator, is_free

_PRODUCTS = {"aten::mul", "aten::mul_", "aten::multiply"}
_SUMS = {"aten::sum", "aten::mean", "aten::add", "aten::add_", "aten::sub", "aten::sub_"}
_COPIES = {"aten::reshape", "aten::contiguous", "aten::clone", "aten::flatten", "aten::_to_copy", "aten::to"}


class OperatorCounter(TorchDispatchMode):
    """Context in which every ATen operator is counted, in inference mode; `counts` maps operator name to FLOPs.

    An operator with a handle counts by it. Without one it is free, or it is taken apart into the operators it is
    composed of (einsum, matmul, ...), or it raises UncountedOperator. Element-wise products of two tensors that are
    summed up are contractions in disguise (multi-scale deformable attention, local attention, cluster-based
    decoding): the sum or addition counts one multiply-add for every element of the product.
    """

    def __init__(self):
        super().__init__()
        self.counts: Counter[str] = Counter()
        self._products: set[StorageWeakRef] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._schema.name
        handle = HANDLES.get(name)
        if handle is not None:
            output = func(*args, **kwargs)
            self._add(name, handle(args, output))
            return output
        if is_free(func):
            output = func(*args, **kwargs)
            self._follow_product(name, args, output)
            return output
        with self:
            output = func.decompose(*args, **kwargs)
        if output is NotImplemented:
            raise UncountedOperator(name)
        return output

    def _add(self, name: str, count: int) -> None:
        short = name.rpartition("::")[2]
        self.counts[{"convolution": "conv"}.get(short, short)] += count

    def _follow_product(self, name: str, args: Sequence[Any], output: Any) -> None:
        """Remembers which storages hold an element-wise product (views share them) and counts sums over those."""
        if name in _PRODUCTS:
            if all(isinstance(factor, Tensor) and factor.numel() > 1 for factor in args[:2]):
                self._products.add(StorageWeakRef(output.untyped_storage()))
        elif name in _SUMS:
            for term in filter(self._is_product, args[:2]):
                self._add("product_sum", term.numel())
        elif name in _COPIES and self._is_product(args[0]):
            self._products.add(StorageWeakRef(output.untyped_storage()))

    def _is_product(self, tensor: Any) -> bool:
        return isinstance(tensor, Tensor) and StorageWeakRef(tensor.untyped_storage()) in self._products


def count_flops(function: Callable[..., Any], inputs: Sequence[Any]) -> tuple[int, dict[str, int]]:
    """FLOPs (one multiply-add counts one) of `function(*inputs)`, in total and by operator.

    function: a module in evaluation mode, or any callable on tensors; its output is dropped.
    inputs: its positional arguments; with meta tensors (and a module built on the meta device) nothing is computed.
    Raises UncountedOperator, naming the operator, rather than leave out one that may hold multiply-adds.
    """
    with torch.inference_mode(), OperatorCounter() as counter:
        function(*inputs)
    by_operator = {name: count for name, count in counter.counts.most_common() if count}
    return sum(by_operator.values()), by_operator
