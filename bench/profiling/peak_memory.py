"""Peak memory of one forward pass, in a process of its own: `python -m bench.profiling.peak_memory METHOD DEVICE`."""

import json
import resource
import subprocess
import sys
from pathlib import Path

from bench.errors import BenchError

MIB = 2**20


def peak_memory(method: str, device: str) -> dict[str, float]:
    """{"peak_mib", "added_mib"} of a fresh process: the largest resident set (CUDA: what torch allocated) during one
    pass of R50 on 800x1088 after a first one, and how much of that the pass added. Raises BenchError if it fails."""
    command = [sys.executable, "-m", "bench.profiling.peak_memory", method, device]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"the memory of {method} could not be measured: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(method: str, device: str) -> dict[str, float]:
    import torch

    from bench.profiling.benchmark import model_function

    forward = model_function(method, device)
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
