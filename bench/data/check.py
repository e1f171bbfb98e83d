"""Whether a data set on disk is whole, before hours are spent on it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.data.annotations.fields import AGAIN
from bench.data.coco import CocoPanoptic
from bench.data.coco_instance import CocoInstance
from bench.data.images import checked_size
from bench.data.parallel import in_parallel
from bench.data.registry import Split, dataset_root, open_split
from bench.data.synthesis.layouts import images_per_split
from bench.errors import BenchError
from bench.experiments.datasets import Dataset, get_dataset

SAMPLE = 100  # images of a split that are decoded unless all are
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class SplitReport:
    """What was found in a split. problems: one line each. decoded: images whose pixels and labels were read.

    fingerprint: see `registry.split_fingerprint`; None where files are missing. left_out: what the annotations list
    that covers nothing (polygons of less than three points, segments without pixels in the images that were decoded).
    """

    split: str
    images: int
    decoded: int
    problems: list[str]
    fingerprint: str | None
    left_out: int = 0


def check(
    name: str, root: Path | None, everything: bool = False, progress: Progress | None = None
) -> list[SplitReport]:
    """Look at all splits of a data set: counts, missing files, sizes in file headers, and the samples themselves.

    Decodes `SAMPLE` images a split, all of them with `everything`; progress(done, total, split). Raises BenchError
    only for an unknown name or a root that is no folder.
    """
    info = get_dataset(name)
    dataset_root(name, root)
    return [_check_split(info, split, root, everything, progress) for split in info.splits]


def _check_split(
    info: Dataset, split: str, root: Path | None, everything: bool, progress: Progress | None
) -> SplitReport:
    try:
        dataset = open_split(info.name, split, root, complete=False)
        missing = dataset.missing()
    except BenchError as error:
        return SplitReport(split, 0, 0, [str(error)], None)
    problems = [*_count(info, dataset), *_unlearnable(info, dataset), *(f"{path} is missing" for path in missing)]
    absent = set(missing)
    whole = [index for index in range(len(dataset)) if absent.isdisjoint(dataset.files(index))] if absent else None
    indices = range(len(dataset)) if whole is None else whole
    step = 1 if everything else max(1, len(indices) // SAMPLE)
    answers = in_parallel(partial(_examine, dataset, indices, step), len(indices))
    left_out = _left_out(info, dataset)
    for done, (problem, empty) in enumerate(answers, start=1):
        problems += [problem] if problem else []
        left_out += empty
        if progress is not None:
            progress(done, len(indices), split)
    fingerprint = None
    try:
        fingerprint = None if missing else dataset.fingerprint()
    except BenchError as error:  # a link to nowhere is listed in its folder
        path = str(error).partition(" is missing")[0]
        problems += [] if any(path in problem for problem in problems) else [str(error)]
    decoded = len(range(0, len(indices), step))
    return SplitReport(split, len(dataset), decoded, problems, fingerprint, left_out)


def _count(info: Dataset, dataset: Split) -> list[str]:
    images, generated = len(dataset), images_per_split(dataset.root)
    whole = info.images.get(dataset.split, images) if generated is None else generated
    if images == whole:
        return []
    owner = f"the official {info.name}" if generated is None else "the generated data set"
    what = "a subset" if images < whole else "more than there should be"
    return [f"{dataset.split} has {images} images, {owner} {whole}: {what}"]


def _unlearnable(info: Dataset, dataset: Split) -> list[str]:
    """A split in which there is nothing to learn. What an evaluation would refuse, opening has refused."""
    if info.task == "panoptic" and all(len(dataset.files(index)) == 1 for index in range(len(dataset))):
        return [f"{dataset.annotation_file} has annotations of no image: {AGAIN}"]
    if isinstance(dataset, CocoInstance) and not any(map(dataset.targets, range(len(dataset)))):
        return [f"{dataset.annotation_file} has no objects but crowds: {AGAIN}"]
    return []


def _left_out(info: Dataset, dataset: Split) -> int:
    """What opening the instances that are trained on or evaluated with has left out."""
    if isinstance(dataset, CocoInstance):
        return dataset.annotations.left_out
    if info.task == "panoptic" and dataset.split == info.eval_split and dataset.instances is not None:
        return dataset.instances.left_out
    return 0


def _examine(dataset: Split, indices: range | list[int], step: int, position: int) -> tuple[str | None, int]:
    """What is wrong in the headers of the image's files, and for every `step`th in the sample itself; and its segments
    without pixels."""
    index, empty = indices[position], 0
    try:
        checked_size(dataset, index)
        if position % step == 0:
            dataset[index]
            if isinstance(dataset, CocoPanoptic) and (found := dataset.segment_ids(index)) is not None:
                empty = len(dataset.annotations.segments(index)) - len(found[1])
    except BenchError as error:
        return str(error), 0
    return None, empty
