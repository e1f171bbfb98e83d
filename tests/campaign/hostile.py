"""Hostile files given to commands: each is refused in one line, with exit code 2, in little memory, and nothing is
written or run."""

import os
import resource
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from tests.campaign.hostile_files import Case, cases
from tests.campaign.prepared import prepare

MEMORY_MIB = 512  # of the whole process, with torch
SECONDS = 120


def campaign(folder: Path, report: Callable[[str], None], every: int = 1) -> str:
    """ "passed: ..." or "failed: ..." with the figures. every: take each so-manieth case alone."""
    prepare(ready := folder / "prepared")
    _import_what_commands_import()
    wrong, most, count = [], 0.0, 0
    for number, case in enumerate(cases(ready)):
        if number % every:
            continue
        place = folder / f"case-{number}"
        place.mkdir()
        case.write(place)
        faults, used = _try(case, place, folder / "cache")
        report(f"{case.name}: {'; '.join(faults) or 'refused'}, {used:.0f} MiB")
        wrong += [f"{case.name}: {fault}" for fault in faults]
        most, count = max(most, used), count + 1
    figures = f"{count} files, {count - len({fault.split(':')[0] for fault in wrong})} refused, at most {most:.0f} MiB"
    return f"failed: {figures}: " + "; ".join(wrong) if wrong else f"passed: {figures}"


def _import_what_commands_import() -> None:
    """Once, before each case gets a process of its own by fork."""
    import bench.cli.app
    import bench.data.check
    import bench.measure.accuracy
    import bench.measure.predict
    import bench.report.write
    import bench.weights.convert  # noqa: F401

    torch.set_num_threads(1)  # a fork has no other threads


def _try(case: Case, place: Path, cache: Path) -> tuple[list[str], float]:
    """What is wrong with the answer to a case, and the most memory (MiB) that its process had."""
    files = _files(place)
    out, errors = place.with_suffix(".out"), place.with_suffix(".err")
    child = os.fork()
    if child == 0:
        _become(case.command, place, cache, out, errors)
    _, status, usage = os.wait4(child, 0)
    used = usage.ru_maxrss / 1024
    said, faults = errors.read_text(), []
    if (code := os.waitstatus_to_exitcode(status)) != 2:
        faults.append(f"exit code {code}")
    lines = [line for line in said.splitlines() if "-:--:--" not in line]  # a bar that did not begin
    if out.read_text() or len(lines) != 1 or not lines[0].startswith("error: "):
        faults.append(f"said {out.read_text() + said[-300:]!r}")
    if changed := sorted(_files(place) ^ files):
        faults.append(f"changed {changed}")
    if used > MEMORY_MIB:
        faults.append(f"took {used:.0f} MiB")
    return faults, used


def _become(command: Sequence[str], place: Path, cache: Path, out: Path, errors: Path) -> None:
    """Run `bench` with that command in the folder `place`; does not return."""
    code = 1
    try:
        from bench.cli import app

        for number, path in ((1, out), (2, errors)):
            os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
        os.chdir(place)
        os.environ["XDG_CACHE_HOME"] = str(cache)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        sys.argv = ["bench", *command]
        app.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _files(place: Path) -> set[tuple[str, int]]:
    """Names and sizes of all files; locks and logs of a training's work folder hold nothing."""
    ignored = (".lock", "log.txt")
    found = (path for path in place.rglob("*") if path.is_file() and path.name not in ignored)
    return {(str(path.relative_to(place)), path.stat().st_size) for path in found}
