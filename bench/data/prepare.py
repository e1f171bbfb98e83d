"""Makes the files that official downloads lack and other programs want; our readers work without most of them.

Cityscapes      gtFine/<split>/CITY/*_gtFine_labelTrainIds.png, and *_gtFine_labelIds.png where those are missing
ADE20K          annotations_detectron2/<split>/*.png      classes 0 to 149, 255 = other
COCO panoptic   panoptic_semseg_<split>/*.png             class index, 255 = void; crowds have their class
"""

from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
from cityscapesscripts.helpers.annotation import Annotation
from cityscapesscripts.preparation.json2labelImg import createLabelImage
from PIL import Image

from bench.data.annotations.fields import AGAIN
from bench.data.coco import CocoPanoptic
from bench.data.parallel import in_parallel
from bench.data.registry import Split, dataset_root, open_split
from bench.errors import BenchError, one_line
from bench.experiments.datasets import get_dataset
from bench.files import whole_file

Progress = Callable[[int, int, str], None]
_LARGEST = 100_000_000  # pixels of a label image drawn from polygons


@dataclass(frozen=True)
class Prepared:
    """A split's label images. problems: one line each for those that could not be made."""

    split: str
    folder: Path
    made: int
    kept: int
    problems: list[str]


def prepare(name: str, root: Path | None, progress: Progress | None = None) -> list[Prepared]:
    """Write what is missing; what is there is kept, so that it goes on where it was stopped.

    progress(done, total, split). Splits that were not downloaded are left out, broken ones come last, with their
    problem; a data set that needs nothing gives an empty list. Raises BenchError where there is no whole split or
    the folder cannot be written.
    """
    info, done, broken, errors = get_dataset(name), [], [], []
    if info.prepared is None:
        return []
    for split in info.splits:
        try:
            dataset = open_split(name, split, root, complete=False)
        except BenchError as error:
            errors.append(error)
            folder = dataset_root(name, root)
            marker = folder / info.marker.format(split)
            if marker.is_file() or any(path.is_file() for path in marker.rglob("*")):
                broken.append(Prepared(split, folder / info.prepared.format(split), 0, 0, [str(error)]))
        else:
            done.append(_prepare_split(name, dataset, progress))
    if not done:
        raise BenchError(broken[0].problems[0]) if broken else errors[0]
    return done + broken


def _prepare_split(name: str, dataset: Split, progress: Progress | None) -> Prepared:
    annotated = [index for index in range(len(dataset)) if len(dataset.files(index)) == 2]
    todo = [index for index in annotated if not _target(name, dataset, index).is_file()]
    problems = []
    for done, problem in enumerate(in_parallel(partial(_make, name, dataset, todo), len(todo)), start=1):
        problems += [problem] if problem else []
        if progress is not None:
            progress(done, len(todo), dataset.split)
    made, kept = len(todo) - len(problems), len(annotated) - len(todo)
    return Prepared(dataset.split, _folder(name, dataset), made, kept, problems)


def _folder(name: str, dataset: Split) -> Path:
    return dataset.root / get_dataset(name).prepared.format(dataset.split)


def _target(name: str, dataset: Split, index: int) -> Path:
    label = dataset.files(index)[1]
    if isinstance(dataset, CocoPanoptic) and ".." not in label.parts and label.is_relative_to(dataset.panoptic_dir):
        return _folder(name, dataset) / label.relative_to(dataset.panoptic_dir)
    if not dataset.has_polygons:
        return _folder(name, dataset) / label.name
    return label.with_name(label.name.replace("_labelIds", "_labelTrainIds"))


def _make(name: str, dataset: Split, todo: list[int], position: int) -> str | None:
    """Write one label image; returns what is wrong with its source. Raises BenchError where it cannot be written."""
    index = todo[position]
    label, target = dataset.files(index)[1], _target(name, dataset, index)
    wanted = {target: partial(dataset.label_map, index)}
    if dataset.has_polygons:
        wanted = {label: partial(_draw, label), **wanted}
    for path, make in wanted.items():
        if path.exists():
            continue
        try:
            labels = make()
        except BenchError as error:
            return str(error)
        _save(labels, path)
    return None


def _draw(label: Path) -> np.ndarray:
    """The label image that cityscapesScripts draws of the polygons beside it. Raises BenchError for broken polygons."""
    stem, encoding = label.stem.rsplit("_", 1)
    polygons = label.with_name(f"{stem}_polygons.json")
    if not polygons.is_file():
        raise BenchError(f"{label} is missing, and so is {polygons.name}: download again")
    annotation, said = Annotation(), StringIO()
    try:
        with redirect_stdout(said):
            annotation.fromJsonFile(str(polygons))
            if not 0 < annotation.imgWidth * annotation.imgHeight <= _LARGEST:
                raise ValueError(f"image of {annotation.imgWidth}x{annotation.imgHeight}")
            return np.asarray(createLabelImage(annotation, {"labelIds": "ids", "labelTrainIds": "trainIds"}[encoding]))
    except SystemExit as error:  # how it refuses a label
        reason = said.getvalue().partition("\n")[0].removeprefix("ERROR: ")
        raise BenchError(f"{polygons} cannot be drawn ({reason}): {AGAIN}") from error
    except Exception as error:  # it checks nothing
        raise BenchError(f"{polygons} cannot be drawn ({type(error).__name__}: {one_line(error)}): {AGAIN}") from error


def _save(labels: np.ndarray, path: Path) -> None:
    """PNG of uint8 [H, W], in one step."""
    try:
        with whole_file(path) as temporary:
            Image.fromarray(labels).save(temporary, "PNG")
    except OSError as error:
        raise BenchError(f"cannot write {path} ({error.strerror}): make it writable") from error
