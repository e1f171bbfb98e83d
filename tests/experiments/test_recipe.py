"""Recipes against Appendix D of the paper, and their identity."""

import json
from dataclasses import replace

import pytest

from bench.errors import BenchError
from bench.experiments import RECIPES, experiment, recipe_for
from bench.experiments.recipe import recipe_hash

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


def test_small_scale_recipe_is_one_for_all_methods():
    methods = ("hcformer", "hcformer+", "maskformer", "mask2former")
    recipes = {recipe_for(experiment(m, "small", "synthetic_panoptic", "small")) for m in methods}
    assert len(recipes) == 1


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
