"""Writers of the official layouts of COCO, ADE20K and Cityscapes, as their downloads unpack, for generated pictures.

COCO's instances are polygons without holes, as the official ones are, so that an instance can overlap what shows
through it; its crowds are uncompressed RLE. ADE20K's annotations have one channel, 0 = other, 1 to 150 the classes.
Cityscapes' polygons are painted in their order, as cityscapesScripts makes its label and instance images.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cityscapesscripts.helpers.labels import name2label
from PIL import Image
from scipy import ndimage

from bench.data.annotations.segmentation import run_lengths
from bench.data.classes import ClassInfo, classes_of
from bench.data.coco import id_colours
from bench.data.run_lengths import bounding_box, encode_masks

_CLASSES = {  # class of `scenes`: that of COCO, of ADE20K, of Cityscapes
    "disc": ("sports ball", "ball", "car"),
    "box": ("suitcase", "box", "bus"),
    "triangle": ("pizza", "tent", "person"),
    "star": ("kite", "flag", "bicycle"),
    "ring": ("donut", "clock", "traffic sign"),
    "pole": ("toothbrush", "pole", "pole"),
    "sky": ("sky-other-merged", "sky", "sky"),
    "grass": ("grass-merged", "grass", "vegetation"),
    "water": ("water-other", "water", "parking"),  # parking: a class that the evaluation ignores
    "road": ("road", "road", "road"),
}
_CITIES = {"train": ("aachen", "zurich"), "val": ("frankfurt", "lindau")}
_EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Segment:
    """kind: name in `scenes.CLASSES`. mask: bool [H, W], not empty."""

    kind: str
    mask: np.ndarray
    crowd: bool = False


@dataclass(frozen=True)
class Picture:
    """pixels: uint8 [H, W, 3]. segments: disjoint; a pixel in none is unlabelled. case: one of `layouts.CASES`."""

    pixels: np.ndarray
    segments: tuple[Segment, ...]
    case: str


def write_coco(folder: Path, split: str, pictures: Iterable[Picture]) -> None:
    """SPLIT/*.jpg, annotations/panoptic_SPLIT.json with its folder of PNGs, annotations/instances_SPLIT.json."""
    classes = {info.name: info for info in classes_of("coco_panoptic")}
    annotations, png_folder = folder / "annotations", folder / "annotations" / f"panoptic_{split}"
    for new in (folder / split, png_folder):
        new.mkdir(parents=True)
    images, panoptic, instances = [], [], []
    for index, picture in enumerate(pictures):
        image_id = 2 * (57 + 31 * index + index * index % 7) + split.startswith("train")  # holes, none in both splits
        name, (height, width) = f"{image_id:012d}", picture.pixels.shape[:2]
        images.append({"license": 1, "file_name": f"{name}.jpg", "height": height, "width": width, "id": image_id})
        _save_photo(picture, folder / split / f"{name}.jpg")
        infos, colours = _panoptic(picture, classes)
        _save(colours, png_folder / f"{name}.png")
        panoptic.append({"segments_info": infos, "file_name": f"{name}.png", "image_id": image_id})
        instances += _instances(picture, classes, image_id)
    images.sort(key=lambda image: image["id"] * 7919 % 1009)  # the official lists are in no order
    licenses = [{"url": "", "id": 1, "name": "generated"}]
    common = {"info": {"description": "generated scenes, COCO's layout"}, "licenses": licenses, "images": images}
    categories = [_category(info) for info in classes.values()]
    things = [{key: category[key] for key in ("supercategory", "id", "name")} for category in categories]
    things = [entry for entry, info in zip(things, classes.values(), strict=True) if info.is_thing]
    _dump({**common, "annotations": panoptic, "categories": categories}, annotations / f"panoptic_{split}.json")
    _dump({**common, "annotations": instances, "categories": things}, annotations / f"instances_{split}.json")


def _category(info: ClassInfo) -> dict:
    kind = "thing" if info.is_thing else "stuff"
    colour = list(info.colour)
    return {"supercategory": kind, "color": colour, "isthing": int(info.is_thing), "id": info.id, "name": info.name}


def _panoptic(picture: Picture, classes: dict[str, ClassInfo]) -> tuple[list[dict], np.ndarray]:
    """`segments_info` and the pixels of the PNG, uint8 [H, W, 3], segment id = R + 256 G + 65536 B, 0 = void."""
    infos, ids = [], np.zeros(picture.pixels.shape[:2], np.int64)
    for position, segment in enumerate(picture.segments):
        segment_id, mask = (position + 1) * 1_070_001 % 2**24, segment.mask
        ids[mask] = segment_id
        info = {"id": segment_id, "category_id": classes[_CLASSES[segment.kind][0]].id, "iscrowd": int(segment.crowd)}
        infos.append({**info, "bbox": _box(mask), "area": int(mask.sum())})
    return infos, id_colours(ids)


def _box(mask: np.ndarray) -> list[int]:
    return [int(number) for number in bounding_box(encode_masks(mask[None])[0])]


def _instances(picture: Picture, classes: dict[str, ClassInfo], image_id: int) -> Iterator[dict]:
    for position, segment in enumerate(picture.segments):
        info, mask = classes[_CLASSES[segment.kind][0]], segment.mask
        if not info.is_thing:
            continue
        if segment.crowd:
            height, width = mask.shape
            counts = run_lengths(encode_masks(mask[None])[0]["counts"])
            segmentation = {"counts": counts.tolist(), "size": [height, width]}
        else:
            parts = list(outlines(mask))
            mask = np.any([part for part, _ in parts], axis=0)
            segmentation = [corners.astype(float).ravel().tolist() for _, corners in parts]
        yield {
            "segmentation": segmentation,
            "area": float(mask.sum()),
            "iscrowd": int(segment.crowd),
            "image_id": image_id,
            "bbox": bounding_box(encode_masks(mask[None])[0]),
            "category_id": info.id,
            "id": 1000 * image_id + position,
        }


def write_ade20k(folder: Path, split: str, pictures: Iterable[Picture]) -> None:
    """images/SPLIT/ADE_*.jpg and annotations/SPLIT/ADE_*.png, of which that of the CMYK photograph has a palette."""
    ids = {info.name: info.id for info in classes_of("ade20k")}
    for kind in ("images", "annotations"):
        (folder / kind / split).mkdir(parents=True)
    for index, picture in enumerate(pictures):
        name = f"ADE_{'train' if split == 'training' else 'val'}_{index + 1:08d}"
        _save_photo(picture, folder / "images" / split / f"{name}.jpg")
        labels = np.zeros(picture.pixels.shape[:2], np.uint8)
        for segment in picture.segments:
            labels[segment.mask] = ids[_CLASSES[segment.kind][1]]
        annotation = Image.fromarray(labels)
        if picture.case == "cmyk":
            annotation.putpalette([value * factor % 256 for value in range(256) for factor in (37, 91, 151)])
        annotation.save(folder / "annotations" / split / f"{name}.png")


def write_cityscapes(folder: Path, split: str, pictures: Iterable[Picture]) -> None:
    """leftImg8bit/SPLIT/CITY/*_leftImg8bit.png and gtFine/SPLIT/CITY/*_gtFine_{labelIds,instanceIds,polygons}.*"""
    for index, picture in enumerate(pictures):
        city = _CITIES[split][index % 2]
        photos, truth = folder / "leftImg8bit" / split / city, folder / "gtFine" / split / city
        for new in (photos, truth):
            new.mkdir(parents=True, exist_ok=True)
        name = f"{city}_{index // 2:06d}_000019"
        _save(picture.pixels, photos / f"{name}_leftImg8bit.png")
        labels = np.zeros(picture.pixels.shape[:2], np.uint8)
        instances, seen = labels.astype(np.uint16), dict.fromkeys(name2label, 0)
        objects = sorted(_objects(picture), key=lambda entry: -int(entry[0].sum()))  # what encloses comes first
        for part, label, _ in objects:
            group = label not in name2label  # "cargroup": cars that nobody told apart
            entry = name2label[label.removesuffix("group")] if group else name2label[label]
            labels[part] = instances[part] = entry.id
            if entry.hasInstances and not group:
                instances[part] = 1000 * entry.id + seen[label]
                seen[label] += 1
        _save(labels, truth / f"{name}_gtFine_labelIds.png")
        _save(instances, truth / f"{name}_gtFine_instanceIds.png")
        polygons = [{"label": label, "polygon": polygon} for _, label, polygon in objects]
        height, width = labels.shape
        content = {"imgHeight": height, "imgWidth": width, "objects": polygons}
        _dump(content, truth / f"{name}_gtFine_polygons.json")


def _objects(picture: Picture) -> Iterator[tuple[np.ndarray, str, list[list[int]]]]:
    """Painted area without holes, label and polygon of every connected part; what is unlabelled is "static"."""
    void = np.ones(picture.pixels.shape[:2], bool)
    segments = []
    for segment in picture.segments:
        void &= ~segment.mask
        segments.append((segment.mask, _CLASSES[segment.kind][2], segment.crowd))
    for mask, label, crowd in (*segments, (void, "static", False)):
        parts = sorted(outlines(mask), key=lambda part: -int(part[0].sum()))
        for number, (part, corners) in enumerate(parts):
            # An instance is one polygon: what an object in front cuts off belongs to a group.
            group = name2label[label].hasInstances and (crowd or number > 0)
            yield part, f"{label}group" if group else label, _border_pixels(corners)


def _border_pixels(corners: np.ndarray) -> list[list[int]]:
    """The outline through the outermost pixels themselves, which a filled polygon of Pillow includes."""
    after = np.roll(corners, -1, axis=0) - corners  # of every corner, the side that leaves it and that which arrives
    before = np.roll(after, 1, axis=0)
    down, left = (after + before)[:, 1] > 0, (after + before)[:, 0] < 0
    return (corners - np.stack([down, left], axis=1)).tolist()


def outlines(mask: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The parts of a bool [H, W] that hang together by sides, each with its holes filled: (part, corners int [N, 2]).

    The corners (x, y) lie between pixels, 0 to W and 0 to H; who walks along them has the part at the right hand.
    """
    numbered, _ = ndimage.label(mask)
    for number, where in enumerate(ndimage.find_objects(numbered), start=1):
        part = np.zeros(mask.shape, bool)
        part[where] = ndimage.binary_fill_holes(numbered[where] == number, np.ones((3, 3)))
        yield part, np.array(_corners(part))


def _corners(part: np.ndarray) -> list[tuple[int, int]]:
    padded = np.pad(part, 1)
    y = int(part.any(1).argmax())
    x = int(part[y].argmax())
    corners, (dx, dy) = [(x, y)], (1, 0)
    x += 1
    while (x, y) != corners[0]:
        right = padded[y + (dy + dx + 1) // 2, x + (dx - dy + 1) // 2]  # the two pixels ahead
        left = padded[y + (dy - dx + 1) // 2, x + (dx + dy + 1) // 2]
        if left or not right:
            corners.append((x, y))
            dx, dy = (dy, -dx) if right else (-dy, dx)
        x, y = x + dx, y + dy
    return corners


def _save_photo(picture: Picture, path: Path) -> None:
    """JPEG of the picture, in the colour mode and orientation of its case."""
    image, options = Image.fromarray(picture.pixels), {"quality": 90}
    if picture.case == "rotated":  # as a camera on its side saves it
        image = image.transpose(Image.Transpose.ROTATE_90)
        options["exif"] = Image.Exif()
        options["exif"][_EXIF_ORIENTATION] = 6
    image.convert({"greyscale": "L", "cmyk": "CMYK"}.get(picture.case, "RGB")).save(path, **options)


def _save(pixels: np.ndarray, path: Path) -> None:
    Image.fromarray(pixels).save(path)


def _dump(content: dict, path: Path) -> None:
    path.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
