"""`bench data` as a user types it."""

import numpy as np
import pytest
from PIL import Image

from bench.data import check, parallel, prepare
from bench.data.synthesis import layouts, synthetic
from tests.conftest import mistake

# Imported before the fixture `bench` forbids processes: what they import asks the system for its processor.
assert all((check, layouts, parallel, prepare))


@pytest.fixture
def ade20k(bench, tmp_path):
    assert bench("data", "synthesize", "ade20k", "--out", "ade", "--images", 3)[:2] == (0, "written: ade\n")
    return tmp_path / "ade"


def test_from_nothing_to_a_checked_data_set(bench, ade20k, monkeypatch):
    code, out, _ = bench("data", "check", "ade20k", "--data-root", ade20k)
    lines = out.splitlines()
    assert code == 0 and [line[:-64] for line in lines] == [
        "training: ok, 3 images, all decoded, ",
        "validation: ok, 3 images, all decoded, ",
    ]
    monkeypatch.setenv("BENCH_DATA", str(ade20k))
    assert bench("data", "prepare", "ade20k")[:2] == (
        0,
        f"training: 3 written, 0 there before, in {ade20k / 'annotations_detectron2' / 'training'}\n"
        f"validation: 3 written, 0 there before, in {ade20k / 'annotations_detectron2' / 'validation'}\n",
    )
    assert bench("data", "prepare", "ade20k")[1].count("0 written, 3 there before") == 2
    assert bench("data", "check", "ade20k", "--all")[1].splitlines() == lines


def test_several_data_sets_in_one_folder(bench, ade20k):
    ade20k.rename(ade20k.with_name("ADEChallengeData2016"))
    code, out, _ = bench("data", "check", "ade20k", "--data-root", ade20k.parent)
    assert (code, out.count("ok, 3 images")) == (0, 2)


def test_the_first_ten_problems_and_their_number(bench, ade20k):
    for folder in ("images", "annotations"):
        for split in ("training", "validation"):
            for path in sorted((ade20k / folder / split).iterdir()):
                for copy in range(1, 5):
                    path.with_name(path.name.replace("_0000", f"_{copy}000")).write_bytes(path.read_bytes())
    broken = sorted((ade20k / "annotations" / "validation").iterdir())[:12]
    for path in broken:
        path.write_bytes(b"x")
    code, out, _ = bench("data", "prepare", "ade20k", "--data-root", ade20k)
    lines = out.splitlines()
    assert code == 1 and lines[1].startswith("validation: 3 written") and len(lines) == 13
    assert all(str(path) in line for path, line in zip(broken[:10], lines[2:12], strict=True))
    assert lines[-1] == "12 problem(s), the first 10 above"
    code, out, _ = bench("data", "check", "ade20k", "--data-root", ade20k, "--all")
    assert (code, len(out.splitlines()), out.splitlines()[-1]) == (1, 11, "14 problem(s), the first 10 above")


def test_one_problem_is_one_line_and_exit_code_1(bench, ade20k):
    path = ade20k / "annotations" / "validation" / "ADE_val_00000002.png"
    Image.fromarray(np.full((4, 5), 3, np.uint8)).save(path)
    code, out, _ = bench("data", "check", "ade20k", "--data-root", ade20k)
    lines = out.splitlines()
    assert (code, len(lines), lines[2]) == (1, 3, "1 problem(s)")
    assert lines[0].startswith("training: ok") and str(path) in lines[1] and "5x4" in lines[1]


def test_data_set_that_needs_nothing(bench, tmp_path):
    assert bench("data", "prepare", "camvid", "--data-root", tmp_path) == (0, "camvid needs no preparation\n", "")


@pytest.mark.parametrize("command", ["prepare", "check"])
def test_mistakes(bench, tmp_path, command):
    mistake(bench("data", command, "ade20k"), "ade20k", "--data-root or BENCH_DATA")
    mistake(bench("data", command, "ade20k", "--data-root", "typo"), "typo is not a folder", "--data-root")
    mistake(bench("data", command, "ade2k", "--data-root", tmp_path), "did you mean 'ade20k'?")
    assert list(tmp_path.iterdir()) == []


def test_prepare_where_nothing_was_downloaded(bench, tmp_path):
    mistake(bench("data", "prepare", "coco_panoptic", "--data-root", tmp_path), "panoptic_train2017.json")


def test_mistakes_of_synthesize(bench, tmp_path):
    mistake(bench("data", "synthesize", "coco", "--out", "x"), "unknown official layout 'coco'")
    (tmp_path / "mine").write_text("x")
    mistake(bench("data", "synthesize", "ade20k", "--out", "mine"), "mine")
    mistake(bench("data", "synthesize", "ade20k", "--out", "mine/x"), "cannot write to", "choose another folder")
    assert bench("data", "synthesize", "ade20k", "--out", "x", "--images", 0)[0] == 2


@pytest.mark.parametrize("command", ["prepare", "check"])
def test_interruption(bench, ade20k, monkeypatch, command):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(parallel, "DataLoader", interrupted)
    code, out, errors = bench("data", command, "ade20k", "--data-root", ade20k)
    remedy = "the same command goes on where it stopped" if command == "prepare" else "give the same command again"
    assert (code, out, errors) == (130, "", f"interrupted: {remedy}\n")


def test_interrupted_synthesis_leaves_nothing_and_says_so(bench, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(layouts, "draw_picture", interrupted)
    code, out, errors = bench("data", "synthesize", "ade20k", "--out", "x")
    assert (code, out) == (130, "") and "nothing was written" in errors and list(tmp_path.iterdir()) == []


def test_check_of_a_generated_data_set_writes_nothing_to_the_data(bench, ade20k, tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "SPLITS", {"train": 2, "val": 1})
    before = sorted(ade20k.rglob("*"))
    assert bench("data", "check", "synthetic_panoptic", "--data-root", ade20k)[0] == 0
    assert sorted(ade20k.rglob("*")) == before and (tmp_path / "cache").is_dir()
