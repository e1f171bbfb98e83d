"""Counts on ADE20K, Cityscapes and COCO instances: the images, the post-processing by hand, the reference's figures."""

import pytest
import torch

from bench.experiments import experiment
from bench.experiments.experiment import PIXEL_METHODS
from bench.profiling.complexity import ImageSizes, measure_complexity, post_processing_flops, protocol
from bench.profiling.inputs import PROTOCOL, coco_test_sizes, counted_images
from models.outputs import MaskPrediction, PixelPrediction

SIZE = ImageSizes((480, 640), (800, 1067), (800, 1088))
# Parameters in M and GFLOPs that the reference implementations count by the same rules.
REFERENCE = {
    ("hcformer", "r50", "ade20k"): (38.39, 29.5),
    ("hcformer+", "swin_s", "ade20k"): (70.17, 58.3),
    ("hcformer", "swin_l", "ade20k"): (209.43, 337.9),
    ("maskformer", "r50", "ade20k"): (41.25, 55.2),
    ("mask2former", "r50", "ade20k"): (43.99, 70.8),
    ("hcformer", "r50", "cityscapes"): (39.94, 198.1),
    ("hcformer+", "swin_l", "cityscapes"): (218.54, 1606.0),
    ("maskformer", "swin_s", "cityscapes"): (63.04, 599.3),
    ("mask2former", "r50", "cityscapes"): (44.01, 526.6),
}


def meta_masks(classes: int) -> MaskPrediction:
    """100 queries at a quarter of the padded size."""
    return MaskPrediction(torch.zeros(1, 100, classes + 1, device="meta"), torch.zeros(1, 100, 200, 272, device="meta"))


@pytest.mark.parametrize("case", REFERENCE, ids="-".join)
def test_counts_of_the_reference(case):
    metrics = measure_complexity(experiment(*case, "paper"))
    params, flops = REFERENCE[case]
    assert metrics["params"]["value"] == pytest.approx(params, rel=2e-3)
    assert metrics["flops"]["value"] == pytest.approx(flops, rel=1.5e-2)
    assert metrics["flops"]["n"] == 1


def test_images_of_each_data_set():
    def images(method, backbone, dataset):
        return counted_images(experiment(method, backbone, dataset, "paper"))

    assert images("hcformer", "r50", "ade20k") == [ImageSizes((512, 683), (512, 512), (512, 512))]
    assert images("hcformer", "swin_l", "ade20k") == [ImageSizes((512, 683), (640, 640), (640, 640))]
    assert images("pspnet", "r101", "cityscapes") == [ImageSizes((1024, 2048), (1024, 2048), (1024, 2048))]
    assert images("hcformer", "r50", "coco_instance") == coco_test_sizes()


def test_semantic_post_processing_by_hand():
    """Masks to the input, einsum there over 150 classes, scores to the original size."""
    flops = post_processing_flops(meta_masks(150), SIZE, "semantic")
    assert flops["upsample_bilinear2d"] == 4 * (100 * 800 * 1088 + 150 * 480 * 640)
    assert sum(flops.values()) - flops["upsample_bilinear2d"] == 100 * 150 * 800 * 1088


def test_instance_post_processing_by_hand():
    """Masks to the input and to the original size: no einsum."""
    flops = post_processing_flops(meta_masks(80), SIZE, "instance")
    assert flops == {"upsample_bilinear2d": 4 * 100 * (800 * 1088 + 480 * 640)}


def test_pixel_post_processing_by_hand():
    prediction = PixelPrediction(torch.zeros(1, 19, 25, 34, device="meta"))
    flops = post_processing_flops(prediction, SIZE, "semantic")
    assert flops == {"upsample_bilinear2d": 4 * 19 * (800 * 1088 + 480 * 640)}


def test_clustering_costs_less_than_dilation():
    """The order of Table I's latencies on Cityscapes, in operations, and what the levels add by hand."""
    flops = {m: measure_complexity(experiment(m, "r101", "cityscapes", "paper")) for m in PIXEL_METHODS}
    total = {method: metrics["flops"]["value"] for method, metrics in flops.items()}
    for method in ("pspnet", "deeplabv3"):
        assert total[f"hc_{method}"] < total[method] / 5
    assert total["fcn_32s"] < total["hc_fcn_32s"] < total["hc_pspnet"] < 1.1 * total["fcn_32s"]
    bmm = flops["hc_fcn_32s"]["flops"]["by_operator"]["bmm"]
    pixels = sum(1024 * 2048 // stride**2 for stride in (4, 8, 16))
    assert bmm == pytest.approx(9 * pixels * (128 + 19) / 1e9)  # similarities of 128 channels; 19 classes decoded


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (("hcformer", "r50", "ade20k"), ("one of 512x512, original 512x683", "semantic einsum there")),
        (("maskformer", "swin_l", "ade20k"), ("one of 640x640", "all decoder layers")),
        (("hcformer", "r50", "coco_instance"), ("first 100 of COCO", "need no semantic einsum")),
        (("pspnet", "r101", "cityscapes"), ("one of 1024x2048", "class logits")),
    ],
)
def test_a_record_says_how_it_was_counted(case, words):
    text = protocol(experiment(*case, "paper"))
    assert text.keys() == PROTOCOL.keys()
    assert all(word in " ".join(text.values()) for word in words)


def test_the_protocol_of_panoptic_records_stays():
    assert protocol(experiment("hcformer", "r50", "coco_panoptic", "paper")) == PROTOCOL
