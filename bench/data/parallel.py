"""The same work on every image of a split, one process a core."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from torch.utils.data import DataLoader, Dataset

from bench.errors import BenchError
from bench.machine import available_cores

NO_SHARED_MEMORY = (
    "the processes that read images find no shared memory left in /dev/shm: make it larger (docker run --shm-size 16g)"
)
Answer = TypeVar("Answer")  # plain values
_WORTHWHILE = 16  # images a process, for what it takes to start one


def in_parallel(task: Callable[[int], Answer], count: int) -> Iterator[Answer]:
    """task(0), task(1), ... task(count - 1), in that order.

    Raises BenchError where a task does, where a process is killed and where none can be started for want of shared
    memory. The processes end with this one.
    """
    processes = min(available_cores(), count // _WORTHWHILE)
    loader = DataLoader(
        _Calls(task, count), batch_size=None, num_workers=processes, prefetch_factor=8 if processes else None
    )
    try:
        iterator = iter(loader)
    except OSError as error:  # of the semaphores, which lie there
        raise BenchError(NO_SHARED_MEMORY) from error
    try:
        for failed, answer in iterator:
            if failed:
                raise BenchError(answer)
            yield answer
    except RuntimeError as error:
        if "exited unexpectedly" not in str(error):
            raise
        raise BenchError("a process that read images was killed, is the memory too small? Run it again") from error


class _Calls(Dataset):
    def __init__(self, task: Callable[[int], Any], count: int):
        self._task, self._count = task, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[bool, Any]:
        try:
            return False, self._task(index)
        except BenchError as error:  # a loader would make its message a traceback
            return True, str(error)
