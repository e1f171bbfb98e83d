"""Two experiments over the same images: the difference of each metric, and how sure it is.

Of several seeds the median counts, in every draw of images too, so that the interval of the difference is of the choice
of images alone; what another training gives is the seeds' spread, which stands beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from bench.errors import BenchError
from bench.evaluation.uncertainty.bootstrap import ImageCounts, Interval, intervals_of
from bench.evaluation.uncertainty.file import IMAGE_COUNTS, read_counts
from bench.records import Record, read_record

_KINDS = ("accuracy", "released")
_SAME = 1e-6  # points: the counts are added up in another order than by the evaluators
_FACTS = ("val_split", "val_fingerprint")


@dataclass(frozen=True)
class Side:
    """The records of one experiment, those of its seeds or that of a checkpoint, and where they are."""

    paths: tuple[Path, ...]
    records: tuple[Record, ...]

    @property
    def name(self) -> tuple[str, str]:
        return self.records[0].key, self.records[0].kind

    def values(self, metric: str) -> list[float]:
        """Of each seed."""
        return [record.metrics[metric]["value"] for record in self.records]

    @property
    def metrics(self) -> list[str]:
        """Those in percent that every seed has."""
        first, *others = (record.metrics for record in self.records)
        return [m for m in first if first[m]["unit"] == "%" and all(m in metrics for metrics in others)]


@dataclass(frozen=True)
class Compared:
    """One metric in percent. a, b: medians of the seeds. of_a, of_b, of_difference: their intervals, None where there
    is none. seeds_a, seeds_b: the value of each seed."""

    metric: str
    a: float
    b: float
    of_a: Interval | None
    of_b: Interval | None
    of_difference: Interval | None
    seeds_a: Sequence[float]
    seeds_b: Sequence[float]


@dataclass(frozen=True)
class Comparison:
    """metrics: those of both sides. images: how many. unpaired: why the differences have no interval, "" if they do."""

    a: Side
    b: Side
    metrics: Sequence[Compared]
    images: int
    unpaired: str = ""


def find_sides(path: Path) -> list[Side]:
    """Of a record, of a folder of the records of an experiment, or of a store: accuracies, experiment by experiment.

    Raises BenchError where there are none, and for a damaged record.
    """
    if path.is_dir():
        pattern = "records/*/[!.]*.json" if (path / "records").is_dir() else "[!.]*.json"
        paths = [file for file in sorted(path.glob(pattern)) if file.name.startswith(_KINDS)]
    else:
        paths = [path]
    by_name: dict[tuple[str, str], list[tuple[Path, Record]]] = {}
    for file in paths:
        record = read_record(file)
        by_name.setdefault((record.key, record.kind), []).append((file, record))
    sides = [Side(*map(tuple, zip(*found, strict=True))) for name, found in by_name.items() if name[1] in _KINDS]
    if not sides:
        raise BenchError(f"{path} holds no accuracy: give a store, a folder below its records/, or a record")
    return sides


def pair_sides(one: Sequence[Side], other: Sequence[Side]) -> list[tuple[Side, Side]]:
    """The one experiment of each side, or the experiments that both have. Raises BenchError where there is none."""
    if len(one) == len(other) == 1:
        return [(one[0], other[0])]
    known = {side.name: side for side in other}
    pairs = [(side, known[side.name]) for side in one if side.name in known]
    if not pairs:
        raise BenchError(
            f"{len(one)} and {len(other)} experiments, and none is on both sides: give a folder of one experiment "
            "below records/ for each"
        )
    return pairs


def compare(a: Side, b: Side) -> Comparison:
    """Raises BenchError where the two are not of the same data, images and metrics, and for damaged counts."""
    for side in (a, b):
        if len({record.to_dict()["recipe_hash"] for record in side.records}) > 1:
            raise BenchError(f"the seeds of {side.name[0]} are of different recipes: give one record of each side")
    _check_alike([*a.records, *b.records])
    metrics = [metric for metric in a.metrics if metric in b.metrics]
    if not metrics:
        raise BenchError(f"{a.name[0]} and {b.name[0]} have no metric in common: compare others")
    images = a.records[0].metrics[metrics[0]]["n"]
    missing = [path for path in (*a.paths, *b.paths) if not _counts_path(path).is_file()]
    if missing:
        compared = [_unpaired(metric, a, b) for metric in metrics]
        return Comparison(a, b, compared, images, _no_counts(missing[0]))
    counts_a, counts_b = _read(a), _read(b)
    if any(not np.array_equal(counts_a[0].image_ids, other.image_ids) for other in (*counts_a, *counts_b)):
        raise BenchError(f"{a.paths[0]} and {b.paths[0]} were evaluated on different images: compare others")
    if images == 1:
        return Comparison(a, b, [_unpaired(metric, a, b) for metric in metrics], 1, "one image alone")
    draws_a, draws_b = _medians(counts_a, metrics), _medians(counts_b, metrics)
    of_a, of_b = intervals_of(draws_a), intervals_of(draws_b)
    of_difference = intervals_of({metric: draws_a[metric] - draws_b[metric] for metric in metrics})
    compared = [
        _compared(metric, a, b, of_a.get(metric), of_b.get(metric), of_difference.get(metric)) for metric in metrics
    ]
    return Comparison(a, b, compared, images)


def _check_alike(records: Sequence[Record]) -> None:
    first = records[0]
    for record in records[1:]:
        if record.experiment.dataset != first.experiment.dataset:
            raise BenchError(
                f"one side is of {first.experiment.dataset}, the other of {record.experiment.dataset}: compare records "
                "of one data set"
            )
        for fact in _FACTS:
            one, other = first.details.get(fact), record.details.get(fact)
            if one != other and None not in (one, other):
                what = "split" if fact == "val_split" else "data (fingerprint)"
                short = [str(value)[:12] for value in (one, other)]
                raise BenchError(f"evaluated on different {what}, {short[0]} and {short[1]}: compare records of one")
        if record.details.get("val_images") != first.details.get("val_images"):
            raise BenchError("evaluated on different numbers of images: compare records of the same")


def _no_counts(record: Path) -> str:
    return (
        f"no {_counts_path(record)}, which an evaluation leaves: give the store that it was run in, or evaluate again"
    )


def _counts_path(record: Path) -> Path:
    """Where the evaluation of a record in a store left what its metrics are made of."""
    record = record.absolute()
    return record.parent.parent.parent / "work" / record.parent.name / record.stem / IMAGE_COUNTS


def _read(side: Side) -> list[ImageCounts]:
    """The counts of each seed, which must give its record's metrics. Raises BenchError."""
    found = []
    for path, record in zip(side.paths, side.records, strict=True):
        counts = read_counts(_counts_path(path))
        values = counts.values()
        for metric in side.metrics:
            if metric not in values or not abs(values[metric][0] - record.metrics[metric]["value"]) < _SAME:
                raise BenchError(
                    f"{_counts_path(path)} is of another evaluation than {path} ({metric}): remove it or evaluate again"
                )
        found.append(counts)
    return found


def _medians(seeds: Sequence[ImageCounts], metrics: Sequence[str]) -> Mapping[str, np.ndarray]:
    """Of the seeds, in each draw."""
    resampled = [counts.resampled() for counts in seeds]
    return {metric: np.median([values[metric] for values in resampled], axis=0) for metric in metrics}


def _unpaired(metric: str, a: Side, b: Side) -> Compared:
    return _compared(metric, a, b, _recorded(metric, a), _recorded(metric, b), None)


def _recorded(metric: str, side: Side) -> Interval | None:
    """That of the seed that is the median; None where it has none, or where two share the middle."""
    middle = median(side.values(metric))
    of_middle = [r.metrics[metric] for r in side.records if r.metrics[metric]["value"] == middle]
    low, high = of_middle[0].get("interval", (None, None)) if of_middle else (None, None)
    return None if low is None else (low, high)


def _compared(
    metric: str, a: Side, b: Side, of_a: Interval | None, of_b: Interval | None, of_difference: Interval | None
) -> Compared:
    seeds_a, seeds_b = a.values(metric), b.values(metric)
    return Compared(metric, median(seeds_a), median(seeds_b), of_a, of_b, of_difference, seeds_a, seeds_b)
