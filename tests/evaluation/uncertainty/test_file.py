"""The file of what metrics are made of: read back as it was, and refused in one line where it is anything else."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bench.errors import BenchError
from bench.evaluation.uncertainty import file as counts_file
from bench.evaluation.uncertainty.bootstrap import ImageCounts
from bench.evaluation.uncertainty.counts import PanopticCounts, PixelCounts
from bench.evaluation.uncertainty.file import read_counts, write_counts
from bench.evaluation.uncertainty.matches import InstanceMatches


def some_counts() -> ImageCounts:
    image, category = np.array([0, 0, 1], np.int32), np.array([0, 2, 2], np.int32)
    quality = np.array([[0.8, 1, 0, 0], [1.3, 2, 1, 0], [0, 0, 0, 1]])
    pixels = np.array([[5, 6, 7], [3, 9, 4], [1, 1, 1]])
    bits = np.array([[1023, 0, 7]], np.uint16)
    return ImageCounts(
        np.array([3, 900]),
        [
            PanopticCounts(("PQ", "PQ_th", "PQ_st"), image, category, quality, np.array([True, True, False])),
            PixelCounts(("mIoU_pan",), image, category, pixels, np.array([False])),
            InstanceMatches(
                ("AP_pan_th",), image, category, bits, 0 * bits, image, category, np.ones((1, 3), np.int32)
            ),
        ],
    )


def test_read_back(tmp_path):
    counts, path = some_counts(), tmp_path / "some.safetensors"
    write_counts(counts, path)
    found = read_counts(path)
    assert np.array_equal(found.image_ids, counts.image_ids)
    weights = np.array([[1, 2, 0], [1, 0, 2]], np.int32)
    for name, values in counts.values(weights).items():
        assert np.array_equal(found.values(weights)[name], values, equal_nan=True), name
    assert len(found.values()) == 5


def change_tensor(name, change):
    def broken(tensors, facts):
        tensors[name] = change(tensors[name])

    return broken


def change_facts(change):
    return lambda tensors, facts: change(facts)


@pytest.mark.parametrize(
    "broken",
    [
        change_tensor("0.image", lambda a: a + 1),  # of an image without id
        change_tensor("0.image", lambda a: a - 1),
        change_tensor("2.true_image", lambda a: a + 1),
        change_tensor("0.category", lambda a: a + 1),
        change_tensor("1.category", lambda a: a + 2**30),  # as many classes would not fit into memory
        change_tensor("0.image", lambda a: a[:2]),
        change_tensor("0.image", lambda a: a.astype(np.int64)),
        change_tensor("0.counts", lambda a: a * np.nan),
        change_tensor("0.counts", lambda a: a * np.inf),
        change_tensor("1.counts", lambda a: -a),
        change_tensor("1.counts", lambda a: a[:, :2].copy()),
        change_tensor("1.missing_counts", lambda a: a[:0]),
        change_tensor("2.category", lambda a: a[::-1].copy()),
        change_tensor("2.matched", lambda a: a.repeat(2, 0)),
        change_tensor("image_ids", lambda a: a[::-1].copy()),
        change_tensor("image_ids", lambda a: a[:0]),
        change_facts(lambda facts: facts.clear()),
        change_facts(lambda facts: facts.append({"kind": "panoptic"})),
        change_facts(lambda facts: facts.append(7)),
        change_facts(lambda facts: facts[0].update(kind=["panoptic"])),
        change_facts(lambda facts: facts[0].update(kind="other")),
        change_facts(lambda facts: facts[0].update(names=["PQ"])),
        change_facts(lambda facts: facts[0].update(names=["PQ", "PQ_th", "\x1b[2J"])),
        change_facts(lambda facts: facts[0].update(names=["PQ", "PQ_th", "PQ"])),
        change_facts(lambda facts: facts[0].update(names=7)),
        change_facts(lambda facts: facts[1].update(names=[])),
    ],
)
def test_broken(tmp_path, broken):
    path = tmp_path / "some.safetensors"
    write_counts(some_counts(), path)
    facts = [{"kind": part.kind, "names": list(part.names)} for part in some_counts().parts]
    tensors = load_file(path)
    broken(tensors, facts)
    save_file(tensors, path, {"image counts": json.dumps(facts)})
    with pytest.raises(BenchError, match=r"^(?!.*\n).*some.safetensors is no readable file of image counts"):
        read_counts(path)


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 100, b"\x10" + bytes(7) + b'{"a":[[[[[[[[[[[', (2**60).to_bytes(8, "little") + b"{}"]
)
def test_no_such_file(tmp_path, content):
    path = tmp_path / "some.safetensors"
    path.write_bytes(content)
    with pytest.raises(BenchError, match=r"^(?!.*\n).*no readable file of image counts"):
        read_counts(path)


def test_cut_off_or_without_facts_or_too_large(tmp_path, monkeypatch):
    path = tmp_path / "some.safetensors"
    write_counts(some_counts(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(BenchError, match="no readable file"):
        read_counts(path)
    save_file({"image_ids": np.array([1])}, path)
    with pytest.raises(BenchError, match="no readable file"):
        read_counts(path)
    path.write_bytes(whole)
    monkeypatch.setattr(counts_file, "MOST_BYTES", len(whole) - 1)
    with pytest.raises(BenchError, match="at most"):
        read_counts(path)


def test_counts_that_do_not_fit_each_other():
    panoptic = some_counts().parts[0]
    with pytest.raises(ValueError, match="lengths"):
        replace(panoptic, image=np.zeros(5, np.int32))
