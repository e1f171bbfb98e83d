"""Fixtures that several test folders use."""

import fcntl
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from bench.cli import app as cli
from bench.cli import stores
from bench.data.synthesis import synthetic
from bench.data.synthesis.layouts import synthesize
from bench.run import pool

# Nothing depends on how fast or busy the machine is, nor on chance. CI tries more examples than a working day.
STEADY = {"deadline": None, "derandomize": True, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("quick", max_examples=20, **STEADY)
settings.register_profile("thorough", max_examples=200, **STEADY)
settings.load_profile("thorough" if os.environ.get("CI") == "true" else "quick")


def pytest_configure(config) -> None:
    """One thread a worker of pytest-xdist, also in the processes that tests start."""
    if hasattr(config, "workerinput"):
        import torch

        os.environ["OMP_NUM_THREADS"] = "1"
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference facts and small real data beside the checkout; tests that need it skip without it."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not (path / "reference").is_dir():
        pytest.skip("../shared (reference fixtures and small real data) is not beside this checkout")
    return path


@pytest.fixture(scope="session")
def written_once(tmp_path_factory):
    """written_once(name, write) -> folder that write(folder) filled, once for all workers; do not change it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "written_once"
    folder.mkdir(exist_ok=True)

    def get(name: str, write: Callable[[Path], object]) -> Path:
        with open(folder / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / name).exists():
                write(folder / name)
        return folder / name

    return get


@pytest.fixture(scope="session")
def generated_once(written_once):
    """generated_once(name) -> folder with eight generated images a split in that official layout; do not change it."""
    return lambda name: written_once(name, lambda root: synthesize(name, root, images=8))


@pytest.fixture
def bench(monkeypatch, capsys, tmp_path):
    """bench(*arguments) -> (exit code, output, errors), in this process and an empty folder; starts no job."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stores, "RESULTS", tmp_path / "results")
    monkeypatch.delenv("BENCH_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def refuse(*args, **kwargs):
        raise AssertionError("a job was started")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, *capsys.readouterr()

    monkeypatch.setattr(pool.subprocess, "Popen", refuse)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    return run


def few_scenes(tmp_path_factory, train: int, val: int):
    """A new cache folder with the first so many scenes of the synthetic data set."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SPLITS", {"train": train, "val": val})
        synthetic.ensure(folder)
    return folder


def mistake(result, *words):
    """The answer is one line on standard error with the words, and exit code 2."""
    code, out, errors = result
    assert (code, out) == (2, "")
    assert errors.startswith("error: ") and errors.count("\n") == 1 and errors.endswith("\n"), errors
    assert all(word in errors for word in words), errors
