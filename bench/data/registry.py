"""Opens the splits of the data sets that `bench.experiments.datasets` declares."""

import os
from collections.abc import Callable
from pathlib import Path

from bench.data import semantic
from bench.data.annotations.coco_json import Category, refuse_other_categories
from bench.data.classes import classes_of
from bench.data.coco import CocoPanoptic
from bench.data.coco_instance import CocoInstance
from bench.data.synthesis import synthetic
from bench.errors import BenchError
from bench.experiments.datasets import Dataset, get_dataset
from bench.loading import load_object

Split = CocoPanoptic | CocoInstance | semantic.SemanticImages


def dataset_root(name: str, root: Path | None, progress: Callable[[int, int], None] | None = None) -> Path:
    """Folder that holds the data set's files.

    root: for a generated data set the cache folder (None: `default_cache()`), where it is written when missing, with
    `progress(done, total)`; else the folder of the data set, or one that holds it by one of its usual names. Raises
    BenchError where that is missing.
    """
    info = get_dataset(name)
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


def _holds(folder: Path, info: Dataset) -> bool:
    return any((folder / info.marker.format(split)).exists() for split in info.splits)


def full_name(info: Dataset, split: str) -> str:
    """A split's own name for "train" and "val"."""
    return {"train": info.train_split, "val": info.val_split}.get(split, split)


def open_split(
    name: str, split: str, root: Path | None = None, progress: Callable[[int, int], None] | None = None,
    complete: bool = True,
) -> Split:  # fmt: skip
    """Open a split ("train", "val": the data set's own, or a split's full name); `root` as in `dataset_root`.

    Raises BenchError for an unknown name, missing (unless `complete` is False) or broken files, and other categories
    than the data set's.
    """
    info = get_dataset(name)
    folder, split = dataset_root(name, root, progress), full_name(info, split)
    try:
        dataset = load_object(info.reader)(
            folder, split, complete=complete, **({"cache": True} if info.generated else {})
        )
    except BenchError as error:
        if info.generated:
            raise BenchError(
                f"the generated data set is damaged, delete {folder} to have it again ({error})"
            ) from error
        raise
    if hasattr(dataset, "annotation_file"):
        _refuse_other_classes(dataset, info)
        if info.task == "panoptic" and split == info.eval_split:
            _ = dataset.instances  # what the evaluation after a training would refuse is refused before it
    return dataset


def _refuse_other_classes(dataset: CocoPanoptic | CocoInstance, info: Dataset) -> None:
    """Other numbers, ids or names than those of the data set's class list: a model's classes would mean others."""
    things = sum(category.is_thing for category in dataset.categories)
    if (things, len(dataset.categories)) != (info.num_things, info.num_classes):
        raise BenchError(
            f"{dataset.annotation_file} has {things} thing classes of {len(dataset.categories)}, {info.name} has "
            f"{info.num_things} of {info.num_classes}: is it the right data set?"
        )
    expected = [Category(c.id, c.name, c.is_thing and info.task != "semantic") for c in classes_of(info.name)]
    refuse_other_categories(dataset.annotation_file, dataset.categories, info.name, expected)


def split_fingerprint(name: str, split: str, root: Path | None = None) -> str:
    """sha256 (hex) that names a split's files in records; arguments as of `open_split`.

    COCO's layouts: annotation file, names and sizes of images. Others: names and sizes of images and label images.
    Raises BenchError for missing files.
    """
    info = get_dataset(name)
    return load_object(info.reader)(dataset_root(name, root), full_name(info, split), complete=False).fingerprint()


def default_cache() -> Path:
    """Cache folder of this program: $XDG_CACHE_HOME/hcformer-bench, by default below ~/.cache.

    Raises BenchError where it is not there and cannot be made.
    """
    remedy = "set XDG_CACHE_HOME to a folder that can be written"
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hcformer-bench"
    except RuntimeError:
        raise BenchError(f"there is no home folder for generated data: {remedy}") from None
    nearest = next(folder for folder in (cache, *cache.absolute().parents) if os.path.exists(folder))
    if nearest != cache and not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        raise BenchError(f"{cache} cannot be made, {nearest} is not to be written: {remedy}")
    return cache
