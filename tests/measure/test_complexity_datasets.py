"""Counts on ADE20K, Cityscapes and COCO instances: the images, the post-processing by hand, the reference's figures."""

from dataclasses import replace

import pytest
import torch

from bench.experiments import experiment
from bench.experiments.datasets import DATASETS, CountedImages, get_dataset
from bench.experiments.methods import METHODS
from bench.experiments.published import load_published
from bench.measure.complexity.flops import mean_flops, measure_complexity, network_flops, post_processing_flops
from bench.measure.complexity.protocol import ImageSizes, counted_images, listed_sizes, protocol
from bench.zoo import build_model
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
    metrics = measure_complexity(experiment(*case, "paper")).metrics
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
    assert images("hcformer", "r50", "coco_instance") == listed_sizes("coco_val2017_first100")
    for dataset in ("coco_panoptic", "coco_instance"):  # as MaskFormer's configurations for COCO have it
        assert all(size.padded == size.image for size in images("maskformer", "r50", dataset))
    for backbone, side in (("mit_b2", 512), ("mit_b5", 640)):  # the crops that Table 3 (a) prints
        assert images("segformer", backbone, "ade20k")[0].padded == (side, side)


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


def test_box_post_processing_by_hand():
    """100 masks of 28 x 28, each resized to the whole image at most."""
    found = [{"masks": torch.zeros(100, 1, 28, 28, device="meta")}]
    assert post_processing_flops(found, SIZE, "instance") == {"upsample_bilinear2d": 4 * 100 * 480 * 640}


# Row of Table 3; FLOPs of the network alone in convolutions, linear layers and attention, without norms and resizing.
SEGFORMER = {
    ("mit_b2", "ade20k"): ("table3a", 5, 62.3),
    ("mit_b5", "ade20k"): ("table3a", 10, 183.1),
    ("mit_b2", "cityscapes"): ("table3b", 5, 703.5),
    ("mit_b5", "cityscapes"): ("table3b", 10, 1446.4),
}


@pytest.mark.parametrize("pair", SEGFORMER, ids="-".join)
def test_segformer(pair):
    """The paper's figures, and the rules that give them exactly, as the tables' notes say."""
    table, row, products = SEGFORMER[pair]
    flops = measure_complexity(experiment("segformer", *pair, "paper")).metrics["flops"]
    printed = load_published(table)[row, "flops"]
    assert flops["value"] == pytest.approx(printed.value, rel=printed.tolerance / 100)
    parts = flops["by_operator"]
    counted = parts["conv"] + parts["linear"] + parts["scaled_dot_product_attention"]
    assert counted == pytest.approx(products, abs=0.05)
    if pair[1] == "cityscapes":  # with a classifier of ADE20K's 150 classes
        more = (150 - 19) * 768 * 256 * 512 / 1e9
        assert more == pytest.approx(13.2, abs=0.05)
        assert round(counted + more + parts["batch_norm"]) == printed.value
    elif pair[0] == "mit_b2":
        assert round(counted) == printed.value
    else:
        assert round(flops["value"]) == printed.value


def test_mask_rcnn():
    """Its parameters are the paper's; its FLOPs with 31 detections an image, not with the most of 100, as noted."""
    what = experiment("mask_rcnn", "r50", "coco_instance", "paper")
    metrics, printed = measure_complexity(what).metrics, load_published("table2")
    assert round(metrics["params"]["value"]) == printed[1, "params"].value
    assert metrics["flops"]["value"] == pytest.approx(237.6, abs=0.05) and metrics["flops"]["n"] == 100
    with torch.device("meta"):
        model = build_model(what).eval().as_counted(detections=31)
    network, rest = mean_flops(model, listed_sizes("coco_val2017_first100"), None, get_dataset(what.dataset).task)
    assert round((network.total() + rest.total()) / 1e9) == printed[1, "flops"].value


def test_mask_rcnn_without_its_heads_by_hand():
    """Its pyramid and region proposals on 800 x 1088: 1x1 and 3x3 convolutions of four maps, a head on five."""
    with torch.device("meta"):
        model = build_model(experiment("mask_rcnn", "r50", "coco_instance", "paper")).eval().as_counted()
    flops, _ = network_flops(model, (800, 1088), torch.device("meta"))
    backbone, _ = network_flops(model.backbone, (800, 1088), torch.device("meta"))
    cells = [200 * 272, 100 * 136, 50 * 68, 25 * 34]
    pyramid = sum(n * 256 * (c + 256 * 9) for n, c in zip(cells, (256, 512, 1024, 2048), strict=True))
    proposals = (sum(cells) + 13 * 17) * (256 * 256 * 9 + 256 * 3 * (1 + 4))
    masks = 100 * (4 * 256 * 256 * 9 * 14**2 + 256 * 256 * 4 * 14**2 + 81 * 256 * 28**2)
    assert flops["conv"] == backbone["conv"] + pyramid + proposals + masks
    assert flops["linear"] == 1000 * (256 * 49 * 1024 + 1024 * 1024 + 1024 * 81 * 5)
    assert flops["roi_align"] == 256 * (1000 * 49 + 100 * 196) * 4 * 4


def test_clustering_costs_less_than_dilation():
    """The order of Table I's latencies on Cityscapes, in operations, and what the levels add by hand."""
    methods = [m.name for m in METHODS.values() if m.predicts == "pixels" and m.trained]
    flops = {m: measure_complexity(experiment(m, "r101", "cityscapes", "paper")).metrics for m in methods}
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
        (("hcformer", "r50", "coco_instance"), ("first 100 images of COCO", "need no semantic einsum")),
        (("pspnet", "r101", "cityscapes"), ("one of 1024x2048", "class logits")),
        (("segformer", "mit_b5", "ade20k"), ("one of 640x640", "both matrix products of every attention")),
        (
            ("mask_rcnn", "r50", "coco_instance"),
            ("first 100 images of COCO", "the most proposals and detections", "1000 and 100"),
        ),
    ],
)
def test_a_record_says_how_it_was_counted(case, words):
    text = protocol(experiment(*case, "paper"))
    assert list(text) == ["convention", "images", "resizing", "padding", "counted"]
    assert all(word in " ".join(text.values()) for word in words)


def test_the_protocol_of_panoptic_records():
    """All of what a record says, with the padding of the method; nothing of COCO where another list of sizes counts."""
    text = {
        "convention": "one multiply-add counts one (fvcore)",
        "images": "mean over the first 100 images of COCO val2017",
        "resizing": "shorter side 800, longer at most 1333",
        "padding": "hcformer: to a multiple of 32",
        "counted": "network, resizing of the masks, semantic einsum at the original size; for MaskFormer the mask "
        "predictions of all decoder layers, as its released implementation computes them and the paper counts them",
    }
    assert protocol(experiment("hcformer", "r50", "coco_panoptic", "paper")) == text
    unpadded = protocol(experiment("maskformer", "r50", "coco_panoptic", "paper"))
    assert unpadded == text | {"padding": "maskformer: none"}


@pytest.mark.parametrize("dataset", ["coco_panoptic", "coco_instance", "ade20k"])
def test_the_protocol_names_the_data_set_s_own_list(dataset, monkeypatch):
    counted = CountedImages("mean over 5 pictures of mine", sizes="coco_val2017_first100")
    monkeypatch.setitem(DATASETS, dataset, replace(DATASETS[dataset], counted=counted))
    text = protocol(experiment("hcformer", "r50", dataset, "paper"))
    assert text["images"] == "mean over 5 pictures of mine" and "COCO" not in " ".join(text.values())
