"""Of which experiment a public checkpoint is: what its names and shapes show, its `config.json`, and what was typed.

Where two of these contradict each other the file is refused.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from bench.errors import BenchError
from bench.experiments.backbones import BACKBONES
from bench.experiments.datasets import DATASETS, get_dataset
from bench.experiments.experiment import Experiment, experiment
from bench.weights import shown
from bench.weights.hub_folder import Config, read_config, weight_file
from bench.weights.load import KNOWN, check_agreement
from bench.weights.rules import Format

Given = Mapping[str, int | str]  # fields of `Experiment` that were typed


def before_reading(path: Path, given: Given) -> Config:
    """What the `config.json` beside the file says. Raises BenchError for what is wrong whatever the file holds: unknown
    names, an experiment that cannot be, a `config.json` that contradicts what was typed."""
    for name, find in KNOWN.items():
        if name in given:
            find(str(given[name]))
    if set(KNOWN) <= set(given):
        experiment(**{"scale": "paper", **given})
    config = read_config(weight_file(path))
    try:
        for name, says in (("method", config.method), ("backbone", config.backbone)):
            if says and given.get(name, says) != says:
                raise BenchError(f"its config.json says {says}, --{name} says {given[name]}: leave --{name} out")
        if "dataset" in given:
            _check_classes(config.num_classes, "its config.json", str(given["dataset"]))
    except BenchError as error:
        raise BenchError(f"{path}: {error}") from error
    return config


def identify(kind: Format, ours: Mapping[str, Tensor], config: Config, given: Given) -> Experiment:
    """The experiment at paper scale that the file is of; ours: its tensors under our names.

    An ImageNet backbone is of whatever is asked for. Raises BenchError (without the file's name) for contradictions
    and for what nothing shows.
    """
    names = {
        "method": _method(kind, config, given),
        "backbone": _backbone(ours, config, given),
        "dataset": _dataset(kind, ours, config, given),
    }
    unknown = [f"--{name}" for name, value in names.items() if value is None]
    if unknown:
        what = "does not show of what it is" if kind.method else f"is an {kind.holds}, of no model yet"
        raise BenchError(f"{what}: name it with {', '.join(unknown)}")
    if names["backbone"] in shown.SWINS.values() and names["backbone"] not in BACKBONES:
        raise BenchError(f"holds a {names['backbone']} backbone, which no model here has: {', '.join(BACKBONES)}")
    what = {"scale": "paper", **names}
    factors = {name: value for name, value in given.items() if name not in KNOWN}
    if kind.method is None:
        return experiment(**what, **factors)
    in_file = kind.factors(ours)
    held = experiment(**what, **in_file)
    # A file with fewer layers or levels than asked for lacks tensors, which is said with their names.
    counts = ("hierarchical_level", "decoder_layers")
    fewer = {name: factors[name] for name in counts if name in factors and factors[name] > getattr(held, name)}
    check_agreement("it", held, {name: value for name, value in factors.items() if name not in fewer})
    return experiment(**what, **(in_file | fewer))


def _method(kind: Format, config: Config, given: Given) -> int | str | None:
    if kind.method is None:
        return given.get("method", config.method)
    typed = given.get("method", kind.method)
    if typed != kind.method:
        raise BenchError(f"holds {kind.holds}, --method says {typed}: use --method {kind.method}")
    if config.method not in (None, kind.method):
        raise BenchError(f"holds {kind.holds}, its config.json says {config.method}: take both from one source again")
    return kind.method


def _backbone(ours: Mapping[str, Tensor], config: Config, given: Given) -> int | str | None:
    found = shown.backbone(ours)
    typed = given.get("backbone")
    if found and typed not in (None, found):
        raise BenchError(f"holds a {found} backbone, --backbone says {typed}")
    if found and config.backbone not in (None, found):
        raise BenchError(
            f"holds a {found} backbone, its config.json says {config.backbone}: take both from one source again"
        )
    return found or typed or config.backbone


def _dataset(kind: Format, ours: Mapping[str, Tensor], config: Config, given: Given) -> int | str | None:
    """By the number of classes, which tells the data sets here apart."""
    head = ours.get(kind.class_head) if kind.method else None
    classes = len(head) - 1 if head is not None and head.ndim == 2 else None
    if classes is not None and config.num_classes not in (None, classes):
        raise BenchError(
            f"has {classes} classes, its config.json has {config.num_classes}: take both from one source again"
        )
    if "dataset" in given:
        _check_classes(classes, "the class embedding", str(given["dataset"]))
        return given["dataset"]
    if classes is None:
        classes = config.num_classes
    if classes is None:
        return None
    alike = [dataset.name for dataset in DATASETS.values() if not dataset.generated and dataset.num_classes == classes]
    if not alike:
        counts = ", ".join(f"{d.name} {d.num_classes}" for d in DATASETS.values() if not d.generated)
        raise BenchError(f"has {classes} classes, as no data set here ({counts}): it cannot be evaluated on them")
    return alike[0] if len(alike) == 1 else None


def _check_classes(classes: int | None, what: str, dataset: str) -> None:
    expected = get_dataset(dataset).num_classes
    if classes not in (None, expected):
        raise BenchError(
            f"{what} has {classes} classes and 'no object', {dataset} has {expected}: name the data set that it was "
            "trained on with --dataset"
        )
