"""Where a measurement came from: code, software, machine, command, time."""

import hashlib
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from bench.machine import available_cores, cpu_name

PACKAGES = ("torch", "torchvision", "transformers", "timm", "fvcore")
REPOSITORY = Path(__file__).resolve().parents[1]


def collect(command: list[str] | None = None, **facts) -> dict:
    """Plain JSON facts about this process; call it when a measurement starts and add "duration_s" at its end.

    Imports no package: versions come from package metadata, and CUDA, GPU and threads from torch if it is loaded.
    `facts` (such as dataset_fingerprint) are added as they are. What cannot be found out is "unknown" or None.
    """
    torch = sys.modules.get("torch")
    cuda = torch is not None and torch.cuda.is_available()
    commit, dirty = git_state(REPOSITORY)
    return {
        "commit": commit,
        "dirty": dirty,
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in PACKAGES},
            "cuda": torch.version.cuda if cuda else None,
        },
        "cpu": cpu_name(),
        "cores": available_cores(),
        "processors": os.cpu_count(),  # also those that this process may not use, but which the load average is of
        "threads": torch.get_num_threads() if torch is not None else available_cores(),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "platform": platform.platform(),
        "command": shlex.join(command if command is not None else [Path(sys.argv[0]).name, *sys.argv[1:]]),
        "start": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        **facts,
    }


def git_state(folder: Path) -> tuple[str, bool | None]:
    """Commit hash and whether tracked or new files differ from it; ("unknown", None) outside git.

    `results/` does not count: a run writes there, and nothing measured depends on it.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return "unknown", None
    status = _git(folder, "status", "--porcelain", "--", ".", ":(exclude)results")
    return commit, None if status is None else bool(status)


def state() -> dict:
    """`collect` without what differs from call to call, and a hash of the uncommitted edits.

    Timings taken under different states are of different programs or machines.
    """
    facts = {name: fact for name, fact in collect().items() if name not in ("command", "start", "dirty")}
    return facts | {"edits": None if facts["commit"] == "unknown" else _uncommitted(REPOSITORY)}


def _uncommitted(repository: Path) -> str:
    """Hash of what differs from the commit: the changes of tracked files, and new Python files (results/ left out)."""

    def git(*arguments: str) -> bytes:
        return subprocess.run(["git", "-C", repository, *arguments], capture_output=True, timeout=30).stdout

    digest = hashlib.sha256(git("diff", "HEAD", "--binary", "--", ".", ":(exclude)results"))
    for name in git("ls-files", "-z", "--others", "--exclude-standard", "--", "*.py").split(b"\0")[:-1]:
        digest.update(name + b"\0" + (repository / os.fsdecode(name)).read_bytes())
    return digest.hexdigest()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
