"""Predictions of a split in a folder, in COCO's formats, so that scoring can be repeated without the model.

    predictions.json     what they are of, and whether they are complete
    panoptic.json, panoptic/STEM.png     COCO panoptic results        (panoptic data sets)
    instances.json                       COCO instance results        (panoptic and instance data sets)
    semantic/STEM.png                    category ids; Cityscapes' evaluation server takes them   (panoptic, semantic)

STEM is that of the image file. While an evaluation runs, the parts of the two JSON files lie in `parts`, one file an
image, so that it can be stopped and can be shared by several processes.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from bench.data.annotations.fields import is_usable_name
from bench.data.coco import id_colours
from bench.data.run_lengths import segment_annotations
from bench.errors import BenchError, one_line
from bench.evaluation.image_results import ImageResults
from bench.files import whole_file, write_atomically

FORMAT = 1
FACTS = "predictions.json"
IDENTITY = ("dataset", "split", "model", "post_processing")


class PredictionWriter:
    """Saves what is evaluated, image by image; any number of processes may write to one folder, one calls `finish`.

    identity: `IDENTITY`, all of them text: the data set and split, what predicted (the key of an experiment, with a
    seed or the checkpoint's SHA-256), and the text of `bench.experiments.inference_rules.post_processing`.
    Raises BenchError where the folder holds anything but earlier predictions of the same identity.
    """

    def __init__(self, folder: Path, dataset, identity: Mapping[str, str]):
        self.folder = Path(folder)
        self._dataset = dataset
        self._facts = {"format": FORMAT, "task": dataset.task, **{name: str(identity[name]) for name in IDENTITY}}
        self._stems = stems(dataset)
        self._ids = np.array([category.id for category in dataset.categories])
        self._begin()

    def has(self, image_id: int) -> bool:
        """Whether the image's prediction is there."""
        return self._complete or self._part(image_id).is_file()

    def write(self, results: ImageResults) -> None:
        """Save one image; its part comes last and says that the rest is there. Complete predictions are begun anew."""
        if self._complete:
            self._open()
        stem = self._stems[results.image_id]
        part: dict = {}
        if results.labels is not None:
            _save_png(self.folder / "semantic" / f"{stem}.png", self._ids[results.labels].astype(np.uint8))
        if results.segment_ids is not None:
            _save_png(self.folder / "panoptic" / f"{stem}.png", id_colours(results.segment_ids))
            annotations = segment_annotations(results.image_id, results.segment_ids, results.segments)
            infos = [
                {"id": segment["id"], **{key: annotation[key] for key in ("category_id", "area", "bbox", "iscrowd")}}
                for segment, annotation in zip(results.segments, annotations, strict=True)
            ]
            part["panoptic"] = {
                "image_id": results.image_id,
                "file_name": f"{stem}.png",
                "segments_info": infos,
            }
        if results.instances is not None:
            part["instances"] = results.instances
        write_atomically(self._part(results.image_id), json.dumps(part))

    def finish(self) -> None:
        """Join the parts, once every image is there. Raises BenchError where one is missing."""
        if _read_facts(self.folder / FACTS)["complete"]:
            self._clean()
            return
        missing = [image["file_name"] for image in self._dataset.images if not self.has(image["id"])]
        if missing:
            raise BenchError(
                f"{self.folder} lacks the prediction of {missing[0]} ({len(missing)} of {len(self._dataset)} images "
                "are missing): evaluate them"
            )
        if self._dataset.task == "panoptic":
            self._join("panoptic", '{"annotations": [\n', "\n]}\n")
        if self._dataset.task in ("panoptic", "instance"):
            self._join("instances", "[\n", "\n]\n")
        write_atomically(self.folder / FACTS, json.dumps({**self._facts, "complete": True}, indent=1) + "\n")
        self._complete = True
        self._clean()

    def _clean(self) -> None:
        """Remove what is not a result, also of processes that were killed while they wrote."""
        shutil.rmtree(self._parts, ignore_errors=True)
        for folder in (self.folder, *(self.folder / name for name in _folders(self._dataset.task))):
            for left in folder.glob(".*.tmp"):
                left.unlink(missing_ok=True)

    @property
    def _parts(self) -> Path:
        return self.folder / "parts"

    def _part(self, image_id: int) -> Path:
        return self._parts / f"{image_id}.json"

    def _begin(self) -> None:
        path = self.folder / FACTS
        self._complete = False
        if path.is_file():
            known = _read_facts(path)
            if {**known, "complete": None} != {**self._facts, "complete": None}:
                raise BenchError(f"{self.folder} holds predictions of something else ({path}): give another folder")
            self._complete = known["complete"]
        elif self.folder.is_dir() and any(self.folder.iterdir()):
            raise BenchError(f"{self.folder} is not empty and holds no predictions: give an empty or a new folder")
        if not self._complete:
            self._open()

    def _open(self) -> None:
        for name in ("parts", *_folders(self._dataset.task)):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / FACTS, json.dumps({**self._facts, "complete": False}, indent=1) + "\n")
        self._complete = False

    def _join(self, name: str, head: str, tail: str) -> None:
        """Write NAME.json from the parts, one of them in memory at a time, in the order of images."""
        with whole_file(self.folder / f"{name}.json") as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write(head)
            separator = ""
            for image in self._dataset.images:
                part = json.loads(self._part(image["id"]).read_bytes())[name]
                for entry in part if isinstance(part, list) else [part]:
                    file.write(separator + json.dumps(entry))
                    separator = ",\n"
            file.write(tail)


def stems(dataset) -> dict[int, str]:
    """File name without ending of each image's prediction, by image id: the image's own where those are all different.

    Raises BenchError for a name that would leave the folder.
    """
    names = {image["id"]: Path(image["file_name"]).stem for image in dataset.images}
    if len(set(names.values())) < len(names):
        names = {image_id: f"{image_id:012d}" for image_id in names}
    for name in names.values():
        if not is_usable_name(name):
            raise BenchError(f"image name {name!r} cannot name a prediction: rename the image")
    return names


def _folders(task: str) -> tuple[str, ...]:
    return {"panoptic": ("panoptic", "semantic"), "instance": (), "semantic": ("semantic",)}[task]


def open_facts(folder: Path) -> dict:
    """Contents of a folder's predictions.json: "task", `IDENTITY`. Raises BenchError for incomplete predictions."""
    if not Path(folder).is_dir():
        raise BenchError(f"{folder} is not a folder: give the folder of saved predictions")
    facts = _read_facts(Path(folder) / FACTS)
    if not facts["complete"]:
        raise BenchError(f"{folder} holds a part of the predictions: let their evaluation end first")
    return facts


def _read_facts(path: Path) -> dict:
    """Contents of predictions.json. Raises BenchError where it is missing or not of this form."""
    remedy = "save the predictions again"
    try:
        facts = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BenchError(f"no {path}: give the folder of saved predictions") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BenchError(f"{path} is not readable JSON ({one_line(error)}): {remedy}") from None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise BenchError(f"{path} is of no known format (this version reads {FORMAT}): {remedy}")
    texts = ("task", *IDENTITY)
    if set(facts) != {"format", "complete", *texts} or not all(isinstance(facts[name], str) for name in texts):
        raise BenchError(f"{path} does not say what the predictions are of ({', '.join(texts)}): {remedy}")
    if not isinstance(facts["complete"], bool):
        raise BenchError(f"{path} does not say whether the predictions are complete: {remedy}")
    return facts


def _save_png(path: Path, pixels: np.ndarray) -> None:
    with whole_file(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", compress_level=1)
