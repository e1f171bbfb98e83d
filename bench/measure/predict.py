"""Predictions of a model for image files, in the official formats and as pictures."""

import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from bench.data.classes import ClassInfo, classes_of
from bench.data.images import open_image, read_image
from bench.errors import BenchError
from bench.evaluation.image_results import image_results
from bench.evaluation.overlay import draw_overlay, label_segments
from bench.evaluation.postprocess import OBJECT_THRESHOLD
from bench.experiments.datasets import get_dataset
from bench.experiments.experiment import Experiment
from bench.experiments.inference_rules import InferenceRules, inference_rules
from bench.files import whole_file
from bench.measure.inference import predict_one
from bench.measure.result_files import SHOWN_SCORE, result_files

_SUFFIXES = {
    "panoptic": ("_panoptic.png", "_semantic.png"),
    "instance": ("_instances.png",),
    "semantic": ("_semantic.png",),
}
_SHOWN = {"panoptic": "segments", "instance": "instances", "semantic": "classes"}
_PICTURE = "_overlay.jpg"
_COLLECTED = {"panoptic": ("panoptic.json", "instances.json"), "instance": ("instances.json",), "semantic": ()}


@dataclass(frozen=True)
class Prediction:
    """What was found in one image, in words, and the names of the files that hold it; picture: the one for people."""

    image: Path
    found: str
    files: tuple[str, ...]
    picture: str


def predict_images(
    model: nn.Module,
    experiment: Experiment,
    images: Sequence[Path],
    out: Path,
    raw: bool = False,
    native_size: bool = False,
    threshold: float | None = None,
) -> Iterator[Prediction]:
    """Write what the model finds in each image to the folder `out`, image by image.

    An image goes through the model at the size of the experiment's test protocol, or with `native_size` as it is,
    padded by the method's rule in either case (`InferenceRules`); results have the image's own size (upright, where
    EXIF says that it is turned). threshold: what the class
    probability of a panoptic segment, or the score of an instance in the instance map and the picture, must be above;
    None: 0.8 and 0.5. The list of instances is all of them, best first. For an image STEM.jpg:

    - STEM_panoptic.png: COCO's panoptic format, segment id = R + 256 G + 65536 B, 0 where nothing was found;
    - STEM_semantic.png: category id of every pixel (COCO's, ADE20K's 1 to 150, Cityscapes' label ids, not train ids);
    - STEM_instances.png (data sets with instances only): pixel k is of the k-th entry of "instances", see
      `instance_map`;
    - STEM.json: "image", and of "panoptic" (`segments_info`), "instances" (COCO results with RLE, best first) and
      "semantic" those that the data set's task has;
    - STEM_overlay.jpg: the picture for people;
    - STEM.npz with `raw`: `class_logits` [Q, K+1] and `mask_logits` [Q, h, w], of per-pixel methods `logits`
      [K, h, w], float32, as the model returns them.

    At the end, also of a run that was stopped, come panoptic.json (official file; its PNGs lie beside it, not in a
    folder of its name) and instances.json (official list of results) of the images done. `image_id` is the file's
    stem where all the stems are different whole numbers, as in COCO, else the image's position from 1.
    Results of the same name are replaced, each file at once or not at all; other files stay.

    An image needs some 6 bytes of memory a query and pixel of its own size.
    Raises BenchError as `check_images`, before the model runs; and for an image that cannot be decoded, too little
    memory or a folder that cannot be written, when it comes to it: what is written by then stays.
    """
    images, out = [Path(path) for path in images], Path(out)
    task, classes = get_dataset(experiment.dataset).task, classes_of(experiment.dataset)
    check_threshold(threshold, experiment.dataset)
    check_images(images, out, task, raw)
    rules = inference_rules(experiment)
    if native_size:
        rules = replace(rules, shorter_side=None, longer_side=None)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BenchError(f"cannot make the folder {out} ({error.strerror}): give another one") from error
    model.eval()
    entries: list[dict] = []
    try:
        for path, image_id in zip(images, image_ids(images), strict=True):
            try:
                files, entry, found = _predict(model, path, image_id, task, classes, rules, raw, threshold)
            except (MemoryError, RuntimeError) as error:
                if isinstance(error, MemoryError) or re.search("(out of|allocate) memory", str(error)):  # numpy, torch
                    raise BenchError(f"image {path} needs more memory than there is: make it smaller") from error
                raise
            for name, data in files.items():
                _write(out / name, data)
            entries.append(entry)
            yield Prediction(path, found, tuple(files), f"{path.stem}{_PICTURE}")
    finally:
        for name, data in _collected(entries, task, classes).items():
            _write(out / name, data)


def check_threshold(threshold: float | None, dataset: str) -> None:
    """Raises BenchError for one that is no probability, and where results have no score."""
    if threshold is None:
        return
    if not 0 <= threshold <= 1:
        raise BenchError(f"--threshold {threshold:g} is no probability: give a number from 0 to 1")
    if get_dataset(dataset).task == "semantic":
        raise BenchError(f"--threshold has no meaning on {dataset}: every pixel gets its best class; leave it out")


