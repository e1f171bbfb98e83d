"""Generated scenes in the official layouts of the large data sets, for tests and for trying things without a download.

Every split repeats `CASES`, so that what is awkward in the official files is met from six images a split on.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from bench.data.synthesis.layout_files import Picture, Segment, write_ade20k, write_cityscapes, write_coco
from bench.data.synthesis.scenes import CLASSES, STUFF, draw_scene
from bench.errors import BenchError, unknown_name
from bench.files import read_marker, write_folder

VERSION = 1  # raise it with every change of what is written
CASES = (  # of the image at the position, and again from the ninth on
    "plain",
    "empty",  # nothing is labelled
    "crowd",  # all things of one class are one crowd region (where the layout has crowds)
    "greyscale",  # photograph with one channel (COCO, ADE20K), as the two below
    "rotated",  # photograph lies on its side, its EXIF flag says so; the annotation is upright
    "cmyk",  # photograph with four channels; ADE20K: annotation with a palette
    "void",  # stuff alone, things are unlabelled
    "plain",
)

_MARKER = "synthesized.json"
_FIRST_SCENE = 7000  # first number of the scenes' seeds: none is a scene of synthetic_panoptic


@dataclass(frozen=True)
class _Layout:
    """sizes: (width, height) of the images in turn."""

    name: str
    splits: tuple[str, str]
    sizes: tuple[tuple[int, int], ...]
    write: Callable[[Path, str, Iterable[Picture]], None]


_PHOTO_SIZES = ((640, 480), (240, 320), (250, 188), (320, 213), (214, 320), (306, 306), (320, 180))
_COCO = _Layout("coco", ("train2017", "val2017"), _PHOTO_SIZES, write_coco)
_LAYOUTS = {
    "coco_panoptic": _COCO,
    "coco_instance": _COCO,
    "ade20k": _Layout("ade20k", ("training", "validation"), ((341, 256), (256, 340), (256, 256)), write_ade20k),
    "cityscapes": _Layout("cityscapes", ("train", "val"), ((512, 256),), write_cityscapes),
}


def synthesize(name: str, root: Path, images: int = 8, progress: Callable[[int, int], None] | None = None) -> None:
    """Write `images` generated images a split, most of them at half the usual size, in the official layout of `name`.

    The two COCO data sets have the same files. The same arguments give the same labels and the same pixels before
    compression. The folder `root` appears complete or not at all; nothing happens where the same already lies.
    `progress(done, total)` is called after every image. Raises BenchError for an unknown name, for `root` that holds
    something else, and where it cannot be written.
    """
    if name not in _LAYOUTS:
        raise unknown_name("official layout", name, _LAYOUTS)
    if images < 1:
        raise BenchError(f"{images} images a split are none: ask for 1 or more")
    layout = _LAYOUTS[name]
    marker = {"layout": layout.name, "images": images, "version": VERSION}
    write_folder(root, _MARKER, marker, lambda folder: _write(layout, folder, images, progress))


def images_per_split(root: Path) -> int | None:
    """How many images a split `synthesize` wrote to `root`; None where it is not such a folder."""
    marker = read_marker(Path(root) / _MARKER)
    images = marker.get("images") if isinstance(marker, dict) else None
    return images if isinstance(images, int) else None


def _write(layout: _Layout, folder: Path, images: int, progress: Callable[[int, int], None] | None) -> None:
    for number, split in enumerate(layout.splits):

        def pictures(number: int = number) -> Iterator[Picture]:
            for index in range(images):
                yield draw_picture(number, index, layout.sizes[index % len(layout.sizes)])
                if progress is not None:
                    progress(number * images + index + 1, images * len(layout.splits))

        layout.write(folder, split, pictures())


def draw_picture(split: int, index: int, size: tuple[int, int]) -> Picture:
    """The picture of a split (0 train, 1 val) at a position in it, of size (width, height), with its case.

    As many scenes stand side by side as their squares fit into it.
    """
    width, height = size
    count = max(1, width // height)
    scenes = [draw_scene(_FIRST_SCENE + split, count * index + nth, VERSION) for nth in range(count)]
    kinds = [CLASSES[label] for scene in scenes for label in scene.classes]
    first = np.cumsum([0, *(len(scene.classes) for scene in scenes)])
    numbered = np.concatenate([scene.segments + start for scene, start in zip(scenes, first, strict=False)], axis=1)
    pixels = np.concatenate([scene.image for scene in scenes], axis=1)
    pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
    numbered = np.asarray(Image.fromarray(numbered.astype(np.uint8)).resize(size, Image.Resampling.NEAREST))
    segments = [Segment(kind, numbered == number) for number, kind in enumerate(kinds)]
    case = CASES[index % len(CASES)]
    if case == "empty":
        segments = []
    elif case == "void":
        segments = [segment for segment in segments if segment.kind in STUFF]
    elif case == "crowd":
        segments = _with_crowd(segments)
    return Picture(pixels, tuple(segments), case)


def _with_crowd(segments: list[Segment]) -> list[Segment]:
    """The things of the most frequent class become one crowd; of the classes that all layouts tell apart."""
    counts = Counter(segment.kind for segment in segments if segment.kind in ("disc", "box", "triangle", "star"))
    if not counts:
        return segments
    kind = counts.most_common(1)[0][0]
    mask = np.any([segment.mask for segment in segments if segment.kind == kind], axis=0)
    return [*(segment for segment in segments if segment.kind != kind), Segment(kind, mask, crowd=True)]
