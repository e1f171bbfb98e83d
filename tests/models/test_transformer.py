"""Transformer parts against torch's own layers, transformers' position encoding and the reference's encoder."""

import pytest
import torch
from torch import nn
from transformers.models.detr.modeling_detr import DetrSinePositionEmbedding
from transformers.models.maskformer.modeling_maskformer import MaskFormerSinePositionEmbedding

from bench.weights.formats import hcformer
from bench.weights.rules import rename
from models.hcformer import EncoderWithProjection
from models.transformer import (
    MLP,
    DecoderLayer,
    EncoderLayer,
    MaskedDecoder,
    StandardDecoder,
    TransformerEncoder,
    input_projection,
    sine_positions,
)
from tests.reference import reference_outputs, relative_error, strip

TORCH_LAYER = [  # names of torch's layers to ours
    (r"^self_attn\.", "self_attention."),
    (r"^multihead_attn\.", "cross_attention."),
    (r"^linear(\d)\.", r"feed_forward.linear\1."),
]
TORCH_DECODER_LAYER = [
    *TORCH_LAYER,
    (r"^norm1\.", "self_norm."),
    (r"^norm2\.", "cross_norm."),
    (r"^norm3\.", "feed_forward_norm."),
]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def perturbed(module):
    """New layers have zero biases and unit norms, which show nothing."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.eval()


@pytest.mark.parametrize("shape", [(2, 256, 25, 42), (1, 32, 3, 5), (1, 64, 1, 1)])
@pytest.mark.parametrize("library", [DetrSinePositionEmbedding, MaskFormerSinePositionEmbedding])
def test_positions_equal_transformers(shape, library):
    expected = library(shape[1] // 2, normalize=True)(torch.Size(shape), torch.device("cpu"), torch.float32)
    if expected.dim() == 4:  # [B, C, H, W]
        expected = expected.flatten(2).mT
    assert torch.allclose(sine_positions(torch.zeros(shape)), expected[:1], atol=1e-5)


def test_positions_have_the_precision_of_the_map():
    assert sine_positions(torch.zeros(1, 8, 2, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_encoder_equals_the_reference():
    """Projection, GroupNorm(32) and two encoder layers, as HCFormer+ appends them to the backbone."""
    tensors = reference_outputs("units")
    state = {f"backbone.aux.{name}": value for name, value in strip(tensors, "encoder.state.").items()}
    module = EncoderWithProjection(24, 32, layers=2, heads=4, hidden=48).eval()
    module.load_state_dict(strip(hcformer.FORMAT.to_ours(state), "encoder."))
    with torch.inference_mode():
        assert relative_error(module(tensors["encoder.x"]), tensors["encoder.out"]) < 1e-5
    positions = sine_positions(tensors["encoder.pos"])
    assert relative_error(positions, tensors["encoder.pos"][:1].flatten(2).mT) < 1e-5


def test_encoder_layer_equals_torch():
    other = perturbed(nn.TransformerEncoderLayer(32, 4, 48, batch_first=True))
    layer = EncoderLayer(32, 4, 48, 0.1).eval()
    layer.load_state_dict(rename(other.state_dict(), TORCH_LAYER))
    x = torch.randn(2, 7, 32)
    assert relative_error(layer(x, torch.zeros(1, 7, 32)), other(x)) < 1e-5


def test_encoder_adds_positions_to_queries_and_keys_alone():
    layer = perturbed(EncoderLayer(32, 4, 48, 0.1))
    x, positions = torch.randn(2, 7, 32), torch.randn(1, 7, 32)
    seen = []
    layer.self_attention.register_forward_pre_hook(lambda _, args: seen.extend(args))
    layer(x, positions)
    assert torch.equal(seen[0], x + positions) and torch.equal(seen[1], seen[0]) and torch.equal(seen[2], x)


def test_encoder_keeps_the_shape_and_the_batch():
    encoder = TransformerEncoder(32, layers=2, heads=4, hidden=48).eval()
    x = torch.randn(2, 32, 3, 5)
    result = encoder(x)
    assert result.shape == x.shape
    assert relative_error(result, torch.cat([encoder(x[:1]), encoder(x[1:])])) < 1e-5


def test_decoder_layer_equals_torch_in_detr_order():
    other = perturbed(nn.TransformerDecoderLayer(32, 4, 48, batch_first=True))
    layer = DecoderLayer(32, 4, 48, 0.1, cross_first=False).eval()
    layer.load_state_dict(rename(other.state_dict(), TORCH_DECODER_LAYER))
    x, memory = torch.randn(2, 5, 32), torch.randn(2, 7, 32)
    blocked = torch.rand(8, 5, 7) < 0.5
    blocked[..., 0] = False
    no_positions = torch.zeros(1, 5, 32)
    assert relative_error(layer(x, no_positions, memory, memory), other(x, memory)) < 1e-5
    expected = other(x, memory, memory_mask=blocked)
    assert relative_error(layer(x, no_positions, memory, memory, blocked), expected) < 1e-5


@pytest.mark.parametrize("cross_first", [True, False])
def test_decoder_layer_order(cross_first):
    """Mask2Former attends to the image first, DETR to the other queries; the feed-forward network comes last."""
    layer = perturbed(DecoderLayer(32, 4, 48, 0.1, cross_first))
    x, query, key, value = torch.randn(4, 2, 5, 32)
    order, inputs = [], {}
    for name in ("self_attention", "cross_attention", "feed_forward"):

        def note(_, args, name=name):
            order.append(name)
            inputs[name] = args

        getattr(layer, name).register_forward_pre_hook(note)
    layer(x, query, key, value)
    attentions = ["cross_attention", "self_attention"]
    assert order == (attentions if cross_first else attentions[::-1]) + ["feed_forward"]
    assert torch.equal(inputs[order[0]][0], x + query)
    assert inputs["cross_attention"][1] is key and inputs["cross_attention"][2] is value
    second_query, second_value = inputs["self_attention"][0], inputs["self_attention"][2]
    assert torch.allclose(second_query, second_value + query)


def test_mlp_has_three_linear_layers_with_relu_between():
    mlp = perturbed(MLP(4, 6, 5))
    x = torch.randn(3, 4)
    a, b, c = mlp.layers
    expected = ((x @ a.weight.T + a.bias).clamp(min=0) @ b.weight.T + b.bias).clamp(min=0) @ c.weight.T + c.bias
    assert torch.allclose(mlp(x), expected, atol=1e-5)
    assert mlp(x).min() < 0


def test_input_projection_falls_away_where_the_width_fits():
    assert not list(input_projection(32, 32).parameters())
    assert input_projection(24, 32)(torch.zeros(1, 24, 2, 2)).shape == (1, 32, 2, 2)


def masked_decoder(layers=3):
    return perturbed(MaskedDecoder(24, num_classes=5, num_queries=6, layers=layers, channels=32, heads=4, hidden=48))


def standard_decoder(layers=3):
    """Without dropout: training and evaluation compute the same."""
    return perturbed(StandardDecoder(24, 5, 6, layers, channels=32, heads=4, hidden=48, dropout=0.0))


@pytest.mark.parametrize(("build", "predictions"), [(masked_decoder, 4), (standard_decoder, 3)])
def test_number_of_predictions(build, predictions):
    """Masked: one before the first layer and one after each. In evaluation the last alone, and the same."""
    decoder = build()
    memory, mask_features = torch.randn(2, 24, 3, 5), torch.randn(2, 32, 3, 5)
    trained = decoder.train()(memory, mask_features)
    evaluated = decoder.eval()(memory, mask_features)
    assert len(trained) == predictions and len(evaluated) == 1
    for classes, masks in trained:
        assert classes.shape == (2, 6, 6) and masks.shape == (2, 6, 3, 5)
    for a, b in zip(evaluated[0], trained[-1], strict=True):
        assert torch.allclose(a, b, atol=1e-4)
    assert not torch.allclose(trained[0][1], trained[-1][1], atol=0.1)


def test_standard_decoder_predicts_on_masks_of_any_size():
    (classes, masks), *rest = standard_decoder()(torch.randn(2, 24, 3, 5), torch.randn(2, 32, 12, 20))
    assert not rest and classes.shape == (2, 6, 6) and masks.shape == (2, 6, 12, 20)


def with_constant_embedding(decoder):
    """Every query's mask is the sum of the mask features: all attend in the same places."""
    last = decoder.heads.mask_embed.layers[-1]
    nn.init.zeros_(last.weight)
    nn.init.ones_(last.bias)
    return decoder


