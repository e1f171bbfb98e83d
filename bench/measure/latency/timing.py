"""Latency of several models on this machine, all in one run, one after the other, round by round.

Interleaving spreads slow phases of the machine over all models, so that their ratios stay fair. Weights are random:
speed does not depend on them. What does depend on predictions is the post-processing of masks, which would find
nothing to do on those of a random model; it is timed on a fixed synthetic prediction of the model's output shape
(`workbench.synthetic_prediction`).
"""

import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from bench import provenance
from bench.errors import BenchError
from bench.experiments.datasets import get_dataset
from bench.experiments.experiment import Experiment
from bench.experiments.hashing import content_hash
from bench.experiments.inference_rules import padding
from bench.experiments.methods import get_method
from bench.experiments.tables import latency_bases
from bench.measure.complexity.flops import Progress
from bench.measure.complexity.protocol import ImageSizes, Size, counted_images, size_text
from bench.measure.inference import batch_norms_text
from bench.measure.latency.timing_log import TimingLog
from bench.measure.latency.workbench import CONFIDENT_QUERIES, Workbench
from bench.measure.measured import Measured
from bench.records import samples_beside
from models.clustering import fast_form

FOLD_BATCH_NORMS = False  # as the reference latencies were measured: True goes with measuring them anew
_MADE_OF = {  # what end to end contains besides the network, by task
    "panoptic": f"panoptic segments of a synthetic prediction with {CONFIDENT_QUERIES} confident queries",
    "instance": f"the 100 best instances of a synthetic prediction with {CONFIDENT_QUERIES} confident queries",
    "semantic": f"labels of a synthetic prediction with {CONFIDENT_QUERIES} confident queries",
    "pixel": "the class logits brought to the original size and argmax",
}


@dataclass(frozen=True)
class LatencyProtocol:
    """How often is timed. Every model first passes `warm_up_passes` images of `warm_up_size`, untimed.

    warm_up_size: None for that of the timed image.
    """

    warm_up_size: Size | None
    warm_up_passes: int
    min_rounds: int
    max_rounds: int


# On a CPU a pass takes seconds, and no kernel is tuned to the shape: a smaller warm-up and few rounds do.
CPU_PROTOCOL = LatencyProtocol(warm_up_size=(256, 352), warm_up_passes=1, min_rounds=3, max_rounds=30)
CUDA_PROTOCOL = LatencyProtocol(warm_up_size=None, warm_up_passes=5, min_rounds=50, max_rounds=50)


def summarise(samples: Sequence[float]) -> dict:
    """Median ("value") and 90th percentile ("p90", linear between neighbours) of samples in ms."""
    p90 = torch.tensor(samples, dtype=torch.float64).quantile(0.9).item()
    return {"value": statistics.median(samples), "unit": "ms", "n": len(samples), "p90": p90}


def timed_image(experiment: Experiment) -> ImageSizes:
    """The image that is timed: the commonest of those that FLOPs are counted on (of COCO's, 640x480 on disk).

    Raises BenchError where there is none, as `counted_images` does.
    """
    ((image, _),) = Counter(counted_images(experiment)).most_common(1)
    return image


