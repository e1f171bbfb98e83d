"""What is declared (tables, experiments, recipes, models) and what is refused, as one plain value.

`python -m tests.declared` writes it to `tests/fixtures/declared.json`, with which `tests/test_declared.py` compares:
only after a change of what is declared that is meant. Names are written out here, so that one that is gone is missed.
"""

import hashlib
import itertools
import json
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.errors import BenchError
from bench.experiments.experiment import Experiment, experiment, factor_sources
from bench.experiments.hashing import content_hash
from bench.experiments.recipe import recipe_for, sources_for
from bench.experiments.tables import TABLES, find_row, row_names
from bench.records import Store
from bench.training.criterion import SetCriterion, Target
from bench.training.pixel_criterion import PixelCriterion
from bench.zoo import build_model
from models.outputs import PixelPrediction

FIXTURE = Path(__file__).parent / "fixtures" / "declared.json"
REFERENCE = Path(__file__).parents[1] / "results" / "reference"

METHODS = (
    "hcformer", "hcformer+", "maskformer", "mask2former", "fcn_32s", "fpn", "pspnet", "deeplabv3", "hc_fcn_32s",
    "hc_pspnet", "hc_deeplabv3", "segformer", "mask_rcnn",
)  # fmt: skip
BACKBONES = ("r50", "r101", "swin_s", "swin_l", "small", "mit_b2", "mit_b5")
DATASETS = (
    "coco_panoptic", "coco_instance", "ade20k", "cityscapes", "camvid", "nuclei", "synthetic_panoptic",
    "synthetic_semantic",
)  # fmt: skip
SCALES = ("paper", "small")

PAPER, SMALL = ("r50", "coco_panoptic", "paper"), ("small", "synthetic_panoptic", "small")
# Method, backbone, data set and scale, and factors, of what is refused with a message that people read.
REFUSED: tuple[tuple[tuple[str, ...], dict], ...] = (
    *((names, {}) for names in (
        ("hcfromer", *PAPER), ("", *PAPER), ("hcformer", "r51", *PAPER[1:]), ("hcformer", "r50", "coco", "paper"),
        ("hcformer", "r50", "coco_panoptic", "papper"), ("hcformer", "small", "coco_panoptic", "paper"),
        ("hcformer", "r50", "synthetic_panoptic", "small"), ("hcformer", "mit_b2", "ade20k", "paper"),
        ("fcn_32s", "mit_b5", "ade20k", "paper"), ("segformer", "r50", "ade20k", "paper"), ("segformer", *SMALL),
        ("deeplabv3", "swin_s", "ade20k", "paper"), ("hc_pspnet", "swin_l", "cityscapes", "paper"),
        ("mask_rcnn", *PAPER), ("mask_rcnn", "r101", "coco_instance", "paper"), ("mask_rcnn", *SMALL),
    )),
    *((("hcformer", *PAPER), {name: value}) for name, value in (
        ("hierarchical_level", 4), ("hierarchical_level", -1), ("hierarchical_level", True),
        ("hierarchical_level", 1.0), ("hierarchical_level", "3"), ("hierarchical_level", None),
        ("decoder_layers", 0), ("decoder_layers", 65), ("decoder_layers", False), ("num_queries", 0),
        ("num_queries", 10_001), ("encoder_layers", 1), ("encoder_layers", -1), ("encoder_layers", 65),
        ("downsampling", "deform"), ("downsampling", ""), ("transformer_decoder", "plain"), ("queries", 3),
        ("scale_range", 3),
    )),
    (("hcformer+", *PAPER), {"encoder_layers": 0}),
    (("hcformer+", *SMALL), {"encoder_layers": 0}),
    (("mask2former", *PAPER), {"encoder_layers": 0}),
    (("mask2former", *SMALL), {"decoder_layers": 0}),
    (("maskformer", *PAPER), {"num_queries": 0}),
    (("maskformer", *PAPER), {"encoder_layers": -1}),
    (("fcn_32s", *PAPER), {"hierarchical_level": 4}),
    (("hc_fcn_32s", *PAPER), {"decoder_layers": -1}),
)  # fmt: skip


