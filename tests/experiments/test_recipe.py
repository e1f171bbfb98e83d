"""Recipes against Appendix D of the paper, and their identity."""

import json
import re
from dataclasses import fields, replace

import pytest

from bench.errors import BenchError
from bench.experiments import RECIPES, Recipe, experiment, recipe_for, sources_for
from bench.experiments.datasets import get_dataset
from bench.experiments.experiment import factor_sources
from bench.experiments.fixed_values import IMPORTANCE_RATIO, OVERSAMPLE_RATIO
from bench.experiments.methods import METHODS as ALL_METHODS
from bench.experiments.recipe import CHOICES, recipe_hash

METHODS = [method.name for method in ALL_METHODS.values() if method.predicts == "masks"]
BACKBONES = ("r50", "r101", "swin_s", "swin_l", "small")

COCO_TRAIN_IMAGES = 118_287


@pytest.mark.parametrize(
    ("method", "backbone", "epochs"),
    [("hcformer", "r50", 50), ("hcformer", "swin_l", 100), ("hcformer+", "swin_s", 100), ("hcformer+", "swin_l", 200)],
)
def test_paper_epochs(method, backbone, epochs):
    recipe = recipe_for(experiment(method, backbone, "coco_panoptic", "paper"))
    assert recipe.iterations * recipe.batch_size / COCO_TRAIN_IMAGES == pytest.approx(epochs, rel=0.003)


def test_paper_steps_are_whole_iterations():
    recipe = recipe_for(experiment("hcformer", "r50", "coco_panoptic", "paper"))
    assert [round(f * recipe.iterations, 6) for f in recipe.step_fractions] == [327_778, 355_092]


@pytest.mark.parametrize("dataset", ["synthetic_panoptic", "camvid", "nuclei"])
def test_small_scale_recipe_is_one_for_all_methods(dataset):
    assert len({recipe_for(experiment(m, "small", dataset, "small")) for m in METHODS}) == 1


def test_hash_of_the_committed_records_is_pinned():
    # A changed hash makes every accuracy record of the reference store stale.
    assert RECIPES["synthetic_panoptic", "small"].hash == "8ea302f9"


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=["-".join(pair) for pair in RECIPES])
def test_hash_survives_json_and_sees_every_change_but_seeds(recipe):
    assert recipe_hash(json.loads(json.dumps(recipe.to_dict()))) == recipe.hash
    assert replace(recipe, learning_rate=1.0).hash != recipe.hash
    assert replace(recipe, seeds=(7,)).hash == recipe.hash


def test_fields_at_their_default_do_not_count():
    recipe = next(iter(RECIPES.values()))
    older = recipe.to_dict()
    del older["clip_norm"], older["dice_weight"]
    assert recipe_hash(older) == recipe.hash
    assert recipe_hash(older | {"clip_norm": 1.0}) == replace(recipe, clip_norm=1.0).hash != recipe.hash
    del older["learning_rate"]  # has no default
    assert recipe_hash(older) != recipe.hash


def test_missing_recipe_is_named():
    with pytest.raises(BenchError, match="no recipe for synthetic_panoptic at scale paper"):
        recipe_for(experiment("hcformer", "r50", "synthetic_panoptic", "paper"))


PAPER = [pair for pair in RECIPES if pair[1] == "paper"]
ALL = [
    experiment(method, backbone, *pair)
    for pair in RECIPES
    for method in METHODS
    for backbone in BACKBONES
    if (backbone == "small") == (pair[1] == "small")
]


@pytest.fixture(scope="module")
def appendix(shared):
    """Appendix D of the paper: all, and the texts of D.1 (COCO) and D.2 (ADE20K, Cityscapes)."""
    text = (shared / "paper" / "hcformer.txt").read_text(encoding="utf-8")
    text = text[text.index("D Detailed experimental setup") : text.index("E Additional results")]
    return {"D.1": text[text.index("D.1 ") : text.index("D.2 ")], "D.2": text[text.index("D.2 ") :]}


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found, pattern
    return float(found[1])


@pytest.mark.parametrize("pair", PAPER)
def test_paper_scale_is_appendix_d(appendix, pair):
    recipe, text = RECIPES[pair], appendix["D.1" if pair[0].startswith("coco") else "D.2"]
    assert recipe.learning_rate == _number(r"initial learning rate of ([\d.]*\d)", text)
    assert recipe.weight_decay == _number(r"weight decay of ([\d.]*\d)", text)
    assert recipe.backbone_multiplier == _number(r"multiplier of ([\d.]*\d) is applied to the backbone", text)
    assert recipe.batch_size == _number(r"batch size (?:of|is set to) (\d+)", text)
    assert recipe.optimiser == "adamw" and "AdamW" in text
    assert (recipe.schedule == "poly") == ("poly learning rate" in text)
    assert recipe.colour_jitter == ("color jittering" in text)


def test_coco_is_appendix_d1(appendix):
    for dataset in ("coco_panoptic", "coco_instance"):
        recipe = RECIPES[dataset, "paper"]
        assert recipe.test_shorter_side == _number(r"shorter side to (\d+)", appendix["D.1"])
        assert recipe.test_longer_side == _number(r"longer side up to (\d+)", appendix["D.1"])
        assert 1 / recipe.step_factor == _number(r"by a factor of (\d+)", appendix["D.1"])
        assert (recipe.resize_mode, recipe.scale_range, recipe.crop_size) == ("scale", (0.1, 2.0), (1024, 1024))


