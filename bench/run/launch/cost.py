"""What a training costs: iterations of its recipe times a step time, measured where there is a measurement."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from statistics import median

from bench.errors import BenchError
from bench.experiments.experiment import Experiment
from bench.experiments.recipe import recipe_for
from bench.records import Record, Store
from bench.run.plan import PAPER_STEP_S, STEP_S
from bench.speed.gpu_check import FILE, read

CHECKED_PIXELS = 512 * 512  # of the one image of a training step of `bench gpu-check`


@dataclass(frozen=True)
class StepTime:
    """Seconds that one device (a GPU, or a core of the CPU) needs for a step of the whole batch, and who says so."""

    seconds: float
    source: str


def step_times(experiments: Sequence[Experiment], stores: Sequence[Store], gpu: bool) -> dict[Experiment, StepTime]:
    """The best that is known of each, on a GPU or a CPU; earlier stores go before later ones.

    Accuracy records of the experiment; else a training step of the store's gpu-check; else that of the experiment most
    like it, times the ratio of their FLOPs; else the plan's assumption. Raises BenchError for a damaged file.
    """
    measured = {e: found for e in experiments if (found := _measured(e, stores, gpu))}
    return {e: measured.get(e) or _scaled(e, measured, stores) or _assumed(e) for e in experiments}


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
    return StepTime(median(map(_record_seconds, fitting)), source)


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
    return StepTime(ms / 1000 * factor, f"measured: {factor:.0f} times the step of gpu-check, {device}")


def _scaled(experiment: Experiment, measured: dict[Experiment, StepTime], stores: Sequence[Store]) -> StepTime | None:
    def likeness(other: Experiment) -> tuple[bool, bool]:
        return other.method == experiment.method, other.backbone == experiment.backbone

    own = _flops(experiment, stores)
    for other in sorted(measured, key=likeness, reverse=True):
        flops = _flops(other, stores)
        if own and flops and other.dataset == experiment.dataset:
            factor, base = own / flops, measured[other]
            return StepTime(base.seconds * factor, f"{factor:.2f} times {other.method} {other.backbone} (FLOPs)")
    return None


def _flops(experiment: Experiment, stores: Sequence[Store]) -> float | None:
    records = (store.get(experiment, "complexity") for store in stores)
    return next((r.metrics["flops"]["value"] for r in records if r and "flops" in r.metrics), None)


def _assumed(experiment: Experiment) -> StepTime:
    if experiment.scale == "paper":
        return StepTime(PAPER_STEP_S, "assumed: nothing measured")
    return StepTime(STEP_S.get(experiment.method, 0.3), "assumed: as on the machine of the reference store")
