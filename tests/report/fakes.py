"""Made-up records for tests."""

from pathlib import Path

from bench.experiments import Experiment, PaperTable, experiment, recipe_for
from bench.experiments.tables import ACCURACY
from bench.records import Record, Store
from bench.report.published import load_published

PROVENANCE = {
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "dirty": False,
    "versions": {"python": "3.12.1", "torch": "2.11.0", "torchvision": "0.26.0", "cuda": None},
    "cpu": "Example CPU @ 2.00GHz",
    "cores": 2,
    "threads": 2,
    "gpu": None,
    "platform": "Linux",
    "command": "bench run table1",
    "start": "2025-01-02T03:04:05Z",
    "duration_s": 12.5,
}
R50 = experiment("hcformer", "r50", "coco_panoptic", "paper")
SMALL = experiment("hcformer", "small", "synthetic_panoptic", "small")


def complexity(what: Experiment = R50, params: float = 38.39, flops: float = 87.9, **provenance) -> Record:
    metrics = {
        "params": {"value": params, "unit": "M", "n": 1},
        "flops": {"value": flops, "unit": "G", "n": 100},
    }
    return Record(what, "complexity", metrics, PROVENANCE | provenance)


def latency(what: Experiment = R50, median: float = 900.0, run: str = "a", **provenance) -> Record:
    metrics, samples = {}, {}
    for name, offset in (("latency_network", 0), ("latency_end_to_end", 300)):
        samples[name] = [median + offset - 10, median + offset, median + offset + 25]
        metrics[name] = {"value": median + offset, "unit": "ms", "n": 3, "p90": median + offset + 20}
    details = {"run": run, "device": "cpu", "image_size": "800x1088"}
    return Record(what, "latency", metrics, PROVENANCE | provenance, samples=samples, details=details)


def accuracy(what: Experiment = SMALL, seed: int = 0, pq: float = 35.0, **provenance) -> Record:
    """PQ is `pq`, the further metrics lie 1, 2, 3, 4 points higher; training took 100 s plus the seed."""
    metrics = {c.metric: {"value": pq + i, "unit": "%", "n": 100} for i, c in enumerate(ACCURACY)}
    metrics["training_seconds"] = {"value": 100.0 + seed, "unit": "s", "n": 1}
    return Record(what, "accuracy", metrics, PROVENANCE | provenance, seed=seed, recipe=recipe_for(what))


def full_store(table: PaperTable, folder: Path, shift: float = 0.0) -> Store:
    """What a finished run at small scale has: counts 1 % above the paper's, times by FLOPs; `shift` moves values."""
    store = Store(folder)
    published = load_published(table.name)
    for row in table.rows:
        if row.experiment:
            params, flops = (published[row.number, name].value for name in ("params", "flops"))
            store.write(complexity(row.experiment, 1.01 * params + shift, 1.01 * flops + shift))
            store.write(latency(row.experiment, 300 + 5 * flops + 100 * shift))
    for row in table.small_rows:
        for seed in (0, 1, 2):
            store.write(accuracy(row.experiment, seed, 15.0 + row.number + seed + shift))
    return store
