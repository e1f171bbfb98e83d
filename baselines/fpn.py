"""FPN of Table I: per-pixel classification of a feature pyramid at stride 4 (Lin et al. 2017, [34]).

By appendix E.1 it is "FCN-32s with the simple pixel decoder, which is also used in MaskFormer": MaskFormer's pixel
decoder without encoder, and a linear classifier on its output.
"""

from torch import Tensor, nn

from baselines.maskformer import PixelDecoder
from models.outputs import PixelPrediction
from models.per_pixel import auxiliary_head_of


class FPN(nn.Module):
    """Backbone, pixel decoder and linear classifier; built by `fpn`."""

    backbone_modules = ("backbone",)

    def __init__(self, num_classes: int, backbone: nn.Module, channels: int, auxiliary_head: nn.Module | None):
        super().__init__()
        self.backbone = backbone
        self.pixel_decoder = PixelDecoder(backbone.channels, channels, None)
        self.head = nn.Conv2d(channels, num_classes, 1)
        self.auxiliary_head = auxiliary_head

    def forward(self, images: Tensor) -> PixelPrediction:
        """images [B, 3, H, W], normalised -> logits at the finest stride."""
        features = self.backbone(images).features
        logits = self.head(self.pixel_decoder(features)[0])
        auxiliary = None
        if self.training and self.auxiliary_head is not None:
            auxiliary = self.auxiliary_head(features[-2])
        return PixelPrediction(logits, auxiliary)


def fpn(num_classes: int, backbone: nn.Module, auxiliary: bool = False, channels: int = 256) -> FPN:
    """FPN; channels: of the pyramid. auxiliary: with the auxiliary head of [69], for training."""
    return FPN(num_classes, backbone, channels, auxiliary_head_of(backbone, num_classes, auxiliary))
