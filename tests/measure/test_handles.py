"""Every handle against a count made by hand, and fvcore's own counts where it has a handle."""

import pytest
import torch
import torch.nn.functional as F
from fvcore.nn import FlopCountAnalysis
from torch import nn
from torchvision.models import resnet18
from torchvision.ops import DeformConv2d, MultiScaleRoIAlign, nms, roi_align
from transformers.models.mask2former.modeling_mask2former import multi_scale_deformable_attention

from bench.errors import BenchError
from bench.measure.complexity.counter import count_flops
from bench.measure.complexity.handles import UncountedOperator


def meta(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, device="meta")


def total(function, *inputs) -> int:
    return count_flops(function, inputs)[0]


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_scaled_dot_product_attention(device):
    query, key, value = (torch.zeros(s, device=device) for s in ((2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 4)))
    # 2 images x 3 heads; 5 x 7 scores of 8 products each, then 5 x 4 outputs of 7 products each
    by_hand = 2 * 3 * (5 * 7 * 8 + 5 * 4 * 7)
    assert count_flops(F.scaled_dot_product_attention, (query, key, value)) == (
        by_hand,
        {"scaled_dot_product_attention": by_hand},
    )


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_roi_align(device):
    """3 boxes, 4 channels, 7 x 5 cells, each the mean of 2 x 2 samples between four pixels."""
    features, boxes = torch.zeros(2, 4, 9, 9, device=device), torch.zeros(3, 5, device=device)
    by_hand = 3 * 4 * 7 * 5 * (2 * 2) * 4
    counted = count_flops(lambda x, b: roi_align(x, b, (7, 5), 0.5, sampling_ratio=2), (features, boxes))
    assert counted == (by_hand, {"roi_align": by_hand})
    with pytest.raises(UncountedOperator, match="roi_align with adaptive sampling"):
        total(lambda x, b: roi_align(x, b, (7, 5)), features, boxes)


def test_roi_align_of_several_maps_counts_every_box_once():
    boxes = torch.tensor([[0.0, 0, 20, 20], [0, 0, 60, 60], [0, 0, 500, 500], [9, 9, 300, 300]])
    pool = MultiScaleRoIAlign(["0", "1", "2"], 7, 2)

    def pooled(boxes):
        return pool({str(i): torch.zeros(1, 4, 128 // 2**i, 128 // 2**i) for i in range(3)}, [boxes], [(512, 512)])

    assert total(pooled, boxes) == 4 * 4 * 49 * (2 * 2) * 4


def test_suppression_of_boxes_has_no_multiply_adds():
    boxes, scores = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 1.9], [5, 5, 6, 6]]), torch.tensor([0.9, 0.8, 0.7])
    assert nms(boxes, scores, 0.5).tolist() == [0, 2]
    assert count_flops(lambda b, s: nms(b, s, 0.5), (boxes, scores)) == (0, {})


def attention_by_hand(batch: int, queries: int, keys: int, width: int) -> int:
    in_projections = batch * (queries + 2 * keys) * width * width
    scores_and_sums = 2 * batch * queries * keys * width  # heads x keys x (width / heads) each
    return in_projections + scores_and_sums + batch * queries * width * width


@pytest.mark.parametrize("device", ["meta", "cpu"])  # the fused fast path exists on the CPU only
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("masked", [True, False])  # masked and with weights: baddbmm
@pytest.mark.parametrize("batch_first", [True, False])
def test_multi_head_attention_counts_the_same_on_every_path(device, need_weights, masked, batch_first):
    attention = nn.MultiheadAttention(32, 4, batch_first=batch_first, device=device).eval()
    x = torch.zeros((2, 10, 32) if batch_first else (10, 2, 32), device=device)
    mask = torch.zeros(2 * 4, 10, 10, dtype=torch.bool, device=device) if masked else None
    counted = total(lambda x: attention(x, x, x, need_weights=need_weights, attn_mask=mask), x)
    assert counted == attention_by_hand(batch=2, queries=10, keys=10, width=32)


def test_cross_attention():
    attention = nn.MultiheadAttention(32, 4, batch_first=True, device="meta").eval()
    counted = total(lambda q, k: attention(q, k, k, need_weights=False), meta(1, 5, 32), meta(1, 9, 32))
    assert counted == attention_by_hand(batch=1, queries=5, keys=9, width=32)


