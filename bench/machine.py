"""What this machine has: processor, cores that this process may use, device."""

import getpass
import os
import platform
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError

if TYPE_CHECKING:
    import torch


def stand_in_for_account() -> None:
    """Set the name and the home folder that a user id without an account lacks, as under `docker --user 12345`.

    Libraries ask for both: torch for the name of its cache folder; without a home folder some write to one called "~".
    Raises BenchError where no folder can be made.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = str(os.getuid())
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(_folder_of_own())


def _folder_of_own() -> Path:
    """A folder below the temporary one that this user alone can write."""
    folder = Path(tempfile.gettempdir()) / f"hcformer-bench-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()  # a link, or a folder that somebody else made, is not ours
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022:
            return folder
    except OSError:
        pass
    raise BenchError(
        f"user {os.getuid()} has no home folder, and {folder} cannot be one: set HOME to a folder of yours"
    )


def cpu_name() -> str:
    """Model name of the processor, "unknown" where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return next(filter(None, names), platform.processor() or "unknown")


def available_cores() -> int:
    """Cores that this process may use: its affinity, and the quota of its container (cgroup v2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or "max": no quota
        return cores


def default_device() -> "torch.device":
    """The GPU where there is one, else the CPU."""
    import torch  # only here: plans and provenance need cores and names alone

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def get_device(name: str | None) -> "torch.device":
    """The device of that name ("cpu", "cuda", "cuda:1"), `default_device` for None.

    Raises BenchError where this machine, or the torch that is installed, has none, and says what it has.
    """
    if name is None:
        return default_device()
    import torch

    try:
        device = torch.device(name)
        torch.ones(1, device=device).add(1).item()
        return device
    except (RuntimeError, AssertionError, NotImplementedError):  # torch's, of many kinds and some of many lines
        there = ", ".join(["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))])
        raise BenchError(f"no device '{name}' that torch can use here: there is {there}") from None
