"""MaskFormer (Cheng et al. 2021) on the shared transformer parts.

Written here because transformers' MaskFormer lacks the transformer encoder in the pixel decoder that MaskFormer-R50
uses for COCO panoptic (45 M parameters, 181 GFLOPs in table 1); the Swin models have none.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from models.outputs import MaskPrediction
from models.transformer import StandardDecoder, TransformerEncoder, projection


class ConvNorm(nn.Sequential):
    """Bias-free convolution, GroupNorm(32) and, unless it is a lateral connection, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, relu: bool):
        conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        nn.init.kaiming_uniform_(conv.weight, a=1)
        layers = [conv, nn.GroupNorm(32, out_channels)] + ([nn.ReLU(inplace=True)] if relu else [])
        super().__init__(*layers)


class PixelDecoder(nn.Module):
    """Feature pyramid: coarsest map (through the encoder, if any), then lateral + nearest upsampling + 3x3.

    in_channels: of the four backbone features, finest first. Returns the mask features at stride 4 and the
    encoder's output (None without encoder), which then is the transformer decoder's memory.
    """

    def __init__(self, in_channels: tuple[int, ...], channels: int, encoder: nn.Module | None):
        super().__init__()
        self.encoder = encoder
        self.input_proj = projection(in_channels[-1], channels) if encoder else None
        self.top = ConvNorm(channels if encoder else in_channels[-1], channels, 3, relu=True)
        self.laterals = nn.ModuleList(ConvNorm(c, channels, 1, relu=False) for c in in_channels[:-1])
        self.smooth = nn.ModuleList(ConvNorm(channels, channels, 3, relu=True) for _ in in_channels[:-1])
        self.mask_features = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.kaiming_uniform_(self.mask_features.weight, a=1)
        nn.init.zeros_(self.mask_features.bias)

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, Tensor | None]:
        encoded = self.encoder(self.input_proj(features[-1])) if self.encoder else None
        x = self.top(features[-1] if encoded is None else encoded)
        steps = zip(features[:-1], self.laterals, self.smooth, strict=True)
        for feature, lateral, smooth in reversed(list(steps)):
            x = smooth(lateral(feature) + F.interpolate(x, size=feature.shape[-2:], mode="nearest"))
        return self.mask_features(x), encoded


class MaskFormer(nn.Module):
    """Mask classification with an upsampling pixel decoder and a standard transformer decoder."""

    backbone_modules = ("backbone",)

    def __init__(self, backbone: nn.Module, pixel_decoder: PixelDecoder, decoder: StandardDecoder):
        super().__init__()
        self.backbone = backbone
        self.pixel_decoder = pixel_decoder
        self.decoder = decoder

    def as_released(self) -> "MaskFormer":
        """This model, from now on with the work of the released implementation, which in evaluation too predicts from
        every decoder layer; the FLOPs of table 1 count that. The last layer's prediction stays the same.
        """
        self.decoder.every_layer = True
        return self

    def forward(self, images: Tensor) -> MaskPrediction:
        """images [B, 3, H, W], normalised -> masks at the finest stride, in training all layers' predictions."""
        features = self.backbone(images).features
        mask_features, encoded = self.pixel_decoder(features)
        memory = features[-1] if encoded is None else encoded
        *intermediate, (class_logits, mask_logits) = self.decoder(memory, mask_features)
        return MaskPrediction(class_logits, mask_logits, tuple(intermediate))


def maskformer(
    num_classes: int, backbone: nn.Module, decoder_layers: int = 6, num_queries: int = 100, encoder_layers: int = 0,
    channels: int = 256, heads: int = 8, hidden: int = 2048, dropout: float = 0.1,
) -> MaskFormer:  # fmt: skip
    """MaskFormer; encoder_layers = 6 is the R50 model for COCO panoptic. channels, heads, hidden, dropout: the
    transformer's."""
    if decoder_layers < 1:
        raise ValueError("decoder_layers must be at least 1")
    encoder = TransformerEncoder(channels, encoder_layers, heads, hidden, dropout) if encoder_layers else None
    in_channels = channels if encoder else backbone.channels[-1]
    decoder = StandardDecoder(in_channels, num_classes, num_queries, decoder_layers, channels, heads, hidden, dropout)
    return MaskFormer(backbone, PixelDecoder(backbone.channels, channels, encoder), decoder)
