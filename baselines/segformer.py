"""SegFormer (Xie et al. 2021) through transformers: a Mix Transformer and a head of linear layers.

Rows 5 and 10 of Tables 3 (a) and (b). Sizes: table 6 of its paper.
"""

from torch import Tensor, nn
from transformers import SegformerConfig, SegformerModel
from transformers.models.segformer.modeling_segformer import SegformerDecodeHead

from models.outputs import BackboneOutput, PixelPrediction

DEPTHS = {"mit_b2": (3, 4, 6, 3), "mit_b5": (3, 6, 40, 3)}  # blocks a stage
CHANNELS = (64, 128, 320, 512)
HEAD_CHANNELS = 768


class MixTransformer(nn.Module):
    """The encoder; built by `mit`. It has no pairs for clustering: its downsamplings overlap."""

    channels = CHANNELS

    def __init__(self, config: SegformerConfig):
        super().__init__()
        self.encoder = SegformerModel(config)

    def forward(self, images: Tensor) -> BackboneOutput:
        """images [B, 3, H, W] -> features of four stages, strides 4 to 32."""
        return BackboneOutput(self.encoder(images, output_hidden_states=True).hidden_states, ())


class SegFormer(nn.Module):
    """Backbone and head; built by `segformer`."""

    def __init__(self, backbone: nn.Module, head: SegformerDecodeHead):
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> PixelPrediction:
        """images [B, 3, H, W], normalised -> logits [B, K, H/4, W/4], sizes rounded up."""
        return PixelPrediction(self.head(self.backbone(images).features))


def mit(name: str, drop_path: float = 0.0) -> MixTransformer:
    """The Mix Transformer "mit_b2" or "mit_b5", random weights; ValueError for another name.

    drop_path: the largest rate of stochastic depth, in training.
    """
    if name not in DEPTHS:
        raise ValueError(f"no Mix Transformer '{name}': known are {', '.join(DEPTHS)}")
    return MixTransformer(_config(depths=list(DEPTHS[name]), drop_path_rate=drop_path))


def segformer(num_classes: int, backbone: nn.Module) -> SegFormer:
    """SegFormer on a Mix Transformer, with new weights in its head. num_classes: K."""
    return SegFormer(backbone, SegformerDecodeHead(_config(num_labels=num_classes)))


def _config(**values) -> SegformerConfig:
    """What MiT-B2 and MiT-B5 have in common, and `values`."""
    return SegformerConfig(
        hidden_sizes=list(CHANNELS),
        num_attention_heads=[1, 2, 5, 8],
        sr_ratios=[8, 4, 2, 1],
        mlp_ratios=[4, 4, 4, 4],
        patch_sizes=[7, 3, 3, 3],
        strides=[4, 2, 2, 2],
        decoder_hidden_size=HEAD_CHANNELS,
        **values,
    )
