"""How near clustering and decoding come to the device's copy bandwidth, and which form is the fastest.

The floor of an operation is that it reads every input once and writes its output once; its share is the time that a
copy of as many bytes would take over the time it took. Inputs come from memory, not from a cache: the cache is
overwritten before every call, and the device waits until its launches are queued, so that launching is not timed.
"""

import itertools
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from bench.speed.timings import SIZES, clustering_inputs
from models.clustering import cluster, decode
from models.shifted import Compiled

COPY_BYTES = 2**30  # several times what any cache holds
WARM_UP, SAMPLES = 3, 30
_HEAD_START = 5_000_000  # cycles, some ms, in which the host queues the launches of the slowest form
DTYPES = (torch.float32, torch.bfloat16)


def copy_bandwidth(device: str, size: int = COPY_BYTES) -> float:
    """Bytes a second, read and written counted, of a copy of `size` bytes within the device's memory; the median."""
    source = torch.empty(size // 4, device=device).normal_()
    target = torch.empty_like(source)
    milliseconds = statistics.median(_time(lambda: target.copy_(source), device, torch.empty(0, device=device)))
    return 2 * size / milliseconds * 1000


def measure_shares(
    device: str, forms: tuple[str, ...], progress: Callable[[int, int, str], None],
    sizes: tuple[str, ...] = tuple(SIZES), flush_bytes: int = COPY_BYTES,
) -> dict:  # fmt: skip
    """{"copy_gb_s", "rows"}, rows of inference at all sizes and of training at the finest.

    Row: {"operation", "size", "dtype", "form", "ms" (median), "floor_mib", "share" (None in training)}.
    """
    bandwidth = copy_bandwidth(device, flush_bytes)
    flush = torch.empty(flush_bytes // 4, device=device)
    cases = [
        (op, size, dtype, False) for op, size, dtype in itertools.product(("clustering", "decoding"), sizes, DTYPES)
    ]
    cases += [(f"{op}, training", sizes[0], dtype, True) for op in ("clustering", "decoding") for dtype in DTYPES]
    rows = []
    for number, (operation, size, dtype, training) in enumerate(cases):
        kind = str(dtype).removeprefix("torch.")
        progress(number, len(cases), f"{operation} {size} {kind}")
        inputs = _inputs(operation, device, size, dtype, training)
        for form in forms:
            call = _call(operation, inputs, form, training)
            call()
            if form == "compiled" and Compiled.works is False:  # the reference form would be timed under its name
                continue
            milliseconds = statistics.median(_time(call, device, flush))
            floor = _bytes(*inputs, call())
            share = None if training else floor / bandwidth * 1000 / milliseconds
            rows.append({"operation": operation, "size": size, "dtype": kind, "form": form, "ms": milliseconds,
                         "floor_mib": floor / 2**20, "share": share})  # fmt: skip
    return {"copy_gb_s": bandwidth / 1e9, "rows": rows}


def fastest_forms(rows: list[dict]) -> dict[str, str]:
    """ "operation size dtype" -> the form of the smallest median."""
    best: dict[str, dict] = {}
    for row in rows:
        name = f"{row['operation']} {row['size']} {row['dtype']}"
        best[name] = min(best.get(name, row), row, key=lambda r: r["ms"])
    return {name: row["form"] for name, row in best.items()}


def _inputs(operation: str, device: str, size: str, dtype: torch.dtype, training: bool) -> tuple[Tensor, ...]:
    fine, coarse, masks, scale = clustering_inputs(device, size)
    fine, coarse, masks = (x.to(dtype, memory_format=torch.channels_last) for x in (fine, coarse, masks))
    if operation.startswith("decoding"):
        assignment = cluster(fine, coarse, scale).contiguous(memory_format=torch.channels_last)
        inputs = masks, assignment
    else:
        inputs = fine, coarse, scale
    return tuple(x.requires_grad_(training) for x in inputs)


def _call(operation: str, inputs: tuple[Tensor, ...], form: str, training: bool) -> Callable[[], Tensor]:
    function = decode if operation.startswith("decoding") else cluster
    if not training:
        return torch.no_grad()(lambda: function(*inputs, form))

    def step() -> Tensor:
        output = function(*inputs, form)
        torch.autograd.grad(output, inputs, torch.ones_like(output))
        return output.detach()

    return step


def _bytes(*tensors: Tensor) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def _time(call: Callable[[], object], device: str, flush: Tensor) -> list[float]:
    """Milliseconds of each of SAMPLES calls after WARM_UP ones."""
    if device == "cpu":
        return [_time_on_cpu(call, flush) for _ in range(WARM_UP + SAMPLES)][WARM_UP:]
    events = []
    for _ in range(WARM_UP + SAMPLES):
        flush.zero_()
        torch.cuda._sleep(_HEAD_START)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        events.append((start, end))
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in events[WARM_UP:]]


def _time_on_cpu(call: Callable[[], object], flush: Tensor) -> float:
    flush.zero_()
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1000
