"""How methods are tested, against the configurations that their authors released, and what records say of it."""

from dataclasses import replace

import pytest

from bench.experiments.experiment import experiment
from bench.experiments.inference_rules import inference_rules, is_padding, padding, post_processing, size_divisibility
from bench.records import Record, samples_beside
from tests.report.fakes import PROVENANCE

# What all records but those of MaskFormer's panoptic results say; any change makes them be measured again.
TEXT = (
    "version 2: masks at the image's original size before anything is decided; panoptic: class probability above 0.8, "
    "at least 0.8 of its mask won; instances: the 100 best pairs of query and class; semantic: argmax; semantic data "
    "sets: class scores at the model's input size, brought to the original size, argmax"
)


def at_paper_scale(method, dataset, backbone="r50"):
    return experiment(method, backbone, dataset, "paper")


def test_sides_of_images():
    sides = [
        (at_paper_scale("hcformer", "coco_panoptic"), (800, 1333)),
        (at_paper_scale("hcformer", "ade20k", "swin_l"), (640, 2560)),
        (at_paper_scale("hcformer", "cityscapes", "swin_l"), (1024, 2048)),
        (experiment("hcformer", "small", "camvid", "small"), (None, None)),
    ]
    rules = [(inference_rules(what), expected) for what, expected in sides]
    assert all((of.shorter_side, of.longer_side) == expected for of, expected in rules)


@pytest.mark.parametrize("dataset", ["coco_panoptic", "coco_instance", "ade20k", "cityscapes"])
@pytest.mark.parametrize("method", ["hcformer", "hcformer+", "maskformer", "mask2former"])
def test_released_padding_and_panoptic_rule(method, dataset):
    """SIZE_DIVISIBILITY of the configurations: 32, in MaskFormer's for COCO 0. MaskFormer's rule alone has no cut."""
    rules = inference_rules(at_paper_scale(method, dataset))
    unpadded = method == "maskformer" and dataset.startswith("coco")
    assert (rules.size_divisibility, rules.cut_to_mask) == (1 if unpadded else 32, method != "maskformer")


def test_padding_needs_no_recipe():
    assert size_divisibility(at_paper_scale("mask_rcnn", "coco_instance")) == 32
    assert size_divisibility(at_paper_scale("segformer", "ade20k", "mit_b2")) == 32


def test_post_processing_of_records():
    small = [experiment("maskformer", "small", name, "small") for name in ("nuclei", "synthetic_panoptic", "camvid")]
    panoptic = [at_paper_scale("maskformer", "coco_panoptic"), *small[:2]]
    others = [at_paper_scale("maskformer", name) for name in ("coco_instance", "ade20k", "cityscapes")] + [small[2]]
    others += [at_paper_scale(name, "coco_panoptic") for name in ("hcformer", "hcformer+", "mask2former")]
    assert {post_processing(what) for what in others} == {TEXT}
    ours = TEXT.replace("of its mask won;", "of its mask won, every pixel that it wins;")
    assert {post_processing(what) for what in panoptic} == {ours} != {TEXT}


def test_a_record_from_before_padding_was_said_was_padded():
    """Its own images, and those of what was timed beside it."""
    maskformer, ours = (at_paper_scale(name, "coco_panoptic") for name in ("maskformer", "hcformer"))
    assert padding([ours, maskformer, ours]) == "hcformer: to a multiple of 32, maskformer: none"
    assert is_padding(None, [ours]) and not is_padding(None, [maskformer]) and not is_padding(None, [ours, maskformer])
    assert is_padding(padding([ours, maskformer]), [ours, maskformer])
    assert not is_padding(padding([ours, maskformer]), [ours]) and not is_padding("hcformer: none", [ours])


@pytest.mark.parametrize("kind", ["complexity", "latency"])
def test_counts_and_times_of_padded_images_are_stale(kind):
    maskformer, ours = (at_paper_scale(name, "coco_panoptic") for name in ("maskformer", "hcformer"))
    metric = {"value": 1.0, "unit": "ms", "n": 3}
    old = Record(maskformer, kind, {"latency_network": metric}, PROVENANCE)
    assert not old.is_current and replace(old, details={"padding": padding([maskformer])}).is_current
    elsewhere = Record(at_paper_scale("maskformer", "cityscapes"), kind, {"latency_network": metric}, PROVENANCE)
    assert elsewhere.is_current
    beside = {samples_beside("latency_network", maskformer): [1.0, 1.0, 1.0]}
    ours = Record(ours, kind, {"latency_network": metric}, PROVENANCE, samples=beside)
    assert ours.is_current == (kind == "complexity")