def measure_latency(
    experiments: Sequence[Experiment],
    scratch: Path,
    budget_s: float,
    progress: Progress | None = None,
    device: str = "cpu",
    build: Callable[[Experiment], nn.Module] | None = None,
    protocol: LatencyProtocol | None = None,
    image: ImageSizes | None = None,
) -> dict[str, Measured]:
    """Latency of every experiment, by its key: batch 1, inference mode, network alone and end to end.

    Samples are in ms, one a round, also those of what an experiment is compared with, if that is among these
    (`samples_beside`); metrics are medians of its own.

    scratch: file to which every single timing is appended. A killed run goes on from it in the same round, unless
        machine, software, commit, uncommitted edits, experiments or protocol differ. It is the caller's to remove
        afterwards.
    budget_s: wall time in seconds, that of earlier, killed parts of the run included. A further round is begun only
        if it fits, but never fewer than `protocol.min_rounds` and never more than `protocol.max_rounds`.
    progress: called with the timings done, those expected in all, and what is being done.
    device: "cpu" or "cuda". build: default `bench.zoo.build_model`. protocol: default by device. image: default
        `timed_image`, which must be the same for all experiments, but for their methods' padding.
    Raises BenchError for a device that is not there, ValueError for experiments with different images.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise BenchError("device 'cuda' is not available: use 'cpu', or a machine with a GPU")
    mark = time.perf_counter()
    protocol = protocol or (CPU_PROTOCOL if device == "cpu" else CUDA_PROTOCOL)
    images = {e.key: image or timed_image(e) for e in experiments}
    if len({(each.original, each.image) for each in images.values()}) > 1:
        raise ValueError("experiments that are timed together need one image size")
    keys = list(images)
    log = TimingLog(scratch, _context(device, protocol, images), keys)
    report = _reporter(progress, log, protocol, budget_s)
    bench = None
    done = 0
    while done < _rounds(log, done, protocol, budget_s):
        for key in (key for key in keys if (done, key) not in log):
            load = _load_average()
            if bench is None:  # not before it is known that something is left to time
                bench = _warm_bench(experiments, device, build, protocol, images, report)
            report(key)
            network_ms, end_to_end_ms = bench.time(key)
            now = time.perf_counter()
            log.append(done, key, network_ms, end_to_end_ms, now - mark, load, fast_form(device))
            mark = now
        done += 1
    report("timed")
    measured = {}
    for e in experiments:
        samples = _samples(log, e.key, done)
        metrics = {name: summarise(values) for name, values in samples.items()}
        bases = [base for base in latency_bases(e) if base.key in keys]
        for base in bases:
            samples |= {samples_beside(name, base): of for name, of in _samples(log, base.key, done).items()}
        details = _details([e, *bases], log, device, protocol, images[e.key], done)
        measured[e.key] = Measured(metrics, log.spent_s(), details, samples)
    return measured


def _warm_bench(experiments, device, build, protocol, images, report) -> Workbench:
    if build is None:
        from bench.zoo import build_model as build  # only here: the module must import without every model's package
    report("building the models")
    bench = Workbench(experiments, device, build, images, FOLD_BATCH_NORMS)
    for experiment in experiments:
        report(f"warming up {experiment.key}")
        for _ in range(protocol.warm_up_passes):
            bench.time(experiment.key, protocol.warm_up_size)
    return bench


def _rounds(log: TimingLog, done: int, protocol: LatencyProtocol, budget_s: float) -> int:
    """Rounds to expect in all, given that `done` are complete: what the budget allows, within the limits."""
    more = 0
    if done:
        more = int(max(0.0, budget_s - log.spent_s()) / max(log.round_s(done - 1), 1e-9))
    return min(max(done + more, protocol.min_rounds), protocol.max_rounds)


def _reporter(progress: Progress | None, log: TimingLog, protocol: LatencyProtocol, budget_s: float):
    def report(label: str) -> None:
        if progress:
            done = len(log) // len(log.keys)
            progress(len(log), _rounds(log, done, protocol, budget_s) * len(log.keys), label)

    return report


def _samples(log: TimingLog, key: str, rounds: int) -> dict[str, list[float]]:
    return {f"latency_{name}": log.samples(key, f"{name}_ms", rounds) for name in ("network", "end_to_end")}


def _made_of(experiment: Experiment) -> str:
    pixel = get_method(experiment.method).predicts == "pixels"
    return _MADE_OF["pixel" if pixel else get_dataset(experiment.dataset).task]


def _details(
    timed: Sequence[Experiment],
    log: TimingLog,
    device: str,
    protocol: LatencyProtocol,
    image: ImageSizes,
    rounds: int,
) -> dict[str, str | int]:
    """Of the first of `timed`; the others are what it is compared with in the same rounds."""
    loads = log.loads()
    details = {
        "run": log.run,
        "device": device,
        "batch": 1,
        "weights": "random",
        "memory_format": "channels last",
        "clustering": log.clustering(),
        "batch_norms": batch_norms_text(FOLD_BATCH_NORMS),
        "post_processing": _made_of(timed[0]),
        "image_size": size_text(image.image),
        "original_size": size_text(image.original),
        "warm_up": f"{protocol.warm_up_passes} pass(es) at {size_text(protocol.warm_up_size or image.padded)}",
        "rounds": rounds,
        "padding": padding(timed),
    }
    if loads:  # the lowest and the highest before a timing
        details["load_average"] = f"{min(loads):.1f} to {max(loads):.1f}"
    return details


def _load_average() -> float | None:
    """Processes that want to run, mean of the last minute; None where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows has no such function
        return None


def _context(device: str, protocol: LatencyProtocol, images: Mapping[str, ImageSizes]) -> str:
    sizes = [asdict(image) for image in images.values()]
    return content_hash([provenance.state(), device, asdict(protocol), sizes, list(images)])
