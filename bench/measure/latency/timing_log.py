"""The scratch file of a latency run: one JSON line a timing, so that a killed run goes on where it stopped."""

import json
import uuid
from collections.abc import Sequence
from pathlib import Path

from bench.files import write_atomically, writing

_NUMBERS = ("network_ms", "end_to_end_ms", "cost_s")


class TimingLog:
    """Timings by (round, experiment key), kept in a file as they come.

    context: everything that must not change between two parts of one run, as a string. Lines of another context,
    and torn or foreign lines, are dropped on opening (the file is rewritten without them).
    run: name of the run, the same after a resume.
    """

    def __init__(self, path: Path, context: str, keys: Sequence[str]):
        self.path, self.context, self.keys = path, context, tuple(keys)
        self._lines = self._load()
        self.run = next(iter(self._lines.values()))["run"] if self._lines else uuid.uuid4().hex[:12]
        text = "".join(json.dumps(line) + "\n" for line in self._lines.values())
        write_atomically(path, text)

    def __len__(self) -> int:
        return len(self._lines)

    def __contains__(self, timing: tuple[int, str]) -> bool:
        return timing in self._lines

    def append(
        self, round_: int, key: str, network_ms: float, end_to_end_ms: float, cost_s: float, load: float | None,
        clustering: str,
    ) -> None:  # fmt: skip
        """cost_s: wall time spent for this timing, with whatever had to be prepared for it.

        load: the machine's load average before all that, None where it does not tell. clustering: the form that ran.
        """
        numbers = dict(zip(_NUMBERS, (network_ms, end_to_end_ms, cost_s), strict=True))
        names = {"context": self.context, "run": self.run, "round": round_, "key": key, "clustering": clustering}
        line = {**names, **numbers, "load": load}
        with writing(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._lines[round_, key] = line

    def samples(self, key: str, name: str, rounds: int) -> list[float]:
        """Values of "network_ms" or "end_to_end_ms" of one experiment in the first `rounds` rounds, all complete."""
        return [self._lines[round_, key][name] for round_ in range(rounds)]

    def loads(self) -> list[float]:
        """Load averages before the timings, in their order, where known."""
        return [line["load"] for line in self._lines.values() if line["load"] is not None]

    def clustering(self) -> str:
        """The form of clustering that ran; several where the parts of a run found one compiler and none."""
        return ", ".join(sorted({line["clustering"] for line in self._lines.values()}))

    def spent_s(self) -> float:
        """Wall time that all timings took, over all parts of the run."""
        return sum(line["cost_s"] for line in self._lines.values())

    def round_s(self, round_: int) -> float:
        """Wall time of the passes of one complete round."""
        return sum(self._lines[round_, key]["end_to_end_ms"] for key in self.keys) / 1000

    def _load(self) -> dict[tuple[int, str], dict]:
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return {}
        lines = {}
        for line in map(_parse, text.splitlines()):
            if line and line["context"] == self.context and line["key"] in self.keys:
                lines[line["round"], line["key"]] = line
        return lines


def _parse(text: str) -> dict | None:
    try:
        line = json.loads(text)
        numbers = all(isinstance(line[name], float) and 0 <= line[name] < float("inf") for name in _NUMBERS)
        names = all(isinstance(line[name], str) for name in ("context", "run", "key", "clustering"))
        numbers = numbers and (line["load"] is None or isinstance(line["load"], float))
        return line if numbers and names and isinstance(line["round"], int) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
