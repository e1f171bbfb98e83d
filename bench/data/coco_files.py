"""What the readers of COCO's layouts share: files that are there or missing, fingerprints, compact lists."""

import hashlib
import marshal
import os
from collections import defaultdict
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path

import numpy as np

from bench.data.annotations.coco_json import parse_images, read_object
from bench.data.annotations.fields import AGAIN
from bench.errors import BenchError


class Packed:
    """A list of plain values (numbers, texts, lists, tuples) that is read only, as one buffer of bytes.

    As Python objects the annotations of COCO's training images would take gigabytes, and every process of a loader
    would copy them: counting references writes to their pages.
    """

    def __init__(self, values: Iterable):
        blobs = [marshal.dumps(value, 2) for value in values]  # version 2: without looking for what occurs twice
        self.ends = np.fromiter(accumulate(map(len, blobs)), np.int64, len(blobs))
        self.buffer: bytes | memoryview = b"".join(blobs)

    @classmethod
    def of(cls, ends: np.ndarray, buffer: memoryview) -> "Packed":
        """The list with these `ends` and this `buffer`, which another had."""
        packed = cls(())
        packed.ends, packed.buffer = ends, buffer
        return packed

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int):
        start = self.ends[index - 1] if index else 0
        return marshal.loads(memoryview(self.buffer)[start : self.ends[index]])


def annotation_file(root: Path, kind: str, split: str) -> Path:
    """<root>/annotations/<kind>_<split>.json; kind: "panoptic" or "instances". Raises BenchError without it."""
    path = Path(root) / "annotations" / f"{kind}_{split}.json"
    if not path.is_file():
        raise BenchError(f"no annotation file {path}: is {root} the data set folder and '{split}' one of its splits?")
    return path


def missing_files(folder: Path, names: list[str]) -> list[Path]:
    """Those files that are not there, by one listing of each folder; names may have folders, or be absolute.

    Raises BenchError where `folder` should hold one of them and is no folder.
    """
    paths = [folder / name for name in names]
    by_folder: dict[Path, set[str]] = defaultdict(set)
    for path in paths:
        by_folder[path.parent].add(path.name)
    present = {parent: _listing(parent) for parent in by_folder}
    if folder in by_folder and not folder.is_dir():
        raise BenchError(f"no folder {folder}: it should hold {len(names)} files such as {names[0]}")
    return [path for path in paths if path.name not in present[path.parent]]


def _listing(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


def refuse_missing(missing: list[Path], count: int, what: str, remedy: str = AGAIN) -> None:
    """Raises BenchError where files are missing, so that it shows before training and not hours later."""
    if missing:
        raise BenchError(f"{missing[0]} is missing ({len(missing)} of {count} {what} are): {remedy}")


def fingerprint(root: Path, split: str, kind: str = "panoptic", images: list[dict] | None = None) -> str:
    """sha256 (hex) that names a split's content in records: its annotation file, and its images' names and sizes.

    kind: "panoptic" or "instances". images: as `parse_images` gives them, where they were read before. Image files are
    not read, so that it is quick for 118,000 of them; where the
    annotation file carries the images' own hashes, as that of the synthetic data does, file sizes are left out.
    Raises BenchError for missing files.
    """
    path = annotation_file(root, kind, split)
    if images is None:
        images = parse_images(read_object(path, kind.removesuffix("s")), path, sized=kind == "instances")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
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
