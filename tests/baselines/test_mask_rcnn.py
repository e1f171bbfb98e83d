"""Mask R-CNN against torchvision's own model: its published size, its function, and the work that is counted."""

import pytest
import torch
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights, maskrcnn_resnet50_fpn

from baselines.mask_rcnn import mask_rcnn
from bench.errors import BenchError
from bench.experiments import experiment, find_row, get_table, recipe_for
from bench.experiments.methods import get_method
from bench.measure.complexity.counter import count_flops
from bench.measure.complexity.flops import count_parameters, network_flops, post_processing_flops
from bench.measure.complexity.protocol import ImageSizes
from bench.zoo import build_model
from models.backbones.resnet import resnet

META = torch.device("meta")
PUBLISHED = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["num_params"]
CLASSES = 3


def finds_all(model: torch.nn.Module) -> torch.nn.Module:
    """Nothing is below the thresholds and nothing overlaps too much: as many boxes as the configuration allows."""
    model.rpn.nms_thresh = model.roi_heads.nms_thresh = 1.0
    model.roi_heads.score_thresh = -1.0
    return model.eval()


@pytest.fixture(scope="module")
def pair():
    """Ours, and torchvision's with the same weights, which it takes unnormalised and unresized here."""
    torch.manual_seed(0)
    ours = finds_all(mask_rcnn(CLASSES, resnet(50)))
    theirs = maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=CLASSES + 1, min_size=128, image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
    )  # fmt: skip
    names = {"backbone.": "backbone.body.", "pyramid.network.": "backbone.fpn."}
    state = {}
    for name, value in ours.state_dict().items():
        prefix = next((p for p in names if name.startswith(p)), "")
        state[names.get(prefix, "") + name.removeprefix(prefix)] = value
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing)
    return ours, finds_all(theirs)


def test_parameters_are_torchvisions():
    with META:
        assert count_parameters(mask_rcnn(90, resnet(50))) == PUBLISHED == 44401393
        model = build_model(experiment("mask_rcnn", "r50", "coco_instance", "paper"))
    # Ten classes less, each with a score, four box offsets (1024 inputs and a bias) and a mask (256 and a bias).
    assert count_parameters(model) == PUBLISHED - 10 * (5 * 1025 + 257)
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}


def test_the_function_of_torchvision(pair):
    ours, theirs = pair
    image = torch.randn(1, 3, 128, 160, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        (found,), features = ours(image), theirs.backbone(image)
        images = theirs.transform([image[0]])[0]
        assert torch.equal(images.tensors, image)  # 128 is its shorter side already
        (expected,) = theirs.roi_heads(features, theirs.rpn(images, features)[0], images.image_sizes)[0]
    assert found["boxes"].shape == (100, 4) and found["masks"].shape == (100, 1, 28, 28)
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, msg=name)


def test_the_counted_work_is_that_of_torchvision_where_it_finds_the_most(pair):
    """128 x 160 has 5118 anchors, of which 1000 a level and 1000 in all remain; 100 detections."""
    image = torch.zeros(1, 3, 128, 160)
    _, theirs = count_flops(lambda images: pair[1](list(images)), (image,))
    with META:
        model = mask_rcnn(CLASSES, resnet(50)).eval().as_counted()
    flops, (found,) = network_flops(model, (128, 160), META)
    assert found["masks"].shape == (100, 1, 28, 28)
    pasted = theirs.pop("upsample_bilinear2d") - 4 * 3 * 128 * 160  # it resizes image and masks itself
    assert flops == theirs
    size = ImageSizes((128, 160), (128, 160), (128, 160))
    assert 0 < pasted <= post_processing_flops([found], size, "instance")["upsample_bilinear2d"]


def test_counted_work_by_hand():
    """What a detection adds: four convolutions and a deconvolution of 256 channels, a mask a class, its pooling."""
    with META:
        model = mask_rcnn(80, resnet(50)).eval()
    flops = [sum(network_flops(model.as_counted(1000, n), (320, 416), META)[0].values()) for n in (10, 11)]
    head = 4 * 256 * 256 * 9 * 14**2 + 256 * 256 * 4 * 14**2 + 81 * 256 * 28**2
    assert flops[1] - flops[0] == head + 4 * 2**2 * 256 * 14**2


def test_experiments():
    what = find_row("table2/mask_rcnn-r50")
    assert what == experiment("mask_rcnn", "r50", "coco_instance", "paper", num_queries=7, hierarchical_level=2)
    assert not get_method(what.method).timed and not get_method(what.method).trained
    with pytest.raises(BenchError, match="mask_rcnn is not trained here"):
        recipe_for(what)
    planned = {m.kind for m in get_table("table2").measurements("paper") if m.experiment == what}
    assert planned == {"complexity"}
    for backbone, dataset in (("swin_s", "coco_instance"), ("r50", "coco_panoptic")):
        with pytest.raises(BenchError, match="use 'r50' and 'coco_instance'"):
            experiment("mask_rcnn", backbone, dataset, "paper")
    with pytest.raises(BenchError, match="use 'r50' and 'coco_instance'"):
        experiment("mask_rcnn", "small", "synthetic_panoptic", "small")