def check_images(images: Sequence[Path], out: Path, task: str, raw: bool) -> None:
    """Raises BenchError where `predict_images` could not begin: no images, files that are missing or no images of a
    known format, results of two images under one name or over an image, `out` that is no folder."""
    if not images:
        raise BenchError("no images: name the image files to predict")
    if out.exists() and not out.is_dir():
        raise BenchError(f"{out} is not a folder: give another one for the results")
    inputs = {}
    for path in images:
        with open_image(path):  # reads the header
            inputs[_identity(path)] = path
    owners: dict[str, object] = {name: f"the results of all images ({name})" for name in _COLLECTED[task]}
    for path in images:
        for suffix in (*_SUFFIXES[task], _PICTURE, ".json", *([".npz"] if raw else [])):
            name = path.stem + suffix
            if name in owners:
                raise BenchError(f"the results of {path} would replace {owners[name]}: rename it or predict it apart")
            owners[name] = f"those of {path}"
            if (out / name).exists() and (hit := inputs.get(_identity(out / name))):
                raise BenchError(f"the results of {path} would replace the image {hit}: give another folder")


def image_ids(images: Sequence[Path]) -> list[int]:
    """The stems as numbers where all are different whole numbers (COCO's file names), else 1, 2, 3, ..."""
    stems = [path.stem for path in images]
    if all(stem.isascii() and stem.isdigit() and len(stem) <= 18 for stem in stems):
        numbers = [int(stem) for stem in stems]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(1, len(stems) + 1))


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


@torch.inference_mode()
def _predict(
    model: nn.Module,
    path: Path,
    image_id: int,
    task: str,
    classes: Sequence[ClassInfo],
    rules: InferenceRules,
    raw: bool,
    threshold: float | None,
) -> tuple[dict[str, bytes], dict, str]:
    """The result files of one image (name -> content), what STEM.json holds, and what was found in words."""
    pixels = read_image(path)
    prediction, sizes = predict_one(model, torch.from_numpy(pixels).permute(2, 0, 1), rules)
    logits = [field.name for field in fields(prediction) if field.name.endswith("logits")]
    arrays = {name: getattr(prediction, name)[0] for name in logits}
    if not all(array.isfinite().all() for array in arrays.values()):
        raise BenchError(f"the model's output for {path} is not finite: are its weights damaged?")
    height, width = pixels.shape[:2]
    found = image_results(image_id, prediction, task, sizes, classes, threshold, rules.cut_to_mask)
    shown_score = SHOWN_SCORE if threshold is None else threshold
    results = result_files(found, classes, path.stem, shown_score)

    header = {"id": image_id, "file_name": path.name, "height": height, "width": width}
    entry = {"image": header, **results.entry}
    files = {name: _encoded(Image.fromarray(labels), "PNG") for name, labels in results.pngs.items()}
    names = label_segments(results.segments, classes)
    files[f"{path.stem}{_PICTURE}"] = _encoded(draw_overlay(pixels, results.segment_ids, names), "JPEG")
    files[f"{path.stem}.json"] = _json(entry)
    if raw:
        np.savez(buffer := io.BytesIO(), **{name: array.float().cpu().numpy() for name, array in arrays.items()})
        files[f"{path.stem}.npz"] = buffer.getvalue()
    if results.segments or task == "semantic":
        return files, entry, f"{len(results.segments)} {_SHOWN[task]}"
    if task == "instance":
        best, limit = max((instance["score"] for instance in found.instances), default=0.0), shown_score
    else:
        probabilities = arrays["class_logits"].float().softmax(-1)[:, :-1]  # without "no object"
        best, limit = float(probabilities.max()), OBJECT_THRESHOLD if threshold is None else threshold
    why = f"best score {best:.2f}, threshold {limit:g}"
    if best > limit:
        why += ", but most of its mask belongs to no object or to another one"
    return files, entry, f"0 {_SHOWN[task]}: {why}"


def _collected(entries: Sequence[dict], task: str, classes: Sequence[ClassInfo]) -> dict[str, bytes]:
    """The official files over all images (name -> content); none without images."""
    images = [entry["image"] for entry in entries]
    contents = {
        "panoptic.json": lambda: {
            "images": images,
            "annotations": [{"image_id": entry["image"]["id"], **entry["panoptic"]} for entry in entries],
            "categories": [
                {"id": c.id, "name": c.name, "isthing": int(c.is_thing), "color": list(c.colour)} for c in classes
            ],
        },
        "instances.json": lambda: [found for entry in entries for found in entry["instances"]],
    }
    return {name: _json(contents[name]()) for name in _COLLECTED[task] if entries}


def _json(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def _encoded(image: Image.Image, kind: str) -> bytes:
    image.save(buffer := io.BytesIO(), kind, quality=92)
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> Path:
    with whole_file(path) as temporary:
        temporary.write_bytes(data)
    return path
