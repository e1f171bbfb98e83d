"""Large annotation files are parsed once: what a second opening finds is the same, and never that of another file."""

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from bench.data.annotations import instances, panoptic, shared
from bench.data.coco import CocoPanoptic
from bench.data.coco_files import fingerprint
from bench.data.coco_instance import CocoInstance
from bench.errors import BenchError
from tests.data.test_coco_instance import SQUARE, Tiny


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(shared, "WORTHWHILE", 0)
    return tmp_path / "cache" / "hcformer-bench" / "annotations"


@pytest.fixture
def tiny(tmp_path, cache):
    return Tiny(tmp_path / "tiny")


@pytest.fixture
def parsed(monkeypatch):
    """Names of the files that are parsed from now on."""
    seen = []
    for module, name in ((instances, "read_object"), (panoptic, "read_object")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda path, kind, real=real: seen.append(path.name) or real(path, kind))
    return seen


def _same(one, two) -> None:
    assert (one.images, one.categories, len(one)) == (two.images, two.categories, len(two))
    for first, second in zip(one, two, strict=True):
        assert np.array_equal(first.image, second.image) and np.array_equal(first.masks, second.masks)
        assert first.labels.tolist() == second.labels.tolist()


def test_the_second_opening_and_the_fingerprint_parse_nothing(tiny, cache, parsed):
    first = CocoInstance(tiny.root, "val")
    assert parsed == ["instances_val.json"] and len(list(cache.glob("*.bin"))) == 1
    second = CocoInstance(tiny.root, "val")
    _same(first, second)
    assert second.annotations.objects(1) == first.annotations.objects(1) != []
    found = second.fingerprint()
    assert parsed == ["instances_val.json"]
    assert found == fingerprint(tiny.root, "val", "instances")


def test_panoptic_files_too(synthetic_root, cache, parsed):
    once, twice = CocoPanoptic(synthetic_root, "val"), CocoPanoptic(synthetic_root, "val")
    assert parsed == ["panoptic_val.json"]
    _same(once, twice)
    assert twice.fingerprint() == fingerprint(synthetic_root, "val")


def test_small_files_leave_nothing_in_the_cache(tiny, cache, monkeypatch):
    monkeypatch.undo()
    CocoInstance(tiny.root, "val")
    assert not cache.exists()


def test_another_state_of_the_file_is_read_anew_and_replaces_the_old(tiny, cache):
    assert len(CocoInstance(tiny.root, "val").annotations.objects(1)) == 3
    tiny.add(3, SQUARE)
    assert len(tiny.open().annotations.objects(1)) == 4
    assert len(list(cache.glob("*.bin"))) == 1


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xff" * 40, "half"])
def test_a_damaged_cache_is_no_cache(tiny, cache, content):
    first = CocoInstance(tiny.root, "val")
    (file,) = cache.glob("*.bin")
    whole = file.read_bytes()
    file.unlink()  # the first one still reads from it
    file.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    _same(first, CocoInstance(tiny.root, "val"))
    assert file.read_bytes() == whole


def test_what_another_user_wrote_is_not_used(tiny, cache, parsed, monkeypatch):
    CocoInstance(tiny.root, "val")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    CocoInstance(tiny.root, "val")
    assert len(parsed) == 2


def test_broken_files_are_refused_each_time(tiny, cache):
    tiny.annotations[0]["category_id"] = 7
    for _ in range(2):
        with pytest.raises(BenchError, match="which is not in 'categories'"):
            tiny.open()
    assert not list(cache.glob("*.bin"))


def test_without_a_cache_that_can_be_written_each_reads_for_itself(tiny, cache, parsed):
    cache.parent.parent.mkdir()
    cache.parent.write_text("a file where the folder should be")
    for _ in range(2):
        assert len(CocoInstance(tiny.root, "val")) == 2
    assert len(parsed) == 2


def test_a_full_disk_costs_the_cache_alone(tiny, cache, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shared, "_save", full)
    assert len(CocoInstance(tiny.root, "val")) == 2 and not list(cache.glob("*.bin"))


def _open(root: Path, log: Path) -> None:
    real = instances.read_object

    def read(path, kind):
        with log.open("a") as file:
            file.write("parsed\n")
        return real(path, kind)

    instances.read_object = read
    assert len(CocoInstance(root, "val")) == 2


def test_processes_that_open_together_parse_once(tiny, tmp_path):
    log, context = tmp_path / "log", multiprocessing.get_context("fork")
    processes = [context.Process(target=_open, args=(tiny.root, log)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert log.read_text() == "parsed\n"
