"""Masks and maps of segments as COCO's run lengths (down the columns, off and on in turn) and back."""

from collections.abc import Mapping, Sequence

import numpy as np
from pycocotools import mask as rle_codec

from bench.data.coco import runs

_FAR = 1e6  # pixels; pycocotools walks along the sides of a polygon


def encode_masks(masks: np.ndarray) -> list[dict]:
    """COCO run-length encodings ({"size", "counts"}, JSON-ready) of boolean masks [N, H, W]."""
    if len(masks) == 0:
        return []
    # The encoder reads columns: [N, W, H] in C order is [H, W, N] in Fortran order, without a second copy.
    columns = np.ascontiguousarray(masks.transpose(0, 2, 1)).view(np.uint8).T
    return [_json_ready(rle) for rle in rle_codec.encode(columns)]


def encode_segments(segment_ids: np.ndarray, wanted: Sequence[int]) -> list[dict]:
    """`encode_masks` of `segment_ids == id` for each wanted id, in one pass over the map [H, W]."""
    starts, lengths, values = runs(segment_ids.T.reshape(-1))
    order = np.argsort(values, kind="stable")  # so that the runs of one segment stay in their order
    sorted_values = values[order]
    ids = np.array(wanted, dtype=np.int64)
    firsts, ends = np.searchsorted(sorted_values, ids), np.searchsorted(sorted_values, ids, side="right")
    height, width = segment_ids.shape
    raw = []
    for first, end in zip(firsts, ends, strict=True):
        mine = order[first:end]
        edges = np.empty(2 * len(mine) + 2, dtype=np.int64)
        edges[0], edges[-1] = 0, segment_ids.size
        edges[1:-1:2], edges[2:-1:2] = starts[mine], starts[mine] + lengths[mine]
        counts = np.diff(edges)
        raw.append({"size": [height, width], "counts": (counts if counts[-1] else counts[:-1]).tolist()})
    return [_json_ready(rle) for rle in rle_codec.frPyObjects(raw, height, width)] if raw else []


def bounding_box(rle: Mapping) -> list[float]:
    """Left, top, width and height in pixels of a mask in run lengths; zeros for an empty one."""
    return rle_codec.toBbox(rle).tolist()


def segment_annotations(image_id: int, segment_ids: np.ndarray, segments: Sequence[Mapping]) -> list[dict]:
    """One COCO annotation with RLE per segment (`id` left to the caller); segments need `id` and `category_id`."""
    masks = encode_segments(segment_ids, [segment["id"] for segment in segments])
    return [
        {
            "image_id": image_id,
            "category_id": segment["category_id"],
            "iscrowd": int(segment.get("iscrowd", 0)),
            "segmentation": rle,
            "area": int(rle_codec.area(rle)),
            "bbox": bounding_box(rle),
        }
        for segment, rle in zip(segments, masks, strict=True)
    ]


def to_rle(segmentation: object, size: tuple[int, int]) -> dict:
    """A COCO segmentation (polygons, plain run lengths or their string) of an image of `size` (H, W) as `encode_masks`.

    Raises ValueError for anything else, and for run lengths that do not fill the image exactly: decoders trust them.
    """
    height, width = size
    if isinstance(segmentation, list):
        try:
            polygons = [np.asarray(polygon, dtype=np.float64) for polygon in segmentation]
        except OverflowError as error:
            raise ValueError("a polygon with numbers that are none") from error
        if not polygons or any(p.ndim != 1 or len(p) < 6 or len(p) % 2 or not (abs(p) < _FAR).all() for p in polygons):
            raise ValueError("a polygon needs three points or more")
        # Far outside the image, points would only cost memory.
        limit = 4.0 * max(size)
        parts = [np.clip(polygon, -limit, limit).tolist() for polygon in polygons]
        return _json_ready(rle_codec.merge(rle_codec.frPyObjects(parts, height, width)))
    if not isinstance(segmentation, dict) or list(segmentation.get("size") or ()) != [height, width]:
        raise ValueError(f"no polygons and no run lengths of a {width}x{height} image")
    counts = segmentation.get("counts")
    lengths = run_lengths(counts)
    if len(lengths) == 0 or (lengths < 0).any() or lengths.sum() != height * width:
        raise ValueError(f"run lengths that do not fill a {width}x{height} image")
    if isinstance(counts, str):
        return {"size": [height, width], "counts": counts}
    return _json_ready(rle_codec.frPyObjects({"size": [height, width], "counts": lengths.tolist()}, height, width))


def run_lengths(counts: object) -> np.ndarray:
    """Run lengths int64 of COCO's list or string: five bits a character, lowest first, 32 says that more follow, the
    last one's 16 is the sign; from the fourth on a number is the difference to the one two before it.
    """
    if isinstance(counts, list):
        if not all(isinstance(count, int) and 0 <= count < 2**31 for count in counts):
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


def _json_ready(rle: dict) -> dict:
    return {"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode()}