@pytest.mark.parametrize("device", ["meta", "cpu"])  # on the CPU one fused operator, on meta its pieces
def test_transformer_encoder_layer(device):
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, device=device).eval()
    counted, by_operator = count_flops(layer, (torch.zeros(2, 10, 32, device=device),))
    feed_forward, norms = 2 * 10 * 2 * 32 * 64, 2 * 5 * 2 * 10 * 32
    assert counted == attention_by_hand(2, 10, 10, 32) + feed_forward + norms
    assert ("_transformer_encoder_layer_fwd" in by_operator) == (device == "cpu")


@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (1, 0)])
def test_deformable_convolution_counts_as_the_convolution_it_replaces(kernel, padding):
    deform = DeformConv2d(8, 6, kernel, stride=2, padding=padding, groups=2).to("meta")
    plain = nn.Conv2d(8, 6, kernel, stride=2, padding=padding, groups=2, device="meta")
    taps = kernel * kernel
    counted = count_flops(deform, (meta(2, 8, 10, 12), meta(2, 2 * taps, 5, 6), meta(2, taps, 5, 6)))
    by_hand = 2 * (6 * 4 * taps * 5 * 6)
    assert counted == (by_hand, {"deform_conv2d": by_hand})
    assert total(plain, meta(2, 8, 10, 12)) == by_hand


def test_multi_scale_deformable_attention():
    queries, heads, channels, points, shapes = 11, 4, 8, 3, [(4, 6), (2, 3)]
    pixels = sum(h * w for h, w in shapes)
    value, places = meta(1, pixels, heads, channels), meta(1, queries, heads, len(shapes), points, 2)
    weights = meta(1, queries, heads, len(shapes), points)
    counted, by_operator = count_flops(
        lambda v, p, w: multi_scale_deformable_attention(v, shapes, p, w), (value, places, weights)
    )
    samples = queries * heads * len(shapes) * points * channels
    # a bilinear sample is four multiply-adds, its weight in the sum over levels and points one more
    assert by_operator == {"grid_sampler": 4 * samples, "product_sum": samples}
    assert counted == 5 * samples


def test_sum_of_element_wise_products_is_a_contraction():
    a, b = meta(3, 8, 5, 4), meta(3, 8, 5, 4)
    assert total(lambda a, b: (a * b).sum(1), a, b) == 3 * 8 * 5 * 4
    assert total(lambda a, b: (a * b).transpose(1, 2).reshape(3, -1).sum(1), a, b) == 3 * 8 * 5 * 4
    assert total(lambda a, b: a * b + b * a + a * a, a, b) == 3 * (3 * 8 * 5 * 4)
    assert total(lambda a, b: (a + b).sum(1) + (a * 2).sum(1), a, b) == 0


