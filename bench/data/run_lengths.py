"""Masks and maps of segments as COCO's run lengths (down the columns, off and on in turn) and back."""

from collections.abc import Mapping, Sequence

import numpy as np
from pycocotools import mask as rle_codec

from bench.data.annotations.segmentation import checked_segmentation
from bench.data.coco import Outline, runs


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

    Raises ValueError as `checked_segmentation`, and where nothing is left of it: decoders trust what they are given.
    """
    height, width = size
    segmentation, _ = checked_segmentation(segmentation, size)
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        if isinstance(counts, str):
            return {"size": [height, width], "counts": counts}
        return _json_ready(rle_codec.frPyObjects({"size": [height, width], "counts": counts}, height, width))
    if not segmentation:
        raise ValueError("no polygon, which needs three points or more")
    return _json_ready(_drawn(outline_of(segmentation, size), height, width))


def outline_of(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> Outline:
    """COCO's polygons [x, y, x, y, ...] of an image of `size` (H, W); far outside, corners would only cost memory."""
    limit = 4.0 * max(size)
    return [np.clip(np.array(polygon, dtype=np.float64), -limit, limit).reshape(-1, 2) for polygon in polygons]


def draw_outline(outline: Outline, height: int, width: int) -> np.ndarray:
    """Mask bool [height, width] of polygons, as pycocotools draws them; they may reach beyond it."""
    return rle_codec.decode(_drawn(outline, height, width)).view(bool)


def _drawn(outline: Outline, height: int, width: int) -> dict:
    flat = [polygon.reshape(-1).tolist() for polygon in outline]
    return rle_codec.merge(rle_codec.frPyObjects(flat, height, width))


def area_inside(outline: Outline, height: int, width: int) -> float:
    """Sum of the areas in pixels of polygons [P, 2], as far as they lie in the window from (0, 0)."""
    total = 0.0
    for polygon in outline:
        points = polygon
        for axis, limit, sign in ((0, 0, 1), (0, width, -1), (1, 0, 1), (1, height, -1)):  # Sutherland and Hodgman
            depth = sign * (points[:, axis] - limit)
            following, beyond = np.roll(points, -1, axis=0), np.roll(depth, -1)
            crosses = (depth < 0) != (beyond < 0)
            share = np.divide(depth, depth - beyond, out=np.zeros_like(depth), where=crosses)
            ends = np.stack((points, points + share[:, None] * (following - points)), axis=1)
            points = ends[np.stack((depth >= 0, crosses), axis=1)]
        x, y = points.T
        total += abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2
    return total


def _json_ready(rle: dict) -> dict:
    return {"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode()}
