"""`bench gpu-check`, or `python -m bench.speed.gpu_check` where typer is not installed: all that needs a GPU.

Each part runs in a process of its own, so that a kernel that crashes the device does not take the others along, and
has to end when its share of the time is over.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.errors import BenchError, one_line, unknown_name
from bench.files import write_atomically
from bench.speed.gpu_parts import PARTS

LIMIT_S = 465.0
FILE = "gpu_check.json"
_REPORT_S = 5.0


def check(store: Path, parts: Sequence[str] = (), limit_s: float = LIMIT_S) -> tuple[Path, bool]:
    """Run the parts (default: all) and write `gpu_check.json` into the store after each; whether none failed.

    Parts that are not run keep what the file holds of them. Raises BenchError for an unknown part, without a CUDA
    device, and where the store holds latencies of another device.
    """
    for name in parts:
        if name not in PARTS:
            raise unknown_name("part", name, PARTS)
    _require_device(store)
    chosen = [name for name in PARTS if not parts or name in parts]
    path, begun, passed = store / FILE, time.monotonic(), True
    results = read(path)
    for number, name in enumerate(chosen):
        reserved = sum(PARTS[later].seconds for later in chosen[number + 1 :])
        part = _run_part(store, name, limit_s - (time.monotonic() - begun) - reserved)
        results[name] = part
        passed &= part["state"] in ("passed", "skipped")
        write_atomically(path, json.dumps(results, indent=1) + "\n")
    return path, passed


def read(path: Path) -> dict[str, dict]:
    """Part -> {"state", "reason", "seconds", "result", "provenance"}; empty where there is no file yet."""
    if not path.exists():
        return {}
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(results, dict) or not all(isinstance(p, dict) and "state" in p for p in results.values()):
            raise ValueError("not a result of gpu-check")
    except (OSError, ValueError, RecursionError) as error:
        raise BenchError(f"{path} is damaged ({one_line(error)}): delete it and run again") from error
    return results


def text(results: dict[str, dict]) -> str:
    """What `check` wrote, for people."""
    blocks = []
    for name, part in results.items():
        head = f"{name}: {part['state']}, {part['seconds']:.0f} s" + (f" ({part['reason']})" if part["reason"] else "")
        shown = PARTS[name].show(part["result"]) if name in PARTS and part["result"] else ""
        blocks.append(f"{head}\n{shown}".rstrip())
    return "\n\n".join(blocks)


def _require_device(store: Path) -> None:
    import torch

    if not torch.cuda.is_available():
        raise BenchError("no CUDA device: 'bench gpu-check' runs on a machine with one ('bench benchmark' needs none)")
    from bench.records import Store

    here = torch.cuda.get_device_name()
    for record in Store(store).load_all():
        if record.kind == "latency" and record.provenance["gpu"] != here:
            there = record.provenance["gpu"] or record.provenance["cpu"]
            raise BenchError(
                f"{store} holds latencies of {there}: give another folder for those of {here}, with --store"
            )


def _run_part(store: Path, name: str, limit_s: float) -> dict:
    """Run one part in a subprocess, which reports on standard error and leaves its result in a file."""
    store.mkdir(parents=True, exist_ok=True)
    out = store / f".gpu_check-{name}.json"
    out.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "bench.speed.gpu_check",
        "--child",
        name,
        "--store",
        str(store),
        "--seconds",
        f"{limit_s:.0f}",
    ]
    begun, root = time.monotonic(), Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))}
    code = subprocess.run(command, env=environment, cwd=Path.cwd()).returncode if limit_s > 1 else -signal.SIGALRM
    try:
        part = json.loads(out.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        late = code == -signal.SIGALRM  # before it had anything to keep
        reason = f"not finished in {max(limit_s, 0):.0f} s" if late else f"the process ended with exit code {code}"
        part = {"state": "out of time" if late else "failed", "reason": reason, "result": None, "provenance": None}
    out.unlink(missing_ok=True)
    return {**part, "seconds": time.monotonic() - begun}


def _child(name: str, store: Path, seconds: int) -> None:
    """Run one part in this process and leave its result in the store's file for it."""
    from bench import provenance

    begun, last = time.monotonic(), [0.0]

    def progress(done: float, total: float, label: str) -> None:
        now = time.monotonic()
        if now - last[0] >= _REPORT_S or done >= total:
            last[0] = now
            spent = now - begun
            print(f"[{name}] {done:.0f}/{total:.0f}, {spent:.0f} of at most {seconds} s: {label}", file=sys.stderr)

    out, facts = store / f".gpu_check-{name}.json", provenance.collect(["bench", "gpu-check", "--part", name])

    def keep(result: dict) -> None:
        """What there is so far, should the time run out."""
        part = {"state": "out of time", "reason": f"not finished in {seconds} s", "result": result, "provenance": facts}
        write_atomically(out, json.dumps(part))

    part = {"state": "passed", "reason": "", "result": None}
    try:
        result, failures = PARTS[name].run("cuda", store, progress, keep)
        part |= {"result": result}
        if failures:
            part |= {"state": "failed", "reason": "; ".join(failures)}
    except ModuleNotFoundError as error:
        part |= {"state": "skipped", "reason": f"package {error.name} is not installed"}
    except Exception as error:  # torch, Triton and the compilers raise many kinds for a device
        part |= {"state": "failed", "reason": f"{type(error).__name__}: {one_line(error)[:500]}"}
    write_atomically(out, json.dumps(part | {"provenance": facts}))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command without typer: 0 passed, 1 a part failed, 2 a user's mistake."""
    parser = argparse.ArgumentParser("python -m bench.speed.gpu_check", description=__doc__.splitlines()[0])
    parser.add_argument("--part", action="append", default=[], help=f"run this part only: {', '.join(PARTS)}")
    parser.add_argument("--store", type=Path, default=Path(__file__).resolve().parents[2] / "results" / "local")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    try:
        if given.child:
            signal.alarm(max(1, given.seconds))  # the system ends this process then, wherever it hangs
            _child(given.child, given.store, given.seconds)
            return 0
        path, passed = check(given.store, given.part)
    except (BenchError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    print(f"{text(read(path))}\n\nwritten: {path}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
