"""HCFormer and HCFormer+ as whole models: levels, sizes, published parameter counts, training, the tiny reference."""

import pytest
import torch
import torch.nn.functional as F

from bench.experiments.experiment import experiment
from bench.zoo import build_model
from models.backbones.resnet import ResNet, resnet, small_resnet
from models.clustering import decode_through
from models.hcformer import hcformer
from tests.parity import load_reference
from tests.parity import tiny_hcformer as tiny
from tests.reference import reference_image, reference_outputs, relative_error

METHODS = ["hcformer", "hcformer+"]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def moved(model):
    """New parameters moved: residual branches and offsets start at zero."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith("scale"):
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def small(method, **factors):
    """The small-scale model, whatever its sizes are."""
    return moved(build_model(experiment(method, "small", "synthetic_panoptic", "small", **factors), seed=0))


def narrow(method):
    """Deformable ResNet of the usual strides, one block a stage."""
    encoder_layers = {"hcformer": 0, "hcformer+": 1}[method]
    sizes = {"channels": 64, "heads": 4, "hidden": 48, "encoder_layers": encoder_layers}
    backbone = ResNet((1, 1, 1, 1), width=16, deformable_level=3)
    return moved(hcformer(5, backbone, decoder_layers=2, num_queries=20, **sizes)).eval()


def test_every_prediction_equals_the_reference():
    """Training mode returns the earlier predictions too, decoded; the reference's are at stride 32, undecoded."""
    model, expected = (
        load_reference("tiny_hcformer_swin").train(),
        reference_outputs("tiny_hcformer_swin"),
    )
    with torch.inference_mode():
        prediction = model(reference_image())
    assert relative_error(prediction.mask_logits, expected["pred_masks"]) < 1e-4
    assert len(prediction.intermediate) == 2
    assignments = tuple(expected[f"assign.{i}"] for i in range(3))
    for i, (class_logits, mask_logits) in enumerate(prediction.intermediate):
        assert relative_error(class_logits, expected[f"aux.{i}.pred_logits"]) < 1e-4
        assert relative_error(mask_logits, decode_through(expected[f"aux.{i}.pred_masks"], assignments)) < 1e-4


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_level_decides_mask_stride_and_assignments(level):
    model = tiny(level)
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        evaluated, trained = model.eval()(images), model.train()(images)
    stride = 2 ** (5 - level)
    for prediction in (evaluated, trained):
        assert prediction.class_logits.shape == (2, 10, 6)
        assert prediction.mask_logits.shape == (2, 10, 64 // stride, 96 // stride)
        assert [tuple(a.shape) for a in prediction.assignments] == [
            (2, 9, 64 // s, 96 // s) for s in (16, 8, 4)[:level]
        ]
        if level:
            assert torch.equal(prediction.scales, torch.full((level,), 0.1))
        else:
            assert prediction.scales is None
    assert [(c.shape, m.shape) for c, m in trained.intermediate] == [
        (trained.class_logits.shape, trained.mask_logits.shape)
    ] * 2


def test_levels_share_the_backbone_path():
    """Clustering changes no feature: a level more only decodes the same masks further."""
    deep, shallow = tiny(3).eval(), tiny(2).eval()
    shallow.load_state_dict({k: v for k, v in deep.state_dict().items() if not k.startswith("clustering.2.")})
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        a, b = deep(images), shallow(images)
    assert torch.equal(a.class_logits, b.class_logits)
    assert relative_error(a.mask_logits, decode_through(b.mask_logits, a.assignments[2:])) < 1e-5


R50 = [
    *(({"hierarchical_level": i}, m) for i, m in enumerate((37.42, 37.97, 38.25, 38.39))),
    *(({"hierarchical_level": i, "downsampling": "conv"}, m) for i, m in enumerate((37.42, 37.82, 38.02, 38.12))),
    *(
        ({"decoder_layers": n, "downsampling": "conv"}, m)
        for n, m in ((1, 27.07), (2, 28.64), (4, 31.80), (8, 38.12), (16, 50.75))
    ),
]


@pytest.mark.parametrize(
    ("method", "backbone", "factors", "millions"),
    [
        *(("hcformer", "r50", factors, m) for factors, m in R50),
        ("hcformer+", "r50", {}, 45.82),
        ("hcformer+", "r50", {"downsampling": "conv"}, 45.55),
        ("hcformer+", "r50", {"transformer_decoder": "standard", "decoder_layers": 9}, 47.37),
        ("hcformer", "swin_s", {}, 62.41),
        ("hcformer", "swin_s", {"hierarchical_level": 0}, 62.14),
        ("hcformer", "swin_l", {"num_queries": 200}, 209.47),
        ("hcformer+", "swin_s", {}, 70.17),
        ("hcformer+", "swin_l", {"num_queries": 200}, 217.04),
    ],
)
def test_parameter_count(method, backbone, factors, millions):
    """Parameters of the reference for COCO panoptic, in millions to two decimals."""
    with torch.device("meta"):
        model = build_model(experiment(method, backbone, "coco_panoptic", "paper", **factors))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.006)


def with_fixed_statistics(model):
    """With those of the batch, a bias before a batch norm has no gradient but noise."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    return model


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("decoder", ["masked", "standard"])
def test_gradients_reach_every_parameter(method, decoder):
    model = with_fixed_statistics(small(method, transformer_decoder=decoder).train())
    prediction = model(torch.randn(2, 3, 64, 96))
    pairs = (*prediction.intermediate, (prediction.class_logits, prediction.mask_logits))
    assert len(pairs) == (4 if decoder == "masked" else 3)
    sum((torch.randn_like(t) * t).mean() for pair in pairs for t in pair).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert not [name for name, gradient in gradients.items() if gradient is None or not gradient.any()]
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())


@pytest.mark.parametrize("method", METHODS)
def test_gradients_reach_every_parameter_without_clustering(method):
    """Level 0 trains too (the reference fails there), the backbone through encoder and decoder alone."""
    model = small(method, hierarchical_level=0).train()
    prediction = model(torch.randn(2, 3, 64, 64))
    pairs = (*prediction.intermediate, (prediction.class_logits, prediction.mask_logits))
    sum((torch.randn_like(t) * t).mean() for pair in pairs for t in pair).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize("method", METHODS)
def test_batch_equals_single_images(method):
    model = narrow(method)
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        batched = model(images)
        single = [model(image[None]) for image in images]
    assert relative_error(batched.class_logits, torch.cat([p.class_logits for p in single])) < 1e-4
    assert relative_error(batched.mask_logits, torch.cat([p.mask_logits for p in single])) < 1e-4
    for i, assignment in enumerate(batched.assignments):
        assert relative_error(assignment, torch.cat([p.assignments[i] for p in single])) < 1e-4


@pytest.mark.parametrize("method", METHODS)
def test_padding_changes_no_shape_but_the_masks(method):
    model = narrow(method)
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        plain, padded = model(images), model(F.pad(images, (0, 32, 0, 32)))
    assert plain.mask_logits.shape == (1, 20, 16, 24) and padded.mask_logits.shape == (1, 20, 24, 32)
    assert padded.class_logits.shape == plain.class_logits.shape
    assert [a.shape[2:] for a in padded.assignments] == [(6, 8), (12, 16), (24, 32)]
    assert torch.isfinite(padded.mask_logits).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(97, 133), (33, 65), (1, 1)])
def test_any_size(method, size):
    """Sizes no stride divides: the masks have the size of the stride-4 feature, rounded up."""
    model = narrow(method)
    with torch.inference_mode():
        prediction = model(torch.randn(1, 3, *size))
    assert prediction.mask_logits.shape[2:] == tuple(-(-n // 4) for n in size)
    assert [a.shape[2:] for a in prediction.assignments] == [tuple(-(-n // s) for n in size) for s in (16, 8, 4)]
    assert torch.isfinite(prediction.mask_logits).all() and torch.isfinite(prediction.class_logits).all()


def test_scales_are_the_modules_parameters_coarsest_first():
    model = narrow("hcformer").train()
    with torch.no_grad():
        for i, module in enumerate(model.clustering):
            module.scale.fill_(i - 1.5)
    prediction = model(torch.randn(2, 3, 64, 64))
    assert torch.equal(prediction.scales, torch.tensor([-1.5, -0.5, 0.5]))
    prediction.scales.sum().backward()
    assert all(module.scale.grad.item() == 1 for module in model.clustering)
    coarsest_first = [
        (module.fine_norm.weight.numel(), module.coarse_norm.weight.numel()) for module in model.clustering
    ]
    assert coarsest_first == list(model.backbone.pair_channels[::-1])


def test_masks_are_averages_of_the_masks_before_decoding():
    """Eq. 5 forms convex combinations: no decoded logit leaves the range of its query's logits at stride 32."""
    model = tiny().eval()
    images = torch.randn(1, 3, 64, 96)
    raw = []
    model.decoder.register_forward_hook(lambda *args: raw.append(args[2][-1][1]))
    with torch.inference_mode():
        masks = model(images).mask_logits.flatten(2)
    coarse = raw[0].flatten(2)
    assert torch.all(masks.amax(2) <= coarse.amax(2) + 1e-5) and torch.all(masks.amin(2) >= coarse.amin(2) - 1e-5)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="transformer_decoder 'mask' is neither"):
        hcformer(5, small_resnet(), transformer_decoder="mask")
    for level in (-1, 4):
        with pytest.raises(ValueError, match=f"hierarchical level {level}"):
            hcformer(5, small_resnet(), level, channels=64, hidden=64, decoder_layers=1)


def test_runs_on_the_meta_device():
    with torch.device("meta"):
        prediction = hcformer(133, resnet(50, 3), encoder_layers=6).eval()(torch.zeros(1, 3, 800, 1344))
    assert prediction.class_logits.shape == (1, 100, 134)
    assert prediction.mask_logits.shape == (1, 100, 200, 336)
