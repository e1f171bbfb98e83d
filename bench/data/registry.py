"""The data sets by name. A new one is a file in this folder and a line here."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.data import synthetic
from bench.data.coco import CocoPanoptic
from bench.errors import BenchError, unknown_name


@dataclass(frozen=True)
class DatasetInfo:
    """Facts about a data set that do not need its files.

    task: what is trained and evaluated, "panoptic", "instance" or "semantic" (where all classes count as stuff).
    """

    name: str
    task: str
    num_things: int
    num_stuff: int
    train_split: str
    val_split: str
    val_images: int | None = None  # of the official validation split
    generated: bool = False  # written to the cache when it is missing, instead of asked for

    @property
    def num_classes(self) -> int:
        return self.num_things + self.num_stuff


DATASETS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo("coco_panoptic", "panoptic", 80, 53, "train2017", "val2017", 5000),
        DatasetInfo("coco_instance", "instance", 80, 0, "train2017", "val2017", 5000),
        DatasetInfo("ade20k", "semantic", 0, 150, "training", "validation", 2000),
        DatasetInfo("cityscapes", "semantic", 0, 19, "train", "val", 500),
        DatasetInfo(
            "synthetic_panoptic",
            "panoptic",
            synthetic.NUM_THINGS,
            synthetic.NUM_CLASSES - synthetic.NUM_THINGS,
            "train",
            "val",
            generated=True,
        ),
    )
}


def get_dataset_info(name: str) -> DatasetInfo:
    """Raises BenchError for an unknown name, naming the nearest known one."""
    if name not in DATASETS:
        raise unknown_name("data set", name, DATASETS)
    return DATASETS[name]


def dataset_root(name: str, root: Path | None, progress: Callable[[int, int], None] | None = None) -> Path:
    """Folder that holds the data set's files.

    root: for a generated data set the cache folder (None: `default_cache()`), where it is written when missing, with
    `progress(done, total)`; else the folder of the data set. Raises BenchError where that is missing.
    """
    info = get_dataset_info(name)
    if info.generated:
        return synthetic.ensure(default_cache() if root is None else Path(root), progress)
    remedy = f"give the folder of {name} (annotations/, {info.val_split}/) with --data-root or BENCH_DATA"
    if root is None:
        raise BenchError(f"data set {name} needs its files: {remedy}")
    if not Path(root).is_dir():
        raise BenchError(f"{root} is not a folder: {remedy}")
    return Path(root)


def open_split(
    name: str, split: str, root: Path | None = None, progress: Callable[[int, int], None] | None = None
) -> CocoPanoptic:
    """Open a split ("train", "val": the data set's own, or a split's full name); `root` as in `dataset_root`.

    Raises BenchError for an unknown name, missing or broken files, and other categories than the data set's.
    """
    info = get_dataset_info(name)
    if info.task != "panoptic":
        raise BenchError(f"data set {name} has no reader yet: models and weights only, choose a panoptic data set")
    split = {"train": info.train_split, "val": info.val_split}.get(split, split)
    folder = dataset_root(name, root, progress)
    try:
        dataset = CocoPanoptic(folder, split, cache=info.generated)
    except BenchError as error:
        if info.generated:
            raise BenchError(
                f"the generated data set is damaged, delete {folder} to have it again ({error})"
            ) from error
        raise
    things = sum(category.is_thing for category in dataset.categories)
    if (things, len(dataset.categories)) != (info.num_things, info.num_classes):
        raise BenchError(
            f"{dataset.annotation_file} has {things} thing classes of {len(dataset.categories)}, {name} has "
            f"{info.num_things} of {info.num_classes}: is it the right data set?"
        )
    return dataset


def default_cache() -> Path:
    """Cache folder of this program: $XDG_CACHE_HOME/hcformer-bench, by default below ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hcformer-bench"