@pytest.mark.parametrize(
    ("function", "shapes", "by_hand"),
    [
        (F.linear, [(2, 7, 8), (5, 8)], 2 * 7 * 8 * 5),
        (torch.matmul, [(7, 8), (8, 5)], 7 * 8 * 5),
        (torch.matmul, [(2, 3, 7, 8), (8, 5)], 2 * 3 * 7 * 8 * 5),
        (torch.matmul, [(7, 8), (2, 3, 8, 5)], 2 * 3 * 7 * 8 * 5),
        (torch.bmm, [(3, 7, 8), (3, 8, 5)], 3 * 7 * 8 * 5),
        (torch.baddbmm, [(3, 7, 5), (3, 7, 8), (3, 8, 5)], 3 * 7 * 8 * 5),
        (torch.addmm, [(5,), (7, 8), (8, 5)], 7 * 8 * 5),
        (lambda a, b: torch.einsum("qc,qhw->chw", a, b), [(9, 4), (9, 6, 7)], 9 * 4 * 6 * 7),
        (lambda a, b: torch.einsum("bqc,bchw->bqhw", a, b), [(2, 9, 4), (2, 4, 6, 7)], 2 * 9 * 4 * 6 * 7),
        (lambda x, w: F.conv2d(x, w, padding="same"), [(2, 8, 6, 7), (5, 8, 3, 3)], 2 * 5 * 8 * 9 * 6 * 7),
        (lambda x, w: F.conv2d(x, w, stride=2, groups=4), [(1, 8, 6, 8), (4, 2, 2, 2)], 4 * 2 * 4 * 3 * 4),
        (lambda x, w: F.conv_transpose2d(x, w, stride=2), [(1, 8, 6, 8), (8, 5, 2, 2)], 8 * 5 * 4 * 6 * 8),
        (lambda x: F.interpolate(x, (9, 11), mode="bilinear"), [(1, 3, 4, 5)], 4 * 3 * 9 * 11),
        (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), [(1, 3, 4, 5)], 4 * 3 * 8 * 10),
        (lambda x: F.interpolate(x, scale_factor=2), [(1, 3, 4, 5)], 3 * 8 * 10),
        (lambda x, g: F.grid_sample(x, g, align_corners=False), [(2, 3, 4, 5), (2, 6, 7, 2)], 4 * 2 * 3 * 6 * 7),
        (lambda x, w: F.batch_norm(x, w, w, w, w), [(1, 3, 4, 5), (3,)], 2 * 3 * 4 * 5),
        (lambda x, w: F.group_norm(x, 2, w, w), [(1, 4, 4, 5), (4,)], 5 * 4 * 4 * 5),
        (lambda x, w: F.layer_norm(x, (5,), w, w), [(1, 3, 4, 5), (5,)], 5 * 3 * 4 * 5),
        (lambda x: F.layer_norm(x, (5,)), [(1, 3, 4, 5)], 4 * 3 * 4 * 5),
        (lambda x: F.adaptive_avg_pool2d(x, 1), [(1, 3, 4, 5)], 3 * 4 * 5),
        (lambda x: F.avg_pool2d(x, 2), [(1, 3, 4, 6)], 3 * (2 * 3) * 4),
        (lambda x: F.avg_pool2d(x, (3, 2), stride=1, padding=1), [(1, 3, 4, 6)], 3 * (4 * 7) * 6),
        (lambda x: torch.addcmul(x, x, x), [(1, 3, 4, 5)], 3 * 4 * 5),
        (lambda x: F.normalize(x, dim=1), [(1, 3, 4, 5)], 3 * 4 * 5),
        (lambda x: F.leaky_relu(F.hardswish(F.relu6(x)), inplace=True), [(1, 3, 4, 5)], 0),
        (lambda x: nn.Hardswish(inplace=True)(nn.ReLU6(inplace=True)(x + 1)), [(1, 3, 4, 5)], 0),
        (lambda x: F.max_pool2d(F.gelu(F.pad(x, (1, 1))).softmax(1), 2).permute(1, 0, 2, 3), [(1, 3, 4, 5)], 0),
    ],
)
def test_count_by_hand(function, shapes, by_hand):
    assert total(function, *(meta(*shape) for shape in shapes)) == by_hand


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: torch.cdist(x, x), "_cdist_forward"),
        (lambda x: torch.fft.fft(x), "_fft_r2c"),
        (lambda x: torch.addcdiv(x, x, x), "addcdiv"),
        (lambda x: F.interpolate(x[None, None], (2, 2), mode="bilinear", antialias=True), "_upsample_bilinear2d_aa"),
        (lambda x: F.avg_pool3d(x[None, None], (1, 2, 2)), "avg_pool3d"),
    ],
)
def test_an_uncounted_operator_is_refused_by_name(function, name):
    with pytest.raises(UncountedOperator, match=name) as caught:
        count_flops(function, (torch.zeros(4, 4),))
    assert isinstance(caught.value, BenchError) and "\n" not in str(caught.value)


def test_an_uncounted_operator_inside_a_module_is_refused():
    class Unknown(nn.Module):
        def forward(self, x):
            return torch.linalg.inv(x) + x

    with pytest.raises(UncountedOperator, match="linalg_inv"):
        count_flops(nn.Sequential(nn.Linear(4, 4), Unknown()), (torch.zeros(4, 4),))


def test_agrees_with_fvcore_on_a_network_that_fvcore_counts_fully():
    model = resnet18().eval()
    image = torch.zeros(1, 3, 64, 96)
    reference = FlopCountAnalysis(model, image).unsupported_ops_warnings(False).by_operator()
    counted = count_flops(model.to("meta"), (image.to("meta"),))[1]
    assert counted == {name: count for name, count in reference.items() if count}
