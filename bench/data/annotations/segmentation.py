"""COCO's segmentations, polygons or run lengths, of truth and of predictions: the one check of both."""

import math
import reprlib

import numpy as np

_FAR = 1e6  # pixels; pycocotools walks along the sides of a polygon
_FEWEST = 6  # numbers of a polygon: less than three points cover nothing
_NUMBERS = frozenset((int, float))


def checked_segmentation(segmentation: object, size: tuple[int, int]) -> tuple[list | dict, int]:
    """The segmentation of an image of `size` (H, W) without parts that cover nothing (polygons of less than three
    points, as in detectron2), and how many those were; an empty list where nothing is left.

    Raises ValueError for anything that is neither a list of polygons [x, y, x, y, ...] in pixels nor run lengths
    ({"size", "counts"}, a list or COCO's string) that fill the image exactly.
    """
    if isinstance(segmentation, list):
        for part in segmentation:
            _check_polygon(part)
        kept = [part for part in segmentation if len(part) >= _FEWEST]
        return kept, len(segmentation) - len(kept)
    _check_filled(segmentation, size)
    return segmentation, 0


def _check_polygon(part: object) -> None:
    if type(part) is not list or not _NUMBERS.issuperset(map(type, part)):
        raise ValueError(f"a polygon {reprlib.repr(part)} that is no list of numbers")
    if len(part) % 2:
        raise ValueError(f"a polygon of {len(part)} numbers, an x without its y")
    # Sums alone show what is no number (nan): it is neither smaller nor larger than anything.
    if part and not (-_FAR < min(part) and max(part) < _FAR and math.isfinite(sum(part))):
        raise ValueError(f"a polygon with a corner that is no number or {_FAR:.0f} pixels away")


def _check_filled(segmentation: object, size: tuple[int, int]) -> None:
    height, width = size
    found = segmentation.get("size") if isinstance(segmentation, dict) else None
    if type(found) is not list or found != [height, width] or not all(type(side) is int for side in found):
        raise ValueError(f"no polygons and no run lengths of a {width}x{height} image")
    lengths = run_lengths(segmentation.get("counts"))
    if len(lengths) == 0 or (lengths < 0).any() or lengths.sum() != height * width:
        raise ValueError(f"run lengths that do not fill a {width}x{height} image")


def run_lengths(counts: object) -> np.ndarray:
    """Run lengths int64 of COCO's list or string: five bits a character, lowest first, 32 says that more follow, the
    last one's 16 is the sign; from the fourth on a number is the difference to the one two before it.
    """
    if isinstance(counts, list):
        if not all(type(count) is int and 0 <= count < 2**31 for count in counts):
            raise ValueError("run lengths that are no counts")
        return np.array(counts, dtype=np.int64)
    if not isinstance(counts, str) or not counts.isascii():
        raise ValueError("run lengths that are no text")
    bits = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((bits & 32) == 0)
    if len(bits) == 0 or bits.min() < 0 or bits.max() > 63 or len(ends) == 0 or ends[-1] != len(bits) - 1:
        raise ValueError("run lengths that are no run lengths")
    starts = np.concatenate([[0], ends[:-1] + 1])
    sizes = ends - starts + 1
    if sizes.max() > 7:
        raise ValueError("run lengths that are too long")
    places = np.arange(len(bits)) - np.repeat(starts, sizes)
    numbers = np.add.reduceat((bits & 31) << (5 * places), starts)
    numbers -= np.where(bits[ends] & 16, np.int64(1) << (5 * sizes), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
