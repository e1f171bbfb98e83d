"""`Record`: one measurement with its provenance. `Store`: the folder that keeps records, one JSON file each."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import TypeGuard

from bench.errors import BenchError, one_line, unknown_name
from bench.experiments.experiment import Experiment
from bench.experiments.hashing import content_hash
from bench.experiments.inference_rules import inference_rules, is_padding, post_processing
from bench.experiments.recipe import RECIPES, Recipe, recipe_for, recipe_hash
from bench.experiments.tables import latency_bases
from bench.files import lock_folder, write_atomically

SCHEMA = 1
MOST_BYTES = 1 << 24  # of a record; a few kB are usual
KINDS = ("complexity", "latency", "accuracy", "released")
WEIGHTS_FACTS = ("file", "sha256", "source", "source_sha256", "format")
REQUIRED_PROVENANCE = ("commit", "dirty", "versions", "cpu", "gpu", "start", "duration_s")
# A machine was busy where the 90th percentile of a latency's rounds is more than twice the 10th: as slow as beside an
# equal process (the 91 latencies of the reference store reach 1.6; a single slow round of ten does not count). Or where
# half a process more wanted to run than there are processors: a timing alone fills them (2.1 of 2 in that store).
BUSY_SPREAD, BUSY_PROCESSES = 2.0, 0.5
_FIELDS = set("schema kind seed key experiment recipe recipe_hash metrics samples details provenance".split())


@dataclass(frozen=True)
class Record:
    """One measurement of one experiment; an accuracy record is of one seed and holds the recipe.

    A "released" record is the accuracy of a checkpoint that somebody else trained, which has neither: its
    `details["weights"]` holds `WEIGHTS_FACTS`, of which `sha256` says which file it is of. That of an accuracy record
    names the weights that the training left: "file", its path in the store, and "sha256".

    metrics: name -> {"value": finite number, "unit": str, "n": samples behind the value, 1 or more, ...}; "interval":
    [low, high] of those that `bench.evaluation.uncertainty.bootstrap` has of images, which older records lack.
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
            if "interval" in metric and not _is_interval(metric["interval"]):
                raise ValueError(f"the interval of metric '{name}' needs two finite numbers, the lower first")
        for name in ("samples", "details", "provenance"):
            if not isinstance(getattr(self, name), Mapping):
                raise ValueError(f"{name} must map names to values")
        for name, values in self.samples.items():
            if not isinstance(values, list | tuple) or not all(map(_is_number, values)):
                raise ValueError(f"samples of '{name}' are finite numbers")
        if not all(_is_number(self.provenance.get(name) or 0) for name in ("cores", "processors")):
            raise ValueError("cores and processors of the provenance are numbers")
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
        """False for one made with other small models, another recipe, padding or post-processing than today's: it is
        measured again."""
        if self.key != self.experiment.key:
            return False
        if not is_padding(self.details.get("padding"), (self.experiment, *self._beside())):
            return False
        if self.kind not in ("accuracy", "released"):
            return True
        said, today = self.details.get("post_processing"), post_processing(self.experiment)
        if said is not None and said != today:
            return False
        if (self.experiment.dataset, self.experiment.scale) not in RECIPES:
            return False
        if self.kind == "accuracy":
            return recipe_hash(dict(self.recipe or {})) == recipe_for(self.experiment).hash
        rules = inference_rules(self.experiment)
        sides = {"test_shorter_side": rules.shorter_side, "test_longer_side": rules.longer_side}
        return all(self.details.get(name, side) == side for name, side in sides.items())

    def _beside(self) -> list[Experiment]:
        """Of a latency what it is compared with, if that was timed in the same rounds."""
        bases = latency_bases(self.experiment) if self.kind == "latency" else ()
        return [base for base in bases if any(samples_beside(metric, base) in self.samples for metric in self.metrics)]

    @property
    def is_of_busy_machine(self) -> bool:
        """Of a latency, whether the machine did other work meanwhile, by the spread of the rounds (its own and those
        of what was timed beside it) or the load average. It is shown, decides no claim, and is timed again."""
        if self.kind != "latency":
            return False
        deciles = [quantiles(rounds, n=10, method="inclusive") for rounds in self.samples.values() if len(rounds) > 1]
        if any(high > BUSY_SPREAD * low > 0 for low, *_, high in deciles):
            return True
        loads = re.findall(r"\d+(?:\.\d+)?", str(self.details.get("load_average", "")))
        processors = self.provenance.get("processors") or self.provenance.get("cores") or math.inf
        return any(float(load) > processors + BUSY_PROCESSES for load in loads)

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
        with lock_folder(self.scratch_dir(experiment, kind, seed), self.path) as mine:
            yield mine

    def _read(self, path: Path) -> Record:
        record = read_record(path)
        if (path.parent.name, path.stem) != (record.key, record.name):
            raise BenchError(f"record {path} holds another measurement than its name says: delete it and run again")
        return record


def read_record(path: Path) -> Record:
    """The record in a file, whatever that is called. Raises BenchError for a file that cannot be read or is none."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES} bytes")
        return Record.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise BenchError(f"cannot read record {path} ({error.strerror}): check its permissions") from error
    except (ValueError, TypeError, KeyError, RecursionError, BenchError) as error:
        raise BenchError(f"record {path} is damaged or foreign ({one_line(error)}): delete it and run again") from error


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
    count = metric.get("n")
    return _is_number(metric.get("value")) and _is_number(count) and count >= 1 and isinstance(metric.get("unit"), str)


def _is_interval(interval: object) -> bool:
    if not isinstance(interval, list | tuple) or len(interval) != 2 or not all(map(_is_number, interval)):
        return False
    return interval[0] <= interval[1]


def _is_number(value: object) -> TypeGuard[float]:
    """Finite, and no whole number beyond a float's range."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
