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

from bench.data.coco import id_colours
from bench.data.synthesis.scenes import CLASSES, SIZE, THINGS, Scene, draw_scene
from bench.files import write_folder

VERSION = 1  # raise it with every change of the pixels or labels: it names the data set in the records
SPLITS = {"train": 400, "val": 100}
CATEGORY_IDS = (1, 2, 3, 5, 7, 11, 21, 22, 25, 30)
NUM_THINGS = len(THINGS)

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
            segments, things, png = _describe(scene, image_id, first=len(instances) + 1)
            _save(scene.image, folder / split / name)
            _save(png, annotations / f"panoptic_{split}" / name)
            # The pixels' hash: PNG bytes differ between zlib versions, the pixels do not.
            pixels = hashlib.sha256(scene.image.tobytes()).hexdigest()
            images.append({"id": image_id, "file_name": name, "width": SIZE, "height": SIZE, "sha256": pixels})
            panoptic.append({"image_id": image_id, "file_name": name, "segments_info": segments})
            instances += things
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


def _describe(scene: Scene, image_id: int, first: int) -> tuple[list[dict], list[dict], np.ndarray]:
    """`segments_info` of a scene, COCO's annotations of its things (ids from `first`), and its panoptic PNG's pixels,
    uint8 [128, 128, 3].
    """
    from bench.data.run_lengths import segment_annotations  # here: whoever only counts or times does without

    ids = np.array([(position + 1) * 1_070_001 % 2**24 for position in range(len(scene.classes))])
    named = [{"id": position, "category_id": CATEGORY_IDS[label]} for position, label in enumerate(scene.classes)]
    infos, things = [], []
    for id_, label, found in zip(
        ids.tolist(), scene.classes, segment_annotations(0, scene.segments, named), strict=True
    ):
        box = [int(number) for number in found["bbox"]]
        infos.append({"id": id_, "category_id": found["category_id"], "area": found["area"], "bbox": box, "iscrowd": 0})
        if label < NUM_THINGS:
            number = {"id": first + len(things), "image_id": image_id, "segmentation": found["segmentation"]}
            things.append({**infos[-1], **number})
    return infos, things, id_colours(ids)[scene.segments]


def _save(pixels: np.ndarray, path: Path) -> None:
    Image.fromarray(pixels).save(path, compress_level=1)


def _dump(content: dict, folder: Path, name: str) -> None:
    (folder / f"{name}.json").write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
