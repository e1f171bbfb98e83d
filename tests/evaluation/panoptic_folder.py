"""Tiny data sets in the official COCO panoptic layout, and predictions with known probabilities."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.data.coco import CocoPanoptic

# Category ids with holes, things and stuff mixed, as in COCO. Contiguous classes: 0, 1, 2 things; 3, 4 stuff.
CATEGORIES = [(1, True), (3, True), (8, True), (92, False), (200, False)]
IS_THING = [is_thing for _, is_thing in CATEGORIES]


def save_ids(path: Path, ids: np.ndarray) -> None:
    Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)).save(path)


def write_dataset(root: Path, truth: dict[int, tuple[np.ndarray, list[dict]]], split: str = "val") -> CocoPanoptic:
    """truth: image id -> (segment ids [H, W], segments_info); images are black."""
    (root / split).mkdir(parents=True)
    folder = root / "annotations" / f"panoptic_{split}"
    folder.mkdir(parents=True)
    content = {
        "images": [],
        "annotations": [],
        "categories": [{"id": id_, "name": f"class {id_}", "isthing": int(thing)} for id_, thing in CATEGORIES],
    }
    for image_id, (ids, segments) in truth.items():
        height, width = ids.shape
        Image.new("RGB", (width, height)).save(root / split / f"{image_id}.png")
        save_ids(folder / f"{image_id}.png", ids)
        entry = {"id": image_id, "file_name": f"{image_id}.png", "height": height, "width": width}
        content["images"].append(entry)
        entry = {"image_id": image_id, "file_name": f"{image_id}.png", "segments_info": segments}
        content["annotations"].append(entry)
    folder.with_suffix(".json").write_text(json.dumps(content))
    return CocoPanoptic(root, split)


def class_logits(queries: list[tuple[int, float]], num_classes: int = len(CATEGORIES)) -> Tensor:
    """Logits [Q, K+1] whose softmax is the given (class, probability), the rest on "no object"."""
    probabilities = torch.zeros(len(queries), num_classes + 1)
    for row, (label, probability) in enumerate(queries):
        probabilities[row, num_classes] = 1 - probability
        probabilities[row, label] = probability
    return probabilities.log()


def mask_logits(masks: list, strength: float = 20.0) -> Tensor:
    """Logits [Q, H, W] of boolean masks."""
    return (2 * torch.as_tensor(np.stack(masks)).float() - 1) * strength


def perfect_prediction(ids: np.ndarray, segments: list[dict]) -> tuple[Tensor, Tensor]:
    index = {id_: position for position, (id_, _) in enumerate(CATEGORIES)}
    queries = [(index[segment["category_id"]], 0.99) for segment in segments]
    return class_logits(queries), mask_logits([ids == segment["id"] for segment in segments])
