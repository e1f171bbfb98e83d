"""Reader of the official COCO instance layout.

<root>/<split>/*.jpg or *.png
<root>/annotations/instances_<split>.json    images, annotations (polygons or run-length codes), categories
"""

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from bench.data.annotations.coco_json import Category
from bench.data.annotations.instances import read_instances
from bench.data.coco import Sample
from bench.data.coco_files import annotation_file, missing_files, refuse_missing
from bench.data.images import read_image, refuse_listed_size


class CocoInstance(Dataset):
    """Images with the masks of their objects, which may overlap, in ascending image id.

    Crowd regions are no targets (the evaluation ignores what lies in them), nor are masks without pixels; images
    without objects have N = 0. Masks are those of pycocotools' `annToMask`, made on access. Images turned by an EXIF
    flag are turned upright. Raises BenchError as `CocoPanoptic`.
    """

    task = "instance"

    def __init__(self, root: Path, split: str, complete: bool = True):
        self.root, self.split = Path(root), split
        self.annotation_file = annotation_file(self.root, "instances", split)
        self.image_dir = self.root / split
        self.annotations = read_instances(self.annotation_file)
        self.images = self.annotations.images
        self.categories: tuple[Category, ...] = self.annotations.categories
        self._class_index = {category.id: index for index, category in enumerate(self.categories)}
        if complete:
            refuse_missing(self.missing(), len(self), "images")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        entry, path = self.images[index], self.files(index)[0]
        pixels = read_image(path)
        refuse_listed_size(path, pixels.shape[:2], entry, self.annotation_file)
        labels, masks = self._masks(index)
        image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
        return Sample(entry["id"], image, torch.from_numpy(labels), torch.from_numpy(masks))

    def files(self, index: int) -> list[Path]:
        """The image."""
        return [self.image_dir / self.images[index]["file_name"]]

    def missing(self) -> list[Path]:
        """Images that are not there. Raises BenchError for a missing folder."""
        return missing_files(self.image_dir, [image["file_name"] for image in self.images])

    def _masks(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Labels int64 [N] and masks bool [N, H, W]."""
        from pycocotools import mask as rle_codec  # only readers of instances need the package

        from bench.data.run_lengths import to_rle

        size = self.images[index]["height"], self.images[index]["width"]
        objects = [
            (self._class_index[instance.category_id], to_rle(instance.segmentation, size))
            for instance in self.annotations.objects(index)
            if not instance.iscrowd
        ]
        objects = [(label, code) for label, code in objects if rle_codec.area(code) > 0]
        if not objects:
            return np.zeros(0, np.int64), np.zeros((0, *size), bool)
        labels, codes = zip(*objects, strict=True)
        masks = np.ascontiguousarray(rle_codec.decode(list(codes)).transpose(2, 0, 1)).view(bool)
        return np.array(labels, np.int64), masks
