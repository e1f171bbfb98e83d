"""HC-FCN-32s, HC-PSPNet and HC-DeepLabv3: per-pixel classification with hierarchical clustering (appendix E.1).

The head classifies the clusters at output stride 32, and their class logits are decoded through the assignments
(eq. 5), instead of a dilated backbone or a pixel decoder. The plain models are the same heads without clustering
(`baselines/per_pixel.py`).

The paper names the heads and says no more of them. They are torchvision's FCN and DeepLabv3 and transformers' pyramid
pooling, as the cited papers describe them. The largest rate of DeepLabv3's atrous convolutions is 36, as its paper has
it at output stride 8; appendix E.1 speaks of 24 and names no others.
"""

from torch import Tensor, cat, nn
from torchvision.models.segmentation.deeplabv3 import ASPP
from torchvision.models.segmentation.fcn import FCNHead

from models.clustering import HierarchicalClustering, decode_through
from models.outputs import PixelPrediction

POOL_SIZES = (1, 2, 3, 6)
ATROUS_RATES = (12, 24, 36)


class PerPixelModel(nn.Module):
    """Class logits of the coarsest feature, decoded through `hierarchical_level` assignments (0: not at all).

    backbone: yields features and pairs. head: coarsest feature [B, C, h, w] -> class logits [B, K, h, w].
    auxiliary_head: of the third stage's feature, in training only, or None.
    Raises ValueError where the backbone has fewer downsamplings than `hierarchical_level`.
    """

    backbone_modules = ("backbone", "clustering")

    def __init__(
        self, backbone: nn.Module, head: nn.Module, hierarchical_level: int = 0, embedding_channels: int = 128,
        auxiliary_head: nn.Module | None = None,
    ):  # fmt: skip
        super().__init__()
        self.form = "reference"  # of decoding and clustering, see `models.clustering.use_form`
        self.backbone = backbone
        self.clustering = HierarchicalClustering(backbone.pair_channels, hierarchical_level, embedding_channels)
        self.head = head
        self.auxiliary_head = auxiliary_head

    def forward(self, images: Tensor) -> PixelPrediction:
        """images [B, 3, H, W], normalised -> logits at 2^level times the coarsest resolution."""
        output = self.backbone(images)
        assignments = self.clustering(output.pairs)
        logits = decode_through(self.head(output.features[-1]), assignments, self.form)
        auxiliary = None
        if self.training and self.auxiliary_head is not None:
            auxiliary = self.auxiliary_head(output.features[-2])
        return PixelPrediction(logits, auxiliary, assignments, self.clustering.scales())


class PSPHead(nn.Module):
    """Pyramid pooling (Zhao et al. 2017, [69]): means over 1, 2, 3 and 6 cells a side, beside the feature itself.

    [B, C, h, w] -> class logits [B, K, h, w]; C/4 channels inside.
    """

    def __init__(self, in_channels: int, num_classes: int):
        super().__init__()
        from transformers.models.upernet.modeling_upernet import UperNetPyramidPoolingModule  # takes a while

        channels = in_channels // len(POOL_SIZES)
        self.pooling = UperNetPyramidPoolingModule(POOL_SIZES, in_channels, channels, align_corners=False)
        self.classifier = nn.Sequential(
            nn.Conv2d(in_channels + len(POOL_SIZES) * channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv2d(channels, num_classes, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(cat((x, *self.pooling(x)), 1))


class DeepLabHead(nn.Sequential):
    """Atrous spatial pyramid pooling (Chen et al. 2017, [8]): torchvision's head and names, of any width.

    [B, C, h, w] -> class logits [B, K, h, w]. rates: dilations of its three atrous convolutions.
    """

    def __init__(self, in_channels: int, num_classes: int, rates: tuple[int, ...] = ATROUS_RATES, channels: int = 256):
        super().__init__(
            ASPP(in_channels, rates, channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, num_classes, 1),
        )


def auxiliary_head_of(backbone: nn.Module, num_classes: int, wanted: bool) -> nn.Module | None:
    """The auxiliary classifier of the training protocol of [69], on the third stage."""
    return FCNHead(backbone.channels[-2], num_classes) if wanted else None


def hc_fcn_32s(
    num_classes: int, backbone: nn.Module, hierarchical_level: int = 3, embedding_channels: int = 128,
    auxiliary: bool = False,
) -> PerPixelModel:  # fmt: skip
    """HC-FCN-32s: one hidden 3x3 convolution and a linear classifier, decoded.

    embedding_channels: C_F of the clustering. auxiliary: with the auxiliary head of [69], for training.
    Raises ValueError for a hierarchical level that the backbone does not have.
    """
    head = FCNHead(backbone.channels[-1], num_classes)
    auxiliary_head = auxiliary_head_of(backbone, num_classes, auxiliary)
    return PerPixelModel(backbone, head, hierarchical_level, embedding_channels, auxiliary_head)


def hc_pspnet(
    num_classes: int, backbone: nn.Module, hierarchical_level: int = 3, embedding_channels: int = 128,
    auxiliary: bool = False,
) -> PerPixelModel:  # fmt: skip
    """HC-PSPNet; arguments and errors as `hc_fcn_32s`. Training needs two images a pass: one cell is pooled to 1x1."""
    head = PSPHead(backbone.channels[-1], num_classes)
    auxiliary_head = auxiliary_head_of(backbone, num_classes, auxiliary)
    return PerPixelModel(backbone, head, hierarchical_level, embedding_channels, auxiliary_head)


def hc_deeplabv3(
    num_classes: int, backbone: nn.Module, hierarchical_level: int = 3, embedding_channels: int = 128,
    auxiliary: bool = False, atrous_rates: tuple[int, ...] = ATROUS_RATES, channels: int = 256,
) -> PerPixelModel:  # fmt: skip
    """HC-DeepLabv3; arguments and errors as `hc_pspnet`. atrous_rates, channels: as `DeepLabHead`."""
    head = DeepLabHead(backbone.channels[-1], num_classes, atrous_rates, channels)
    auxiliary_head = auxiliary_head_of(backbone, num_classes, auxiliary)
    return PerPixelModel(backbone, head, hierarchical_level, embedding_channels, auxiliary_head)
