"""SegFormer against transformers' own model, its paper's parameters, and what it refuses."""

import pytest
import torch
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from baselines.segformer import MixTransformer, _config, mit, segformer
from bench.errors import BenchError
from bench.experiments import experiment, find_row, get_table, recipe_for
from bench.experiments.methods import get_method
from bench.measure.complexity.flops import count_parameters
from bench.zoo import build_model
from models.outputs import PixelPrediction
from tests.reference import relative_error

DEPTHS = {"mit_b2": [3, 4, 6, 3], "mit_b5": [3, 6, 40, 3]}
PARAMETERS = {"mit_b2": 27.5, "mit_b5": 84.7}  # M, table 1 of SegFormer's paper, ADE20K's 150 classes


def transformers_model(depths: list[int], classes: int) -> SegformerForSemanticSegmentation:
    sizes = {"hidden_sizes": [64, 128, 320, 512], "decoder_hidden_size": 768}
    return SegformerForSemanticSegmentation(SegformerConfig(depths=depths, num_labels=classes, **sizes))


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (33, 130)])
def test_the_function_of_transformers(size):
    torch.manual_seed(0)
    theirs, ours = transformers_model(DEPTHS["mit_b2"], 7).eval(), segformer(7, mit("mit_b2")).eval()
    names = {"segformer.": "backbone.encoder.", "decode_head.": "head."}
    state = {names[name.split(".")[0] + "."] + name.split(".", 1)[1]: v for name, v in theirs.state_dict().items()}
    state["head.batch_norm.running_mean"].normal_()  # of new weights, zero
    ours.load_state_dict(state)
    images = torch.randn(2, 3, *size)
    with torch.inference_mode():
        prediction, expected = ours(images), theirs(images).logits
        single = torch.cat([ours(image[None]).logits for image in images])
    assert isinstance(prediction, PixelPrediction) and prediction.assignments == ()
    assert prediction.logits.shape == (2, 7, *(-(-n // 4) for n in size))
    assert torch.equal(prediction.logits, expected) and expected.std() > 0.01
    assert relative_error(prediction.logits, single) < 1e-5


@pytest.mark.parametrize("backbone", DEPTHS)
def test_parameters_are_those_of_its_paper(backbone):
    with torch.device("meta"):
        model = build_model(experiment("segformer", backbone, "ade20k", "paper"))
        theirs = transformers_model(DEPTHS[backbone], 150)
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}
    assert round(count_parameters(model) / 1e6, 1) == PARAMETERS[backbone]
    assert count_parameters(model) == count_parameters(theirs)


def test_gradients_reach_everything():
    torch.manual_seed(0)
    model = segformer(5, MixTransformer(_config(depths=[1, 1, 1, 1]))).train()
    model(torch.randn(2, 3, 64, 64)).logits.square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_experiments():
    what = find_row("table3b/segformer-mit_b5")
    assert what == experiment("segformer", "mit_b5", "cityscapes", "paper", num_queries=7, decoder_layers=3)
    assert (what.hierarchical_level, what.downsampling, what.decoder_layers) == (0, "conv", 0)
    assert get_method("segformer").predicts == "pixels" and not get_method("segformer").trained
    with pytest.raises(BenchError, match="segformer is not trained here") as caught:
        recipe_for(what)
    assert "\n" not in str(caught.value)
    planned = {m.kind for m in get_table("table3b").measurements("paper") if m.experiment == what}
    assert "complexity" in planned and "accuracy" not in planned


@pytest.mark.parametrize(
    ("pair", "scale", "message"),
    [
        (("segformer", "r101"), "paper", "segformer is not built on r101: use 'mit_b2' or 'mit_b5'"),
        (("segformer", "small"), "small", "segformer is not built on small"),
        (("hcformer", "mit_b2"), "paper", "hcformer is not built on mit_b2: only 'segformer' is"),
        (("pspnet", "mit_b5"), "paper", "pspnet is not built on mit_b5"),
        (("segformer", "mit_b3"), "paper", "unknown backbone 'mit_b3': did you mean 'mit_b"),
    ],
)
def test_impossible_pairs_are_refused(pair, scale, message):
    with pytest.raises(BenchError, match=message):
        experiment(*pair, "cityscapes", scale)


def test_unknown_encoders_are_named():
    with pytest.raises(ValueError, match="no Mix Transformer 'mit_b9': known are mit_b2, mit_b5"):
        mit("mit_b9")
