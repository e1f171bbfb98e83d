"""From a table to its records: what is missing, in which order it is measured, and the subprocesses that do it."""

import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bench.errors import BenchError
from bench.experiments.backbones import get_backbone
from bench.experiments.experiment import Experiment
from bench.experiments.published import load_published
from bench.experiments.recipe import recipe_for
from bench.experiments.table import Measurement, PaperTable
from bench.experiments.tables import latency_bases, names_for_find_row
from bench.machine import available_cores
from bench.records import Store
from bench.run.jobs import Job
from bench.run.pool import JobPool
from bench.run.set_aside import forget, set_aside
from bench.run.timing_groups import TimingGroup, is_timed, of_busy_groups, timing_groups

LATENCY_BUDGET_S = 60.0  # of a run of latencies; on a CPU three rounds are taken even if they need longer

# Seconds of one core for the estimates, as measured on the machine of the reference store. Only the shares matter
# once a run has begun: the estimate of what remains is corrected by what was done.
COMPLEXITY_S = {"r50": 9.0, "r101": 10.0, "swin_s": 13.0, "swin_l": 12.0}
STEP_S = {"hcformer": 0.27, "hcformer+": 0.28, "maskformer": 0.22, "mask2former": 0.43}
PAPER_STEP_S = 4.0  # of a GPU
# Latency on all cores: a pass of HCFormer on COCO's image by backbone (another one: 2 s), what other methods add to it,
# and how many times COCO's pixels the images of other data sets have. Before: building, compiling, warming up.
PASS_S = {"r50": 1.0, "swin_s": 2.3, "swin_l": 8.7}
MORE_S = {"maskformer": 0.7, "mask2former": 3.3}
PIXELS = {"ade20k": 0.3, "cityscapes": 2.4}
LATENCY_START_S, CPU_ROUNDS = 25.0, 3
IMAGE_S = {"paper": 6.0, "small": 0.03}  # of an evaluation, with both cores; Mask2Former R50


@dataclass(frozen=True)
class Planned:
    """A measurement of a table, its state in the store and its estimate in seconds.

    state: "done", "stale", "missing", of a latency also "busy": of a run on a machine that did other work.
    estimate_s: on one core; of a latency that is not done its share of its group's run, on all cores.
    """

    measurement: Measurement
    state: str
    estimate_s: float


def plan(table: PaperTable, store: Store, scale: str = "small") -> list[Planned]:
    """Everything the table needs, in the order of measurement. Raises BenchError for a damaged record.

    A latency without that of its base from the same run is stale. One of a busy machine is timed again with its group,
    once a call of `run`: on a machine that is never quiet it stays, marked as such.
    """
    wanted = list(table.measurements(scale))
    busy = of_busy_groups([m.experiment for m in wanted if m.kind == "latency"], store)
    states = {m: _state(m, table, store, busy) for m in wanted}
    groups = timing_groups(m.experiment for m in states if m.kind == "latency" and states[m] != "done")
    shares = {row: latency_seconds(group) / len(group.rows) for group in groups for row in group.rows}
    return [
        Planned(m, states[m], shares.get(m.experiment, 0.0) if m.kind == "latency" else estimate(m))
        for m in sorted(states, key=lambda m: ("complexity", "latency", "accuracy").index(m.kind))
    ]


def _state(m: Measurement, table: PaperTable, store: Store, busy: Collection[Experiment]) -> str:
    state = store.state(m.experiment, m.kind, m.seed)
    if m.kind != "latency" or state != "done":
        return state
    if m.experiment in busy:
        return "busy"
    compared = {table.base_of(row) for row in table.rows if row.experiment == m.experiment} - {None}
    others = {base.experiment for base in compared}.intersection(latency_bases(m.experiment))
    return "done" if is_timed(m.experiment, others, store) else "stale"


def latency_groups(planned: Sequence[Planned]) -> list[TimingGroup]:
    """The runs that time these latencies."""
    return timing_groups(p.measurement.experiment for p in planned if p.measurement.kind == "latency")


def latency_seconds(group: TimingGroup) -> float:
    """Seconds that timing a group is expected to take, alone on all cores of a CPU."""
    timed = (*group.rows, *group.bases)
    passes = sum((PASS_S.get(e.backbone, 2.0) + MORE_S.get(e.method, 0.0)) * PIXELS.get(e.dataset, 1.0) for e in timed)
    return max(LATENCY_BUDGET_S, LATENCY_START_S + CPU_ROUNDS * passes)


def estimate(measurement: Measurement) -> float:
    """Seconds that counting or training is expected to take on one core."""
    experiment = measurement.experiment
    if measurement.kind == "complexity":
        return COMPLEXITY_S.get(experiment.backbone, 15.0)
    step = PAPER_STEP_S if experiment.scale == "paper" else STEP_S.get(experiment.method, 0.3)
    return recipe_for(experiment).iterations * step


