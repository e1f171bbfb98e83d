"""Readers of semantic data sets, one label image a photograph, in their official layouts.

ADE20K (SceneParsing)  images/<split>/*.jpg                     0 = other, 1 to 150
                       annotations/<split>/*.png
Cityscapes             leftImg8bit/<split>/CITY/*_leftImg8bit.png
                       gtFine/<split>/CITY/*_gtFine_labelIds.png    0 to 33, of which 19 are evaluated,
                                          or *_gtFine_labelTrainIds.png    0 to 18, 255 = ignored
CamVid                 images/<split>/*.jpg, annotations/<split>/*.png     0 to 10, 11 = ignored
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from bench.data.annotations.coco_json import Category
from bench.data.annotations.fields import AGAIN, is_usable_name
from bench.data.classes import classes_of
from bench.data.coco import IGNORED, Sample
from bench.data.coco_files import file_size, refuse_missing
from bench.data.images import read_image, read_labels, refuse_size
from bench.errors import BenchError
from bench.experiments.datasets import get_dataset

_UNKNOWN = 254  # in tables: no label of the data set
_PHOTO, _IDS, _TRAIN_IDS = "_leftImg8bit.png", "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"


class SemanticImages(Dataset):
    """Images with the classes of their pixels, in ascending file name; image ids count from 1.

    pairs: file name of an image below image_dir -> its label image. table: what a value in a label image is, class
    index or 255 for ignored; other values are errors. A sample has one mask a class that is present, in ascending
    order. has_polygons: a label image can be drawn of the polygons beside it. Images turned by an EXIF flag are turned
    upright; label images may be palette or 16-bit PNGs.

    Raises BenchError for missing and broken files and for other labels: for missing files at once unless `complete`
    is False, otherwise on access.
    """

    task = "semantic"

    def __init__(
        self, root: Path, split: str, name: str, image_dir: Path, pairs: Mapping[str, Path], table: Mapping[int, int],
        complete: bool = True, remedy: str = AGAIN, has_polygons: bool = False,
    ):  # fmt: skip
        self.root, self.split, self.image_dir = root, split, image_dir
        self.has_polygons = has_polygons
        self.missing_counts = get_dataset(name).missing_counts
        self.categories = tuple(Category(c.id, c.name, c.is_thing) for c in classes_of(name))
        self.images = [{"id": number, "file_name": file} for number, file in enumerate(sorted(pairs), start=1)]
        self._labels = [pairs[image["file_name"]] for image in self.images]
        self._table = np.full(256, _UNKNOWN, np.uint8)
        self._table[list(table)] = list(table.values())
        for file in pairs:
            if not is_usable_name(file):
                raise BenchError(f"{image_dir / file} has a name that is no printable UTF-8: rename it")
        if not pairs:
            raise BenchError(f"{image_dir} holds no images and there are no labels of them: is '{split}' unpacked?")
        if complete:
            images, labels = self._missing()
            refuse_missing(images, len(self), "images")
            refuse_missing(labels, len(self), "label images", remedy)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        path, label_path = self.files(index)
        pixels, classes = read_image(path), self.label_map(index)
        refuse_size(label_path, classes.shape, path, pixels.shape[:2])
        present = np.bincount(classes.reshape(-1), minlength=256)[: len(self.categories)]
        labels = torch.from_numpy(np.flatnonzero(present))
        masks = torch.from_numpy(classes[None] == labels.numpy().astype(np.uint8)[:, None, None])  # torch is slower
        image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
        return Sample(self.images[index]["id"], image, labels, masks)

    def label_map(self, index: int) -> np.ndarray:
        """Class index uint8 [H, W] of every pixel, 255 where it is ignored, at the annotation's size."""
        path = self._labels[index]
        values = read_labels(path)
        if values.dtype != np.uint8:
            if values.max(initial=0) > 255 or values.min(initial=0) < 0:
                raise BenchError(f"{path} has values from {values.min()} to {values.max()}, no labels: {AGAIN}")
            values = values.astype(np.uint8)
        classes = self._table[values]
        unknown = classes == _UNKNOWN
        if unknown.any():
            raise BenchError(f"{path} has label {values[unknown][0]}, which the data set does not have: {AGAIN}")
        return classes

    def files(self, index: int) -> list[Path]:
        """The image and its label image."""
        return [self.image_dir / self.images[index]["file_name"], self._labels[index]]

    def missing(self) -> list[Path]:
        """Images and label images that are not there."""
        images, labels = self._missing()
        return images + labels

    def _missing(self) -> tuple[list[Path], list[Path]]:
        images, labels = zip(*map(self.files, range(len(self))), strict=True)
        folders = {path.parent for path in (*images, *labels)}
        present = {folder / name for folder in folders for name in _names(folder)}
        return [path for path in images if path not in present], [path for path in labels if path not in present]

    def fingerprint(self) -> str:
        """sha256 (hex) of the names and sizes of images and label images. Raises BenchError for missing files."""
        digest = hashlib.sha256()
        for index in range(len(self)):
            for path in self.files(index):
                digest.update(f"{path.relative_to(self.root).as_posix()}:{file_size(path)}\n".encode())
        return digest.hexdigest()


