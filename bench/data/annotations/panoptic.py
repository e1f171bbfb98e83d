"""COCO's panoptic JSON files: the one parser for training, `bench data check` and evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench.data.annotations.coco_json import Category, name_of, parse_categories, parse_images, read_object
from bench.data.annotations.fields import AGAIN, entries, file_name, flag, named, whole
from bench.data.coco_files import Packed
from bench.errors import BenchError

LARGEST_SEGMENT_ID = 2**24 - 1  # ids are colours; 0 is void


class Segment(NamedTuple):
    """A segment of an image, `id` being its colour in the PNG."""

    id: int
    category_id: int
    iscrowd: bool


@dataclass(frozen=True)
class PanopticFile:
    """images: "id", "file_name", maybe "height" and "width", in ascending id. categories: in ascending id."""

    path: Path
    images: list[dict]
    categories: tuple[Category, ...]
    packed: Packed

    def png(self, index: int) -> str | None:
        """Name of the PNG of `images[index]`, None where it has no annotation."""
        return self.packed[index][0]

    def segments(self, index: int) -> list[Segment]:
        """The segments of `images[index]` in the order of the file."""
        return [Segment(*values) for values in self.packed[index][1]]


def read_panoptic(path: Path) -> PanopticFile:
    """Raises BenchError for a file that cannot be read, and for any field of it that is not as it should be."""
    content = read_object(path, "panoptic")
    images = parse_images(content, path, sized=False)
    categories = parse_categories(content, path, "panoptic")
    known, positions = {category.id for category in categories}, {image["id"]: i for i, image in enumerate(images)}
    with named(path, "it"):
        found = entries(content, "annotations")
    annotations: list[tuple[str | None, list]] = [(None, [])] * len(images)
    names: dict[str, int] = {}
    for place, entry in enumerate(found):
        with named(path, f"annotation at position {place} of its list"):
            image_id = whole(entry, "image_id")
            if image_id not in positions:
                raise ValueError(f"is of image {image_id}, which is not in 'images'")
        if annotations[positions[image_id]][0] is not None:
            raise BenchError(f"{path} annotates image {image_id} twice: {AGAIN}")
        with named(path, f"annotation of image {image_id}"):
            name = file_name(entry)
            if (other := names.setdefault(name, image_id)) != image_id:
                raise ValueError(f"has the 'file_name' of that of image {other}")
        annotations[positions[image_id]] = name, _segments(entry, path, image_id, known)
    return PanopticFile(path, images, categories, Packed(annotations))


def _segments(entry: Mapping, path: Path, image_id: int, known: set[int]) -> list[tuple[int, int, bool]]:
    with named(path, f"annotation of image {image_id}", f"is it an instance file? Else {AGAIN}"):
        found = entries(entry, "segments_info")
    segments, seen = [], set()
    for place, info in enumerate(found):
        try:
            id_, category_id = whole(info, "id", 1, LARGEST_SEGMENT_ID), whole(info, "category_id")
            if category_id not in known:
                raise ValueError(f"has category id {category_id}, which is not in 'categories'")
            if id_ in seen:
                raise ValueError("is listed twice")
            seen.add(id_)
            segments.append((id_, category_id, flag(info, "iscrowd")))
        except ValueError as error:
            where = name_of("segment", info, place)
            raise BenchError(f"{path}: {where} of image {image_id} {error}: {AGAIN}") from None
    return segments
