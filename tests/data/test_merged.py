"""The synthetic scenes as a semantic data set: what the panoptic reader gives, by class."""

import numpy as np
import pytest
import torch

from bench.data.classes import classes_of
from bench.data.registry import open_split, split_fingerprint
from bench.experiments.datasets import get_dataset
from tests.conftest import few_scenes


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return few_scenes(tmp_path_factory, train=4, val=3)


def test_masks_of_a_class_are_one(cache):
    panoptic, merged = (open_split(f"synthetic_{kind}", "train", cache) for kind in ("panoptic", "semantic"))
    assert merged.task == "semantic" and not any(category.is_thing for category in merged.categories)
    assert len(merged) == len(panoptic) == 4
    several = 0
    for index in range(len(merged)):
        ours, theirs = merged[index], panoptic[index]
        assert ours.labels.tolist() == sorted(set(theirs.labels.tolist()))
        several += len(theirs.labels) > len(ours.labels)
        assert torch.equal(ours.image, theirs.image)
        assert torch.equal(ours.masks.sum(0), torch.ones(128, 128, dtype=torch.int64))
        labels = ours.labels[ours.masks.int().argmax(0)]
        assert np.array_equal(labels.numpy(), panoptic.label_map(index))
    assert several  # else nothing was merged


def test_registry_knows_it(cache):
    info = get_dataset("synthetic_semantic")
    assert (info.task, info.num_things, info.num_stuff) == ("semantic", 0, 10)
    assert [c.name for c in classes_of(info.name)] == [c.name for c in classes_of("synthetic_panoptic")]
    fingerprints = {split_fingerprint(f"synthetic_{kind}", "val", cache) for kind in ("panoptic", "semantic")}
    assert len(fingerprints) == 1
