"""What a forced run sets aside, and what it does not when it is stopped and goes on."""

from pathlib import Path

import pytest

from bench.experiments import get_table
from bench.experiments.table import Measurement
from bench.records import Store
from bench.run import set_aside as module
from bench.run.set_aside import forget, set_aside
from tests.report.fakes import R50, SMALL, accuracy, complexity, full_store

COUNTED, TRAINED = Measurement(R50, "complexity"), Measurement(SMALL, "accuracy", 0)


@pytest.fixture
def store(tmp_path):
    """With two records, and a checkpoint of what is not finished."""
    store = Store(tmp_path / "store")
    store.write(complexity(params=1.0))
    store.write(accuracy(seed=1))
    (store.scratch_dir(SMALL, "accuracy", 0) / "checkpoint.pt").write_text("half")
    return store


def files(folder: Path) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if not name.endswith(".lock"))


def test_records_and_work_of_the_measurements_alone_move(store):
    folder, records = set_aside(store, "a", [COUNTED, TRAINED])
    assert records == 1 and folder.parent == store.path / "work" and folder.name.startswith("before-2")
    assert files(folder) == [f"records/{R50.key}/complexity.json", f"work/{SMALL.key}/accuracy-0/checkpoint.pt"]
    assert Store(folder).load_all() == [complexity(params=1.0)], "laid out as a store"
    assert store.load_all() == [accuracy(seed=1)]
    assert not store.work_path(SMALL, "accuracy", 0).exists()


def test_a_run_that_goes_on_keeps_what_it_has_measured(store):
    folder, _ = set_aside(store, "a", [COUNTED, TRAINED])
    store.write(complexity(params=2.0))
    (store.scratch_dir(SMALL, "accuracy", 0) / "checkpoint.pt").write_text("new")
    assert set_aside(store, "a", [COUNTED, TRAINED]) == (folder, 0)
    assert store.get(R50, "complexity") == complexity(params=2.0)
    assert (store.work_path(SMALL, "accuracy", 0) / "checkpoint.pt").read_text() == "new"


@pytest.mark.parametrize("how", ["another name", "another program", "ended", "damaged marker"])
def test_otherwise_it_begins_anew(store, monkeypatch, how):
    first, _ = set_aside(store, "a", [COUNTED])
    store.write(complexity(params=2.0))
    if how == "another program":
        monkeypatch.setattr(module.provenance, "state", lambda: {"commit": "another"})
    if how == "ended":
        forget(store, "a")
    if how == "damaged marker":
        (marker,) = (store.path / "work").glob("measuring-again-*")
        marker.write_text('{"state": 1')
    second, records = set_aside(store, "b" if how == "another name" else "a", [COUNTED])
    assert second != first and records == 1
    assert Store(first).load_all() == [complexity(params=1.0)] and Store(second).load_all() == [complexity(params=2.0)]


@pytest.mark.parametrize("renames", range(6))
def test_killed_while_setting_aside(store, monkeypatch, renames):
    """After any number of moves: the next call moves the rest, and nothing is lost or overwritten."""
    store.write(accuracy(seed=0))
    rename = Path.rename

    def killed(self, to):
        nonlocal renames
        if renames == 0:
            raise KeyboardInterrupt
        renames -= 1
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", killed)
    try:
        set_aside(store, "a", [COUNTED, TRAINED])
    except KeyboardInterrupt:
        monkeypatch.undo()
    folder, _ = set_aside(store, "a", [COUNTED, TRAINED])
    assert sorted(r.name for r in Store(folder).load_all()) == ["accuracy-0", "complexity"]
    assert store.load_all() == [accuracy(seed=1)]
    assert f"work/{SMALL.key}/accuracy-0/checkpoint.pt" in files(folder)


def test_what_another_process_measures_just_now_stays(store):
    with store.claim(R50, "complexity") as mine:
        assert mine and set_aside(store, "a", [COUNTED])[1] == 0
    store.write(complexity(params=2.0))
    assert set_aside(store, "a", [COUNTED])[1] == 0
    assert store.get(R50, "complexity") == complexity(params=2.0)


def test_nothing_there_leaves_nothing_behind(tmp_path):
    store = Store(tmp_path)
    folder, records = set_aside(store, "a", get_table("table1").measurements())
    assert records == 0 and folder.exists()
    forget(store, "a")
    assert files(tmp_path) == [] and not folder.exists()


def test_a_full_store_is_set_aside_whole(tmp_path):
    table = get_table("table1")
    store = full_store(table, tmp_path)
    before = store.load_all()
    folder, records = set_aside(store, "a", table.measurements())
    assert records == len(before) == len(Store(folder).load_all()) and store.load_all() == []
    forget(store, "a")
    assert len(Store(folder).load_all()) == len(before)