@pytest.mark.parametrize(("dataset", "named"), [("ade20k", "ADE20K"), ("cityscapes", "Cityscapes")])
def test_semantic_is_appendix_d2(appendix, dataset, named):
    text = appendix["D.2"][appendix["D.2"].index(f"For the {named} dataset") :]
    recipe = recipe_for(experiment("hcformer", "r50", dataset, "paper"))
    assert recipe.crop_size == tuple(map(int, re.search(r"crop size of (\d+)×(\d+)", text).groups()))
    assert recipe.iterations == 1000 * _number(r"train HCFormer for (\d+)k iterations", text)
    plus = recipe_for(experiment("hcformer+", "r50", dataset, "paper"))
    assert plus.iterations == 1000 * _number(r"HCFormer\+ for (\d+)k iterations", text)
    for method, iterations in (("hcformer", recipe.iterations), ("maskformer", recipe.iterations)):
        assert recipe_for(experiment(method, "swin_l", dataset, "paper")).iterations == iterations  # not doubled
    native = {"ade20k": 512, "cityscapes": 1024}[dataset]  # shorter side: the crop, the camera
    jitter = [float(x) for x in re.search(r"between ([\d.]+) and ([\d.]*\d)", appendix["D.2"]).groups()]
    assert [x * min(recipe.crop_size) for x in recipe.scale_range] == [x * native for x in jitter]
    assert recipe.resize_mode == "shorter_side" and recipe.poly_power == 0.9


def test_losses_are_section_3_1(shared):
    text = (shared / "paper" / "hcformer.txt").read_text(encoding="utf-8")
    weights = [_number(rf"lambda_\{{\\text\{{{name}\}}\}} = ([\d.]*\d)", text) for name in ("cls", "ce", "dice")]
    regularisation = _number(r"λ_\{reg\} is set to ([\d.]*\d)", text)
    for recipe in RECIPES.values():
        assert [recipe.class_weight, recipe.mask_weight, recipe.dice_weight] == weights
        assert recipe.scale_regularisation == regularisation


def test_reference_configuration(shared):
    text = (shared / "reference" / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"(?<=\d) (?=\d{3}\b)", "", text)  # 12 544 -> 12544
    steps = re.search(r"COCO steps at (\d+) and (\d+) of (\d+) iterations", text)
    for dataset, _ in PAPER:
        recipe = RECIPES[dataset, "paper"]
        assert recipe.num_points == _number(r"Matching and mask losses: (\d+) points", text)
        assert recipe.no_object_weight == _number(r"no-object weight ([\d.]*\d)", text)
        assert OVERSAMPLE_RATIO == _number(r"oversampling (\d+)", text)
        assert IMPORTANCE_RATIO == _number(r"importance ([\d.]*\d)", text)
        if dataset.startswith("coco"):
            found = [round(f * recipe.iterations) for f in recipe.step_fractions]
            assert [*found, recipe.iterations] == [int(x) for x in steps.groups()]
            assert recipe.warmup_iterations == _number(r"warm-up (\d+) iterations", text)


@pytest.mark.parametrize("exp", ALL, ids=lambda e: e.key[:-9])
def test_every_value_has_a_source_and_every_change_its_own(exp):
    recipe, sources = recipe_for(exp), sources_for(exp)
    assert set(sources) == {field.name for field in fields(Recipe)}
    known = ("paper ", "reference configuration", "Mask2Former's", "ours: ", "not used: ", "as on Cityscapes")
    assert all(any(word in source for word in known) for source in sources.values())
    base = RECIPES[exp.dataset, exp.scale]
    for name in sources:
        if getattr(recipe, name) != getattr(base, name):
            assert sources[name] != get_dataset(exp.dataset).recipes[exp.scale][name].source, name
    assert set(factor_sources(exp)) == {field.name for field in fields(exp)[4:]}


def test_swin_and_its_sizes():
    swin_s = recipe_for(experiment("hcformer", "swin_s", "ade20k", "paper"))
    swin_l = recipe_for(experiment("hcformer", "swin_l", "ade20k", "paper"))
    assert (swin_s.drop_path, swin_s.activation_checkpointing, swin_s.crop_size) == (0.3, False, (512, 512))
    assert (swin_l.drop_path, swin_l.activation_checkpointing, swin_l.crop_size) == (0.3, True, (640, 640))
    assert recipe_for(experiment("hcformer", "r50", "ade20k", "paper")).drop_path == 0.0


def test_released_files_that_are_not_followed_are_named_where_they_say_otherwise():
    """The reference's README, point 11, and Mask2Former's Base-Cityscapes-SemanticSegmentation.yaml (NORM: SyncBN)."""
    plus = experiment("hcformer+", "r50", "ade20k", "paper")
    assert recipe_for(plus).iterations == 320_000 and "released file inherits 160k" in sources_for(plus)["iterations"]
    m2f = experiment("mask2former", "r50", "cityscapes", "paper")
    assert recipe_for(m2f).batch_norm == "frozen" and "SyncBN" in sources_for(m2f)["batch_norm"]
    on_timm = experiment("mask2former", "timm:resnet18", "cityscapes", "paper")
    assert recipe_for(on_timm).batch_norm == "whole batch" and "SyncBN" not in sources_for(on_timm)["batch_norm"]
    for other in (
        experiment("hcformer", "r50", "ade20k", "paper"),
        experiment("hcformer+", "r50", "cityscapes", "paper"),
    ):
        assert not any("released file" in s or "SyncBN" in s for s in sources_for(other).values())


@pytest.mark.parametrize("field", CHOICES)
def test_unknown_choice(field):
    with pytest.raises(ValueError, match=f"{field} of a recipe is one of .*, not 'amp'"):
        replace(RECIPES["coco_panoptic", "paper"], **{field: "amp"})
