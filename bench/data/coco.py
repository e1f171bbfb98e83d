"""Reader of the official COCO panoptic layout.

    <root>/<split>/*.jpg or *.png
    <root>/annotations/panoptic_<split>.json     images, annotations (segments_info), categories
    <root>/annotations/panoptic_<split>/*.png    segment id = R + 256 G + 65536 B, 0 = void
    <root>/annotations/instances_<split>.json    optional

Files come from elsewhere, so everything that is used is checked, and what is wrong is said in one line.
"""

import hashlib
import json
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from bench.errors import BenchError, one_line

_VOID = -1  # in the cached map of segments: void pixels and crowd segments


@dataclass(frozen=True)
class Category:
    """id: as in the annotation file (may have holes); the contiguous class index is the position sorted by id."""

    id: int
    name: str
    is_thing: bool


@dataclass(frozen=True)
class Sample:
    """image: uint8 [3, H, W] RGB. labels: int64 [N] contiguous class indices. masks: bool [N, H, W], disjoint."""

    image_id: int
    image: Tensor
    labels: Tensor
    masks: Tensor


class CocoPanoptic(Dataset):
    """Panoptic images with their segments, in ascending image id.

    root: data set folder; split: e.g. "val2017". With `cache` every sample is decoded once and kept in memory (for
    small data sets: 5 bytes a pixel). Crowd segments and segments without pixels are no targets; an image without
    segments, or without an annotation, has N = 0. Images turned by an EXIF flag are turned upright.

    Raises BenchError for missing, broken or contradictory files: at once for the annotation file and for missing
    images, on access for what is inside images and PNGs.
    """

    def __init__(self, root: Path, split: str, cache: bool = False):
        self.root, self.split = Path(root), split
        self.annotation_file = _annotation_file(self.root, split)
        self.panoptic_dir = self.annotation_file.with_suffix("")
        self.image_dir = self.root / split
        instances = self.annotation_file.with_name(f"instances_{split}.json")
        self.instance_file: Path | None = instances if instances.is_file() else None

        content = _read_json(self.annotation_file)
        self.categories, self.images, annotations = _parse(content, self.annotation_file)
        self._annotations = {annotation["image_id"]: annotation for annotation in annotations}
        self._class_index = {category.id: index for index, category in enumerate(self.categories)}
        self._check_segments()
        _check_present(self.image_dir, [image["file_name"] for image in self.images], "images")
        _check_present(self.panoptic_dir, [annotation["file_name"] for annotation in annotations], "panoptic PNGs")
        self._cache: list[tuple[Tensor, Tensor, Tensor] | None] | None = [None] * len(self) if cache else None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        decoded = self._cache[index] if self._cache is not None else None
        if decoded is None:
            decoded = self._decode(index)
            if self._cache is not None:
                self._cache[index] = decoded
        image, labels, segments = decoded
        masks = segments[None] == torch.arange(len(labels), dtype=segments.dtype)[:, None, None]
        return Sample(self.images[index]["id"], image.clone(), labels.clone(), masks)

    def _decode(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Image uint8 [3, H, W], labels int64 [N] and the map of segments int16 [H, W], position in labels or -1."""
        entry = self.images[index]
        path = self.image_dir / entry["file_name"]
        pixels = read_rgb(path)
        image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
        annotation = self._annotations.get(entry["id"])
        if annotation is None:
            return image, torch.zeros(0, dtype=torch.int64), torch.full(pixels.shape[:2], _VOID, dtype=torch.int16)
        png = self.panoptic_dir / annotation["file_name"]
        ids = read_segment_ids(png)
        if ids.shape != pixels.shape[:2]:
            sizes = f"{ids.shape[1]}x{ids.shape[0]}", f"{pixels.shape[1]}x{pixels.shape[0]}"
            raise BenchError(
                f"{png} is {sizes[0]} but its image {path} is {sizes[1]}: download the matching pair again"
            )
        labels, segments = self._targets(ids, annotation["segments_info"], png)
        return image, torch.tensor(labels, dtype=torch.int64), torch.from_numpy(segments)

    def _targets(self, ids: np.ndarray, infos: list[dict], png: Path) -> tuple[list[int], np.ndarray]:
        segments = np.full(ids.shape, _VOID, np.int16)
        unknown = ids != 0
        labels: list[int] = []
        for info in infos:
            mask = ids == info["id"]
            unknown &= ~mask
            if not info.get("iscrowd", 0) and mask.any():
                segments[mask] = len(labels)
                labels.append(self._class_index[info["category_id"]])
        if unknown.any():
            raise BenchError(
                f"{png} has segment id {int(ids[unknown][0])}, which {self.annotation_file} does not list for it: "
                "take both from the same download"
            )
        return labels, segments

    def _check_segments(self) -> None:
        known_images = {image["id"] for image in self.images}
        for image_id, annotation in self._annotations.items():
            if image_id not in known_images:
                raise BenchError(
                    f"{self.annotation_file}: annotation of image {image_id}, which is not in 'images': {_AGAIN}"
                )
            for segment in annotation["segments_info"]:
                if segment["category_id"] not in self._class_index:
                    raise BenchError(
                        f"{self.annotation_file}: segment {segment['id']} of image {image_id} has category id "
                        f"{segment['category_id']}, which is not in 'categories': {_AGAIN}"
                    )


_AGAIN = "download the file again or correct it"
# What Pillow raises for damaged files
_DECODER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def read_rgb(path: Path) -> np.ndarray:
    """Pixels uint8 [H, W, 3] of an image file of any colour mode, upright. Raises BenchError if it cannot be read."""
    try:
        with Image.open(path) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except FileNotFoundError:
        raise BenchError(f"image {path} is missing: {_AGAIN}") from None
    except _DECODER_ERRORS as error:
        raise BenchError(f"image {path} cannot be read ({one_line(error)}): {_AGAIN}") from error


def read_segment_ids(path: Path) -> np.ndarray:
    """Segment ids int32 [H, W] of a panoptic PNG (id = R + 256 G + 65536 B). Raises BenchError as `read_rgb`."""
    rgb = read_rgb(path).astype(np.int32)
    return rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]


def fingerprint(root: Path, split: str) -> str:
    """sha256 (hex) that names a split's content in records: its annotation file, and its images' names and sizes.

    Image files are not read, so that it is quick for 118,000 of them; where the annotation file carries the images'
    own hashes, as that of the synthetic data does, file sizes are left out. Raises BenchError for missing files.
    """
    path = _annotation_file(Path(root), split)
    content = _read_json(path)
    digest = hashlib.sha256(path.read_bytes())
    _, images, _ = _parse(content, path)
    for image in images:
        if "sha256" not in image:
            file = Path(root) / split / image["file_name"]
            try:
                digest.update(f"{image['file_name']}:{file.stat().st_size}\n".encode())
            except OSError:
                raise BenchError(f"image {file} is missing: {_AGAIN}") from None
    return digest.hexdigest()


def _annotation_file(root: Path, split: str) -> Path:
    path = root / "annotations" / f"panoptic_{split}.json"
    if not path.is_file():
        raise BenchError(f"no annotation file {path}: is {root} the data set folder and '{split}' one of its splits?")
    return path


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BenchError(f"{path} is not readable JSON ({one_line(error)}): {_AGAIN}") from error


def _parse(content: object, path: Path) -> tuple[tuple[Category, ...], list[dict], list[dict]]:
    """Categories and images in ascending id, and annotations; every key and type that is used later is there."""
    if not isinstance(content, dict):
        raise BenchError(f"{path} is not a COCO panoptic file (no object at the top): {_AGAIN}")
    number, text = (int,), (str,)
    images = _entries(content, "images", {"id": number, "file_name": text}, path)
    keys = {"image_id": number, "file_name": text, "segments_info": (list,)}
    annotations = _entries(content, "annotations", keys, path)
    if not images:
        raise BenchError(f"{path} lists no images: {_AGAIN}")
    for annotation in annotations:
        _entries(annotation, "segments_info", {"id": number, "category_id": number}, path)
    keys = {"id": number, "name": text, "isthing": (int, bool)}
    found = _entries(content, "categories", keys, path)
    categories = [Category(entry["id"], entry["name"], bool(entry["isthing"])) for entry in found]
    categories.sort(key=lambda category: category.id)
    return tuple(categories), sorted(images, key=lambda image: image["id"]), annotations


def _entries(parent: dict, name: str, keys: dict[str, tuple[type, ...]], path: Path) -> list[dict]:
    entries = parent.get(name)
    if not isinstance(entries, list):
        hint = ", is it an instance file?" if name == "segments_info" else ""
        raise BenchError(f"{path} has no list '{name}'{hint}: {_AGAIN}")
    for entry in entries:
        for key, types in keys.items():
            if not isinstance(entry, dict) or not isinstance(entry.get(key), types):
                raise BenchError(f"{path}: an entry of '{name}' has no valid '{key}': is it a COCO panoptic file?")
    return entries


def _check_present(folder: Path, names: list[str], what: str) -> None:
    """One directory listing, so that a file missing from 118,000 shows before training and not hours later."""
    try:
        present = set(os.listdir(folder))
    except OSError:
        raise BenchError(f"no folder {folder}: it should hold the {what}") from None
    missing = [name for name in names if name not in present]
    if missing:
        raise BenchError(f"{folder / missing[0]} is missing ({len(missing)} of {len(names)} {what} are): {_AGAIN}")
