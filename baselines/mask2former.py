"""Mask2Former (Cheng et al., CVPR 2022): transformers' pixel and transformer decoder on this project's backbones.

Configured as the released models: no dropout, post-norm, one prediction from the queries before the first layer
and one after each layer.

Under a trace, multi-scale deformable attention shows as `aten::grid_sampler` and elementwise products
(transformers' `multi_scale_deformable_attention` has no operator of its own) and cross-attention as
`aten::scaled_dot_product_attention`. Nothing here reads tensor values in evaluation, so it runs on the meta device.
"""

import math

import torch
from torch import Tensor, nn
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerMaskedAttentionDecoderLayer,
    Mask2FormerPixelDecoder,
    Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention,
    Mask2FormerPixelDecoderOutput,
    Mask2FormerTransformerModule,
)

from models.outputs import MaskPrediction
from models.precision import in_float32


class Mask2Former(nn.Module):
    """Backbone, pixel decoder, transformer decoder and class head; built by `mask2former`."""

    def __init__(self, num_classes: int, backbone: nn.Module, config: Mask2FormerConfig):
        super().__init__()
        self.backbone = backbone
        self.pixel_decoder = Mask2FormerPixelDecoder(config, feature_channels=backbone.channels)
        # transformers allocates this one on the CPU, whatever the default device.
        self.pixel_decoder.level_embed = nn.Parameter(torch.empty(3, config.feature_size))
        self.transformer = Mask2FormerTransformerModule(config.feature_size, config)
        for layer in self.transformer.decoder.layers:
            layer.cross_attn = _CrossAttention(config.hidden_dim, config.num_attention_heads)
        self.class_predictor = nn.Linear(config.hidden_dim, num_classes + 1)
        _initialise(self)

    def forward(self, images: Tensor) -> MaskPrediction:
        """Normalised images [B, 3, H, W] to Q masks at stride 4; intermediate predictions in training only."""
        pixels = _decode_pixels(self.pixel_decoder, self.backbone(images).features)
        decoded = self.transformer(pixels.multi_scale_features, pixels.mask_features)
        # The queries of every prediction, normed, are [Q, B, C]; all but the last serve deep supervision alone.
        pairs = list(zip(decoded.intermediate_hidden_states, decoded.masks_queries_logits, strict=True))
        wanted = pairs if self.training else pairs[-1:]
        *earlier, last = [(self.class_predictor(q.transpose(0, 1)), masks) for q, masks in wanted]
        return MaskPrediction(*last, intermediate=tuple(earlier))


@in_float32
def _decode_pixels(decoder: Mask2FormerPixelDecoder, features: tuple[Tensor, ...]) -> Mask2FormerPixelDecoderOutput:
    """As released: deformable attention, pyramid and mask features in float32 under mixed precision too."""
    return decoder(features)


def mask2former(
    num_classes: int,
    backbone: nn.Module,
    num_queries: int = 100,
    decoder_layers: int = 9,
    encoder_layers: int = 6,
    hidden_dim: int = 256,
    num_heads: int = 8,
    encoder_feedforward: int = 1024,
    decoder_feedforward: int = 2048,
) -> Mask2Former:
    """Mask2Former with new weights in its decoders; the defaults are the paper's (200 queries for Swin-L).

    num_classes: K, without "no object". backbone: any of `models.backbones`, strides 4 to 32.
    encoder_layers: deformable attention layers over strides 8, 16, 32. decoder_layers: at least 1.
    Raises ValueError when hidden_dim is no multiple of 32 (the group norms' groups) and of num_heads.
    """
    if hidden_dim % 32 or hidden_dim % num_heads:
        raise ValueError(f"Mask2Former: hidden_dim {hidden_dim} must be a multiple of 32 and of {num_heads} heads")
    if decoder_layers < 1:
        raise ValueError("Mask2Former: decoder_layers must be at least 1")
    config = Mask2FormerConfig(
        feature_size=hidden_dim,
        mask_feature_size=hidden_dim,
        hidden_dim=hidden_dim,
        encoder_layers=encoder_layers,
        encoder_feedforward_dim=encoder_feedforward,
        decoder_layers=decoder_layers + 1,  # transformers counts the prediction before the first layer
        dim_feedforward=decoder_feedforward,
        num_attention_heads=num_heads,
        num_queries=num_queries,
        dropout=0.0,
    )
    return Mask2Former(num_classes, backbone, config)


class _CrossAttention(nn.MultiheadAttention):
    """Does not compute the attention maps that transformers asks for and drops."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **kwargs) -> tuple[Tensor, None]:
        return super().forward(query, key, value, need_weights=False, **kwargs)


@torch.no_grad()
def _initialise(model: Mask2Former) -> None:
    """The reference's initial weights; transformers has them in a base class that is not used here.

    Query and level embeddings are unit normal already, and the heads keep the defaults of `nn.Linear`.
    """
    decoder = model.pixel_decoder
    nn.init.normal_(decoder.level_embed)
    for convolution in (m for m in decoder.modules() if isinstance(m, nn.Conv2d)):
        nn.init.kaiming_uniform_(convolution.weight, a=1)
        if convolution.bias is not None:
            nn.init.zeros_(convolution.bias)
    for projection, _ in decoder.input_projections:
        nn.init.xavier_uniform_(projection.weight)
    for module in (*decoder.encoder.layers, *model.transformer.decoder.layers):
        for parameter in module.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
    for layer in decoder.encoder.layers:
        _initialise_deformable(layer.self_attn)
    for layer in model.transformer.decoder.layers:
        _initialise_self_attention(layer)


def _initialise_deformable(attention: Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention) -> None:
    """Head h looks into direction h, point p at p + 1 pixels, all with equal weight (Deformable DETR, A.2)."""
    angles = torch.arange(attention.n_heads) * (2 * math.pi / attention.n_heads)
    directions = torch.stack((angles.cos(), angles.sin()), -1)
    directions = directions / directions.abs().amax(-1, keepdim=True)
    steps = torch.arange(1, attention.n_points + 1)
    offsets = directions[:, None, None, :] * steps[:, None]
    offsets = offsets.expand(attention.n_heads, attention.n_levels, attention.n_points, 2)
    attention.sampling_offsets.bias.copy_(offsets.flatten())
    nn.init.zeros_(attention.sampling_offsets.weight)
    nn.init.zeros_(attention.attention_weights.weight)
    for linear in (attention.attention_weights, attention.value_proj, attention.output_proj):
        nn.init.zeros_(linear.bias)


def _initialise_self_attention(layer: Mask2FormerMaskedAttentionDecoderLayer) -> None:
    """As `nn.MultiheadAttention`: query, key and value are one [3C, C] matrix to Xavier's rule, biases are zero."""
    attention = layer.self_attn
    bound = math.sqrt(6 / (4 * attention.embed_dim))
    for linear in (attention.q_proj, attention.k_proj, attention.v_proj):
        nn.init.uniform_(linear.weight, -bound, bound)
    for linear in (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj):
        nn.init.zeros_(linear.bias)
