"""COCO's instance files: the one parser for training, `bench data check` and evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench.data.annotations.coco_json import Category, name_of, parse_categories, parse_images, read_object
from bench.data.annotations.fields import AGAIN, entries, flag, named, number, whole
from bench.data.annotations.segmentation import checked_segmentation
from bench.data.coco_files import Packed
from bench.errors import BenchError


class Instance(NamedTuple):
    """An object of an image. area: as the file has it, in pixels. segmentation: polygons [x, y, x, y, ...] of three
    points or more in pixels, or COCO's run lengths ({"size", "counts"}, a list or a string) that fill the image."""

    category_id: int
    iscrowd: bool
    area: float
    segmentation: list | dict


@dataclass(frozen=True)
class InstanceFile:
    """images: "id", "file_name", "height", "width" in ascending id. categories: in ascending id, all of them things.

    left_out: how many polygons of less than three points, and objects without a part, are left out.
    """

    path: Path
    images: list[dict]
    categories: tuple[Category, ...]
    left_out: int
    packed: Packed

    def objects(self, index: int) -> list[Instance]:
        """The objects of `images[index]`, crowds too, in the order of the file."""
        return [Instance(*values) for values in self.packed[index]]


def read_instances(path: Path) -> InstanceFile:
    """Raises BenchError for a file that cannot be read, and for any field of it that is not as it should be: what is
    accepted here can be trained on and evaluated."""
    content = read_object(path, "instance")
    images = parse_images(content, path, sized=True)
    categories = parse_categories(content, path, "instance")
    known, positions = {category.id for category in categories}, {image["id"]: i for i, image in enumerate(images)}
    with named(path, "it"):
        found = entries(content, "annotations")
    objects: list[list[tuple]] = [[] for _ in images]
    seen: set[int] = set()
    left_out = 0
    for place, entry in enumerate(found):
        try:
            index, values, without = _object(entry, images, positions, known, seen)
        except ValueError as error:  # `named` would double the time of a file with a million objects
            where = name_of("annotation", entry, place) + _of_image(entry)
            raise BenchError(f"{path}: {where} {error}: {AGAIN}") from None
        left_out += without
        if values is not None:
            objects[index].append(values)
    return InstanceFile(path, images, categories, left_out, Packed(objects))


def _object(
    entry: Mapping, images: list[dict], positions: Mapping[int, int], known: set[int], seen: set[int]
) -> tuple[int, tuple | None, int]:
    """Position of its image, the values of an `Instance` (None: it covers nothing), and how much was left out."""
    id_, image_id, category_id = whole(entry, "id"), whole(entry, "image_id"), whole(entry, "category_id")
    if id_ in seen:
        raise ValueError("has an 'id' that is listed twice")
    seen.add(id_)
    if image_id not in positions:
        raise ValueError(f"is of image {image_id}, which is not in 'images'")
    if category_id not in known:
        raise ValueError(f"is of category {category_id}, which is not in 'categories'")
    index = positions[image_id]
    crowd, area = flag(entry, "iscrowd"), number(entry, "area", least=0)
    size = images[index]["height"], images[index]["width"]
    if "segmentation" not in entry:
        raise ValueError("has no 'segmentation'")
    try:
        segmentation, dropped = checked_segmentation(entry["segmentation"], size)
    except ValueError as error:
        raise ValueError(f"has a 'segmentation' that is no mask ({error})") from None
    if segmentation == []:
        return index, None, 1
    return index, (category_id, crowd, area, segmentation), dropped


def _of_image(entry: Mapping) -> str:
    image_id = entry.get("image_id")
    return f" of image {image_id}" if type(image_id) is int else ""
