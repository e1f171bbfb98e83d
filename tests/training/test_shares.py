"""How a batch is divided, and what batch norms that are trained ask of it: asked of the models themselves."""

import pytest
import torch
from torch import nn

from bench.errors import BenchError
from bench.experiments import experiment, recipe_for
from bench.experiments.methods import METHODS
from bench.run.jobs import Job, Reporter, run_job
from bench.training.shares import check_division, images_at_once, remedy_of_batch_norms, trains_batch_norms
from bench.zoo import build_model
from tests.declared import experiments

# One of each method, backbone, data set and scale: factors such as the number of decoder layers have no batch norms.
TRAINED = {
    (of.method, of.backbone, of.dataset, of.scale): of for of in experiments().values() if METHODS[of.method].trained
}
MASKS, PIXELS = ("hcformer", "maskformer", "mask2former"), ("fpn", "fcn_32s", "hc_fcn_32s")
OF_TIMM = [
    experiment(method, f"timm:{name}", "ade20k", "paper")
    for name in ("test_resnet", "test_convnext")
    for method in (*MASKS, *PIXELS)
]
FROZEN, PIXEL = experiment("hcformer+", "r50", "cityscapes", "paper"), experiment("pspnet", "r101", "ade20k", "paper")
SMALL = experiment("mask2former", "small", "synthetic_panoptic", "small")  # batch of 8
RESNET, CONVNEXT = OF_TIMM[0], OF_TIMM[len(MASKS) + len(PIXELS)]


def has_trained_norms(what) -> bool:
    """By hand: a batch norm of torch's or timm's, whose scale and shift are trained."""
    with torch.device("meta"):
        norms = [m for m in build_model(what).modules() if isinstance(m, (nn.BatchNorm2d, nn.SyncBatchNorm))]
    return any(parameter.requires_grad for norm in norms for parameter in norm.parameters())


@pytest.mark.parametrize("what", [*TRAINED.values(), *OF_TIMM], ids=lambda e: e.key)
def test_the_recipe_says_what_the_model_does(what):
    trained = has_trained_norms(what)
    assert trains_batch_norms(what) == trained
    said = recipe_for(what).batch_norm
    assert said == ("whole batch" if trained else "frozen") or (what in OF_TIMM and said == "whole batch")
    assert images_at_once(what) == (None if trained or what.scale == "small" else 2)


def test_timm_has_both_kinds():
    assert trains_batch_norms(RESNET) and not trains_batch_norms(CONVNEXT)
    assert trains_batch_norms(experiment("fcn_32s", CONVNEXT.backbone, "ade20k", "paper")), "its head has one"


# Each is of (processes, micro-batch).
@pytest.mark.parametrize("what", [PIXEL, RESNET, SMALL], ids=lambda e: e.key)
def test_the_whole_share_at_once(what):
    batch = recipe_for(what).batch_size
    for processes in (1, 2, 4, 8):
        share = batch // processes
        for micro_batch in (None, share, share + 1, 16):
            check_division(what, processes, micro_batch)
        for micro_batch in range(1, share):
            with pytest.raises(
                BenchError, match=rf"{what.method} on .* whole batch of {batch} images, .* leave it out"
            ):
                check_division(what, processes, micro_batch)


def test_what_would_do_is_named():
    with pytest.raises(BenchError) as error:
        check_division(PIXEL, 2, 4)
    assert str(error.value) == (
        "pspnet on r101 trains its batch norms over the whole batch of 16 images, --micro-batch 4 in 2 process(es) "
        "makes that 8: leave it out (each computes its 8 images at once), or start 4 processes, one a GPU"
    )
    with pytest.raises(BenchError, match="images at once\\)$"):
        check_division(PIXEL, 2, 3)  # no number of processes has shares of 3
    with pytest.raises(BenchError, match="3 processes cannot share a batch of 16 evenly: start 1, 2, 4, 8, 16 of them"):
        check_division(FROZEN, 3)
    assert "among 8, 16 GPUs" in remedy_of_batch_norms(16, 4) and "larger" in remedy_of_batch_norms(16, 16)


@pytest.mark.parametrize("what", [FROZEN, CONVNEXT], ids=lambda e: e.key)
def test_frozen_norms_take_any_passes(what):
    for processes, micro_batch in ((1, 1), (2, 3), (8, 1), (16, None)):
        check_division(what, processes, micro_batch)


@pytest.mark.parametrize(("what", "images"), [(FROZEN, 2), (PIXEL, 16)])
def test_bench_run_computes_what_the_recipe_allows(tmp_path, monkeypatch, what, images):
    given = []
    monkeypatch.setattr("bench.measure.accuracy.measure_accuracy", lambda *args: given.append(args))
    run_job(Job("accuracy", (what,), str(tmp_path), 0), Reporter())
    ((of, _seed, _folder, _root, _report, execution, _commit),) = given
    assert of == what and len(execution.passes(recipe_for(what))[0]) == images
