"""A Slurm of one machine for tests: `sbatch`, `srun`, `scontrol` and `squeue` as far as a launch uses them.

Jobs of the array run at once as processes of this machine. State is in the folder of the programs: `script` (what was
submitted), `environment` (of sbatch), `run` (if it exists, jobs are really started), `no-requeue` (if it exists, that
is refused), `calls`, `states` (what squeue prints for `--name`), `state` (what it prints for one job).
"""

import os
import re
import subprocess
import sys
from pathlib import Path

PROGRAMS = ("sbatch", "srun", "scontrol", "squeue")
JOB = "4242"


def install(folder: Path) -> None:
    """Write the programs, to be found through PATH."""
    folder.mkdir()
    for name in PROGRAMS:
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).resolve()} {folder} {name} "$@"\n')
        program.chmod(0o755)


def restarts(folder: Path, index: str) -> int:
    calls = (folder / "calls").read_text().splitlines()
    return calls.count(f"scontrol requeue {JOB}_{index}")


def start(folder: Path, index: str) -> None:
    names = {"SLURM_JOB_ID": f"{int(JOB) + int(index)}", "SLURM_ARRAY_JOB_ID": JOB, "SLURM_ARRAY_TASK_ID": index}
    names |= {"SLURM_JOB_NODELIST": "localhost", "SLURM_RESTART_COUNT": str(restarts(folder, index))}
    with (folder / "jobs.txt").open("ab") as out:
        subprocess.Popen(["bash", folder / "script"], env=os.environ | names, stdout=out, stderr=out,
                         start_new_session=True)  # fmt: skip


def main(folder: Path, name: str, *arguments: str) -> None:
    with (folder / "calls").open("a") as calls:
        calls.write(" ".join([name, *arguments]) + "\n")
    if name == "sbatch":
        if "#SBATCH --partition=nowhere" in (text := sys.stdin.read()):
            sys.exit("sbatch: error: invalid partition specified: nowhere")
        (folder / "script").write_text(text)
        (folder / "environment").write_text("".join(f"{name}={value}\n" for name, value in os.environ.items()))
        print(f"{JOB};cluster" if "--parsable" in arguments else f"Submitted batch job {JOB}")
        array = re.search(r"--array=0-(\d+)", text)
        if (folder / "run").exists():
            for index in range(int(array[1]) + 1):
                start(folder, str(index))
    elif name == "srun":
        command = arguments[arguments.index(sys.executable) :]
        os.execv(command[0], command)
    elif name == "scontrol" and arguments[0] == "show":
        print("localhost")
    elif name == "scontrol":
        if (folder / "no-requeue").exists():
            sys.exit("scontrol: error: Requested operation is presently disabled")
        start(folder, arguments[1].partition("_")[2])
    elif name == "squeue":
        shown = folder / ("states" if "--name" in arguments else "state")
        print(shown.read_text() if shown.exists() else "", end="")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
