"""`Record`: one measurement with its provenance. `Store`: the folder that keeps records, one JSON file each."""

import fcntl
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from bench.errors import BenchError, one_line, unknown_name
from bench.experiments.experiment import Experiment
from bench.experiments.hashing import content_hash
from bench.experiments.recipe import POST_PROCESSING, RECIPES, Recipe, recipe_for, recipe_hash, sides_at_test
from bench.files import write_atomically

SCHEMA = 1
KINDS = ("complexity", "latency", "accuracy", "released")
WEIGHTS_FACTS = ("file", "sha256", "source", "source_sha256", "format")
REQUIRED_PROVENANCE = ("commit", "dirty", "versions", "cpu", "gpu", "start", "duration_s")
_FIELDS = {
    "schema",
    "kind",
    "seed",
    "key",
    "experiment",
    "recipe",
    "recipe_hash",
    "metrics",
    "samples",
    "details",
    "provenance",
}


@dataclass(frozen=True)
class Record:
    """One measurement of one experiment; an accuracy record is of one seed and holds the recipe.

    A "released" record is the accuracy of a checkpoint that somebody else trained, which has neither: its
    `details["weights"]` holds `WEIGHTS_FACTS`, of which `sha256` says which file it is of.

    metrics: name -> {"value": finite number, "unit": str, "n": samples behind the value, 1 or more, ...}.
    samples: raw values, name -> list of numbers; of a latency also those of what it is compared with, in the same
    rounds (see `samples_beside`).  details: further plain JSON facts (protocol, data set).
    provenance: see `bench.provenance.collect`, with "duration_s" added. `details["run"]` names the run in which
    latencies were timed together; ratios are formed within one run only.
    key: of the experiment when it was measured; small models that have changed since have another one.
    Raises ValueError when something of this is missing or malformed.
    """

    experiment: Experiment
    kind: str
    metrics: Mapping[str, Mapping]
    provenance: Mapping
    seed: int | None = None
    recipe: Mapping | None = None
    samples: Mapping[str, Sequence[float]] = field(default_factory=dict)
    details: Mapping = field(default_factory=dict)
    key: str = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "key", self.experiment.key)
        if isinstance(self.recipe, Recipe):
            object.__setattr__(self, "recipe", self.recipe.to_dict())
        _check_kind(self.kind, self.seed)
        if (self.kind == "accuracy") != isinstance(self.recipe, Mapping):
            raise ValueError("accuracy records, and only they, hold a recipe")
        if not isinstance(self.metrics, Mapping) or not self.metrics:
            raise ValueError("a record needs metrics")
        for name, metric in self.metrics.items():
            if not _is_metric(metric):
                raise ValueError(f"metric '{name}' needs a finite value, a unit and n of at least 1")
        for name in ("samples", "details", "provenance"):
            if not isinstance(getattr(self, name), Mapping):
                raise ValueError(f"{name} must map names to values")
        if self.kind == "released":
            _check_weights(self.details.get("weights"))
        missing = [name for name in REQUIRED_PROVENANCE if name not in self.provenance]
        if missing:
            raise ValueError(f"provenance lacks {', '.join(missing)}")

    @property
    def name(self) -> str:
        """File name without ending: "complexity", "latency", "accuracy-0", "released"."""
        return _name(self.kind, self.seed)

    @property
    def is_current(self) -> bool:
        """False for one made with other small models, another recipe or post-processing than today's: it is measured
        again."""
        if self.key != self.experiment.key:
            return False
        if self.kind not in ("accuracy", "released"):
            return True
        if self.details.get("post_processing", POST_PROCESSING) != POST_PROCESSING:
            return False
        if (self.experiment.dataset, self.experiment.scale) not in RECIPES:
            return False
        if self.kind == "accuracy":
            return recipe_hash(dict(self.recipe or {})) == recipe_for(self.experiment).hash
        names = ("test_shorter_side", "test_longer_side")
        today = dict(zip(names, sides_at_test(self.experiment), strict=True))
        return all(self.details.get(name, side) == side for name, side in today.items())

    def to_dict(self) -> dict:
        return {
            "schema": SCHEMA,
            "kind": self.kind,
            "seed": self.seed,
            "key": self.key,
            "experiment": self.experiment.to_dict(),
            "recipe": self.recipe and dict(self.recipe),
            "recipe_hash": self.recipe and _checksum(self.recipe),
            "metrics": {name: dict(metric) for name, metric in self.metrics.items()},
            "samples": {name: list(values) for name, values in self.samples.items()},
            "details": dict(self.details),
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_dict(cls, values: Mapping) -> "Record":
        """Inverse of `to_dict`. Raises ValueError or BenchError on a foreign schema or contradictory content."""
        if not isinstance(values, Mapping) or "schema" not in values:
            raise ValueError("not a record")
        if values["schema"] != SCHEMA:
            raise ValueError(f"schema {values['schema']!r}, this version reads {SCHEMA}")
        if set(values) != _FIELDS:
            raise ValueError(f"fields differ: {', '.join(sorted(set(values) ^ _FIELDS))}")
        kept = {n: values[n] for n in ("kind", "metrics", "provenance", "seed", "recipe", "samples", "details")}
        record = cls(Experiment.from_dict(values["experiment"]), **kept)
        if values["key"] != record.key:  # of a small model: it was another one then
            if record.experiment.scale != "small" or not _alike(values["key"], record.key):
                raise ValueError("key and experiment disagree")
            object.__setattr__(record, "key", values["key"])
        if record.recipe and values["recipe_hash"] != _checksum(record.recipe):
            raise ValueError("recipe hash and recipe disagree")
        return record


class Store:
    """A folder with `records/` (and the tables computed from them). Nothing is created before the first write.

    Several processes may use one store: records appear whole or not at all, and `claim` keeps two processes from
    measuring the same thing at once.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)

    def record_path(self, experiment: Experiment, kind: str, seed: int | None = None) -> Path:
        _check_kind(kind, seed)
        return self.path / "records" / experiment.key / f"{_name(kind, seed)}.json"

    def get(self, experiment: Experiment, kind: str, seed: int | None = None) -> Record | None:
        """The record, or None where there is none. Raises BenchError naming a damaged file."""
        path = self.record_path(experiment, kind, seed)
        return self._read(path) if path.exists() else None

    def state(self, experiment: Experiment, kind: str, seed: int | None = None) -> str:
        """ "done", "stale" (see `is_current`: to be measured again) or "missing"."""
        record = self.get(experiment, kind, seed)
        if record is None:
            return "missing"
        return "done" if record.is_current else "stale"

    def load_all(self) -> list[Record]:
        """Every record, sorted by path. Raises BenchError naming the first damaged file."""
        return [self._read(path) for path in sorted(self.path.glob("records/*/[!.]*.json"))]

    def write(self, record: Record) -> Path:
        """Write a record in one step, in the place of an existing one."""
        path = self.record_path(record.experiment, record.kind, record.seed)
        text = json.dumps(record.to_dict(), indent=1, allow_nan=False) + "\n"
        write_atomically(path, text)
        return path

    def relative(self, record: Record) -> str:
        """The record's path inside the store, with forward slashes."""
        path = self.record_path(record.experiment, record.kind, record.seed)
        return path.relative_to(self.path).as_posix()

    def work_path(self, experiment: Experiment, kind: str, seed: int | None = None) -> Path:
        """Folder for checkpoints and other work files of one measurement; it may be missing."""
        _check_kind(kind, seed)
        return self.path / "work" / experiment.key / _name(kind, seed)

    def scratch_dir(self, experiment: Experiment, kind: str, seed: int | None = None) -> Path:
        """`work_path`, created if missing."""
        path = self.work_path(experiment, kind, seed)
        path.mkdir(parents=True, exist_ok=True)
        return path

    @contextmanager
    def claim(self, experiment: Experiment, kind: str, seed: int | None = None) -> Iterator[bool]:
        """Yield True if this process may measure this now, False if another one is at it. Ends with the process.

        Work that came to nothing, as where data are missing, leaves no file and no folder of its own.
        """
        path = self.scratch_dir(experiment, kind, seed) / ".lock"
        with open(path, "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            if not _is_same(lock, path):  # removed by who had it while this process waited for it
                yield False
                return
            try:
                yield True
            finally:
                if [entry.name for entry in path.parent.glob("*")] == [path.name]:  # none where it was moved away
                    path.unlink()
                    _remove_empty(path.parent, self.path)

    def _read(self, path: Path) -> Record:
        remedy = "delete it and run again"
        try:
            record = Record.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise BenchError(f"cannot read record {path} ({error.strerror}): check its permissions") from error
        except (ValueError, TypeError, KeyError, BenchError) as error:
            raise BenchError(f"record {path} is damaged or foreign ({one_line(error)}): {remedy}") from error
        if (path.parent.name, path.stem) != (record.key, record.name):
            raise BenchError(f"record {path} holds another measurement than its name says: {remedy}")
        return record


def _is_same(file: IO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _remove_empty(folder: Path, root: Path) -> None:
    """Remove the folder, and those above it up to `root` itself, as far as they are empty."""
    for path in (folder, *folder.parents):
        try:
            path.rmdir()
        except OSError:
            return
        if path == root:
            return


def samples_beside(metric: str, other: Experiment) -> str:
    """Name of samples in a latency record that are another experiment's: timed beside its own, round by round."""
    return f"{metric} of {other.key}"


def _name(kind: str, seed: int | None) -> str:
    return kind if seed is None else f"{kind}-{seed}"


def _check_kind(kind: str, seed: int | None) -> None:
    if kind not in KINDS:
        raise unknown_name("record kind", str(kind), KINDS)
    if (kind == "accuracy") != (isinstance(seed, int) and not isinstance(seed, bool)):
        raise ValueError("accuracy records, and only they, have a seed")


def _check_weights(facts: object) -> None:
    if not isinstance(facts, Mapping) or not set(WEIGHTS_FACTS) <= set(facts):
        raise ValueError(f"details['weights'] of a released record needs {', '.join(WEIGHTS_FACTS)}")
    file, digest = facts["file"], facts["sha256"]
    if not isinstance(file, str) or not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise ValueError("details['weights'] needs a file name and a SHA-256 in hexadecimal")


def _alike(key: object, other: str) -> bool:
    """Whether two keys differ in their hashes alone."""
    return isinstance(key, str) and key.rpartition("-")[0] == other.rpartition("-")[0]


def _checksum(recipe: Mapping) -> str:
    """Of the recipe as written, unlike `recipe_hash`, which depends on today's defaults."""
    return content_hash({name: value for name, value in recipe.items() if name != "seeds"})


def _is_metric(metric: object) -> bool:
    if not isinstance(metric, Mapping):
        return False
    value, count = metric.get("value"), metric.get("n")
    if any(isinstance(x, bool) for x in (value, count)):
        return False
    if not isinstance(value, int | float) or not isinstance(count, int | float):
        return False
    return math.isfinite(value) and count >= 1 and isinstance(metric.get("unit"), str)
