"""Made-up records for tests."""

from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path

import pandas as pd

from bench.experiments import Experiment, PaperTable, experiment, recipe_for
from bench.experiments.inference_rules import padding
from bench.experiments.published import load_published
from bench.experiments.table import ACCURACY
from bench.experiments.tables import latency_bases
from bench.records import Record, Store, samples_beside
from bench.report import collect_cells, render_markdown
from bench.report.cells import TableCells
from bench.report.write import render_csv

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
LATENCY_DETAILS = {  # as `bench.measure.latency.timing` writes them; a test compares
    "run": "a",
    "device": "cpu",
    "batch": 1,
    "weights": "random",
    "memory_format": "channels last",
    "batch_norms": "not folded",
    "clustering": "compiled",
    "post_processing": "panoptic segments of a synthetic prediction with 20 confident queries",
    "image_size": "800x1067",
    "original_size": "480x640",
    "warm_up": "1 pass(es) at 256x352",
    "rounds": 3,
    "padding": "hcformer: to a multiple of 32",
    "load_average": "1.0 to 1.5",
}
R50 = experiment("hcformer", "r50", "coco_panoptic", "paper")
SMALL = experiment("hcformer", "small", "synthetic_panoptic", "small")


def complexity(what: Experiment = R50, params: float = 38.39, flops: float = 87.9, **provenance) -> Record:
    metrics = {
        "params": {"value": params, "unit": "M", "n": 1},
        "flops": {"value": flops, "unit": "G", "n": 100},
        "flops_network": {"value": flops - 4.0, "unit": "G", "n": 100},
        "flops_post_processing": {"value": 4.0, "unit": "G", "n": 100},
    }
    return Record(what, "complexity", metrics, PROVENANCE | provenance, details={"padding": padding([what])})


def latency(
    what: Experiment = R50, median: float = 900.0, run: str = "a", offsets: Sequence[float] = (-10, 0, 25),
    beside: Mapping[Experiment, float] | None = None, **provenance,
) -> Record:  # fmt: skip
    """One round an offset from the median, end to end 300 ms more; the p90 lies 20 ms above the median.

    beside: medians of others in the same rounds.
    """
    metrics, samples = {}, {}
    for name, extra in (("latency_network", 0), ("latency_end_to_end", 300)):
        samples[name] = [median + extra + offset for offset in offsets]
        metrics[name] = {"value": median + extra, "unit": "ms", "n": len(offsets), "p90": median + extra + 20}
        for other, value in (beside or {}).items():
            samples[samples_beside(name, other)] = [value + extra + offset for offset in offsets]
    held = [what, *(base for base in latency_bases(what) if base in (beside or {}))]
    details = LATENCY_DETAILS | {"run": run, "rounds": len(offsets), "padding": padding(held)}
    return Record(what, "latency", metrics, PROVENANCE | provenance, samples=samples, details=details)


def accuracy(what: Experiment = SMALL, seed: int = 0, pq: float = 35.0, **provenance) -> Record:
    """PQ is `pq`, the further metrics lie 1, 2, 3, 4 points higher; training took 100 s plus the seed."""
    metrics = {c.metric: {"value": pq + i, "unit": "%", "n": 100} for i, c in enumerate(ACCURACY)}
    metrics["training_seconds"] = {"value": 100.0 + seed, "unit": "s", "n": 1}
    details, recipe = {"padding": padding([what])}, recipe_for(what)
    return Record(what, "accuracy", metrics, PROVENANCE | provenance, seed=seed, recipe=recipe, details=details)


WEIGHTS = {
    "file": "maskformer.safetensors",
    "sha256": "0123456789abcdef" * 4,
    "source": "hub_model.bin",
    "source_sha256": "fedcba9876543210" * 4,
    "format": "hub",
}


def released(
    what: Experiment = R50, pq: float = 47.9, weights: dict | None = None, official_images: int = 5000, **provenance
) -> Record:
    """The metrics of `accuracy` on 5000 images, without training; `weights` replaces facts of the file."""
    metrics = {c.metric: {"value": pq + i, "unit": "%", "n": 5000} for i, c in enumerate(ACCURACY)}
    details = {"weights": WEIGHTS | (weights or {}), "val_images": 5000, "official_images": official_images}
    details |= {"padding": padding([what])}
    return Record(what, "released", metrics, PROVENANCE | provenance, details=details)


def full_store(table: PaperTable, folder: Path, shift: float = 0.0) -> Store:
    """What a finished run at small scale has; `shift` moves all values.

    Parameters lie 0.4 M and FLOPs 1 % above the paper's, times follow the FLOPs; training took one thread.
    """
    store = Store(folder)
    published = load_published(table.name)
    for row in table.rows:
        if row.experiment:
            params, flops = (published[row.number, name].value for name in ("params", "flops"))
            store.write(complexity(row.experiment, params + 0.4 + shift, 1.01 * flops + shift))
            store.write(latency(row.experiment, 300 + 5 * flops + 100 * shift))
    for row in table.small_rows:
        for seed in (0, 1, 2):
            store.write(accuracy(row.experiment, seed, 15.0 + row.number + seed + shift, threads=1))
    return store


def table_cells(table: PaperTable, store: Store, reference: Store | None = None) -> TableCells:
    return collect_cells(store, reference, [table]).tables[table.name]


def page(table: PaperTable, store: Store, reference: Store | None = None) -> str:
    """The markdown of one table alone, its prose not wrapped."""
    return render_markdown(table_cells(table, store, reference))


def csv_of(table: PaperTable, store: Store, reference: Store | None = None) -> pd.DataFrame:
    return read_csv(StringIO(render_csv(table_cells(table, store, reference), store)))


def read_csv(source) -> pd.DataFrame:
    return pd.read_csv(source, dtype={"tolerance": str, "record": str, "verdict": str})


def cell(frame: pd.DataFrame, row: int, metric: str) -> dict:
    (line,) = frame[(frame.row == row) & (frame.metric == metric)].to_dict("records")
    return line
