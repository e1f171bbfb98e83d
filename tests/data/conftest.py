"""Generated data sets, written once, and a writer of tiny COCO panoptic data sets."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data.synthesis import synthetic

CATEGORIES = [  # not in order, with holes
    {"id": 90, "name": "wall", "isthing": 0},
    {"id": 3, "name": "car", "isthing": 1},
    {"id": 17, "name": "cat", "isthing": 1},
]


@pytest.fixture(scope="session")
def synthetic_root(written_once) -> Path:
    return synthetic.ensure(written_once("cache", synthetic.ensure))


@pytest.fixture
def generated(generated_once, tmp_path):
    """generated(name) -> a copy of that folder for this test."""
    return lambda name: Path(shutil.copytree(generated_once(name), tmp_path / name))


class TinyCoco:
    """One image of 6 x 4 pixels: wall left (id 300 = 44 + 256), a cat (id 70000), a crowd of cars (id 5), a void."""

    def __init__(self, root: Path, split: str = "val"):
        self.root, self.split = root, split
        self.annotation_file = root / "annotations" / f"panoptic_{split}.json"
        self.image = root / split / "a.png"
        self.png = root / "annotations" / f"panoptic_{split}" / "a.png"
        self.png.parent.mkdir(parents=True)
        self.image.parent.mkdir()
        self.ids = np.array([[300, 300, 70000, 70000, 5, 0]] * 4)
        segments = [
            {"id": 70000, "category_id": 17, "iscrowd": 0},
            {"id": 300, "category_id": 90, "iscrowd": 0},
            {"id": 5, "category_id": 3, "iscrowd": 1},
        ]
        self.content = {
            "images": [{"id": 7, "file_name": "a.png", "width": 6, "height": 4}],
            "annotations": [{"image_id": 7, "file_name": "a.png", "segments_info": segments}],
            "categories": CATEGORIES,
        }
        self.save_ids(self.ids)
        self.save_json()
        Image.fromarray(np.arange(72, dtype=np.uint8).reshape(4, 6, 3)).save(self.image)

    def save_json(self) -> None:
        self.annotation_file.write_text(json.dumps(self.content))

    def save_ids(self, ids: np.ndarray) -> None:
        colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1)
        Image.fromarray(colours.astype(np.uint8)).save(self.png)


@pytest.fixture
def tiny(tmp_path) -> TinyCoco:
    return TinyCoco(tmp_path / "tiny")
