"""What a training tells: a report a step, kept as JSON lines and, if wanted, for TensorBoard."""

import json
import math
import resource
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from bench.errors import BenchError
from bench.files import writing

LOG = "log.jsonl"
LINES = 5000  # at most, of a whole training
WINDOW = 50  # steps over which speed is measured
SCALARS = ("loss", "learning_rate", "gradient_norm", "images_per_second", "data_share", "memory", "skipped")


@dataclass(frozen=True)
class StepReport:
    """iteration: steps done. loss: of the global batch. gradient_norm: before clipping.

    images_per_second: of all processes, as data_share (the share of time waiting for data) over the last 50 steps.
    memory: bytes, peak of this process; on a GPU of its tensors. skipped: updates left out so far, as their gradient
    was not finite.
    """

    iteration: int
    iterations: int
    loss: float
    learning_rate: float
    gradient_norm: float
    images_per_second: float
    data_share: float
    memory: int
    skipped: int = 0

    def __str__(self) -> str:
        return (
            f"step {self.iteration}/{self.iterations}, loss {self.loss:.1f}, lr {self.learning_rate:.1e}, "
            f"{self.images_per_second:.1f} images/s, {self.data_share:.0%} waiting for data, "
            f"{self.memory / 2**30:.1f} GiB" + (f", {self.skipped} update(s) skipped" if self.skipped else "")
        )


Progress = Callable[[StepReport], None]


class Meter:
    """Times of the last steps."""

    def __init__(self, images: int):
        self._images = images
        self._steps: deque[tuple[float, float]] = deque(maxlen=WINDOW + 1)  # end of a step, seconds waited in it
        self._steps.append((time.monotonic(), 0.0))

    def step(self, waited: float) -> tuple[float, float]:
        """Images per second and share of time waited, once a step has ended in which data took `waited` seconds."""
        self._steps.append((time.monotonic(), waited))
        seconds = self._steps[-1][0] - self._steps[0][0]
        steps = list(self._steps)[1:]
        return self._images * len(steps) / max(seconds, 1e-9), min(1.0, sum(w for _, w in steps) / max(seconds, 1e-9))


def peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class TrainingLog:
    """`log.jsonl` in a folder: one line a step (a step of several, in long trainings), each a `StepReport`.

    start: steps that the checkpoint holds; what an interrupted run had written beyond them is cut off.
    tensorboard: also write event files to `tensorboard/` there. Raises BenchError where that is not installed.
    """

    def __init__(self, folder: Path, start: int, tensorboard: bool):
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / LOG
        self._file = self._path.open("a+b")
        self._file.truncate(_end(self._file, start))
        self._writer = _summary_writer(folder / "tensorboard", start) if tensorboard else None

    def write(self, report: StepReport) -> None:
        every = math.ceil(report.iterations / LINES)
        if report.iteration % every and report.iteration != report.iterations:
            return
        values = asdict(report)
        if not math.isfinite(report.gradient_norm):  # such an update is skipped
            values["gradient_norm"] = None
        with writing(self._path):
            self._file.write(json.dumps(values).encode() + b"\n")
            self._file.flush()
        if self._writer is not None:
            with writing(Path(self._writer.log_dir)):  # in a thread, which tells of it later
                for name in SCALARS:
                    self._writer.add_scalar(name, getattr(report, name), report.iteration)

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, *_) -> None:
        with writing(self._path):  # again, where the last line did not fit
            self._file.close()
        if self._writer is not None:
            with writing(Path(self._writer.log_dir)):
                self._writer.close()


def _end(file, start: int) -> int:
    """Where the lines end that belong to the first `start` steps."""
    file.seek(0)
    end = 0
    for line in file:
        try:
            iteration = json.loads(line)["iteration"] if line.endswith(b"\n") else None
        except (ValueError, TypeError, KeyError, RecursionError):
            iteration = None
        if not isinstance(iteration, int) or iteration > start:
            break
        end += len(line)
    return end


def _summary_writer(folder: Path, start: int):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise BenchError("--tensorboard needs the package tensorboard: pip install tensorboard") from None
    return SummaryWriter(folder, purge_step=start + 1)