def ade20k(root: Path, split: str, complete: bool = True) -> SemanticImages:
    """The scene parsing benchmark's images; the label "other" is ignored, as in its evaluation."""
    return _flat(root, split, "ade20k", {0: IGNORED} | {value: value - 1 for value in range(1, 151)}, complete)


def camvid(root: Path, split: str, complete: bool = True) -> SemanticImages:
    """The eleven classes in SegNet's order."""
    return _flat(root, split, "camvid", {value: value for value in range(11)} | {11: IGNORED}, complete)


def cityscapes(root: Path, split: str, complete: bool = True) -> SemanticImages:
    """The 19 evaluated classes in the order of their train ids; everything else is ignored, as in the evaluation.

    Labels are read from the downloaded labelIds, or from labelTrainIds where there are none of those.
    """
    from cityscapesscripts.helpers.labels import labels as cityscapes_labels  # only its readers need the package

    root = Path(root)
    image_dir, label_dir = root / "leftImg8bit" / split, root / "gtFine" / split
    for folder in (image_dir, label_dir) if complete else ():
        _refuse_no_folder(folder, split)
    photos = {f"{city}/{name}" for city in _names(image_dir) for name in _names(image_dir / city)}
    labels = {f"{city}/{name}" for city in _names(label_dir) for name in _names(label_dir / city)}
    ending = _TRAIN_IDS if not any(n.endswith(_IDS) for n in labels) and any(map(_is_train_ids, labels)) else _IDS
    stems = {name.removesuffix(_PHOTO) for name in photos if name.endswith(_PHOTO)}
    for known in (ending, "_gtFine_polygons.json"):
        stems |= {name.removesuffix(known) for name in labels if name.endswith(known)}
    table = {label.id: label.trainId for label in cityscapes_labels if label.id >= 0}
    if ending == _TRAIN_IDS:
        table = {value: value for value in (*range(19), IGNORED)}
    pairs = {f"{stem}{_PHOTO}": label_dir / f"{stem}{ending}" for stem in stems}
    remedy = "download again, or 'bench data prepare cityscapes' makes labels from polygons"
    return SemanticImages(root, split, "cityscapes", image_dir, pairs, table, complete, remedy, True)


def _is_train_ids(name: str) -> bool:
    return name.endswith(_TRAIN_IDS)


def _flat(root: Path, split: str, name: str, table: Mapping[int, int], complete: bool) -> SemanticImages:
    """Images and label images of one stem in two folders; what one of them lacks is missing."""
    root = Path(root)
    image_dir, label_dir = root / "images" / split, root / "annotations" / split
    for folder in (image_dir, label_dir) if complete else ():
        _refuse_no_folder(folder, split)
    images, labels = _by_stem(image_dir, (".jpg", ".jpeg", ".png")), _by_stem(label_dir, (".png",))
    stems = images.keys() | labels.keys()
    pairs = {images.get(stem, f"{stem}.jpg"): label_dir / labels.get(stem, f"{stem}.png") for stem in stems}
    return SemanticImages(root, split, name, image_dir, pairs, table, complete)


def _by_stem(folder: Path, endings: tuple[str, ...]) -> dict[str, str]:
    """The files with one of the endings, in small or capital letters, by name without ending. BenchError for two."""
    found: dict[str, str] = {}
    for name in sorted(_names(folder)):
        if name.lower().endswith(endings) and (other := found.setdefault(Path(name).stem, name)) != name:
            raise BenchError(f"{folder} holds {other} and {name}, of which one is meant: remove the other")
    return found


def _names(folder: Path) -> list[str]:
    """What the folder holds but for hidden files, nothing where there is none."""
    try:
        return [name for name in os.listdir(folder) if not name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _refuse_no_folder(folder: Path, split: str) -> None:
    if not folder.is_dir():
        raise BenchError(f"no folder {folder}: is it the data set's folder and '{split}' one of its splits?")
