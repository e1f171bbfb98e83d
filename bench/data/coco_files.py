"""What the readers of COCO's JSON files share: checked parsing, files that are missing, compact lists.

Files come from elsewhere, so everything that is used is checked, and what is wrong is said in one line.
"""

import gc
import hashlib
import json
import marshal
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np

from bench.errors import BenchError, one_line

AGAIN = "download the file again or correct it"
NUMBER, TEXT = (int,), (str,)


@dataclass(frozen=True)
class Category:
    """id: as in the annotation file (may have holes); the contiguous class index is the position sorted by id."""

    id: int
    name: str
    is_thing: bool


class Packed:
    """A list of plain values (numbers, texts, lists, tuples) that is read only, as one buffer of bytes.

    As Python objects the annotations of COCO's training images would take gigabytes, and every process of a loader
    would copy them: counting references writes to their pages.
    """

    def __init__(self, values: Iterable):
        blobs = [marshal.dumps(value, 2) for value in values]  # version 2: without looking for what occurs twice
        self._ends = np.fromiter(accumulate(map(len, blobs)), np.int64, len(blobs))
        self._buffer = b"".join(blobs)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int):
        start = self._ends[index - 1] if index else 0
        return marshal.loads(memoryview(self._buffer)[start : self._ends[index]])


def annotation_file(root: Path, kind: str, split: str) -> Path:
    """<root>/annotations/<kind>_<split>.json; kind: "panoptic" or "instances". Raises BenchError without it."""
    path = Path(root) / "annotations" / f"{kind}_{split}.json"
    if not path.is_file():
        raise BenchError(f"no annotation file {path}: is {root} the data set folder and '{split}' one of its splits?")
    return path


def read_json(path: Path) -> object:
    try:
        with _no_collection():
            return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BenchError(f"{path} is not readable JSON ({one_line(error)}): {AGAIN}") from error


@contextmanager
def _no_collection() -> Iterator[None]:
    """Millions of new lists start the garbage collector over and over, which finds nothing in them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def entries(parent: dict, name: str, keys: dict[str, tuple[type, ...]], path: Path, kind: str) -> list[dict]:
    """The list `parent[name]`, in which every entry has the keys with values of those types."""
    found = parent.get(name)
    if not isinstance(found, list):
        hint = ", is it an instance file?" if name == "segments_info" else ""
        raise BenchError(f"{path} has no list '{name}'{hint}: {AGAIN}")
    for key, types in keys.items():
        for entry in found:
            if not isinstance(entry, dict) or not isinstance(entry.get(key), types):
                raise BenchError(f"{path}: an entry of '{name}' has no valid '{key}': is it a COCO {kind} file?")
    return found


def parse_images(content: object, path: Path, kind: str) -> list[dict]:
    """`content["images"]` in ascending id; ids are unique."""
    if not isinstance(content, dict):
        raise BenchError(f"{path} is not a COCO {kind} file (no object at the top): {AGAIN}")
    keys = {"id": NUMBER, "file_name": TEXT} | ({"height": NUMBER, "width": NUMBER} if kind == "instance" else {})
    images = entries(content, "images", keys, path, kind)
    if not images:
        raise BenchError(f"{path} lists no images: {AGAIN}")
    images = sorted(images, key=lambda image: image["id"])
    for first, second in zip(images, images[1:], strict=False):
        if first["id"] == second["id"]:
            raise BenchError(f"{path} lists image {first['id']} twice: {AGAIN}")
    return images


def brief(images: list[dict]) -> list[dict]:
    """The images with those facts alone that a reader keeps."""
    return [{key: image[key] for key in ("id", "file_name", "height", "width") if key in image} for image in images]


def missing_files(folder: Path, names: list[str]) -> list[Path]:
    """Those files that are not in the folder, by one listing of it. Raises BenchError where it is no folder."""
    try:
        present = set(os.listdir(folder))
    except OSError:
        raise BenchError(f"no folder {folder}: it should hold {len(names)} files such as {names[0]}") from None
    return [folder / name for name in names if name not in present]


def refuse_missing(missing: list[Path], count: int, what: str, remedy: str = AGAIN) -> None:
    """Raises BenchError where files are missing, so that it shows before training and not hours later."""
    if missing:
        raise BenchError(f"{missing[0]} is missing ({len(missing)} of {count} {what} are): {remedy}")


def fingerprint(root: Path, split: str, kind: str = "panoptic") -> str:
    """sha256 (hex) that names a split's content in records: its annotation file, and its images' names and sizes.

    kind: "panoptic" or "instances". Image files are not read, so that it is quick for 118,000 of them; where the
    annotation file carries the images' own hashes, as that of the synthetic data does, file sizes are left out.
    Raises BenchError for missing files.
    """
    path = annotation_file(root, kind, split)
    images = parse_images(read_json(path), path, kind.removesuffix("s"))
    digest = hashlib.sha256(path.read_bytes())
    for image in images:
        if "sha256" not in image:
            digest.update(f"{image['file_name']}:{file_size(Path(root) / split / image['file_name'])}\n".encode())
    return digest.hexdigest()


def file_size(path: Path) -> int:
    """Bytes. Raises BenchError where the file is missing."""
    try:
        return path.stat().st_size
    except OSError:
        raise BenchError(f"{path} is missing: {AGAIN}") from None
