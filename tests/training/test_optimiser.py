"""Parameter groups and the learning-rate schedule against Mask2Former's recipe, written out."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn

from baselines.mask2former import mask2former
from bench.experiments import RECIPES, experiment, recipe_for
from bench.experiments.methods import METHODS
from bench.training.optimiser import build_optimiser, set_learning_rate
from bench.zoo import build_model
from models.backbones.swin import Swin

RECIPE = replace(RECIPES["synthetic_panoptic", "small"], learning_rate=1e-3, backbone_multiplier=0.1, weight_decay=0.05)
HEAD, BACKBONE = 1e-3, 1e-4


def small_model(method):
    with torch.device("meta"):
        factors = {} if method == "hcformer" else {"encoder_layers": 1}
        return build_model(experiment(method, "small", "synthetic_panoptic", "small", decoder_layers=1, **factors))


def settings(model, recipe=RECIPE):
    """{parameter name: (learning rate, weight decay)} of everything that is trained."""
    groups = build_optimiser(model, recipe).param_groups
    found = {id(p): (round(group["lr"], 9), group["weight_decay"]) for group in groups for p in group["params"]}
    return {name: found[id(p)] for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("method", [m.name for m in METHODS.values() if m.predicts == "masks"])
def test_every_trained_parameter_is_in_one_group(method):
    model = small_model(method)
    model.backbone.conv1.requires_grad_(False)
    groups = build_optimiser(model, RECIPE).param_groups
    counts = Counter(id(p) for group in groups for p in group["params"])
    assert counts == Counter(id(p) for p in model.parameters() if p.requires_grad)
    assert len(groups) == 4


def test_groups_of_hcformer_plus():
    """Clustering and encoder belong to the backbone; of the clustering, only the norms are not decayed."""
    found = settings(small_model("hcformer+"))
    expected = {
        "backbone.conv1.weight": (BACKBONE, 0.05),
        "backbone.bn1.weight": (BACKBONE, 0.0),
        "backbone.layer3.0.bn2.bias": (BACKBONE, 0.0),
        "backbone.layer4.0.conv2.offset.bias": (BACKBONE, 0.05),
        "clustering.0.scale": (BACKBONE, 0.05),
        "clustering.2.fine_embedding.weight": (BACKBONE, 0.05),
        "clustering.1.coarse_norm.weight": (BACKBONE, 0.0),
        "encoder.0.weight": (BACKBONE, 0.05),
        "encoder.1.weight": (BACKBONE, 0.0),
        "encoder.2.layers.0.self_attention.in_proj_weight": (BACKBONE, 0.05),
        "encoder.2.layers.0.norm2.bias": (BACKBONE, 0.0),
        "mask_proj.weight": (HEAD, 0.05),
        "decoder.query_features.weight": (HEAD, 0.0),
        "decoder.query_positions.weight": (HEAD, 0.0),
        "decoder.level_embedding.weight": (HEAD, 0.0),
        "decoder.layers.0.self_norm.weight": (HEAD, 0.0),
        "decoder.layers.0.cross_attention.in_proj_bias": (HEAD, 0.05),
        "decoder.heads.class_embed.bias": (HEAD, 0.05),
        "decoder.heads.norm.bias": (HEAD, 0.0),
    }
    assert {name: found[name] for name in expected} == expected
    for name, (rate, _) in found.items():
        slow = name.split(".")[0] in ("backbone", "clustering", "encoder")
        assert rate == (BACKBONE if slow else HEAD), name


@pytest.mark.parametrize("method", ["maskformer", "mask2former"])
def test_only_the_backbone_of_a_baseline_is_slow(method):
    found = settings(small_model(method))
    for name, (rate, _) in found.items():
        assert rate == (BACKBONE if name.startswith("backbone.") else HEAD), name


def test_groups_of_mask2former_with_swin():
    backbone = Swin(16, (2, 2, 2, 2), (1, 2, 4, 8), 4)
    found = settings(mask2former(5, backbone, 10, decoder_layers=1, encoder_layers=1, hidden_dim=32, num_heads=4))
    tables = [name for name in found if name.endswith("relative_position_bias_table")]
    assert len(tables) == 8
    free = [*tables, "backbone.layers.1.blocks.0.norm1.weight", "backbone.layers.1.downsample.norm.bias"]
    assert {found[name] for name in free} == {(BACKBONE, 0.0)}
    decayed = ["backbone.layers.0.blocks.0.attn.qkv.weight", "backbone.layers.0.blocks.1.mlp.fc1.bias"]
    assert {found[name] for name in decayed} == {(BACKBONE, 0.05)}
    embeddings = ["transformer.queries_embedder", "transformer.queries_features", "transformer.level_embed"]
    assert {found[f"{name}.weight"] for name in embeddings} == {(HEAD, 0.0)}
    attention = "pixel_decoder.encoder.layers.0.self_attn.sampling_offsets.bias"
    assert found[attention] == found["class_predictor.weight"] == (HEAD, 0.05)


def test_full_rate_of_the_small_recipe():
    """Nothing is pretrained at the small scale: one rate for all, decayed and not; a tenth of it for the offsets."""
    recipe = RECIPES["synthetic_panoptic", "small"]
    found = settings(small_model("hcformer"), recipe)
    assert {rate for name, (rate, _) in found.items() if ".offset." in name} == {0.1 * recipe.learning_rate}
    assert {s for name, s in found.items() if ".offset." not in name} == {
        (recipe.learning_rate, 0.05),
        (recipe.learning_rate, 0.0),
    }


def rates(recipe, *iterations):
    first, second = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    groups = [{"params": first, "initial_lr": 1.0}, {"params": second, "initial_lr": 0.1}]
    optimiser = torch.optim.AdamW(groups)
    result = []
    for iteration in iterations:
        set_learning_rate(optimiser, recipe, iteration)
        head, backbone = (group["lr"] for group in optimiser.param_groups)
        assert backbone == pytest.approx(0.1 * head)
        result.append(head)
    return result


def test_schedule():
    """Linear warm-up over 10 iterations, a tenth from 90 %, a hundredth from 95 %, whatever came before."""
    recipe = replace(RECIPE, iterations=200, warmup_iterations=10, step_fractions=(0.9, 0.95))
    iterations = (0, 4, 9, 10, 179, 180, 189, 190, 199, 3)
    expected = [0.1, 0.5, 1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.4]
    assert rates(recipe, *iterations) == pytest.approx(expected)
    assert rates(replace(recipe, warmup_iterations=0), 0) == [1]


def test_poly_schedule_is_torchs():
    recipe = replace(RECIPE, iterations=50, warmup_iterations=0, schedule="poly", poly_power=0.9)
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.PolynomialLR(optimiser, total_iters=50, power=0.9)
    expected = []
    for _ in range(50):
        expected.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        reference.step()
    assert rates(recipe, *range(50)) == pytest.approx(expected)
    assert rates(replace(recipe, warmup_iterations=10), 4, 20) == pytest.approx([expected[4] / 2, expected[20]])


def test_sgd_step_by_hand():
    """Momentum 0.9 and decay 0.05 from 1: gradients 2 and 2, rate 0.1; in the second step the velocity is kept."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False))
    nn.init.ones_(model[0].weight)
    recipe = replace(RECIPE, optimiser="sgd", momentum=0.9, weight_decay=0.05, learning_rate=0.1)
    optimiser = build_optimiser(model, recipe)
    weight, velocity = 1.0, 0.0
    for _ in range(2):
        optimiser.zero_grad()
        (2 * model[0].weight).sum().backward()
        optimiser.step()
        velocity = 0.9 * velocity + 2 + 0.05 * weight
        weight -= 0.1 * velocity
        assert model[0].weight.item() == pytest.approx(weight)


@pytest.mark.parametrize(("method", "factor"), [("hcformer", 1), ("hcformer+", 2)])
def test_paper_recipe_steps_at_the_reference_iterations(method, factor):
    """327778 and 355092 of 368750 iterations, twice that for HCFormer+."""
    recipe = recipe_for(experiment(method, "r50", "coco_panoptic", "paper"))
    first, second = 327_778 * factor, 355_092 * factor
    found = rates(recipe, first - 1, first, second - 1, second)
    assert found == pytest.approx([1, 0.1, 0.1, 0.01])
