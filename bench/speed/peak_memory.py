"""Peak memory of one call, in a process of its own: `python -m bench.speed.peak_memory WHAT DEVICE`.

WHAT: a method (one pass of R50 on 800x1088), or one of OPERATIONS (at the finest size of R50).
"""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

from bench.errors import BenchError

MIB = 2**20
OPERATIONS = ("clustering", "clustering, reference", "listing 1", "decoding", "decoding, reference", "listing 2")
# Large blocks go back to the system when they are freed; else what an earlier call left would hide what the next adds.
_GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": str(2**17)}


def peak_memory(what: str, device: str) -> dict[str, float]:
    """{"peak_mib", "added_mib"} of a fresh process: the largest resident set (CUDA: what torch allocated) during one
    call after a first one, and how much of that the call added. Raises BenchError if it fails."""
    command = [sys.executable, "-m", "bench.speed.peak_memory", what, device]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | _GIVE_BACK)
    if done.returncode:
        reason = (done.stderr.strip() or "no output").splitlines()[-1]
        raise BenchError(f"the memory of {what} could not be measured: {reason}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(what: str, device: str) -> dict[str, float]:
    """`peak_memory` within this process."""
    import torch

    from bench.speed.timings import clustering_functions, model_function

    forward = clustering_functions(device)[what] if what in OPERATIONS else model_function(what, device)
    forward()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        forward()
        peak = torch.cuda.max_memory_allocated()
    else:
        before = _resident("VmRSS")
        _reset_high_water_mark()
        forward()
        peak = _resident("VmHWM")
    return {"peak_mib": peak / MIB, "added_mib": (peak - before) / MIB}


def _reset_high_water_mark() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass  # not Linux, or not allowed: the peak is that of the whole process


def _resident(field: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
