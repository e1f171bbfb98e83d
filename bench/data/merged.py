"""A panoptic data set as a semantic one: the segments of one class are one mask, things too."""

from dataclasses import replace

import torch

from bench.data.coco import CocoPanoptic, Sample


class MergedPanoptic(CocoPanoptic):
    """As `CocoPanoptic`, but each image has one mask a class that is present, in ascending order, and no things."""

    task = "semantic"
    missing_counts = False

    def __init__(self, root, split: str, cache: bool = False, complete: bool = True):
        super().__init__(root, split, cache, complete)
        self.categories = tuple(replace(category, is_thing=False) for category in self.categories)

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        present = torch.unique(sample.labels)
        masks = [sample.masks[sample.labels == label].any(0) for label in present]
        merged = torch.stack(masks) if masks else sample.masks
        return Sample(sample.image_id, sample.image, present, merged)
