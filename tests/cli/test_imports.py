"""Commands that build no model start without the packages that take seconds to import."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench.experiments import get_table
from tests.report.fakes import full_store

ROOT = Path(__file__).resolve().parents[2]
# Runs the command line, then names the packages of the first list that were imported.
PROGRAM = """
import sys
slow, sys.argv = sys.argv[1].split(","), ["bench", *sys.argv[2:]]
from bench.cli import app
try:
    app.main()
finally:
    print("imported:", *[name for name in slow if name in sys.modules])
"""
MODELS = ("torch", "torchvision", "transformers", "timm", "models", "baselines")
NUMBERS = ("pandas", "numpy", "scipy", "matplotlib")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return full_store(get_table("table1"), tmp_path_factory.mktemp("full") / "store").path


def imported(*command, slow=MODELS + NUMBERS) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, ",".join(slow), *map(str, command)], cwd=ROOT, capture_output=True, text=True
    )
    return done.returncode, done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "command", ["--help", "plan --help", "--version", "list", "recipe show table1/hcformer-r50", "recipe --help"]
)
def test_nothing_slow_is_imported(command):
    assert imported(*command.split()) == (0, "imported:")


@pytest.mark.parametrize("command", ["plan", "report"])
def test_nothing_slow_is_imported_with_records(store, command):
    assert imported(command, "table1", "--store", store) == (0, "imported:")


@pytest.mark.parametrize(
    "command",
    [
        "plan tabel1", "run tabel1", "report tabel1", "launch tabel1", "train table1/hcformer-r51 --seed 0",
        "recipe show table1/hcformer-r51",
    ],
)  # fmt: skip
def test_a_mistyped_name_imports_no_progress_bar_either(command):
    assert imported(*command.split(), slow=(*MODELS, *NUMBERS, "rich", "tabulate")) == (2, "imported:")
