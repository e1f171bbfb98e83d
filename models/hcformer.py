"""HCFormer and HCFormer+ (section 2.5, figure 3): no pixel decoder, masks decoded through the clusters."""

from torch import Tensor, cat, nn

from models.clustering import HierarchicalClustering, decode_through
from models.outputs import MaskPrediction
from models.transformer import MaskedDecoder, StandardDecoder, TransformerEncoder, projection


class HCFormer(nn.Module):
    """Masks are predicted at stride 32 and decoded through `hierarchical_level` assignments (eq. 5).

    Mask logits are decoded and the sigmoid comes last, as in the reference implementation (equations 4 and 5 apply it
    before the decoding). In training every intermediate prediction is decoded.

    backbone: yields features and pairs. decoder: predicts from (memory, mask features), both from the coarsest map.
    hierarchical_level: number of clustering modules, 0 to 3, counted from the coarsest downsampling.
    encoder: the transformer encoder of HCFormer+, or None.
    """

    backbone_modules = ("backbone", "clustering", "encoder")  # what trains at the backbone's learning rate

    def __init__(self, backbone: nn.Module, decoder: nn.Module, hierarchical_level: int, encoder: nn.Module | None,
                 channels: int, embedding_channels: int = 128):  # fmt: skip
        super().__init__()
        self.form = "reference"  # of decoding and clustering, see `models.clustering.use_form`
        self.backbone = backbone
        self.clustering = HierarchicalClustering(backbone.pair_channels, hierarchical_level, embedding_channels)
        self.encoder = encoder
        self.mask_proj = projection(channels if encoder else backbone.channels[-1], channels)
        self.decoder = decoder

    def forward(self, images: Tensor) -> MaskPrediction:
        """images [B, 3, H, W], normalised -> masks at 2^level times the coarsest resolution."""
        output = self.backbone(images)
        assignments = self.clustering(output.pairs)
        memory = output.features[-1]
        if self.encoder is not None:
            memory = self.encoder(memory)
        predictions = self.decoder(memory, self.mask_proj(memory))
        decoded = self._decode([masks for _, masks in predictions], assignments)
        predictions = [(classes, masks) for (classes, _), masks in zip(predictions, decoded, strict=True)]
        (class_logits, mask_logits), intermediate = predictions[-1], tuple(predictions[:-1])
        return MaskPrediction(class_logits, mask_logits, intermediate, assignments, self.clustering.scales())

    def _decode(self, masks: list[Tensor], assignments: tuple[Tensor, ...]) -> list[Tensor]:
        """Decode all predictions at once: one pass over the assignments instead of one a prediction."""
        return list(decode_through(cat(masks, 1), assignments, self.form).chunk(len(masks), 1))


class EncoderWithProjection(nn.Sequential):
    """1x1 convolution and GroupNorm to the transformer's width, then the transformer encoder of HCFormer+."""

    def __init__(self, in_channels: int, channels: int, layers: int, heads: int, hidden: int, dropout: float = 0.1):
        super().__init__(
            projection(in_channels, channels),
            nn.GroupNorm(32, channels),
            TransformerEncoder(channels, layers, heads, hidden, dropout),
        )


def hcformer(
    num_classes: int, backbone: nn.Module, hierarchical_level: int = 3, decoder_layers: int = 8, num_queries: int = 100,
    transformer_decoder: str = "masked", encoder_layers: int = 0, channels: int = 256, heads: int = 8,
    hidden: int = 2048, dropout: float = 0.1, embedding_channels: int = 128,
) -> HCFormer:  # fmt: skip
    """HCFormer; with encoder_layers = 6 HCFormer+. transformer_decoder: "masked" (section 3.1) or "standard".

    channels, heads, hidden: width, attention heads and feed-forward width of the transformer.
    dropout: of encoder and standard decoder (MaskFormer's); the masked decoder has none.
    embedding_channels: C_F of the clustering.
    Raises ValueError for another decoder or a hierarchical level outside 0..3.
    """
    if decoder_layers < 1:
        raise ValueError("decoder_layers must be at least 1")
    if transformer_decoder not in ("masked", "standard"):
        raise ValueError(f"transformer_decoder '{transformer_decoder}' is neither 'masked' nor 'standard'")
    encoder = None
    if encoder_layers:
        encoder = EncoderWithProjection(backbone.channels[-1], channels, encoder_layers, heads, hidden, dropout)
    in_channels = channels if encoder else backbone.channels[-1]
    shape = (in_channels, num_classes, num_queries, decoder_layers, channels, heads, hidden)
    decoder = MaskedDecoder(*shape) if transformer_decoder == "masked" else StandardDecoder(*shape, dropout)
    return HCFormer(backbone, decoder, hierarchical_level, encoder, channels, embedding_channels)
