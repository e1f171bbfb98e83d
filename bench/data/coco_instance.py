"""Reader of the official COCO instance layout.

<root>/<split>/*.jpg or *.png
<root>/annotations/instances_<split>.json    images, annotations (polygons or run-length codes), categories
"""

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from bench.data.coco import Sample
from bench.data.coco_files import (
    AGAIN,
    NUMBER,
    TEXT,
    Category,
    Packed,
    annotation_file,
    brief,
    entries,
    missing_files,
    parse_images,
    read_json,
    refuse_missing,
)
from bench.data.images import read_image
from bench.errors import BenchError


class CocoInstance(Dataset):
    """Images with the masks of their objects, which may overlap, in ascending image id.

    Crowd regions are no targets (the evaluation, which reads the annotation file itself, ignores them), nor are masks
    without pixels; images without objects have N = 0. Masks are those of pycocotools' `annToMask`, made on access.
    Images turned by an EXIF flag are turned upright. Raises BenchError as `CocoPanoptic`.
    """

    task = "instance"

    def __init__(self, root: Path, split: str, complete: bool = True):
        self.root, self.split = Path(root), split
        self.annotation_file = annotation_file(self.root, "instances", split)
        self.image_dir = self.root / split
        content = read_json(self.annotation_file)
        self.images = brief(parse_images(content, self.annotation_file, "instance"))
        self.categories = _categories(content, self.annotation_file)
        self._objects = Packed(self._parse(content))
        if complete:
            refuse_missing(self.missing(), len(self), "images")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        entry, path = self.images[index], self.files(index)[0]
        pixels = read_image(path)
        self._refuse_size(entry, path, pixels.shape[:2])
        labels, masks = self._masks(index)
        image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
        return Sample(entry["id"], image, torch.from_numpy(labels), torch.from_numpy(masks))

    def files(self, index: int) -> list[Path]:
        """The image."""
        return [self.image_dir / self.images[index]["file_name"]]

    def missing(self) -> list[Path]:
        """Images that are not there. Raises BenchError for a missing folder."""
        return missing_files(self.image_dir, [image["file_name"] for image in self.images])

    def _refuse_size(self, entry: dict, path: Path, size: tuple[int, int]) -> None:
        if size != (entry["height"], entry["width"]):
            raise BenchError(
                f"{path} is {size[1]}x{size[0]} but {self.annotation_file} says {entry['width']}x{entry['height']}: "
                "download the matching pair again"
            )

    def _masks(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Labels int64 [N] and masks bool [N, H, W]."""
        from pycocotools import mask as rle_codec  # only readers of instances need the package

        entry = self.images[index]
        size = height, width = entry["height"], entry["width"]
        try:
            objects = [(label, _code(segmentation, size)) for label, segmentation in self._objects[index]]
        except (ValueError, TypeError) as error:
            raise BenchError(
                f"{self.annotation_file}: a segmentation of image {entry['id']} is no mask of {width}x{height} pixels: "
                f"{AGAIN}"
            ) from error
        objects = [(label, code) for label, code in objects if code is not None and rle_codec.area(code) > 0]
        if not objects:
            return np.zeros(0, np.int64), np.zeros((0, *size), bool)
        labels, codes = zip(*objects, strict=True)
        masks = np.ascontiguousarray(rle_codec.decode(list(codes)).transpose(2, 0, 1)).view(bool)
        return np.array(labels, np.int64), masks

    def _parse(self, content: dict) -> list[list[tuple[int, list | dict]]]:
        """An image: class index and segmentation of its objects, without crowds."""
        path = self.annotation_file
        class_index = {category.id: index for index, category in enumerate(self.categories)}
        position = {image["id"]: index for index, image in enumerate(self.images)}
        parsed: list[list[tuple[int, list | dict]]] = [[] for _ in self.images]
        keys = {"id": NUMBER, "image_id": NUMBER, "category_id": NUMBER, "segmentation": (list, dict)}
        for annotation in entries(content, "annotations", keys, path, "instance"):
            image_id, category_id = annotation["image_id"], annotation["category_id"]
            if image_id not in position or category_id not in class_index:
                what, where = ("image", "images") if image_id not in position else ("category", "categories")
                raise BenchError(
                    f"{path}: annotation {annotation['id']} is of {what} {annotation[what + '_id']}, which is not in "
                    f"'{where}': {AGAIN}"
                )
            if not annotation.get("iscrowd", 0):
                parsed[position[image_id]].append((class_index[category_id], annotation["segmentation"]))
        return parsed


def _code(segmentation: list | dict, size: tuple[int, int]) -> dict | None:
    """Run lengths as pycocotools' `annToRLE` makes them; None without a polygon that has an area, as in detectron2.

    Raises ValueError or TypeError for what is no segmentation.
    """
    if isinstance(segmentation, list):
        segmentation = [p for p in segmentation if np.ndim(p) != 1 or (len(p) >= 6 and len(p) % 2 == 0)]
        if not segmentation:
            return None
    from bench.data.run_lengths import to_rle

    return to_rle(segmentation, size)


def _categories(content: dict, path: Path) -> tuple[Category, ...]:
    found = entries(content, "categories", {"id": NUMBER, "name": TEXT}, path, "instance")
    return tuple(Category(id_, name, True) for id_, name in sorted((entry["id"], entry["name"]) for entry in found))
