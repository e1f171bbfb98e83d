"""A small made-up panoptic data set in COCO's file formats, for training runs of minutes on any machine.

400 training and 100 validation scenes of 128x128 pixels with six thing and four stuff classes (`scenes.py`). As in
COCO, category ids have holes, so that a mix-up of category id and class index shows.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from bench.data.synthesis.scenes import CLASSES, SIZE, THINGS, Scene, draw_scene
from bench.files import write_folder

VERSION = 1  # raise it with every change of the pixels or labels: it names the data set in the records
SPLITS = {"train": 400, "val": 100}
CATEGORY_IDS = (1, 2, 3, 5, 7, 11, 21, 22, 25, 30)
NUM_THINGS = len(THINGS)
NUM_CLASSES = len(CLASSES)

_MARKER = "synthetic_panoptic.json"
_FIRST_IMAGE_ID = {"train": 1, "val": 1001}
_INFO = {"description": f"synthetic_panoptic version {VERSION}"}


def ensure(cache_root: Path, progress: Callable[[int, int], None] | None = None) -> Path:
    """Folder of the data set below `cache_root`, generated when it is not there. Errors as `generate`."""
    root = Path(cache_root) / "synthetic_panoptic"
    generate(root, progress)
    return root


def generate(root: Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Write the data set to the folder `root`; nothing happens where this version of it already lies.

    The folder appears complete or not at all, and two processes may call this at once. `progress(done, total)` is
    called after every image. Raises BenchError where `root` holds something else or cannot be written.
    """
    write_folder(root, _MARKER, {"version": VERSION}, lambda folder: _write(folder, progress), replace=True)


def _write(folder: Path, progress: Callable[[int, int], None] | None) -> None:
    done, total = 0, sum(SPLITS.values())
    annotations = folder / "annotations"
    for number, (split, count) in enumerate(SPLITS.items()):
        (folder / split).mkdir(parents=True)
        (annotations / f"panoptic_{split}").mkdir(parents=True)
        images, panoptic, instances = [], [], []
        for index in range(count):
            scene = draw_scene(number, index, VERSION)
            image_id = _FIRST_IMAGE_ID[split] + index
            name = f"{image_id:06d}.png"
            segments, png = _describe(scene)
            _save(scene.image, folder / split / name)
            _save(png, annotations / f"panoptic_{split}" / name)
            # The pixels' hash: PNG bytes differ between zlib versions, the pixels do not.
            pixels = hashlib.sha256(scene.image.tobytes()).hexdigest()
            images.append({"id": image_id, "file_name": name, "width": SIZE, "height": SIZE, "sha256": pixels})
            panoptic.append({"image_id": image_id, "file_name": name, "segments_info": segments})
            instances += _instances(scene, segments, image_id, first=len(instances) + 1)
            done += 1
            if progress is not None:
                progress(done, total)
        common = {"info": _INFO, "licenses": [], "images": images}
        things = _categories()[:NUM_THINGS]
        _dump({**common, "annotations": panoptic, "categories": _categories()}, annotations, f"panoptic_{split}")
        _dump({**common, "annotations": instances, "categories": things}, annotations, f"instances_{split}")


def _categories() -> list[dict]:
    return [
        {"id": category_id, "name": name, "isthing": int(name in THINGS), "supercategory": kind}
        for category_id, name in zip(CATEGORY_IDS, CLASSES, strict=True)
        for kind in ("thing" if name in THINGS else "stuff",)
    ]


def _describe(scene: Scene) -> tuple[list[dict], np.ndarray]:
    """`segments_info` of a scene and its panoptic PNG pixels, uint8 [128, 128, 3], id = R + 256 G + 65536 B."""
    ids = np.array([(position + 1) * 1_070_001 % 2**24 for position in range(len(scene.classes))])
    segments = []
    for position, label in enumerate(scene.classes):
        mask = scene.segments == position
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        x, y = int(columns[0]), int(rows[0])
        segment = {"id": int(ids[position]), "category_id": CATEGORY_IDS[label], "area": int(mask.sum())}
        box = [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1]
        segments.append({**segment, "bbox": box, "iscrowd": 0})
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=1).astype(np.uint8)
    return segments, colours[scene.segments]


def _instances(scene: Scene, segments: list[dict], image_id: int, first: int) -> list[dict]:
    from pycocotools import mask as rle  # here: whoever only counts or times does without

    annotations = []
    for position, label in enumerate(scene.classes):
        if label >= NUM_THINGS:
            continue
        encoded = rle.encode(np.asfortranarray(scene.segments == position, dtype=np.uint8))
        segmentation = {"size": [SIZE, SIZE], "counts": encoded["counts"].decode("ascii")}
        number = first + len(annotations)
        annotations.append({**segments[position], "id": number, "image_id": image_id, "segmentation": segmentation})
    return annotations


def _save(pixels: np.ndarray, path: Path) -> None:
    Image.fromarray(pixels).save(path, compress_level=1)


def _dump(content: dict, folder: Path, name: str) -> None:
    (folder / f"{name}.json").write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
