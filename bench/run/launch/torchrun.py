"""torchrun whose exit code is that of the workers: `python -m bench.run.launch.torchrun [torchrun's arguments]`.

torchrun itself exits 1 whatever its workers exit with, which hides "run me again" (75) from a scheduler. On SIGTERM it
passes the signal on and kills the workers 30 s later; here they have the time that a step and a large checkpoint take.
"""

import signal
import sys

from torch.distributed.elastic.multiprocessing.api import PContext, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from bench.run.jobs import SAVE_SECONDS, TRY_AGAIN


def exit_code(failure: ChildFailedError) -> int:
    """That of the worker that ended first; torchrun then tells the others to stop, so theirs say nothing."""
    first = failure.get_first_failure()[1].exitcode
    return first if first > 0 else 128 - first


def give_time_to_save() -> None:
    """Of torch's processes, from now on: torchrun has no option for it."""
    close = PContext.close

    def patient(self: PContext, death_sig: signal.Signals | None = None, timeout: int = SAVE_SECONDS) -> None:
        close(self, death_sig, timeout)

    PContext.close = patient


def main() -> None:
    give_time_to_save()
    try:
        run(parse_args(sys.argv[1:]))
    except ChildFailedError as failure:
        sys.exit(exit_code(failure))
    except SignalException as stop:
        sys.exit(TRY_AGAIN if stop.sigval == signal.SIGTERM else 128 + stop.sigval)


if __name__ == "__main__":
    main()