@cache
def experiments() -> dict[str, Experiment]:
    """Every experiment of every table, by its key, in the tables' order."""
    rows = (row for table in TABLES.values() for row in (*table.rows, *table.small_rows))
    return {row.experiment.key: row.experiment for row in rows if row.experiment}


def table(name: str) -> dict:
    """Title, columns, rows and wanted measurements of a table; rows by the names that `find_row` takes, too."""
    of = TABLES[name]
    return {
        "title": of.title,
        "dataset": of.dataset,
        "columns": _columns(of.columns),
        "rows": _rows(of.rows),
        "small": [{"columns": _columns(block.columns), "rows": _rows(block.rows)} for block in of.small_blocks],
        "names": {row: find_row(f"{name}/{row}").key for row in row_names(of)},
        "measurements": {scale: _wanted(of.measurements(scale)) for scale in SCALES},
    }


def _columns(columns) -> list:
    return [[c.metric, c.label, c.unit, c.kind, c.digits, list(c.datasets)] for c in columns]


def _rows(rows) -> list:
    return [[r.number, r.method, r.backbone, r.base, r.experiment and r.experiment.key] for r in rows]


def _wanted(measurements) -> dict:
    """Keys in their order by kind and seed, and a hash of the order of them all."""
    order = [f"{m.kind} {'' if m.seed is None else m.seed}".strip() for m in measurements]
    keys = [m.experiment.key for m in measurements]
    by_kind = {kind: [k for o, k in zip(order, keys, strict=True) if o == kind] for kind in dict.fromkeys(order)}
    hashes = {kind: [len(found), content_hash(found)] for kind, found in by_kind.items()}
    return {"all": [len(keys), content_hash(list(zip(order, keys, strict=True)))]} | hashes


def declaration(key: str) -> dict:
    """Factors and recipe of an experiment, each value with its source."""
    of = experiments()[key]
    return {"factors": of.to_dict(), "factor_sources": factor_sources(of), "recipe": _recipe(of)}


def _recipe(of: Experiment) -> dict:
    try:
        recipe, sources = recipe_for(of), sources_for(of)
    except BenchError as error:
        return {"refused": _said(error)}
    values = recipe.to_dict()
    return {"hash": recipe.hash, **{n: [values.get(n), sources.get(n)] for n in sorted({*values, *sources})}}


def parameters(key: str) -> dict:
    """Of the model as it is tested, and as it is trained where an auxiliary head is then added: numbers of parameters
    and of tensors of its state, and a hash of their names and shapes."""
    of = experiments()[key]
    recipe = _recipe(of)
    trained = {"trained": True} if recipe.get("auxiliary_weight", [0])[0] else {}
    with torch.device("meta"):
        return {name: _shapes(build_model(of, auxiliary=more)) for name, more in ({"tested": False} | trained).items()}


def _shapes(model: nn.Module) -> list:
    lines = sorted(f"{name} {list(value.shape)}" for name, value in model.state_dict().items())
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return [sum(p.numel() for p in model.parameters()), len(lines), digest]


def small_model(key: str) -> dict[str, float]:
    """Sums of the values of a small model from seed 0, and its losses in training on two images, by name."""
    of = experiments()[key]
    model, recipe = build_model(of, seed=0), recipe_for(of)
    values = [p.detach().double() for p in model.parameters()]
    sums = {"sum": sum(v.sum() for v in values), "absolute": sum(v.abs().sum() for v in values)}
    torch.manual_seed(0)
    # In double precision, since masks of attention are thresholds: rounding must not decide a loss.
    prediction = model.double().train()(images())
    if isinstance(prediction, PixelPrediction):
        criterion = PixelCriterion(recipe.auxiliary_weight, recipe.scale_regularisation)
    else:
        weights = recipe.class_weight, recipe.mask_weight, recipe.dice_weight, recipe.no_object_weight
        classes = prediction.class_logits.shape[-1] - 1
        criterion = SetCriterion(classes, recipe.num_points, *weights, recipe.scale_regularisation)
    torch.manual_seed(1)
    return {name: float(f"{value.item():.10g}") for name, value in (sums | criterion(prediction, targets())).items()}


