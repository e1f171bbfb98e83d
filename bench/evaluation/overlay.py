"""A picture for people: the image with its segments in colour, outlined and named."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt

from bench.data.classes import ClassInfo

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]  # left, top, right, bottom

_OPACITY = 0.5
_ENLARGED_TO = 480  # longer side that a small image gets at least, by a whole factor, so that names have room
_UNIT = 640  # pixels of the longer side per pixel of line width, and 14 of type size
_SHADES = (0.0, 0.35, -0.35, 0.55, -0.55, 0.18, -0.18)  # of the objects of a class: towards white, towards black
_GRID = 160  # cells along the longer side among which the place of a name is chosen


@dataclass(frozen=True)
class Label:
    """What a segment is called and painted with."""

    text: str
    colour: Colour


def label_segments(segments: Sequence[dict], classes: Sequence[ClassInfo]) -> dict[int, Label]:
    """Labels, by `id`, of segments with `category_id` and, if it shall be shown, `score`.

    The objects of one class differ in shade.
    """
    known = {info.id: info for info in classes}
    seen: dict[int, int] = {}
    labels = {}
    for segment in segments:
        info = known[segment["category_id"]]
        number = seen.get(info.id, 0)
        seen[info.id] = number + 1
        text = re.sub("(-other|-stuff)?(-merged)?$", "", info.name)  # COCO's marks of merged classes
        if "score" in segment:
            text += f" {int(100 * segment['score'])}%"
        labels[segment["id"]] = Label(text, _shade(info.colour, _SHADES[number % len(_SHADES)]))
    return labels


def draw_overlay(image: np.ndarray, ids: np.ndarray, labels: Mapping[int, Label]) -> Image.Image:
    """The image uint8 [H, W, 3] under the segments of ids [H, W]; an id without label leaves it as it is.

    A segment's name stands where it is widest, or is left out where no name fits. The picture has the image's size,
    times a whole factor where that is below 480 pixels.
    """
    factor = -(-_ENLARGED_TO // max(ids.shape))
    image, ids = (array.repeat(factor, 0).repeat(factor, 1) for array in (image, ids))
    unit = max(1, round(max(ids.shape) / _UNIT))
    colours = np.zeros((max(int(ids.max()), *labels, 0) + 1, 3), np.float32)
    opacity = np.zeros((len(colours), 1), np.float32)
    for id_, label in labels.items():
        colours[id_], opacity[id_] = label.colour, _OPACITY
    picture = image + opacity[ids] * (colours[ids] - image)
    edges = _edges(ids, unit)
    picture[edges] = 0.3 * picture[edges] + 0.7 * 255
    result = Image.fromarray(picture.astype(np.uint8))
    _write_names(result, ids, labels, unit)
    return result


def _shade(colour: Colour, amount: float) -> Colour:
    target = 255 if amount > 0 else 0
    red, green, blue = (round(value + abs(amount) * (target - value)) for value in colour)
    return red, green, blue


def _edges(ids: np.ndarray, width: int) -> np.ndarray:
    """Pixels bool [H, W] within `width` left of or above a change of segment."""
    edges = np.zeros(ids.shape, bool)
    for step in range(1, width + 1):
        edges[:, :-step] |= ids[:, step:] != ids[:, :-step]
        edges[:-step] |= ids[step:] != ids[:-step]
    return edges


def _write_names(picture: Image.Image, ids: np.ndarray, labels: Mapping[int, Label], unit: int) -> None:
    size = 14 * unit
    font = ImageFont.load_default(size)
    draw = ImageDraw.Draw(picture, "RGBA")
    cell = -(-max(ids.shape) // _GRID)
    grid = ids[cell // 2 :: cell, cell // 2 :: cell]
    areas = {id_: int((grid == id_).sum()) for id_ in labels}
    taken: list[Box] = []
    for id_ in sorted(labels, key=areas.__getitem__):  # the small ones have the least choice
        left, top, right, bottom = draw.textbbox((0, 0), labels[id_].text, font)
        pad = size / 4
        extent = (right - left + 2 * pad, size + pad)
        box = _place(grid == id_, cell, extent, picture.size, 0.5 * size, taken)
        if box is None:
            continue
        taken.append((box[0] - unit, box[1] - unit, box[2] + unit, box[3] + unit))
        draw.rounded_rectangle(box, pad, (*_shade(labels[id_].colour, -0.72), 190))
        middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        draw.text(middle, labels[id_].text, (255, 255, 255), font, anchor="mm")


def _place(
    mask: np.ndarray, cell: int, extent: tuple[float, float], size: tuple[int, int], depth: float, taken: Sequence[Box]
) -> Box | None:
    """Box of that extent (width, height) around the mask's deepest cell where it hits no other, inside the picture.

    None where no cell is as deep (far from the mask's edge, in pixels) as `depth`.
    """
    if extent[0] > size[0] or extent[1] > size[1]:
        return None
    depths = cell * distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    rows, columns = np.nonzero(depths >= depth)
    left = np.clip((columns + 0.5) * cell - extent[0] / 2, 0, size[0] - extent[0])
    top = np.clip((rows + 0.5) * cell - extent[1] / 2, 0, size[1] - extent[1])
    free = np.ones(len(rows), bool)
    for box in taken:
        free &= (left > box[2]) | (left + extent[0] < box[0]) | (top > box[3]) | (top + extent[1] < box[1])
    if not free.any():
        return None
    best = int(np.where(free, depths[rows, columns], -1).argmax())
    return left[best], top[best], left[best] + extent[0], top[best] + extent[1]
