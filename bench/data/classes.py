"""The classes of each data set, known without its files: official ids, names, things, colours.

Sources: COCO's panoptic category file (ids, names, colours); ADE20K's scene parsing list (objectInfo150), first of
its synonyms; Cityscapes' label table (cityscapesScripts), the 19 classes with a train id in the order of that; CamVid's
eleven classes in SegNet's order with CamVid's own colours; the category file of the nuclei's COCO copy.
"""

import csv
import functools
from colorsys import hsv_to_rgb
from dataclasses import dataclass
from importlib import resources

from bench.experiments.datasets import get_dataset


@dataclass(frozen=True)
class ClassInfo:
    """id: as in the data set's annotations (may have holes), 1 to 255; colour: RGB, 0 to 255 each.

    CamVid counts its labels from 0; its ids are one more, for 0 is void in the PNGs that this program writes.
    """

    id: int
    name: str
    is_thing: bool
    colour: tuple[int, int, int]


@functools.cache
def classes_of(dataset: str) -> tuple[ClassInfo, ...]:
    """The classes in contiguous order: the position is the index of a model's class logits.

    That is the order of train ids for Cityscapes, of ids for all others. Raises BenchError for an unknown name.
    """
    info = get_dataset(dataset)
    classes = _table(info.categories)
    return tuple(c for c in classes if c.is_thing or info.task != "instance")


def _table(name: str) -> list[ClassInfo]:
    with resources.files("bench.data").joinpath("categories", f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        ClassInfo(
            int(row["id"]),
            row["name"],
            row["is_thing"] == "1",
            tuple(bytes.fromhex(row["colour"])) if "colour" in row else _distinct_colour(index),
        )
        for index, row in enumerate(rows)
    ]


def _distinct_colour(index: int) -> tuple[int, int, int]:
    """Six colours far apart, then the next six with the hues turned by a golden ratio."""
    cycle, level = divmod(index, 6)
    saturation, value = ((0.85, 0.95), (0.6, 0.7), (0.9, 0.55), (0.45, 1.0), (0.75, 0.4), (0.3, 0.75))[level]
    red, green, blue = hsv_to_rgb((cycle * 0.61803398875 + level * 0.41) % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)
