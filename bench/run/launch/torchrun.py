"""torchrun whose exit code is that of the workers: `python -m bench.run.launch.torchrun [torchrun's arguments]`.

torchrun itself exits 1 whatever its workers exit with, which hides "run me again" (75) from a scheduler. On SIGTERM it
passes the signal on and gives the workers 30 s before it kills them; the periodic checkpoint covers what takes longer.
"""

import signal
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from bench.run.jobs import TRY_AGAIN


def exit_code(failure: ChildFailedError) -> int:
    """That of the worker that ended first; torchrun then tells the others to stop, so theirs say nothing."""
    first = failure.get_first_failure()[1].exitcode
    return first if first > 0 else 128 - first


def main() -> None:
    try:
        run(parse_args(sys.argv[1:]))
    except ChildFailedError as failure:
        sys.exit(exit_code(failure))
    except SignalException as stop:
        sys.exit(TRY_AGAIN if stop.sigval == signal.SIGTERM else 128 + stop.sigval)


if __name__ == "__main__":
    main()
