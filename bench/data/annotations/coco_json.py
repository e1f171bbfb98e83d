"""What COCO's instance and panoptic JSON files have in common: images and categories, every field checked."""

import gc
import reprlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from bench.data.annotations.fields import AGAIN, entries, file_name, flag, named, read_json, text, whole
from bench.errors import BenchError


@dataclass(frozen=True)
class Category:
    """id: as in the annotation file (may have holes); the contiguous class index is the position sorted by id."""

    id: int
    name: str
    is_thing: bool


def read_object(path: Path, kind: str) -> Mapping:
    """Content of a COCO file; kind: "instance" or "panoptic". Raises BenchError where it is no JSON object."""
    with _no_collection():
        content = read_json(path)
    if not isinstance(content, dict):
        raise BenchError(f"{path} is not a COCO {kind} file (no object at the top): {AGAIN}")
    return content


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


def parse_images(content: Mapping, path: Path, sized: bool) -> list[dict]:
    """`content["images"]` in ascending id: "id", "file_name", "height" and "width" (`sized`: they must be there), and
    "sha256" where a file has it. Ids and names are unique. Raises BenchError."""
    with named(path, "it"):
        found = entries(content, "images")
    if not found:
        raise BenchError(f"{path} lists no images: {AGAIN}")
    images, names = {}, {}
    for position, entry in enumerate(found):
        with named(path, name_of("image", entry, position)):
            image = _image(entry, sized)
        if image["id"] in images:
            raise BenchError(f"{path} lists image {image['id']} twice: {AGAIN}")
        if (other := names.setdefault(image["file_name"], image["id"])) != image["id"]:
            name = reprlib.repr(image["file_name"])
            raise BenchError(f"{path} lists 'file_name' {name} twice (images {other} and {image['id']}): {AGAIN}")
        images[image["id"]] = image
    return [images[image_id] for image_id in sorted(images)]


def _image(entry: Mapping, sized: bool) -> dict:
    image: dict = {"id": whole(entry, "id"), "file_name": file_name(entry)}
    if sized or entry.get("height") is not None or entry.get("width") is not None:
        image |= {name: whole(entry, name, 1, 2**31 - 1) for name in ("height", "width")}
        if image["height"] * image["width"] > (Image.MAX_IMAGE_PIXELS or 0):
            raise ValueError(f"has 'width' x 'height' {image['width']}x{image['height']}, more than an image may have")
    return image | ({"sha256": entry["sha256"]} if "sha256" in entry else {})


def parse_categories(content: Mapping, path: Path, kind: str) -> tuple[Category, ...]:
    """`content["categories"]` in ascending id, which is unique; those of an instance file are things.

    Ids of panoptic files are from 1 to 255: they are written as labels of 8 bits. Raises BenchError.
    """
    with named(path, "it"):
        found = entries(content, "categories")
    categories: dict[int, Category] = {}
    for position, entry in enumerate(found):
        with named(path, name_of("category", entry, position)):
            id_ = whole(entry, "id", 1, 255 if kind == "panoptic" else 2**31 - 1)
            is_thing = flag(entry, "isthing", required=True) if kind == "panoptic" else True
            category = Category(id_, text(entry, "name"), is_thing)
        if id_ in categories:
            raise BenchError(f"{path}: category id {id_} is listed twice, ids must be different: {AGAIN}")
        categories[id_] = category
    return tuple(categories[id_] for id_ in sorted(categories))


def refuse_other_categories(path: Path, found: Sequence[Category], owner: str, expected: Sequence[Category]) -> None:
    """Raises BenchError unless the file's categories are exactly those of `owner`."""
    theirs, ours = set(found) - set(expected), set(expected) - set(found)
    if theirs or ours:
        raise BenchError(
            f"{path} has {_described(theirs)} in 'categories' where {owner} has {_described(ours)} "
            f"({max(len(theirs), len(ours))} differ): is it the right data set? Correct ids and names, or declare "
            "one of your own"
        )


def _described(categories: Collection[Category]) -> str:
    """The first of them."""
    if not categories:
        return "nothing"
    category = min(categories, key=lambda category: category.id)
    return f"id {category.id} {reprlib.repr(category.name)} ({'thing' if category.is_thing else 'stuff'})"


def name_of(what: str, entry: Mapping, position: int) -> str:
    """How an entry is called in messages: by its id where it has one."""
    id_ = entry.get("id")
    return f"{what} {id_}" if type(id_) is int and abs(id_) < 10**20 else f"{what} at position {position} of its list"
