"""The data sets by name. A new one is a reader in this folder and a line here."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.data import semantic
from bench.data.coco import CocoPanoptic
from bench.data.coco_files import fingerprint
from bench.data.coco_instance import CocoInstance
from bench.data.merged import MergedPanoptic
from bench.data.synthesis import synthetic
from bench.errors import BenchError, unknown_name

Dataset = CocoPanoptic | CocoInstance | semantic.SemanticImages

_PANOPTIC, _INSTANCES = "annotations/panoptic_{}.json", "annotations/instances_{}.json"


@dataclass(frozen=True)
class DatasetInfo:
    """Facts about a data set that do not need its files.

    task: what is trained and evaluated, "panoptic", "instance" or "semantic" (where all classes count as stuff).
    images: official number of images a split, where there is one. test_split: the one that is evaluated, if that is
    not `val_split`. marker: path below the data set's folder by which that is known, {} being a split. folders: its
    usual names beside other data sets'. reader(root, split, complete=...) opens a split.
    """

    name: str
    task: str
    num_things: int
    num_stuff: int
    train_split: str
    val_split: str
    reader: Callable[..., Dataset]
    marker: str
    images: Mapping[str, int] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    test_split: str | None = None
    generated: bool = False  # written to the cache when it is missing, instead of asked for

    @property
    def num_classes(self) -> int:
        return self.num_things + self.num_stuff

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of all splits with annotations."""
        return (self.train_split, self.val_split, *([self.test_split] if self.test_split else []))

    @property
    def eval_split(self) -> str:
        """The split that results are reported on."""
        return self.test_split or self.val_split


_COCO_IMAGES = {"train2017": 118_287, "val2017": 5000}
_ADE20K_IMAGES = {"training": 20_210, "validation": 2000}
_CITYSCAPES_IMAGES = {"train": 2975, "val": 500}
_CAMVID_IMAGES = {"train": 367, "val": 101, "test": 233}
_NUCLEI_IMAGES = {"train": 357, "val": 88}
_SYNTHETIC_STUFF = synthetic.NUM_CLASSES - synthetic.NUM_THINGS

DATASETS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo("coco_panoptic", "panoptic", 80, 53, "train2017", "val2017", CocoPanoptic, _PANOPTIC,
                    _COCO_IMAGES, ("coco",)),
        DatasetInfo("coco_instance", "instance", 80, 0, "train2017", "val2017", CocoInstance, _INSTANCES,
                    _COCO_IMAGES, ("coco",)),
        DatasetInfo("ade20k", "semantic", 0, 150, "training", "validation", semantic.ade20k, "images/{}",
                    _ADE20K_IMAGES, ("ade20k", "ADEChallengeData2016")),
        DatasetInfo("cityscapes", "semantic", 0, 19, "train", "val", semantic.cityscapes, "leftImg8bit/{}",
                    _CITYSCAPES_IMAGES, ("cityscapes",)),
        DatasetInfo("camvid", "semantic", 0, 11, "train", "val", semantic.camvid, "images/{}",
                    _CAMVID_IMAGES, ("camvid",), test_split="test"),
        DatasetInfo("nuclei", "panoptic", 1, 1, "train", "val", CocoPanoptic, _PANOPTIC, _NUCLEI_IMAGES, ("nuclei",)),
        DatasetInfo("synthetic_semantic", "semantic", 0, synthetic.NUM_CLASSES, "train", "val", MergedPanoptic,
                    _PANOPTIC, generated=True),
        DatasetInfo("synthetic_panoptic", "panoptic", synthetic.NUM_THINGS, _SYNTHETIC_STUFF, "train", "val",
                    CocoPanoptic, _PANOPTIC, generated=True),
    )
}  # fmt: skip


def get_dataset_info(name: str) -> DatasetInfo:
    """Raises BenchError for an unknown name, naming the nearest known one."""
    if name not in DATASETS:
        raise unknown_name("data set", name, DATASETS)
    return DATASETS[name]


def dataset_root(name: str, root: Path | None, progress: Callable[[int, int], None] | None = None) -> Path:
    """Folder that holds the data set's files.

    root: for a generated data set the cache folder (None: `default_cache()`), where it is written when missing, with
    `progress(done, total)`; else the folder of the data set, or one that holds it by one of its usual names. Raises
    BenchError where that is missing.
    """
    info = get_dataset_info(name)
    if info.generated:
        return synthetic.ensure(default_cache() if root is None else Path(root), progress)
    remedy = f"give the folder of {name} (with {info.marker.format(info.val_split)}) with --data-root or BENCH_DATA"
    if root is None:
        raise BenchError(f"data set {name} needs its files: {remedy}")
    root = Path(root)
    if not root.is_dir():
        raise BenchError(f"{root} is not a folder: {remedy}")
    candidates = [root, *(root / folder for folder in info.folders)]
    return next((folder for folder in candidates if _holds(folder, info)), root)


def _holds(folder: Path, info: DatasetInfo) -> bool:
    return any((folder / info.marker.format(split)).exists() for split in info.splits)


def full_name(info: DatasetInfo, split: str) -> str:
    """A split's own name for "train" and "val"."""
    return {"train": info.train_split, "val": info.val_split}.get(split, split)


def open_split(
    name: str, split: str, root: Path | None = None, progress: Callable[[int, int], None] | None = None,
    complete: bool = True,
) -> Dataset:  # fmt: skip
    """Open a split ("train", "val": the data set's own, or a split's full name); `root` as in `dataset_root`.

    Raises BenchError for an unknown name, missing (unless `complete` is False) or broken files, and other categories
    than the data set's.
    """
    info = get_dataset_info(name)
    folder, split = dataset_root(name, root, progress), full_name(info, split)
    try:
        dataset = info.reader(folder, split, complete=complete, **({"cache": True} if info.generated else {}))
    except BenchError as error:
        if info.generated:
            raise BenchError(
                f"the generated data set is damaged, delete {folder} to have it again ({error})"
            ) from error
        raise
    if info.task != "semantic":
        _refuse_other_classes(dataset, info)
    return dataset


def _refuse_other_classes(dataset: CocoPanoptic | CocoInstance, info: DatasetInfo) -> None:
    things = sum(category.is_thing for category in dataset.categories)
    if (things, len(dataset.categories)) != (info.num_things, info.num_classes):
        raise BenchError(
            f"{dataset.annotation_file} has {things} thing classes of {len(dataset.categories)}, {info.name} has "
            f"{info.num_things} of {info.num_classes}: is it the right data set?"
        )


def split_fingerprint(name: str, split: str, root: Path | None = None) -> str:
    """sha256 (hex) that names a split's files in records; arguments as of `open_split`.

    COCO's layouts: annotation file, names and sizes of images. Others: names and sizes of images and label images.
    Raises BenchError for missing files.
    """
    info = get_dataset_info(name)
    folder, split = dataset_root(name, root), full_name(info, split)
    if info.task == "semantic":
        return info.reader(folder, split, complete=False).fingerprint()
    return fingerprint(folder, split, "instances" if info.task == "instance" else "panoptic")


def default_cache() -> Path:
    """Cache folder of this program: $XDG_CACHE_HOME/hcformer-bench, by default below ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hcformer-bench"
