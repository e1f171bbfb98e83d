"""Per-pixel models of Table I without clustering: FCN-32s, PSPNet and DeepLabv3, the heads of `models/per_pixel.py`.

FCN-32s predicts at output stride 32. PSPNet and DeepLabv3 dilate the last two stages of the backbone and predict at
output stride 8 (appendix E.1).
"""

from torch import nn
from torchvision.models.segmentation.fcn import FCNHead

from models.per_pixel import ATROUS_RATES, DeepLabHead, PerPixelModel, PSPHead, auxiliary_head_of


def fcn_32s(num_classes: int, backbone: nn.Module, auxiliary: bool = False) -> PerPixelModel:
    """FCN-32s (Long et al. 2015): one hidden 3x3 convolution and a linear classifier, no trained upsampling.

    auxiliary: with the auxiliary head of [69], for training.
    """
    head = FCNHead(backbone.channels[-1], num_classes)
    return PerPixelModel(backbone, head, auxiliary_head=auxiliary_head_of(backbone, num_classes, auxiliary))


def pspnet(num_classes: int, backbone: nn.Module, auxiliary: bool = False) -> PerPixelModel:
    """PSPNet (Zhao et al. 2017, [69]). Training needs two images a pass: one cell is pooled to 1x1."""
    head = PSPHead(backbone.channels[-1], num_classes)
    return PerPixelModel(backbone, head, auxiliary_head=auxiliary_head_of(backbone, num_classes, auxiliary))


def deeplabv3(
    num_classes: int, backbone: nn.Module, auxiliary: bool = False, atrous_rates: tuple[int, ...] = ATROUS_RATES,
    channels: int = 256,
) -> PerPixelModel:  # fmt: skip
    """DeepLabv3 (Chen et al. 2017, [8]). atrous_rates, channels: as `DeepLabHead`. Training as `pspnet`."""
    head = DeepLabHead(backbone.channels[-1], num_classes, atrous_rates, channels)
    return PerPixelModel(backbone, head, auxiliary_head=auxiliary_head_of(backbone, num_classes, auxiliary))
