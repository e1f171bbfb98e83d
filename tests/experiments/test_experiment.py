"""Identity, defaults and validation of experiments."""

import json
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.experiments import Experiment, experiment
from bench.experiments.methods import METHODS

OF_MASKS = [method.name for method in METHODS.values() if method.predicts == "masks"]

COCO = ("coco_panoptic", "paper")


def test_key_is_pinned():
    # A changed key orphans every record ever written: change this only together with the record schema.
    assert experiment("hcformer", "r50", *COCO).key == "hcformer-r50-coco_panoptic-paper-8b497691"
    assert experiment("hcformer+", "swin_l", *COCO).key == "hcformer_plus-swin_l-coco_panoptic-paper-2fd39ff4"


def test_keys_of_the_committed_records_are_found():
    paths = list((Path(__file__).parents[2] / "results" / "reference" / "records").glob("*/*.json"))
    for path in paths:
        assert Experiment.from_dict(json.loads(path.read_text())["experiment"]).key == path.parent.name
    assert len({path.parent for path in paths}) >= 24


@pytest.mark.parametrize(
    ("method", "backbone", "expected"),
    [  # hierarchical level, decoder layers, queries, downsampling, decoder, encoder layers
        ("hcformer", "r50", (3, 8, 100, "deformable", "masked", 0)),
        ("hcformer", "swin_s", (3, 8, 100, "conv", "masked", 0)),
        ("hcformer", "swin_l", (3, 8, 200, "conv", "masked", 0)),
        ("hcformer+", "r50", (3, 8, 100, "deformable", "masked", 6)),
        ("hcformer+", "swin_l", (3, 8, 200, "conv", "masked", 6)),
        ("maskformer", "r50", (0, 6, 100, "conv", "standard", 6)),
        ("maskformer", "swin_s", (0, 6, 100, "conv", "standard", 0)),
        ("maskformer", "swin_l", (0, 6, 100, "conv", "standard", 0)),
        ("mask2former", "r50", (0, 9, 100, "conv", "masked", 6)),
        ("mask2former", "swin_l", (0, 9, 200, "conv", "masked", 6)),
    ],
)
def test_paper_factors(method, backbone, expected):
    assert tuple(experiment(method, backbone, *COCO).to_dict().values())[4:] == expected


@pytest.mark.parametrize("method", OF_MASKS)
def test_small_scale_and_round_trip(method):
    small = experiment(method, "small", "synthetic_panoptic", "small")
    assert Experiment.from_dict(small.to_dict()) == small
    assert small.key != experiment(method, "r50", *COCO).key


@pytest.mark.parametrize("method", OF_MASKS)
def test_small_scale_has_queries_for_the_objects_of_an_image(method):
    queries = {
        d: experiment(method, "small", d, "small").num_queries for d in ("synthetic_panoptic", "camvid", "nuclei")
    }
    assert queries == {"synthetic_panoptic": 20, "camvid": 20, "nuclei": 100}
    assert experiment(method, "small", "nuclei", "small", num_queries=7).num_queries == 7


def test_factors_a_method_lacks_do_not_distinguish():
    plain = experiment("maskformer", "r50", *COCO)
    odd = experiment("maskformer", "r50", *COCO, hierarchical_level=2, transformer_decoder="masked")
    assert odd == plain and odd.key == plain.key
    level0 = experiment("hcformer", "r50", *COCO, hierarchical_level=0)
    assert level0 == experiment("hcformer", "r50", *COCO, hierarchical_level=0, downsampling="conv")
    assert experiment("hcformer", "swin_s", *COCO, downsampling="deformable").downsampling == "conv"


def test_factors_a_method_has_do_distinguish():
    keys = {experiment("hcformer", "r50", *COCO, hierarchical_level=level).key for level in range(4)}
    keys |= {experiment("hcformer", "r50", *COCO, downsampling="conv").key}
    keys |= {experiment("hcformer", "r50", *COCO, decoder_layers=layers).key for layers in (1, 2, 4, 16)}
    assert len(keys) == 9


@pytest.mark.parametrize(
    ("arguments", "factors", "message"),
    [
        (("hcfromer", "r50", *COCO), {}, "unknown method 'hcfromer': did you mean 'hcformer'"),
        (("hcformer", "r51", *COCO), {}, "unknown backbone 'r51': did you mean 'r50'"),
        (("hcformer", "r50", "coco", "paper"), {}, "unknown data set 'coco'"),
        (("hcformer", "r50", "coco_panoptic", "papper"), {}, "unknown scale 'papper': did you mean 'paper'"),
        (("hcformer", "r50", *COCO), {"downsampling": "deform"}, "unknown downsampling"),
        (("hcformer", "r50", *COCO), {"queries": 3}, "unknown factor 'queries': did you mean 'num_queries'"),
        (("hcformer", "r50", *COCO), {"hierarchical_level": 4}, "hierarchical_level"),
        (("hcformer", "r50", *COCO), {"num_queries": "100"}, "num_queries"),
        (("hcformer", "r50", *COCO), {"encoder_layers": 6}, "use method 'hcformer\\+'"),
        (("hcformer+", "r50", *COCO), {"encoder_layers": 0}, "needs a transformer encoder"),
        (("hcformer", "small", *COCO), {}, "does not exist at scale 'paper'"),
        (("hcformer", "r50", "synthetic_panoptic", "small"), {}, "does not exist at scale 'small'"),
    ],
)
def test_mistakes_are_named(arguments, factors, message):
    with pytest.raises(BenchError, match=message):
        experiment(*arguments, **factors)


def test_from_dict_needs_exactly_the_fields():
    values = experiment("hcformer", "r50", *COCO).to_dict()
    for wrong in (values | {"extra": 1}, {k: v for k, v in values.items() if k != "method"}, None):
        with pytest.raises(BenchError, match="exactly the fields"):
            Experiment.from_dict(wrong)


def test_is_frozen():
    with pytest.raises(FrozenInstanceError):
        experiment("hcformer", "r50", *COCO).method = "maskformer"
