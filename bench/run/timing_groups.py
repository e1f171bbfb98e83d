"""Which latencies are timed in one run: ratios are formed between timings of one run only."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from bench.experiments.experiment import Experiment
from bench.experiments.tables import latency_bases
from bench.records import Store, samples_beside


@dataclass(frozen=True)
class TimingGroup:
    """rows: of one table, with the data set and backbone in common; their records are written.

    bases: timed beside them, since some table compares a row with them; a row's record holds their times, too.
    """

    rows: tuple[Experiment, ...]
    bases: tuple[Experiment, ...]


def timing_groups(rows: Iterable[Experiment]) -> list[TimingGroup]:
    """The runs in which these rows of a table are timed, in the order of the rows."""
    groups: dict[tuple[str, str], list[Experiment]] = {}
    for experiment in rows:
        groups.setdefault((experiment.dataset, experiment.backbone), []).append(experiment)
    return [TimingGroup(tuple(group), _bases(group)) for group in groups.values()]


def _bases(rows: Collection[Experiment]) -> tuple[Experiment, ...]:
    return tuple(dict.fromkeys(base for row in rows for base in latency_bases(row) if base not in rows))


def of_busy_groups(rows: Sequence[Experiment], store: Store) -> set[Experiment]:
    """Those of the rows that were timed on a busy machine, or in the run of a row of their group that was."""
    found = set()
    for group in timing_groups(rows):
        records = {row: record for row in group.rows if (record := store.get(row, "latency"))}
        runs = {record.details.get("run") for record in records.values() if record.is_of_busy_machine}
        found |= {row for row, record in records.items() if record.details.get("run") in runs}
    return found


def is_timed(experiment: Experiment, bases: Iterable[Experiment], store: Store) -> bool:
    """Whether the store has the experiment's latency, and of the same run that of each base, on a machine that did
    nothing else."""
    record = store.get(experiment, "latency")
    if record is None or not record.is_current or record.is_of_busy_machine:
        return False
    for base in bases:
        if any(samples_beside(name, base) in record.samples for name in record.metrics):
            continue
        other = store.get(base, "latency")
        if other is None or not other.is_current or other.details.get("run") != record.details.get("run"):
            return False
        if other.is_of_busy_machine:
            return False
    return True
