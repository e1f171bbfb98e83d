"""Ground truth of a panoptic data set as the evaluator needs it: segment ids, class labels and RLE annotations."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle_codec

from bench.errors import BenchError

VOID = -1  # label of pixels without ground truth


def load_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises BenchError when the file is missing, damaged, or not an object."""
    try:
        content = json.loads(Path(path).read_text())
    except OSError as error:
        raise BenchError(f"cannot read {path} ({error.strerror}): check the data set's root folder") from None
    except ValueError:
        raise BenchError(f"{path} is no JSON file: download it again") from None
    if not isinstance(content, dict):
        raise BenchError(f"{path} is no COCO annotation file (no JSON object): download it again")
    return content


def read_annotations(path: Path) -> dict[int, dict]:
    """Panoptic annotations by image id: {"file_name", "segments_info": [{"id", "category_id", "iscrowd"}]}.

    Raises BenchError when the file is not in the COCO panoptic format.
    """
    try:
        return {
            int(entry["image_id"]): {
                "file_name": str(entry["file_name"]),
                "segments_info": [
                    {
                        "id": int(segment["id"]),
                        "category_id": int(segment["category_id"]),
                        "iscrowd": int(segment.get("iscrowd", 0)),
                    }
                    for segment in entry["segments_info"]
                ],
            }
            for entry in load_json(path)["annotations"]
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BenchError(f"{path} is not in the COCO panoptic format: download it again") from None


def read_segment_ids(path: Path) -> np.ndarray:
    """Segment ids int32 [H, W] of a panoptic PNG: R + 256 G + 65536 B, 0 is void. Raises BenchError if unreadable."""
    try:
        with Image.open(path) as png:
            colours = np.asarray(png.convert("RGB"), dtype=np.int32)
    except OSError:
        raise BenchError(f"cannot read the panoptic map {path}: restore it from the data set") from None
    return colours @ np.array([1, 256, 65536], dtype=np.int32)


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
            "iscrowd": segment.get("iscrowd", 0),
            "segmentation": rle,
            "area": int(rle_codec.area(rle)),
            "bbox": rle_codec.toBbox(rle).tolist(),
        }
        for segment, rle in zip(segments, masks, strict=True)
    ]
