"""`bench benchmark`: times, memory and FLOPs of one run into `benchmark.json` and a chart, and a table to print."""

import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from tabulate import tabulate

from bench import provenance
from bench.experiments.experiment import experiment
from bench.experiments.hashing import content_hash
from bench.files import write_atomically
from bench.machine import default_device
from bench.measure.complexity.flops import network_flops
from bench.speed.chart import draw_speed
from bench.speed.peak_memory import OPERATIONS, peak_memory
from bench.speed.timings import GROUPS, IMAGE, METHODS, RATIOS, TRAINING_CROP, calls, ratios, timings
from models.clustering import fast_form

Progress = Callable[[int, int, str], None]
CPU_ROUNDS, CUDA_ROUNDS = 5, 50
_MEMORY = (*METHODS, *OPERATIONS)
LABELS = {
    "clustering_over_listing": "clustering, fast / listing 1 of the paper",
    "decoding_over_listing": "decoding, fast / listing 2 of the paper",
    "hcformer_over_maskformer": "network, HCFormer / MaskFormer",
    "hcformer_plus_over_maskformer": "network, HCFormer+ / MaskFormer",
    "hcformer_over_mask2former": "network, HCFormer / Mask2Former",
    "hcformer_over_own_backbone": "network, HCFormer / its own backbone alone",
    "hcformer_folded_over_hcformer": "network, HCFormer, batch norms folded / not folded",
    "maskformer_folded_over_maskformer": "network, MaskFormer, batch norms folded / not folded",
    "train_step_hcformer_over_maskformer": "training step, HCFormer / MaskFormer",
}


def benchmark(store: Path, progress: Progress) -> list[Path]:
    """Measure everything on this machine's GPU, else its CPU; write `benchmark.json` and `figures/speed.png`.

    A part that is measured is kept in the store's `work/` until the end: a run that was killed goes on after it, unless
    machine, software, commit or uncommitted edits differ. progress: called with the steps done, all steps, and a label.
    """
    device = default_device().type
    path, figure = store / "benchmark.json", store / "figures" / "speed.png"
    figure.parent.mkdir(parents=True, exist_ok=True)  # a store that cannot be written shows before minutes are spent
    facts, work = provenance.collect(), store / "work" / "benchmark.json"
    measured = _measure(_parts(device), device, work, progress)
    results = {name: part["value"] for name, part in measured.items()}
    samples = {name: values for group in GROUPS for name, values in results[group].items()}
    result = {
        "machine": {name: facts[name] for name in ("cpu", "cores", "threads", "gpu", "platform", "versions")},
        "protocol": f"R50, COCO panoptic, batch 1; networks at {IMAGE[0]}x{IMAGE[1]}, training at "
        f"{TRAINING_CROP}x{TRAINING_CROP}, float32, channels last; clustering at 128x200x336 and decoding of 100 masks "
        "to 200x336; timed in turns, ratios of medians (time over time: smaller is faster)",
        "clustering": ", ".join(sorted({measured[group]["clustering"] for group in GROUPS})),
        "ratios": ratios(samples),
        "median_ms": {name: statistics.median(values) for name, values in samples.items()},
        "peak_memory_mib": {what: results[f"memory of {what}"] for what in _MEMORY},
        "flops_g": {method: _flops(method) / 1e9 for method in METHODS},
        "samples": samples,
        "provenance": facts | {"duration_s": sum(part["seconds"] for part in measured.values())},
    }
    write_atomically(path, json.dumps(result, indent=1) + "\n")
    draw_speed(result["flops_g"], {method: samples[method] for method in METHODS}, device, figure)
    work.unlink(missing_ok=True)
    return [path, figure]


def _parts(device: str) -> dict[str, tuple[int, Callable]]:
    """Part -> (steps, function of a report that takes the steps done and a label), in their order."""
    rounds = CPU_ROUNDS if device == "cpu" else CUDA_ROUNDS
    parts = {group: (calls(group, rounds), partial(timings, group, device, rounds)) for group in GROUPS}
    return parts | {f"memory of {what}": (1, lambda report, what=what: peak_memory(what, device)) for what in _MEMORY}


def _measure(parts: dict[str, tuple[int, Callable]], device: str, work: Path, progress: Progress) -> dict[str, dict]:
    """By part what was measured ("value"), also by earlier, killed runs, the seconds, and the fast form that ran."""
    context, done, total = content_hash(provenance.state()), 0, sum(steps for steps, _ in parts.values())
    kept = _kept(work, context)
    for name, (steps, measure) in parts.items():
        progress(done, total, name)
        if name not in kept:
            begun = time.monotonic()
            value = measure(lambda step, label, done=done: progress(done + step, total, label))
            kept[name] = {"value": value, "seconds": time.monotonic() - begun, "clustering": fast_form(device)}
            write_atomically(work, json.dumps({"context": context, "parts": kept}))
        done += steps
    return kept


def _kept(work: Path, context: str) -> dict[str, dict]:
    try:
        kept = json.loads(work.read_text(encoding="utf-8"))
        return kept["parts"] if kept["context"] == context else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def tables(path: Path) -> str:
    """The ratios, and medians beside memory, of a `benchmark.json`, as text; what an older file lacks is left
    out."""
    result = json.loads(path.read_text(encoding="utf-8"))
    medians, memory = result["median_ms"], result["peak_memory_mib"]
    rows = []
    for name in (name for name in RATIOS if name in result["ratios"]):
        over, under = RATIOS[name]
        rows.append([LABELS[name], medians[over], medians[under], f"{result['ratios'][name]:.3f}",
                     len(result["samples"][over])])  # fmt: skip
    first = tabulate(rows, ["what", "ms", "ms", "ratio", "n"], floatfmt=".1f", disable_numparse=[3])
    rows = [
        [method, medians[method], result["flops_g"][method], memory[method]["peak_mib"], memory[method]["added_mib"]]
        for method in METHODS
    ]
    second = tabulate(rows, ["method", "ms", "FLOPs (G)", "peak memory (MiB)", "of which the pass"], floatfmt=".1f")
    rows = [[name, medians[name], memory[name]["added_mib"]] for name in OPERATIONS]
    third = tabulate(rows, ["operation", "ms", "memory it adds (MiB)"], floatfmt=".1f")
    parts = [first, second, third]
    if "clustering" in result:
        parts.append(f"The fast form of clustering and decoding that ran: {result['clustering']}.")
    return "\n\n".join(parts)


def _flops(method: str) -> int:
    from bench.zoo import build_model

    with torch.device("meta"):
        model = build_model(experiment(method, "r50", "coco_panoptic", "paper")).eval()
    return sum(network_flops(model, IMAGE, torch.device("meta"))[0].values())
