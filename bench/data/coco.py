"""Reader of the official COCO panoptic layout.

<root>/<split>/*.jpg or *.png
<root>/annotations/panoptic_<split>.json     images, annotations (segments_info), categories
<root>/annotations/panoptic_<split>/*.png    segment id = R + 256 G + 65536 B, 0 = void
<root>/annotations/instances_<split>.json    optional
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from bench.data.annotations.coco_json import Category, refuse_other_categories
from bench.data.annotations.instances import InstanceFile, read_instances
from bench.data.annotations.panoptic import PanopticFile, Segment, read_panoptic
from bench.data.annotations.shared import read_once
from bench.data.coco_files import annotation_file, fingerprint, missing_files, refuse_missing
from bench.data.images import image_size, open_image, refuse_listed_size, refuse_size
from bench.data.images import read_image as read_rgb
from bench.errors import BenchError

__all__ = ["Category", "CocoPanoptic", "Sample", "fingerprint", "read_rgb", "read_segment_ids"]

IGNORED = 255  # in maps of class indices
_VOID = -1  # in the cached map of segments: void pixels and crowd segments


Outline = list[np.ndarray]  # polygons of one object, each float64 [P, 2]: x and y in pixels, which may leave the image


@dataclass(frozen=True)
class Sample:
    """image: uint8 [3, H, W] RGB. labels: int64 [N] contiguous class indices. masks: bool [N, H, W].

    Panoptic and semantic masks are disjoint (a pixel of no mask is void), masks of instances may overlap.
    outlines: where samples are trained on, the first of the N targets may be given by their outlines; masks are then
    those of the others.
    """

    image_id: int
    image: Tensor
    labels: Tensor
    masks: Tensor
    outlines: tuple[Outline, ...] = ()


class CocoPanoptic(Dataset):
    """Panoptic images with their segments, in ascending image id.

    root: data set folder; split: e.g. "val2017". With `cache` every sample is decoded once and kept in memory (for
    small data sets: 5 bytes a pixel). Crowd segments and segments without pixels are no targets; an image without
    segments, or without an annotation, has N = 0. Images turned by an EXIF flag are turned upright. Names of files may
    have folders of their own, or be absolute.

    Raises BenchError for missing, broken or contradictory files: at once for the annotation file and (unless
    `complete` is False) for missing images, on access for what is inside images and PNGs.
    """

    task = "panoptic"
    has_polygons = False  # of label images

    def __init__(self, root: Path, split: str, cache: bool = False, complete: bool = True):
        self.root, self.split = Path(root), split
        self.annotation_file = annotation_file(self.root, "panoptic", split)
        self.panoptic_dir = self.annotation_file.with_suffix("")
        self.image_dir = self.root / split
        instances = self.annotation_file.with_name(f"instances_{split}.json")
        self.instance_file: Path | None = instances if instances.is_file() else None

        self.annotations = read_once(self.annotation_file, read_panoptic, PanopticFile)
        self.images = self.annotations.images
        self.categories: tuple[Category, ...] = self.annotations.categories
        self._class_index = {category.id: index for index, category in enumerate(self.categories)}
        self._cache: list[tuple[Tensor, Tensor, Tensor] | None] | None = [None] * len(self) if cache else None
        if complete:
            images, labels = self._missing()
            refuse_missing(images, len(self), "images")
            refuse_missing(labels, len(self), "panoptic PNGs")

    @cached_property
    def instances(self) -> InstanceFile | None:
        """The instance file where it lists every image, None where there is none or it does not.

        Raises BenchError for one that is broken, whose categories are not the things, or with other sizes of images.
        """
        if self.instance_file is None:
            return None
        found = read_once(self.instance_file, read_instances, InstanceFile)
        things = [category for category in self.categories if category.is_thing]
        refuse_other_categories(self.instance_file, found.categories, self.annotation_file.name, things)
        sizes = {image["id"]: {name: image[name] for name in ("height", "width")} for image in found.images}
        if not all(image["id"] in sizes for image in self.images):
            return None
        for image in self.images:
            theirs = sizes[image["id"]]
            if any(image.get(name, side) != side for name, side in theirs.items()):
                raise BenchError(
                    f"{self.instance_file} and {self.annotation_file} give image {image['id']} other 'height' and "
                    "'width' than each other: take both from the same download"
                )
            image |= theirs
        return found

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        decoded = self._cache[index] if self._cache is not None else None
        if decoded is None:
            decoded = self._decode(index)
            if self._cache is not None:
                self._cache[index] = decoded
        image, labels, segments = decoded
        numbers = np.arange(len(labels), dtype=np.int16)[:, None, None]
        masks = torch.from_numpy(segments.numpy()[None] == numbers)  # torch compares ten times as slowly
        return Sample(self.images[index]["id"], image.clone(), labels.clone(), masks)

    def files(self, index: int) -> list[Path]:
        """The image, then its panoptic PNG if it is annotated."""
        name = self.annotations.png(index)
        image = self.image_dir / self.images[index]["file_name"]
        return [image] if name is None else [image, self.panoptic_dir / name]

    def missing(self) -> list[Path]:
        """Images and PNGs that are not there. Raises BenchError for a missing folder."""
        images, labels = self._missing()
        return images + labels

    def fingerprint(self) -> str:
        """That of the split (`coco_files.fingerprint`). Raises BenchError for missing files."""
        return fingerprint(self.root, self.split, "panoptic", self.images)

    def label_map(self, index: int) -> np.ndarray:
        """Class index uint8 [H, W] of every pixel, 255 where it is void. Pixels of crowds have their class."""
        image, *png = self.files(index)
        if not png:
            return np.full(image_size(image), IGNORED, np.uint8)
        found, segments = self._segments(index, png[0])
        return np.array([*map(self._label, found), IGNORED], np.uint8)[segments]

    def segment_ids(self, index: int) -> tuple[np.ndarray, list[Segment]] | None:
        """Segment ids int32 [H, W], 0 where it is void, and the segments that have pixels, crowds too; None where the
        image has no annotation."""
        _, *png = self.files(index)
        if not png:
            return None
        found, segments = self._segments(index, png[0])
        return np.array([*(segment.id for segment in found), 0], np.int32)[segments], found

    def _missing(self) -> tuple[list[Path], list[Path]]:
        names = [name for name in map(self.annotations.png, range(len(self))) if name is not None]
        images = missing_files(self.image_dir, [image["file_name"] for image in self.images])
        return images, missing_files(self.panoptic_dir, names) if names else []

    def _decode(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Image uint8 [3, H, W], labels int64 [N] and the map of segments int16 [H, W], position in labels or -1."""
        path, *png = self.files(index)
        pixels = read_rgb(path)
        refuse_listed_size(path, pixels.shape[:2], self.images[index], self.annotation_file)
        image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
        if not png:
            return image, torch.zeros(0, dtype=torch.int64), torch.full(pixels.shape[:2], _VOID, dtype=torch.int16)
        found, segments = self._segments(index, png[0])
        refuse_size(png[0], segments.shape, path, pixels.shape[:2])
        order = np.full(len(found) + 1, _VOID, np.int16)  # the last one for void
        kept = [position for position, segment in enumerate(found) if not segment.iscrowd]
        order[kept] = np.arange(len(kept))
        labels = torch.tensor([self._label(found[position]) for position in kept], dtype=torch.int64)
        return image, labels, torch.from_numpy(order[segments])

    def _label(self, segment: Segment) -> int:
        return self._class_index[segment.category_id]

    def _segments(self, index: int, png: Path) -> tuple[list[Segment], np.ndarray]:
        """The segments that have pixels, and int16 [H, W]: position in that list or -1."""
        ids = read_segment_ids(png)
        _, lengths, values = runs(ids.reshape(-1))
        listed = self.annotations.segments(index)
        known = np.array([0] + [segment.id for segment in listed])  # the first is void
        order = np.argsort(known, kind="stable")
        positions = order[np.searchsorted(known, values, sorter=order).clip(max=len(known) - 1)]
        unknown = known[positions] != values
        if unknown.any():
            raise BenchError(
                f"{png} has segment id {int(values[unknown][0])}, which {self.annotation_file} does not list for it: "
                "take both from the same download"
            )
        present = np.bincount(positions, minlength=len(known))[1:] > 0
        numbers = np.concatenate([[_VOID], np.cumsum(present) - 1]).astype(np.int16)
        found = [segment for segment, there in zip(listed, present, strict=True) if there]
        return found, np.repeat(numbers[positions], lengths).reshape(ids.shape)


def read_segment_ids(path: Path) -> np.ndarray:
    """Segment ids int32 [H, W] of a panoptic PNG (id = R + 256 G + 65536 B); its colours may be those of a palette.

    Raises BenchError for a file that cannot be read or is grey.
    """
    with open_image(path) as image:
        if image.mode not in ("RGB", "RGBA", "P"):
            raise BenchError(f"{path} is no panoptic PNG: segment ids are colours, this is of mode {image.mode}")
        rgba = np.array(image.convert("RGBA"))
    return rgba.view("<u4")[..., 0].astype(np.int32) & 0xFFFFFF


def runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts, lengths and values [R] of the runs of equal values in [N]: far fewer than pixels, in segments."""
    starts = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])
    return starts, np.diff(starts, append=len(values)), values[starts]


def id_colours(ids: np.ndarray) -> np.ndarray:
    """Panoptic PNG pixels uint8 [..., 3] of segment ids [...]: the inverse of `read_segment_ids`."""
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
