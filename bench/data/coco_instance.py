"""Reader of the official COCO instance layout.

<root>/<split>/*.jpg or *.png
<root>/annotations/instances_<split>.json    images, annotations (polygons or run-length codes), categories
"""

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from bench.data.annotations.coco_json import Category
from bench.data.annotations.instances import InstanceFile, read_instances
from bench.data.annotations.shared import read_once
from bench.data.coco import Sample
from bench.data.coco_files import annotation_file, fingerprint, missing_files, refuse_missing
from bench.data.images import read_image, refuse_listed_size
from bench.errors import BenchError


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
        self.annotations = read_once(self.annotation_file, read_instances, InstanceFile)
        self.images = self.annotations.images
        self.categories: tuple[Category, ...] = self.annotations.categories
        self._class_index = {category.id: index for index, category in enumerate(self.categories)}
        if complete:
            refuse_missing(self.missing(), len(self), "images")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        labels, masks = self._masks(index, self.targets(index))
        return Sample(self.images[index]["id"], self._image(index), labels, masks)

    def for_training(self) -> "TrainingInstances":
        """These images as Mask2Former trains on them."""
        return TrainingInstances(self)

    def files(self, index: int) -> list[Path]:
        """The image."""
        return [self.image_dir / self.images[index]["file_name"]]

    def missing(self) -> list[Path]:
        """Images that are not there. Raises BenchError for a missing folder."""
        return missing_files(self.image_dir, [image["file_name"] for image in self.images])

    def fingerprint(self) -> str:
        """That of the split (`coco_files.fingerprint`). Raises BenchError for missing files."""
        return fingerprint(self.root, self.split, "instances", self.images)

    def _image(self, index: int) -> torch.Tensor:
        """uint8 [3, H, W]."""
        path = self.files(index)[0]
        pixels = read_image(path)
        refuse_listed_size(path, pixels.shape[:2], self.images[index], self.annotation_file)
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()

    def targets(self, index: int) -> list[tuple[int, list | dict]]:
        """Class index and segmentation of the objects of an image, without crowds."""
        objects = (instance for instance in self.annotations.objects(index) if not instance.iscrowd)
        return [(self._class_index[instance.category_id], instance.segmentation) for instance in objects]

    def _masks(self, index: int, objects: list[tuple[int, list | dict]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Labels int64 [N] and masks bool [N, H, W] of those objects of an image that have a pixel."""
        from pycocotools import mask as rle_codec  # only readers of instances need the package

        from bench.data.run_lengths import to_rle

        size = self.images[index]["height"], self.images[index]["width"]
        codes = [(label, to_rle(segmentation, size)) for label, segmentation in objects]
        codes = [(label, code) for label, code in codes if rle_codec.area(code) > 0]
        if not codes:
            return torch.zeros(0, dtype=torch.int64), torch.zeros(0, *size, dtype=torch.bool)
        masks = rle_codec.decode([code for _, code in codes]).transpose(2, 0, 1)
        return torch.tensor([label for label, _ in codes]), torch.from_numpy(np.ascontiguousarray(masks).view(bool))


class TrainingInstances(Dataset):
    """`CocoInstance` as Mask2Former trains on it: no images without an object, crowds aside, and polygons as outlines.

    Raises BenchError where no image is left, and as `CocoInstance` does.
    """

    def __init__(self, instances: CocoInstance):
        self._instances, self.categories = instances, instances.categories
        self._indices = [index for index in range(len(instances)) if instances.targets(index)]
        self.images = [instances.images[index] for index in self._indices]
        if not self.images:
            raise BenchError(f"{instances.annotation_file} has no objects to train on: is it the right file?")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        """The first targets have outlines, the others masks."""
        from bench.data.run_lengths import outline_of

        instances, index = self._instances, self._indices[index]
        entry, objects = instances.images[index], instances.targets(index)
        outlined = [(label, polygons) for label, polygons in objects if isinstance(polygons, list)]
        labels, masks = instances._masks(index, [found for found in objects if isinstance(found[1], dict)])
        outlines = tuple(outline_of(polygons, (entry["height"], entry["width"])) for _, polygons in outlined)
        labels = torch.cat((torch.tensor([label for label, _ in outlined], dtype=torch.int64), labels))
        return Sample(entry["id"], instances._image(index), labels, masks, outlines)
