"""Faults of annotation files, one field of one entry each: what every reader of them must make of it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from bench.data.registry import open_split
from bench.data.run_lengths import to_rle
from bench.evaluation.image_results import ImageResults
from bench.evaluation.prediction_writer import PredictionWriter

INSTANCES, PANOPTIC = "annotations/instances_val2017.json", "annotations/panoptic_val2017.json"
MISSING = type("Missing", (), {"__repr__": lambda self: "missing"})()
NAN, HUGE = float("nan"), 10**400


@dataclass(frozen=True)
class Fault:
    """words: of the refusal; none where it is accepted, with `left_out` reported by `check`."""

    name: str
    damage: Callable[[Path], object]
    words: tuple[str, ...] = ()
    left_out: int = 0


def edit(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))


def field(file: str, place: str, name: str, value: object) -> Callable[[Path], None]:
    """Set a field, or remove it (MISSING). place: "images", "annotations", "categories": their first entry; "segments":
    the first segment of the first annotation; "": the top of the file."""

    def damage(root: Path) -> None:
        def change(content: dict) -> None:
            entry = content if not place else content["annotations" if place == "segments" else place][0]
            entry = entry["segments_info"][0] if place == "segments" else entry
            if value is MISSING:
                del entry[name]
            else:
                entry[name] = value

        edit(root / file, change)

    return damage


def fields(file: str, place: str, name: str, values: tuple, *words: str) -> list[Fault]:
    """All refused with the field's name in the line."""
    kind = file.partition("/")[2].partition("_")[0]
    return [
        Fault(f"{kind} {place} {name} {value!r:.30}", field(file, place, name, value), (f"'{name}'", *words))
        for value in values
    ]


def accepted(file: str, place: str, name: str, values: tuple) -> list[Fault]:
    return [Fault(fault.name, fault.damage) for fault in fields(file, place, name, values)]


def twice(file: str, place: str, **changes: object) -> Callable[[Path], None]:
    """The first entry once more, with other values."""

    def change(content: dict) -> None:
        entries = content["annotations"][0]["segments_info"] if place == "segments" else content[place]
        entries.append(entries[0] | changes)

    return lambda root: edit(root / file, change)


def with_file(pattern: str, change: Callable[[Path], object]) -> Callable[[Path], object]:
    """Do something with the first file of the pattern."""
    return lambda root: change(sorted(root.glob(pattern))[0])


def pixels(change: Callable[[np.ndarray], np.ndarray], mode: str | None = None) -> Callable[[Path], None]:
    """Write the image again with other pixels."""

    def damage(path: Path) -> None:
        with Image.open(path) as image:
            changed = Image.fromarray(change(np.array(image)))
        changed.convert(mode or changed.mode).save(path)

    return damage


def part(*numbers: object) -> Callable[[Path], None]:
    """One more polygon of the first object."""
    return lambda root: edit(root / INSTANCES, lambda c: c["annotations"][0]["segmentation"].append(list(numbers)))


def moved(folder: str, new: str, file: str, absolute: bool = False) -> Callable[[Path], None]:
    """The images of the annotation file in another folder, named from the usual one."""

    def damage(root: Path) -> None:
        target = root / folder / new
        target.mkdir(parents=True, exist_ok=True)
        place = "annotations" if folder.startswith("annotations") else "images"

        def change(content: dict) -> None:
            for entry in content[place]:
                name = entry["file_name"]
                if not (target / name).exists():
                    (root / folder / name).rename(target / name)
                entry["file_name"] = str(target / name) if absolute else f"{new}/{name}"

        edit(root / file, change)

    return damage


def save_perfect_predictions(name: str, root: Path, folder: Path) -> Path:
    """Predictions of the evaluated split that are its annotations, but for crowds and void pixels."""
    dataset = open_split(name, "val", root)
    identity = {"dataset": name, "split": dataset.split, "model": "perfect", "post_processing": "none"}
    writer = PredictionWriter(folder, dataset, identity)
    file = dataset.instances if dataset.task == "panoptic" else getattr(dataset, "annotations", None)
    for index, image in enumerate(dataset.images):
        results: dict = {}
        size = dataset[index].image.shape[1:]
        if file is not None:
            results["instances"] = [
                {"image_id": image["id"], "category_id": found.category_id, "score": 0.9,
                 "segmentation": to_rle(found.segmentation, size)}
                for found in file.objects(index) if not found.iscrowd
            ]  # fmt: skip
        if dataset.task == "panoptic":
            ids, segments = dataset.segment_ids(index)
            results["segment_ids"], results["segments"] = ids, [s._asdict() for s in segments]
        if dataset.task != "instance":
            labels = dataset.label_map(index).astype(int)
            results["labels"] = np.where(labels == 255, 0, labels)
        writer.write(ImageResults(image["id"], tuple(size), **results))
    writer.finish()
    return folder
