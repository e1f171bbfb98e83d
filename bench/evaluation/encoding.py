"""Segments, true or predicted, in the forms that the metrics want: class labels and COCO annotations with RLE."""

import numpy as np
from pycocotools import mask as rle_codec

VOID = -1  # label of pixels without ground truth


def label_map(segment_ids: np.ndarray, segments: list[dict], class_index: dict[int, int]) -> np.ndarray:
    """Contiguous class labels int64 [H, W], `VOID` where no segment lies. Crowd segments have their class."""
    labels = np.full(segment_ids.shape, VOID, dtype=np.int64)
    for segment in segments:
        labels[segment_ids == segment["id"]] = class_index[segment["category_id"]]
    return labels


def encode_masks(masks: np.ndarray) -> list[dict]:
    """COCO run-length encodings ({"size", "counts"}, JSON-ready) of boolean masks [N, H, W]."""
    if len(masks) == 0:
        return []
    # The encoder reads columns: [N, W, H] in C order is [H, W, N] in Fortran order, without a second copy.
    columns = np.ascontiguousarray(masks.transpose(0, 2, 1)).view(np.uint8).T
    encoded = rle_codec.encode(columns)
    return [{"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode()} for rle in encoded]


def segment_annotations(image_id: int, segment_ids: np.ndarray, segments: list[dict]) -> list[dict]:
    """One COCO annotation with RLE per segment (`id` left to the caller); segments need `id` and `category_id`."""
    ids = np.array([segment["id"] for segment in segments], dtype=segment_ids.dtype)
    masks = encode_masks(segment_ids[None] == ids[:, None, None])
    return [
        {
            "image_id": image_id,
            "category_id": segment["category_id"],
            "iscrowd": int(segment.get("iscrowd", 0)),
            "segmentation": rle,
            "area": int(rle_codec.area(rle)),
            "bbox": rle_codec.toBbox(rle).tolist(),
        }
        for segment, rle in zip(segments, masks, strict=True)
    ]
