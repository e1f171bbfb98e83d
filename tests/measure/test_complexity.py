"""Image sizes, the mean over images, parameters, and the counts of whole models against expected figures."""

import csv

import pytest
import torch
from torch import nn

from bench.errors import BenchError
from bench.experiments.experiment import experiment
from bench.experiments.published import load_published
from bench.measure.complexity.counter import count_flops
from bench.measure.complexity.flops import (
    count_parameters,
    mean_flops,
    measure_complexity,
    network_flops,
    post_processing_flops,
)
from bench.measure.complexity.protocol import ImageSizes, listed_sizes, padded, protocol, resized
from bench.zoo import build_model
from models.outputs import MaskPrediction

META = torch.device("meta")


def meta_model(method: str, backbone: str = "r50") -> nn.Module:
    with META:
        return build_model(experiment(method, backbone, "coco_panoptic", "paper")).eval()


@pytest.mark.parametrize(
    ("original", "image", "input_"),
    [
        ((480, 640), (800, 1067), (800, 1088)),  # 640 * 800 / 480 = 1066.7
        ((640, 480), (1067, 800), (1088, 800)),
        ((427, 640), (800, 1199), (800, 1216)),  # 640 * 800 / 427 = 1199.06
        ((333, 500), (800, 1201), (800, 1216)),  # 500 * 800 / 333 = 1201.2
        ((500, 500), (800, 800), (800, 800)),
        ((360, 640), (750, 1333), (768, 1344)),  # 640 * 800 / 360 = 1422 > 1333: 360 * 1333 / 640 = 749.8
        ((200, 640), (417, 1333), (448, 1344)),  # 200 * 1333 / 640 = 416.56
        ((1600, 2000), (800, 1000), (800, 1024)),
    ],
)
def test_resizing_rule(original, image, input_):
    assert resized(*original) == image
    assert padded(*image) == input_


def test_the_test_images_are_the_first_hundred_of_val2017(shared):
    with open(shared / "reference" / "coco_val2017_sizes.csv", newline="") as file:
        rows = sorted((int(r["image_id"]), int(r["height"]), int(r["width"])) for r in csv.DictReader(file))
    assert [size.original for size in listed_sizes("coco_val2017_first100")] == [(h, w) for _, h, w in rows[:100]]


def test_test_images_fit_their_inputs():
    sizes = listed_sizes("coco_val2017_first100")
    assert len(sizes) == 100 and len({size.padded for size in sizes}) == 20
    for size in sizes:
        assert max(size.image) <= 1333 and min(size.image) <= 800
        assert all(p % 32 == 0 and 0 <= p - i < 32 for p, i in zip(size.padded, size.image, strict=True))


def test_parameters_count_once_and_buffers_not_at_all():
    layer = nn.Linear(4, 5)
    model = nn.Sequential(layer, nn.BatchNorm1d(5), nn.Linear(5, 4), layer)
    assert count_parameters(model) == (4 * 5 + 5) + 2 * 5 + (5 * 4 + 4)


class OneConvolution(nn.Module):
    """Three queries of four classes; a stride-4 convolution makes the masks."""

    def __init__(self):
        super().__init__()
        self.masks = nn.Conv2d(3, 3, 4, stride=4)
        self.classes = nn.Parameter(torch.zeros(1, 3, 5))

    def forward(self, images):
        return MaskPrediction(self.classes + 0, self.masks(images))


def test_mean_over_images_by_hand():
    small = ImageSizes((24, 32), (48, 64), (64, 64))
    large = ImageSizes((40, 60), (60, 90), (64, 96))
    calls = []
    network, rest = mean_flops(OneConvolution().to("meta"), [small, small, large], lambda *call: calls.append(call))

    def convolution(height, width):
        return 3 * 3 * 16 * (height // 4) * (width // 4)

    def resizing(size):
        return 4 * 3 * (size.padded[0] * size.padded[1] + size.original[0] * size.original[1])

    def semantic(size):
        return 3 * 4 * size.original[0] * size.original[1]

    assert network.total() == pytest.approx((2 * convolution(64, 64) + convolution(64, 96)) / 3)
    assert rest["upsample_bilinear2d"] == pytest.approx((2 * resizing(small) + resizing(large)) / 3)
    assert rest.total() - rest["upsample_bilinear2d"] == pytest.approx((2 * semantic(small) + semantic(large)) / 3)
    assert [call[:2] for call in calls] == [(0, 2), (1, 2), (2, 2)]  # two padded shapes


def test_counts_do_not_depend_on_the_device():
    model, image = OneConvolution(), torch.zeros(1, 3, 32, 64)
    assert count_flops(model, (image,)) == count_flops(model.to("meta"), (image.to("meta"),))


@pytest.mark.parametrize("method", ["hcformer", "mask2former"])
def test_counts_stay_under_transposition(method):
    model = meta_model(method)
    upright, lying = (sum(network_flops(model, s, META)[0].values()) for s in ((256, 320), (320, 256)))
    assert upright == lying


# Parameters in M and mean GFLOPs that the reference implementations count by the same rules.
REFERENCE = {
    "hcformer": (38.39, 87.9),
    "hcformer+": (45.82, 96.8),
    "maskformer": (45.01, 180.4),
    "mask2former": (43.98, 229.8),
}


@pytest.mark.parametrize("method", REFERENCE)
def test_table1_counts_with_r50(method):
    metrics = measure_complexity(experiment(method, "r50", "coco_panoptic", "paper")).metrics
    params, flops = REFERENCE[method]
    assert metrics["params"]["value"] == pytest.approx(params, rel=2e-3)
    assert metrics["flops"]["value"] == pytest.approx(flops, rel=1.5e-2)
    if method == "maskformer":  # its images are not padded: 183 with padding
        assert round(metrics["flops"]["value"]) == load_published("table1")[2, "flops"].value == 181
    parts = metrics["flops_network"]["value"] + metrics["flops_post_processing"]["value"]
    assert metrics["flops"]["value"] == pytest.approx(parts)
    assert sum(metrics["flops"]["by_operator"].values()) == pytest.approx(parts)
    assert (metrics["flops"]["unit"], metrics["flops"]["n"]) == ("G", 100)


def test_post_processing_of_one_image_by_hand():
    size = ImageSizes((480, 640), (800, 1067), (800, 1088))
    prediction = MaskPrediction(torch.zeros(1, 100, 134, device="meta"), torch.zeros(1, 100, 200, 272, device="meta"))
    flops = post_processing_flops(prediction, size)
    assert flops["upsample_bilinear2d"] == 4 * 100 * (800 * 1088 + 480 * 640)
    assert sum(flops.values()) - flops["upsample_bilinear2d"] == 100 * 133 * 480 * 640


@pytest.mark.parametrize("what", [protocol, measure_complexity])
def test_other_protocols_are_refused(what):
    with pytest.raises(BenchError, match="synthetic_panoptic"):
        what(experiment("hcformer", "small", "synthetic_panoptic", "small"))