def run(
    table: PaperTable, store: Store, scale: str = "small", data_root: Path | None = None, force: bool = False,
    quiet: bool = False, page: Callable[[], str] | None = None,
) -> list[str]:  # fmt: skip
    """Measure what is missing or stale; returns one line for each job that failed.

    force: measure everything again, or what is left of that where an earlier forced run was stopped.
    page: the table as far as it is known, printed when all counts and when all latencies are there.

    Counting and training run in as many single-threaded subprocesses as there are cores. Latency runs alone, one group
    after the other (`bench.run.timing_groups`).
    """
    run_name = f"{table.file_name}-{scale}"
    if table.printed:
        load_published(table.name)  # a broken checkout shows now, not when all is measured
    planned = [p for p in plan(table, store, scale) if force or p.state != "done"]
    check_backbones([p.measurement.experiment for p in planned])
    prepare_data([p.measurement.experiment for p in planned if p.measurement.kind == "accuracy"], data_root)
    if force:
        _set_aside(store, run_name, [p.measurement for p in planned], quiet)
        planned = [p for p in plan(table, store, scale) if p.state != "done"]
    common = {"store": str(store.path), "command": tuple(["bench", *sys.argv[1:]])}
    names = names_for_find_row(table)

    def job_of(m: Measurement) -> Job:
        root = root_of(m.experiment, data_root)
        return Job(m.kind, (m.experiment,), seed=m.seed, data_root=root, row=names[m.experiment], **common)

    single = [(job_of(p.measurement), p.estimate_s) for p in planned if p.measurement.kind != "latency"]
    latency = [
        (Job("latency", group.rows, bases=group.bases, budget_s=LATENCY_BUDGET_S, **common), latency_seconds(group))
        for group in latency_groups(planned)
    ]
    trainings = [job for job in single if job[0].kind == "accuracy"]
    trainings.sort(key=lambda job: job[1], reverse=True)  # else the longest one may run last, beside idle cores
    stages = [
        ([job for job in single if job[0].kind == "complexity"], workers()),
        (latency, 1),
        (trainings, training_slots(scale) if trainings else 1),  # asking for a GPU imports torch
    ]
    failures = JobPool(stages, quiet).run(page) if planned else []
    if not failures:
        forget(store, run_name)
    return failures


def evaluate_released(
    experiment: Experiment, weights: Path, store: Store, data_root: Path | None = None, force: bool = False,
    quiet: bool = False,
) -> list[str]:  # fmt: skip
    """Evaluate a checkpoint that was trained elsewhere; returns a line if that failed, nothing if it is there.

    Raises BenchError before anything starts: for an unreadable file, a record of another file (without force), a data
    set whose files are missing.
    """
    from bench.data.registry import open_split
    from bench.experiments.datasets import get_dataset
    from bench.measure.released import is_done
    from bench.weights.files import sha256

    info, run_name = get_dataset(experiment.dataset), f"released-{experiment.key}-{sha256(weights)[:16]}"
    try:
        done = is_done(store, experiment, weights, data_root)
    except BenchError:
        if not force:
            raise
        done = False
        forget(store, run_name)  # a record of another file is not what a forced run of this one has measured
    if done and not force:
        forget(store, run_name)
        return []
    root = root_of(experiment, data_root)
    images = len(open_split(info.name, info.eval_split, root and Path(root)))
    if force:
        _set_aside(store, run_name, [Measurement(experiment, "released")], quiet)
    job = Job(
        "released", (experiment,), str(store.path), data_root=root, weights=str(weights),
        command=tuple(["bench", *sys.argv[1:]]),
    )  # fmt: skip
    failures = JobPool([([(job, images * IMAGE_S[experiment.scale])], 1)], quiet).run()
    if not failures:
        forget(store, run_name)
    return failures


def _set_aside(store: Store, run_name: str, measurements: Sequence[Measurement], quiet: bool) -> None:
    folder, records = set_aside(store, run_name, measurements)
    if records:
        said = f"set aside: {records} record(s), now in {folder}"
    else:
        said = f"goes on with the forced run whose earlier records are in {folder}; delete that folder to begin anew"
    if records or folder.is_dir():
        Console(stderr=True, quiet=quiet).print(said, markup=False, highlight=False, soft_wrap=True)


def root_of(experiment: Experiment, data_root: Path | None) -> str | None:
    """The folder that the experiment's data set is looked for in; generated ones lie in the cache."""
    from bench.experiments.datasets import get_dataset

    return None if data_root is None or get_dataset(experiment.dataset).generated else str(data_root)


def check_backbones(experiments: Iterable[Experiment]) -> None:
    """Build a model with each backbone of timm, without memory: whether timm knows it and it has a feature pyramid.

    Raises BenchError before anything starts.
    """
    of_timm = {e.backbone: e for e in experiments if get_backbone(e.backbone).family == "timm"}
    if of_timm:
        import torch

        from bench.zoo import build_model

        for experiment in of_timm.values():
            with torch.device("meta"):
                build_model(experiment)


def prepare_data(experiments: Sequence[Experiment], data_root: Path | None) -> None:
    """Write generated data sets once, before subprocesses ask for them at the same time, and look for the others.

    Raises BenchError where files are missing, before hours of counting and timing.
    """
    from bench.data.registry import open_split
    from bench.experiments.datasets import get_dataset

    for name in sorted({experiment.dataset for experiment in experiments}):
        for split in ("train", get_dataset(name).eval_split):
            open_split(name, split, None if get_dataset(name).generated else data_root)


def workers() -> int:
    """Subprocesses at a time: the cores of this process, at most 8 (each loads its own libraries)."""
    return max(1, min(8, available_cores()))


def training_slots(scale: str) -> int:
    """Trainings at a time: one a core, but one alone where they would share a GPU or are of paper scale."""
    import torch

    return 1 if torch.cuda.is_available() or scale == "paper" else workers()