def classes_of(decoder, memory, sign):
    """Class logits where every query's mask has these signs [h, w] in all predictions."""
    mask_features = sign.float().expand(len(memory), 32, *sign.shape[-2:])
    return decoder(memory, mask_features)[-1][0]


def test_a_query_with_an_empty_mask_attends_everywhere():
    """As if its mask were full, without NaN; forward and backward."""
    decoder = with_constant_embedding(masked_decoder())
    memory = torch.randn(2, 24, 3, 5, requires_grad=True)
    empty = classes_of(decoder, memory, torch.full((3, 5), -1))
    assert torch.isfinite(empty).all()
    assert torch.allclose(empty, classes_of(decoder, memory, torch.ones(3, 5)), atol=1e-5)
    empty.sum().backward()
    assert torch.isfinite(memory.grad).all() and memory.grad.abs().sum(1).all()


def test_queries_attend_inside_their_masks_alone():
    decoder = with_constant_embedding(masked_decoder())
    memory = torch.randn(1, 24, 3, 5, requires_grad=True)
    sign = torch.where(torch.rand(3, 5) < 0.5, 1, -1)
    assert 0 < (sign > 0).sum() < 15
    classes_of(decoder, memory, sign).square().sum().backward()
    assert torch.equal(memory.grad.abs().sum((0, 1)) > 0, sign > 0)


def test_attention_masks_are_each_query_and_each_images_own():
    """Two images in a batch, queries with different masks: the same as one after the other."""
    decoder = masked_decoder()
    memory, mask_features = torch.randn(3, 24, 3, 5), torch.randn(3, 32, 3, 5)
    ((classes, masks),) = decoder(memory, mask_features)
    for i in range(3):
        ((one_class, one_mask),) = decoder(memory[i : i + 1], mask_features[i : i + 1])
        assert torch.allclose(classes[i : i + 1], one_class, atol=1e-4)
        assert torch.allclose(masks[i : i + 1], one_mask, atol=1e-3)
    blocked = []
    decoder.layers[0].register_forward_pre_hook(lambda _, args: blocked.append(args[4]))
    first = decoder.train()(memory, mask_features)[0][1]
    expected = first.sigmoid().flatten(2) < 0.5  # [B, Q, hw]
    assert expected.any(-1).all() and not expected.all(-1).any()  # proper masks, none empty
    assert torch.equal(blocked[0].view(3, 4, 6, 15), expected[:, None].expand(-1, 4, -1, -1))


def test_attention_masks_carry_no_gradient():
    """The mask of a prediction steers the next layer by a threshold: its features get no gradient through it."""
    decoder = masked_decoder(layers=1)
    mask_features = torch.randn(1, 32, 3, 5, requires_grad=True)
    decoder(torch.randn(1, 24, 3, 5), mask_features)[-1][0].sum().backward()
    assert mask_features.grad is None or not mask_features.grad.any()