def images() -> Tensor:
    """[2, 3, 64, 96]: waves."""
    rows, columns = torch.arange(64.0)[:, None], torch.arange(96.0)
    waves = [torch.sin(rows / (4 + i)) * torch.cos(columns / (5 + 2 * i)) + i / 9 for i in range(6)]
    return torch.stack(waves).double().unflatten(0, (2, 3))


def targets() -> list[Target]:
    """Two and three disjoint masks [64, 96] of the first two classes, which every data set has; some pixels in none."""
    rows, columns = torch.arange(64)[:, None], torch.arange(96)[None]
    left, top = (columns < 40).expand(64, 96), (rows < 30).expand(64, 96)
    right = (columns > 50).expand(64, 96)
    first = Target(torch.tensor([0, 1]), torch.stack((left, right)))
    return [first, Target(torch.tensor([1, 0, 1]), torch.stack((left & top, left & ~top, right & top)))]


def combinations(method: str) -> dict[str, str]:
    """Backbone, data set, scale -> key and recipe's hash ("-": none) of what exists; all others are refused."""
    found = {}
    for names in itertools.product(BACKBONES, DATASETS, SCALES):
        try:
            made = experiment(method, *names)
        except BenchError:
            continue
        found[" ".join(names)] = f"{made.key} {_recipe(made).get('hash', '-')}"
    return found


def refusals() -> dict[str, str]:
    """What each of `REFUSED` says, by what it is."""
    said = {}
    for names, factors in REFUSED:
        what = " ".join(names) + "".join(f" {name}={value!r}" for name, value in factors.items())
        try:
            said[what] = "allowed: " + experiment(*names, **factors).key
        except BenchError as error:
            said[what] = _said(error)
    return said


def _said(error: BenchError) -> str:
    """Without the list of all known names, which may grow."""
    return str(error).partition("Known: ")[0]


def records() -> dict[str, dict[str, list[str]]]:
    """Records of the reference by key, as current or to be measured again."""
    found: dict[str, dict[str, list[str]]] = {}
    for record in Store(REFERENCE).load_all():
        state = "current" if record.is_current else "stale"
        found.setdefault(record.key, {}).setdefault(state, []).append(record.name)
    return found


def declared() -> dict:
    """All of it, by part and name."""
    small = [key for key, of in experiments().items() if of.scale == "small"]
    return {
        "tables": {name: table(name) for name in TABLES},
        "experiments": {key: declaration(key) for key in experiments()},
        "parameters": {key: parameters(key) for key in experiments()},
        "small_models": {key: small_model(key) for key in small},
        "combinations": {method: combinations(method) for method in METHODS},
        "refusals": refusals(),
        "records": records(),
    }


def pack(dump: dict) -> str:
    """As JSON with an entry a line. Each recipe and each set of sources stands once, with a short name."""
    shared: dict[str, dict] = {}

    def refer(value: dict) -> str:
        name = content_hash(value)
        shared[name] = value
        return name

    entries = {
        key: entry | {part: refer(entry[part]) for part in ("factor_sources", "recipe")}
        for key, entry in dump["experiments"].items()
    }
    parts = []
    for part, values in sorted((dump | {"experiments": entries, "shared": shared}).items()):
        lines = [
            f"{json.dumps(n)}:{json.dumps(values[n], sort_keys=True, separators=(',', ':'))}" for n in sorted(values)
        ]
        parts.append(f'"{part}":{{\n' + ",\n".join(lines) + "\n}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def unpack(text: str) -> dict:
    """Inverse of `pack`."""
    dump = json.loads(text)
    shared = dump.pop("shared")
    for entry in dump["experiments"].values():
        entry |= {part: shared[entry[part]] for part in ("factor_sources", "recipe")}
    return dump


if __name__ == "__main__":
    FIXTURE.parent.mkdir(exist_ok=True)
    FIXTURE.write_text(pack(declared()), encoding="utf-8")
