"""Mask R-CNN (He et al. 2017) on a feature pyramid, with torchvision's parts and its settings: row 1 of Table 2.

Counted only: it is neither trained nor timed here.
"""

from collections import OrderedDict
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN as Detector
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from models.outputs import BackboneOutput

PYRAMID_CHANNELS = 256
PROPOSALS, DETECTIONS = 1000, 100  # the most of a test image, in the paper's configuration and in torchvision's


class Pyramid(nn.Module):
    """Five maps, strides 4 to 64, by name, as torchvision's detector takes them."""

    out_channels = PYRAMID_CHANNELS

    def __init__(self, channels: tuple[int, ...]):
        super().__init__()
        self.network = FeaturePyramidNetwork(list(channels), PYRAMID_CHANNELS, LastLevelMaxPool())

    def forward(self, output: BackboneOutput) -> dict[str, Tensor]:
        return self.network(OrderedDict((str(i), feature) for i, feature in enumerate(output.features)))


class MaskRCNN(nn.Module):
    """Backbone, pyramid, region proposals, heads of boxes and masks; built by `mask_rcnn`."""

    def __init__(self, num_classes: int, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.pyramid = Pyramid(backbone.channels)
        detector = Detector(
            self.pyramid,
            num_classes + 1,  # and the background
            rpn_post_nms_top_n_test=PROPOSALS,
            box_detections_per_img=DETECTIONS,
        )
        self.rpn, self.roi_heads = detector.rpn, detector.roi_heads

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """images [B, 3, H, W], normalised and padded, in evaluation mode -> for every image what is found in it.

        As torchvision: "boxes" [N, 4] (x1, y1, x2, y2 in pixels), "labels" [N] from 1, "scores" [N] and "masks"
        [N, 1, 28, 28], the probability within the box.
        """
        sizes = [tuple(images.shape[-2:])] * len(images)
        features = self.pyramid(self.backbone(images))
        proposals, _ = self.rpn(ImageList(images, sizes), features)
        return self.roi_heads(features, proposals, sizes)[0]

    def as_counted(self, proposals: int = PROPOSALS, detections: int = DETECTIONS) -> "MaskRCNN":
        """This model, from now on with the work of exactly so many proposals and detections, whatever it sees.

        The first anchors are the proposals and the first of these the detections, all pooled from the finest map,
        whose features cost what those of the others do. Nothing is looked at: it runs on the meta device.
        """
        self.rpn.filter_proposals = partial(_first_proposals, proposals)
        self.roi_heads.postprocess_detections = partial(_first_detections, self.roi_heads, detections)
        for name in ("box_roi_pool", "mask_roi_pool"):
            pool = getattr(self.roi_heads, name)
            setattr(self.roi_heads, name, MultiScaleRoIAlign(["0"], pool.output_size, pool.sampling_ratio))
        return self


def mask_rcnn(num_classes: int, backbone: nn.Module) -> MaskRCNN:
    """Mask R-CNN with new weights behind the backbone. num_classes: K, without background.

    backbone: any of `models.backbones`, strides 4 to 32; the paper's is ResNet-50 with frozen batch norms.
    """
    return MaskRCNN(num_classes, backbone)


def _first_proposals(
    count: int, proposals: Tensor, objectness: Tensor, sizes: list, anchors: list
) -> tuple[list[Tensor], list[Tensor]]:
    """In place of the search for the best proposals, `RegionProposalNetwork.filter_proposals`."""
    scores = objectness.reshape(len(proposals), -1)
    return list(proposals[:, :count]), list(scores[:, :count])


def _first_detections(
    heads: RoIHeads, count: int, class_logits: Tensor, deltas: Tensor, proposals: list[Tensor], sizes: list
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """In place of the search for the best detections, `RoIHeads.postprocess_detections`."""
    numbers = [len(boxes) for boxes in proposals]
    boxes = heads.box_coder.decode(deltas, proposals)[:, 1].split(numbers)
    scores = class_logits.softmax(-1)[:, 1].split(numbers)
    labels = [torch.ones_like(s[:count], dtype=torch.long) for s in scores]
    return [b[:count] for b in boxes], [s[:count] for s in scores], labels
