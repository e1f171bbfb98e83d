"""The command line as a user types it."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.experiments import find_row, get_table
from bench.records import Store
from bench.run import plan as runner
from bench.run.timing_groups import timing_groups
from tests.conftest import mistake
from tests.report.fakes import full_store

ROOT = Path(__file__).resolve().parents[2]
TABLE = get_table("table1")
COUNT = len(TABLE.measurements())


@pytest.fixture
def full(tmp_path):
    return full_store(TABLE, tmp_path / "store")


# In a process of its own


def shell(*command, **kwargs):
    done = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True, **kwargs)
    return done.returncode, done.stdout, done.stderr


def test_typed_in_a_shell(full, tmp_path):
    assert shell("-m", "bench", "plan", "table1", "--store", full.path)[0] == 0
    path = next((full.path / "records").glob("*/accuracy-1.json"))
    path.write_bytes(path.read_bytes()[:-50])
    before = path.read_bytes()
    mistake(shell("-m", "bench", "plan", "table1", "--store", full.path), str(path), "delete it and run again")
    assert path.read_bytes() == before


# Runs the command line with packages that cannot be imported, and tells which were tried.
WITHOUT = """
import sys
BLOCKED = {"torch", "torchvision", "transformers", "timm", "models", "baselines"}
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is broken")
sys.meta_path.insert(0, Broken())
from bench.cli import app as cli
cli.main()
"""


def test_report_needs_no_model_package(full, tmp_path):
    code, out, errors = shell("-c", WITHOUT, "report", "table1", "--store", full.path, "--reference", tmp_path)
    assert (code, errors) == (0, "")
    assert "# Table 1" in out and "Mask2Former" in out
    assert (full.path / "tables" / "table1.csv").is_file()
    assert shell("-c", WITHOUT, "plan", "table1", "--store", full.path)[0] == 0


# Help and names


def test_no_arguments_print_the_help(bench):
    _, out, errors = bench()
    assert all(re.search(rf"\b{command}\b", out + errors) for command in ("plan", "run", "report"))


@pytest.mark.parametrize("command", ["plan", "run", "report"])
def test_unknown_table(bench, tmp_path, command):
    mistake(bench(command, "tabel1"), "unknown table 'tabel1'", "did you mean 'table1'?")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["plan", "run"])
def test_unknown_scale(bench, tmp_path, command):
    mistake(bench(command, "table1", "--scale", "papr"), "unknown scale 'papr'", "did you mean 'paper'?")
    assert list(tmp_path.iterdir()) == []


# Plan


def states(out):
    return [line.split()[4 if "accuracy" in line else 3] for line in out.splitlines()[2 : 2 + COUNT]]


def test_plan_of_an_empty_store(bench, tmp_path):
    code, out, errors = bench("plan", "table1")
    assert (code, errors) == (0, "")
    assert states(out) == ["missing"] * COUNT
    assert f"0 of {COUNT} there" in out
    assert list(tmp_path.iterdir()) == []


def test_plan_of_a_store_with_records(bench, full):
    code, out, _ = bench("plan", "table1", "--store", full.path)
    assert code == 0 and states(out) == ["done"] * COUNT
    assert f"{COUNT} of {COUNT} there, about 0 min" in out
    wanted = [m for m in TABLE.measurements() if m.kind == "latency"][1]
    full.record_path(wanted.experiment, wanted.kind).unlink()
    _, out, _ = bench("plan", "table1", "--store", full.path)
    assert states(out).count("missing") == 1
    (group,) = timing_groups([wanted.experiment])  # with what it is compared with
    seconds = runner.latency_seconds(group)
    assert f"{COUNT - 1} of {COUNT} there, about {seconds / 60:.0f} min" in out and seconds >= 60


@pytest.mark.parametrize("scale", ["small", "paper"])
@pytest.mark.parametrize("table", ["table1", "table4", "tableIII", "tableIV"])
def test_plan_names_rows_as_other_commands_take_them(bench, table, scale):
    code, out, _ = bench("plan", table, "--scale", scale)
    wanted = get_table(table).measurements(scale)
    found = [find_row(line.split()[1]) for line in out.splitlines()[2 : 2 + len(wanted)]]
    assert code == 0 and sorted(e.key for e in found) == sorted(m.experiment.key for m in wanted)


# Report


def test_report_of_an_empty_store(bench, tmp_path):
    code, out, errors = bench("report", "table1")
    assert (code, errors) == (0, "")
    assert out.count("not measured") >= 16
    written = [tmp_path / "results" / "local" / "tables" / f"table1.{ending}" for ending in ("md", "csv", "tex")]
    assert all(path.is_file() and f"{path.relative_to(tmp_path)}" in out for path in written)
    assert out.startswith(written[0].read_text(encoding="utf-8"))


def test_reference_stands_beside_the_own_figures(bench, tmp_path):
    full_store(TABLE, tmp_path / "results" / "reference")
    _, out, _ = bench("report", "table1")
    alone = bench("report", "table1", "--reference", tmp_path)[1]
    assert "reference" in out and len(out) > len(alone)
    assert not list((tmp_path / "results" / "reference").glob("tables/*")), "the reference store was written to"


@pytest.mark.parametrize("command", ["plan", "run", "report"])
@pytest.mark.parametrize("content", ["half", "empty", "binary", "list"])
def test_damaged_record(bench, full, command, content):
    path = sorted((full.path / "records").glob("*/complexity.json"))[0]
    text = path.read_bytes()
    path.write_bytes({"half": text[: len(text) // 2], "empty": b"", "binary": b"\xff\xfe\0", "list": b"[]"}[content])
    before = {p: p.read_bytes() for p in full.path.rglob("*.json")}
    mistake(bench(command, "table1", "--store", full.path), str(path), "delete it and run again")
    assert {p: p.read_bytes() for p in full.path.rglob("*.json")} == before


# Stores that are none


def test_store_without_records(bench, tmp_path):
    mistake(bench("report", "table1", "--store", "typo"), "typo holds no records", "--store", "bench run table1")
    assert list(tmp_path.iterdir()) == []


def test_reference_that_is_not_there(bench, full):
    mistake(bench("report", "table1", "--store", full.path, "--reference", "typo"), "typo", "--reference")


@pytest.mark.parametrize("command", ["plan", "run", "report"])
def test_store_that_is_a_file(bench, tmp_path, command):
    (tmp_path / "file").write_text("mine")
    mistake(bench(command, "table1", "--store", "file"), "file is not a folder", "--store")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("command", ["run", "report"])
def test_store_that_cannot_be_written(bench, tmp_path, monkeypatch, command):
    monkeypatch.setattr(runner, "prepare_data", lambda *_: None)
    (tmp_path / "file").write_text("mine")
    code, out, errors = bench(command, "table1", "--store", "file/store")
    assert errors.splitlines()[-1].startswith("error: file/store") and "--store" in errors
    assert code == 2 and "Traceback" not in errors


def test_full_disk(bench, full, monkeypatch):
    def no_space(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as a write, with no file named

    monkeypatch.setattr(os, "fsync", no_space)
    mistake(bench("report", "table1", "--store", full.path), "No space left on device", "free space")


def test_other_errors_of_the_system_are_not_taken_for_a_full_disk(bench, full, monkeypatch):
    def too_many(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "fsync", too_many)
    with pytest.raises(OSError, match="Too many open files"):
        bench("report", "table1", "--store", full.path)


def test_tables_that_cannot_be_written(bench, full):
    (full.path / "tables").write_text("a file where the folder should be")
    mistake(bench("run", "table1", "--store", full.path), str(full.path / "tables"))


# Run


def test_run_where_all_is_done_prints_the_table(bench, full, tmp_path):
    code, out, errors = bench("run", "table1", "--store", full.path)
    assert (code, errors) == (0, "")
    assert "# Table 1" in out and "written: " in out
    assert not (tmp_path / "cache").exists()


def test_failed_jobs_are_named_after_the_table(bench, monkeypatch):
    monkeypatch.setattr(runner, "run", lambda *_, **__: ["accuracy x: it broke", "complexity y: it too"])
    code, out, errors = bench("run", "table1")
    assert code == 2 and "# Table 1" in out
    assert errors.startswith("error: 2 job(s) failed") and errors.count("\n") == 1
    assert "accuracy x: it broke; complexity y: it too" in errors


def test_interruption(bench, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", interrupted)
    code, out, errors = bench("run", "table1")
    assert (code, out, errors) == (130, "", "interrupted: the same command goes on where it stopped\n")


def test_options_reach_the_run(bench, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(runner, "run", lambda *args, page: calls.append(args) or [])
    bench("run", "table1")
    monkeypatch.setenv("BENCH_DATA", "/data")
    bench("run", "table1", "--store", tmp_path / "mine", "--scale", "paper", "--force")
    bench("run", "table1", "--data-root", "/other")
    assert [(str(store.path), *rest) for _, store, *rest in calls] == [
        (str(tmp_path / "results" / "local"), "small", None, False),
        (str(tmp_path / "mine"), "paper", Path("/data"), True),
        (str(tmp_path / "results" / "local"), "small", Path("/other"), False),
    ]


@pytest.mark.parametrize("root", [(), ("--data-root", "absent")])
def test_paper_scale_without_data(bench, tmp_path, root):
    mistake(bench("run", "table1", "--scale", "paper", *root), "--data-root or BENCH_DATA", *root[1:])
    assert list(tmp_path.iterdir()) == []


def test_store_of_another_name(bench, full):
    """A store elsewhere gets its tables and nothing beside it."""
    before = set(full.path.parent.iterdir())
    assert bench("report", "table1", "--store", full.path)[0] == 0
    assert set(full.path.parent.iterdir()) == before
    assert len(Store(full.path).load_all()) == COUNT
