"""What a training costs: iterations of its recipe times a step time, measured where there is a measurement.

Step times of different models are compared by the FLOPs of a step: those counted of the network on the paper's test
images, times the pixels of the training crop over the pixels counted on, times the batch. (A step also computes
gradients, for about three times as much, but so it does for every model.)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from statistics import mean, median

from bench.errors import BenchError
from bench.experiments.experiment import Experiment
from bench.experiments.recipe import recipe_for
from bench.measure.complexity.protocol import counted_images
from bench.records import Record, Store
from bench.run.plan import PAPER_STEP_S, STEP_S
from bench.speed.gpu_check import FILE, read

CHECKED_PIXELS = 512 * 512  # of the one image of a training step of `bench gpu-check`
PAPER_STEP_GFLOPS = 8_706  # that PAPER_STEP_S is assumed for: 16 images of the mean iteration of Table 1
# What may be true instead of an estimate, less and more. By FLOPs: time that grows with this power of them, as that of
# HCFormer's and MaskFormer's training steps (0.83 to 1 at 0.49 to 1, `bench benchmark` of the reference store).
# gpu-check: one small image does not fill a GPU. Assumed: nobody said what GPU it is.
FLOPS_POWER = 0.26
CHECK_RANGE, ASSUMED_RANGE = (0.25, 1.0), (0.5, 2.0)
RULES = (
    "Hours: iterations times step time, as if speed grew with the number of devices; evaluation comes on top.",
    "FLOPs of a step: those counted of the network, times the training crop's pixels over those counted on, times the",
    "batch. Ranges: of measured trainings their spread; of gpu-check, whose one image fills no GPU, a quarter to all;",
    f"by FLOPs from their power of {FLOPS_POWER} to proportional; of an assumed step half to twice on top; of sums, if",
    "all err alike.",
)


@dataclass(frozen=True)
class StepTime:
    """Seconds that one device (a GPU, or a core of the CPU) needs for a step of the whole batch, and who says so.

    range: the least and the most that is expected, as shares of the seconds.
    """

    seconds: float
    source: str
    range: tuple[float, float] = (1.0, 1.0)


def step_times(experiments: Sequence[Experiment], stores: Sequence[Store], gpu: bool) -> dict[Experiment, StepTime]:
    """The best that is known of each, on a GPU or a CPU; earlier stores go before later ones.

    Accuracy records of the experiment; else a training step of the store's gpu-check; else that of the experiment most
    like it, times the ratio of their FLOPs; else the plan's assumption, by FLOPs where they are counted. Raises
    BenchError for a damaged file.
    """
    measured = {e: found for e in experiments if (found := _measured(e, stores, gpu))}
    return {e: measured.get(e) or _scaled(e, measured, stores) or _assumed(e, stores) for e in experiments}


def device_hours(experiment: Experiment, step: StepTime) -> float:
    """Hours of one device for the whole training, without its evaluation."""
    return recipe_for(experiment).iterations * step.seconds / 3600


def _measured(experiment: Experiment, stores: Sequence[Store], gpu: bool) -> StepTime | None:
    for store in stores:
        found = _from_records(experiment, store, gpu) or (_from_check(experiment, store) if gpu else None)
        if found:
            return found
    return None


def _from_records(experiment: Experiment, store: Store, gpu: bool) -> StepTime | None:
    records = [r for seed in recipe_for(experiment).seeds if (r := store.get(experiment, "accuracy", seed))]
    fitting = [r for r in records if bool(r.provenance["gpu"]) == gpu and "training_seconds" in r.metrics]
    if not fitting:
        return None
    device = fitting[-1].provenance["gpu"] or fitting[-1].provenance["cpu"]
    source = f"measured: {len(fitting)} record(s) of {store.path.name}, {device}"
    seconds = [_record_seconds(record) for record in fitting]
    middle = median(seconds)
    return StepTime(middle, source, (min(seconds) / middle, max(seconds) / middle))


def _record_seconds(record: Record) -> float:
    """Of one device: those of all processes added up."""
    seconds = record.metrics["training_seconds"]["value"]
    return seconds * record.details.get("processes", 1) / record.recipe["iterations"]


def _from_check(experiment: Experiment, store: Store) -> StepTime | None:
    """gpu-check times one image of 512 x 512 with R50: the recipe's batch and crop are so many times that."""
    recipe, part = recipe_for(experiment), read(store.path / FILE).get("training")
    if experiment.backbone != "r50" or not part or not part.get("result"):
        return None
    try:
        rows = {row["what"]: float(row["ms"]) for row in part["result"]["rows"]}
        device = part["provenance"]["gpu"]
    except (KeyError, TypeError, ValueError):
        raise BenchError(f"{store.path / FILE} is damaged: delete it and run 'bench gpu-check' again") from None
    ms = rows.get(f"train step {experiment.method}")
    if ms is None:
        return None
    factor = recipe.batch_size * prod(recipe.crop_size) / CHECKED_PIXELS
    return StepTime(ms / 1000 * factor, f"measured: {factor:.0f} times the step of gpu-check, {device}", CHECK_RANGE)


def _scaled(experiment: Experiment, measured: dict[Experiment, StepTime], stores: Sequence[Store]) -> StepTime | None:
    def likeness(other: Experiment) -> tuple[bool, ...]:
        return tuple(getattr(other, name) == getattr(experiment, name) for name in ("dataset", "method", "backbone"))

    own = _step_gflops(experiment, stores)
    for other in sorted(measured, key=likeness, reverse=True):
        if own and (flops := _step_gflops(other, stores)):
            source = f"{own / flops:.2f} times {other.method} {other.backbone} {other.dataset} (FLOPs)"
            return _by_flops(own / flops, replace(measured[other], source=source))
    return None


def _step_gflops(experiment: Experiment, stores: Sequence[Store]) -> float | None:
    """Of the network in a training step of the whole batch, forward only; None where they are not counted."""
    records = (store.get(experiment, "complexity") for store in stores)
    counted = next((r.metrics["flops_network"]["value"] for r in records if r and "flops_network" in r.metrics), None)
    if counted is None:
        return None
    recipe, pixels = recipe_for(experiment), mean(prod(image.padded) for image in counted_images(experiment))
    return counted * prod(recipe.crop_size) / pixels * recipe.batch_size


def _assumed(experiment: Experiment, stores: Sequence[Store]) -> StepTime:
    if experiment.scale != "paper":
        seconds = STEP_S.get(experiment.method, 0.3)
        return StepTime(seconds, "assumed: as on the machine of the reference store", ASSUMED_RANGE)
    assumed = StepTime(PAPER_STEP_S, "assumed: nothing measured, no FLOPs counted", ASSUMED_RANGE)
    if not (flops := _step_gflops(experiment, stores)):
        return assumed
    source = f"assumed: nothing measured, {PAPER_STEP_S:g} s for {PAPER_STEP_GFLOPS:,} G"
    return _by_flops(flops / PAPER_STEP_GFLOPS, replace(assumed, source=source))


def _by_flops(ratio: float, of: StepTime) -> StepTime:
    """The step of so many times the FLOPs."""
    least, most = sorted((1.0, ratio ** (FLOPS_POWER - 1)))
    return StepTime(of.seconds * ratio, of.source, (of.range[0] * least, of.range[1] * most))
