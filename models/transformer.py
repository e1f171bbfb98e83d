"""Transformer parts that all mask-classification methods share: positions, encoder, two decoders, heads.

All layers are post-norm with ReLU feed-forward networks, as in DETR; tensors are batch-first [B, tokens, C].
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Predictions = list[tuple[Tensor | None, Tensor]]  # (class_logits [B, Q, K+1], mask_logits [B, Q, h, w])


def sine_positions(x: Tensor, temperature: float = 10000.0) -> Tensor:
    """DETR's normalised sine position encoding for a map x [B, C, H, W]: [1, H*W, C] (first half y, second x)."""
    channels, height, width = x.shape[-3:]
    if channels % 4:
        raise ValueError(f"{channels} channels: the position encoding needs a multiple of 4")
    half = channels // 2
    exponent = 2 * (torch.arange(half, device=x.device) // 2) / half
    divisor = temperature**exponent

    def encode(length: int) -> Tensor:
        position = torch.arange(1, length + 1, device=x.device) / (length + 1e-6) * 2 * math.pi
        angle = position[:, None] / divisor
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), 2).flatten(1)

    rows = encode(height)[:, None].expand(height, width, half)
    cols = encode(width)[None].expand(height, width, half)
    return torch.cat((rows, cols), 2).flatten(0, 1)[None].to(x.dtype)


