"""The parts of `bench gpu-check`: what each measures, what counts as a failure, and how its result is shown.

A part is `run(device, store, progress, keep) -> (result as JSON, failures)`; `keep` takes what there is so far, should
the time run out. Packages that not every machine has are imported inside; a missing one skips the part.
"""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.experiments.backbones import get_backbone
from bench.experiments.methods import get_method
from bench.experiments.table import BASE_METHOD
from bench.loading import load_object

Progress = Callable[[int, int, str], None]
Keep = Callable[[dict], None]
TRAINING_STEPS = 20


@dataclass(frozen=True)
class Part:
    """seconds: its share of the eight minutes; what earlier parts leave over is added."""

    run: Callable[[str, Path, Progress, Keep], tuple[dict, list[str]]]
    seconds: float
    show: Callable[[dict], str]


def forms_on(device: str) -> tuple[str, ...]:
    """The forms that the device can run, the definition first."""
    from models import triton_kernels

    fused = device != "cpu" and triton_kernels.is_available()
    return ("reference", "compiled", "triton") if fused else ("reference", "compiled")


def kernels(device: str, store: Path, progress: Progress, keep: Keep) -> tuple[dict, list[str]]:
    """Every form against the definition in float64, forward and gradients."""
    from bench.speed.forms_check import check_forms

    rows = check_forms(device, forms_on(device)[::-1], progress, keep)  # the fused kernels first: time may run out
    failures = [
        f"{r['form']} {r['operation']} {r['dtype']} {r['said'] or 'is off by ' + _cell(r['error'])}"
        for r in rows
        if not r["passed"]
    ]
    return {"rows": rows}, failures


def bandwidth(device: str, store: Path, progress: Progress, keep: Keep) -> tuple[dict, list[str]]:
    """Times of all forms, the share of copy bandwidth that they reach, and the fastest form."""
    from bench.speed.bandwidth import fastest_forms, measure_shares

    result = measure_shares(device, forms_on(device), progress)
    return result | {"fastest": fastest_forms(result["rows"])}, []


def memory(device: str, store: Path, progress: Progress, keep: Keep) -> tuple[dict, list[str]]:
    """Peak memory of the allocator during one pass of each network, and of clustering and decoding in all forms."""
    import torch

    from bench.speed.peak_memory import OPERATIONS, measure
    from bench.speed.timings import METHODS

    wanted = [*OPERATIONS, *(m for m in METHODS if not missing_packages(m, "r50"))]
    rows = []
    for number, what in enumerate(wanted):
        progress(number, len(wanted), what)
        torch.cuda.empty_cache()
        rows.append({"what": what, **measure(what, device)})
    return {"rows": rows}, []


def training(device: str, store: Path, progress: Progress, keep: Keep) -> tuple[dict, list[str]]:
    """Twenty steps in bfloat16 on one image: finite losses that fall, and the time of a step beside MaskFormer's."""
    from bench.speed.timings import interleaved, training_functions

    losses: dict[str, list[float]] = {}

    def noted(name: str, step: Callable[[], float]) -> Callable[[], None]:
        return lambda: losses.setdefault(name, []).append(step())

    functions = {name: noted(name, step) for name, step in training_functions(device, mixed_precision=True).items()}
    total = (TRAINING_STEPS + 1) * len(functions)
    samples = interleaved(functions, TRAINING_STEPS, device, lambda name: progress(
        sum(map(len, losses.values())), total, name))  # fmt: skip
    rows = [
        {
            "what": name,
            "ms": statistics.median(samples[name]),
            "first_loss": seen[0],
            "last_loss": seen[-1],
            "losses": seen,
        }
        for name, seen in losses.items()
    ]
    failures = [
        f"{row['what']}: the loss went from {row['first_loss']:.3g} to {row['last_loss']:.3g}"
        for row in rows
        if not all(map(math.isfinite, row["losses"])) or row["last_loss"] >= row["first_loss"]
    ]
    return {"rows": rows, "samples": samples}, failures


def latency(device: str, store: Path, progress: Progress, keep: Keep) -> tuple[dict, list[str]]:
    """Latency records of every row of Table 1 that can be built here, by the protocol of the table."""
    from bench.experiments.tables import get_table
    from bench.records import Store
    from bench.run.jobs import Job, run_job
    from bench.run.set_aside import forget, set_aside

    wanted = [m for m in get_table("table1").measurements() if m.kind == "latency"]
    lacking = {m.experiment.key: missing_packages(m.experiment.method, m.experiment.backbone) for m in wanted}
    built = tuple(m.experiment for m in wanted if not lacking[m.experiment.key])
    again = [m for m in wanted if m.experiment in built]
    set_aside(Store(store), "gpu-check", again)  # an earlier check that ran out of time goes on
    command = ("bench", "gpu-check", "--part", "latency")
    run_job(Job("latency", built, str(store), command=command), progress)
    forget(Store(store), "gpu-check")
    measured = {e: Store(store).get(e, "latency").metrics for e in built}
    base = {e.backbone: m["latency_network"]["value"] for e, m in measured.items() if e.method == BASE_METHOD}
    shown = [
        {"method": e.method, "backbone": e.backbone, "network_ms": m["latency_network"]["value"],
         "end_to_end_ms": m["latency_end_to_end"]["value"], "n": m["latency_network"]["n"],
         "over_maskformer": m["latency_network"]["value"] / base[e.backbone] if e.backbone in base else None}
        for e, m in measured.items()
    ]  # fmt: skip
    return {
        "rows": shown,
        "left_out": {key: f"package {name} is not installed" for key, name in lacking.items() if name},
    }, []


def missing_packages(method: str, backbone: str) -> str | None:
    """The package that this model needs and that is not installed, if there is one."""
    for builder in (get_method(method).builder, get_backbone(backbone).builder):
        try:
            load_object(builder)
        except ModuleNotFoundError as error:
            return (error.name or "?").partition(".")[0]
    return None


def _table(result: dict, *columns: str) -> str:
    """Aligned text without a package: the rows' columns, numbers with three significant digits."""
    lines = [columns, *([_cell(row[name]) for name in columns] for row in result["rows"])]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join(
        "  " + "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _show_bandwidth(result: dict) -> str:
    rows = _table(result, "operation", "size", "dtype", "form", "ms", "floor_mib", "share")
    fastest = "\n".join(f"  fastest, {name}: {form}" for name, form in result["fastest"].items())
    return f"  copy bandwidth {result['copy_gb_s']:.0f} GB/s, read and written\n{rows}\n{fastest}"


def _show_latency(result: dict) -> str:
    rows = _table(result, "method", "backbone", "network_ms", "end_to_end_ms", "over_maskformer", "n")
    return "\n".join([rows, *(f"  left out: {key}, {reason}" for key, reason in result["left_out"].items())])


PARTS: dict[str, Part] = {
    "kernels": Part(
        kernels, 100, lambda r: _table(r, "form", "operation", "dtype", "cases", "error", "limit", "passed", "said")
    ),
    "bandwidth": Part(bandwidth, 80, _show_bandwidth),
    "memory": Part(memory, 50, lambda r: _table(r, "what", "peak_mib", "added_mib")),
    "training": Part(training, 70, lambda r: _table(r, "what", "ms", "first_loss", "last_loss")),
    "latency": Part(latency, 160, _show_latency),
}
