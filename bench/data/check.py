"""Whether a data set on disk is whole, before hours are spent on it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.data.annotations.fields import AGAIN
from bench.data.images import image_size, refuse_size
from bench.data.parallel import in_parallel
from bench.data.registry import Split, dataset_root, open_split, split_fingerprint
from bench.data.synthesis.layouts import images_per_split
from bench.errors import BenchError, one_line
from bench.experiments.datasets import Dataset, get_dataset

SAMPLE = 100  # images of a split that are decoded unless all are
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class SplitReport:
    """What was found in a split. problems: one line each. decoded: images whose pixels and labels were read.

    fingerprint: see `registry.split_fingerprint`; None where files are missing.
    """

    split: str
    images: int
    decoded: int
    problems: list[str]
    fingerprint: str | None


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
    problems = [*_count(info, dataset), *_unusable(info, dataset), *(f"{path} is missing" for path in missing)]
    absent = set(missing)
    whole = [index for index in range(len(dataset)) if absent.isdisjoint(dataset.files(index))] if absent else None
    indices = range(len(dataset)) if whole is None else whole
    step = 1 if everything else max(1, len(indices) // SAMPLE)
    answers = in_parallel(partial(_examine, dataset, indices, step), len(indices))
    for done, problem in enumerate(answers, start=1):
        problems += [problem] if problem else []
        if progress is not None:
            progress(done, len(indices), split)
    fingerprint = None
    try:
        fingerprint = None if missing else split_fingerprint(info.name, split, root)
    except BenchError as error:  # a link to nowhere is listed in its folder
        path = str(error).partition(" is missing")[0]
        problems += [] if any(path in problem for problem in problems) else [str(error)]
    except UnicodeEncodeError as error:
        problems.append(f"a file of {split} has a name that is no UTF-8 ({one_line(error)}): rename it")
    return SplitReport(split, len(dataset), len(range(0, len(indices), step)), problems, fingerprint)


def _count(info: Dataset, dataset: Split) -> list[str]:
    images, generated = len(dataset), images_per_split(dataset.root)
    whole = info.images.get(dataset.split, images) if generated is None else generated
    if images == whole:
        return []
    owner = f"the official {info.name}" if generated is None else "the generated data set"
    what = "a subset" if images < whole else "more than there should be"
    return [f"{dataset.split} has {images} images, {owner} {whole}: {what}"]


def _unusable(info: Dataset, dataset: Split) -> list[str]:
    """What would stop the evaluation after a training, and a panoptic split in which there is nothing to learn."""
    from bench.evaluation.evaluate import make_evaluator  # which imports the readers

    problems = []
    if info.task == "panoptic" and all(len(dataset.files(index)) == 1 for index in range(len(dataset))):
        problems.append(f"{dataset.annotation_file} has annotations of no image: {AGAIN}")
    if dataset.split == info.eval_split:
        try:
            make_evaluator(dataset)
        except BenchError as error:
            problems.append(str(error))
    return problems


def _examine(dataset: Split, indices: range | list[int], step: int, position: int) -> str | None:
    """Headers of the image's files, and the sample itself for every `step`th."""
    index = indices[position]
    try:
        image, *annotation = dataset.files(index)
        size, entry = image_size(image), dataset.images[index]
        for path in annotation:
            refuse_size(path, image_size(path, upright=False), image, size)
        if "height" in entry and size != (entry["height"], entry.get("width")):
            return (
                f"{image} is {size[1]}x{size[0]} but {dataset.annotation_file} says "
                f"{entry.get('width')}x{entry['height']}: download the matching pair again"
            )
        if position % step == 0:
            dataset[index]
    except BenchError as error:
        return str(error)
    return None