class MLP(nn.Module):
    """Linear layers with ReLU between them: the mask head has three."""

    def __init__(self, channels: int, hidden: int, out: int, layers: int = 3):
        super().__init__()
        sizes = [channels] + [hidden] * (layers - 1) + [out]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class FeedForward(nn.Module):
    def __init__(self, channels: int, hidden: int, dropout: float):
        super().__init__()
        self.linear1 = nn.Linear(channels, hidden)
        self.linear2 = nn.Linear(hidden, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(F.relu(self.linear1(x))))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward; positions are added to queries and keys."""

    def __init__(self, channels: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.self_attention = nn.MultiheadAttention(channels, heads, dropout, batch_first=True)
        self.feed_forward = FeedForward(channels, hidden, dropout)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        query = x + positions
        x = self.norm1(x + self.dropout(self.self_attention(query, query, x, need_weights=False)[0]))
        return self.norm2(x + self.dropout(self.feed_forward(x)))


class TransformerEncoder(nn.Module):
    """Encoder over a feature map: [B, C, H, W] -> [B, C, H, W] (six layers in the paper, section 2.5)."""

    def __init__(self, channels: int = 256, layers: int = 6, heads: int = 8, hidden: int = 2048, dropout: float = 0.1):
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(channels, heads, hidden, dropout) for _ in range(layers))
        xavier_(self)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        positions = sine_positions(x)
        tokens = x.flatten(2).transpose(1, 2)
        for layer in self.layers:
            tokens = layer(tokens, positions)
        return tokens.transpose(1, 2).unflatten(2, (height, width))


class DecoderLayer(nn.Module):
    """One decoder layer. cross_first: Mask2Former's order (cross, self, feed-forward); else DETR's (self, cross)."""

    def __init__(self, channels: int, heads: int, hidden: int, dropout: float, cross_first: bool):
        super().__init__()
        self.cross_first = cross_first
        self.self_attention = nn.MultiheadAttention(channels, heads, dropout, batch_first=True)
        self.cross_attention = nn.MultiheadAttention(channels, heads, dropout, batch_first=True)
        self.feed_forward = FeedForward(channels, hidden, dropout)
        self.self_norm = nn.LayerNorm(channels)
        self.cross_norm = nn.LayerNorm(channels)
        self.feed_forward_norm = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, query: Tensor, key: Tensor, value: Tensor, blocked: Tensor | None = None) -> Tensor:
        """x, query (its positions) [B, Q, C]; key, value [B, L, C]; blocked bool [B*heads, Q, L], True = no entry."""
        if not self.cross_first:
            x = self._self(x, query)
        cross = self.cross_attention(x + query, key, value, attn_mask=blocked, need_weights=False)[0]
        x = self.cross_norm(x + self.dropout(cross))
        if self.cross_first:
            x = self._self(x, query)
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))

    def _self(self, x: Tensor, query: Tensor) -> Tensor:
        q = x + query
        return self.self_norm(x + self.dropout(self.self_attention(q, q, x, need_weights=False)[0]))


class MaskHeads(nn.Module):
    """Normalisation, class head and mask head (three-layer perceptron) of a decoder.

    The class head is one linear layer, as in the reference implementation (section 2.5 says perceptrons).
    """

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.class_embed = nn.Linear(channels, num_classes + 1)
        self.mask_embed = MLP(channels, channels, channels)

    def forward(self, x: Tensor, mask_features: Tensor, classes: bool = True) -> tuple[Tensor | None, Tensor]:
        """x [B, Q, C], mask_features [B, C, h, w] -> class_logits (None unless asked), mask_logits (eq. 4)."""
        x = self.norm(x)
        masks = torch.einsum("bqc,bchw->bqhw", self.mask_embed(x), mask_features)
        return self.class_embed(x) if classes else None, masks


class StandardDecoder(nn.Module):
    """DETR's decoder as MaskFormer uses it: queries start at zero, attend to the whole memory.

    in_channels: channels of the memory; a 1x1 convolution maps it to `channels` where they differ.
    Dropout 0.1 is MaskFormer's. In evaluation only the last layer is predicted from, unless `every_layer` is set: the
    released MaskFormer predicts from all of them and throws the others away, and table 1 counts that work.
    """

    every_layer = False

    def __init__(
        self, in_channels: int, num_classes: int, num_queries: int = 100, layers: int = 6, channels: int = 256,
        heads: int = 8, hidden: int = 2048, dropout: float = 0.1,
    ):  # fmt: skip
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(channels, heads, hidden, dropout, cross_first=False) for _ in range(layers)
        )
        self.query_positions = nn.Embedding(num_queries, channels)
        xavier_(self.layers)
        self.input_proj = input_projection(in_channels, channels)
        self.heads = MaskHeads(channels, num_classes)

    def forward(self, memory: Tensor, mask_features: Tensor) -> Predictions:
        """memory [B, in_channels, h, w], mask_features [B, channels, H, W] -> predictions, last layer last."""
        memory = self.input_proj(memory)
        value = memory.flatten(2).transpose(1, 2)
        key = value + sine_positions(memory)
        query = self.query_positions.weight.expand(len(value), -1, -1)
        x, predictions = torch.zeros_like(query), []
        for i, layer in enumerate(self.layers):
            x = layer(x, query, key, value)
            if self.training or self.every_layer or i == len(self.layers) - 1:
                predictions.append(self.heads(x, mask_features))
        return predictions


class MaskedDecoder(nn.Module):
    """Mask2Former's masked-attention decoder on the single coarsest scale, with layers + 1 predictions.

    A query attends only where its previous mask, at the memory's own resolution, is above 0.5; a query whose mask
    is empty attends everywhere. The first prediction comes from the learnable queries alone.
    """

    def __init__(
        self, in_channels: int, num_classes: int, num_queries: int = 100, layers: int = 8, channels: int = 256,
        heads: int = 8, hidden: int = 2048,
    ):  # fmt: skip
        super().__init__()
        self.num_heads = heads
        self.layers = nn.ModuleList(
            DecoderLayer(channels, heads, hidden, dropout=0.0, cross_first=True) for _ in range(layers)
        )
        xavier_(self.layers)
        self.query_features = nn.Embedding(num_queries, channels)
        self.query_positions = nn.Embedding(num_queries, channels)
        self.level_embedding = nn.Embedding(1, channels)
        self.input_proj = input_projection(in_channels, channels)
        self.heads = MaskHeads(channels, num_classes)

    def forward(self, memory: Tensor, mask_features: Tensor) -> Predictions:
        """memory [B, in_channels, h, w], mask_features [B, channels, h, w] -> predictions, last layer last.

        In evaluation all but the last have been used for the attention masks only and are not returned.
        """
        memory = self.input_proj(memory)
        value = memory.flatten(2).transpose(1, 2) + self.level_embedding.weight
        key = value + sine_positions(memory)
        query = self.query_positions.weight.expand(len(value), -1, -1)
        x = self.query_features.weight.expand(len(value), -1, -1)
        predictions = [self.heads(x, mask_features, classes=self.training)]
        for i, layer in enumerate(self.layers):
            x = layer(x, query, key, value, self._blocked(predictions[-1][1]))
            last = i == len(self.layers) - 1
            predictions.append(self.heads(x, mask_features, classes=self.training or last))
        return predictions if self.training else predictions[-1:]

    def _blocked(self, mask_logits: Tensor) -> Tensor:
        blocked = mask_logits.detach().flatten(2) < 0
        blocked = blocked & ~blocked.all(-1, keepdim=True)
        return blocked.repeat_interleave(self.num_heads, 0)


def input_projection(in_channels: int, channels: int) -> nn.Module:
    """1x1 convolution to the transformer's width; nothing where the width fits already."""
    return nn.Identity() if in_channels == channels else projection(in_channels, channels)


def projection(in_channels: int, channels: int) -> nn.Conv2d:
    """1x1 convolution, Caffe2's Xavier initialisation (uniform, fan-in), zero bias."""
    conv = nn.Conv2d(in_channels, channels, 1)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    nn.init.zeros_(conv.bias)
    return conv


def xavier_(module: nn.Module) -> None:
    """Xavier-uniform initialisation of every matrix in `module` (DETR's rule)."""
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
