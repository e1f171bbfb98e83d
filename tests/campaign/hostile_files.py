"""Broken and hostile files, each with the command that is to refuse it. Weight files are those of `tests/weights`."""

import json
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.experiments.tables import find_row
from bench.records import Store
from tests.weights.test_files import HARM

TRAINING = ("train", "table1/hcformer-small", "--seed", "0", "--store", "store")
TRAINED, COUNTED = find_row("table1/hcformer-small"), find_row("table1/hcformer-r50")
CHECKPOINT = f"store/{Store('').work_path(TRAINED, 'accuracy', 0)}/checkpoint.pt"
DEEP = "[" * 200_000


@dataclass(frozen=True)
class Case:
    """write(folder) lays the files into an empty folder, in which the command then runs."""

    name: str
    write: Callable[[Path], object]
    command: tuple[str, ...]


def cases(prepared: Path) -> Iterator[Case]:
    """prepared: the folder of `tests.campaign.prepared`."""
    for number, (name, make) in enumerate(HARM.items()):
        command = (("weights", "inspect", "x.pth"), ("predict", "a.png", "--weights", "x.pth"))[number % 2]
        yield Case(name, lambda folder, make=make: (folder / "x.pth").write_bytes(make(folder)), command)
    weights = str(prepared / "weights.safetensors")
    for name, content in IMAGES.items():
        yield Case(name, partial(_write, "a.png", content), ("predict", "a.png", "--weights", weights))
    for name, content in ANNOTATIONS.items():
        copied = partial(_copy, prepared / "coco", "annotations/panoptic_val2017.json", content)
        scored = ("score", "coco_panoptic", str(prepared / "predictions"), "--data-root", ".")
        yield Case(f"annotations: {name}", copied, scored)
    for name, (file, content) in PREDICTIONS.items():
        copied = partial(_copy, prepared / "predictions", file, content)
        command = ("score", "coco_panoptic", ".", "--data-root", str(prepared / "coco"))
        yield Case(f"predictions: {name}", copied, command)
    for name, content in RECORDS.items():
        copied = partial(_copy, prepared / "measured", f"store/{Store('').record_path(COUNTED, 'complexity')}", content)
        yield Case(f"record: {name}", copied, ("report", "table1", "--store", "store"))
    for name, content in CHECKPOINTS.items():
        copied = partial(_copy, prepared / "training", CHECKPOINT, content)
        yield Case(f"checkpoint: {name}", copied, TRAINING)


def _png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (header, *chunks, (b"IEND", b""))
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _jpeg(width: int, height: int) -> bytes:
    frame = struct.pack(">BHHB", 8, height, width, 3) + bytes([1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0])
    return b"\xff\xd8\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame + b"\xff\xd9"


_TEXT = b"a\x00\x00" + zlib.compress(bytes(50_000_000))
IMAGES = {
    "PNG of terapixels": _png(2**20, 2**20, (b"IDAT", b"")),
    "PNG of many pixels, few bytes": _png(30_000, 30_000, (b"IDAT", zlib.compress(bytes(10)))),
    "PNG with a bomb of text": _png(640, 480, (b"zTXt", _TEXT), (b"IDAT", zlib.compress(bytes(10)))),
    "PNG cut off": _png(640, 480, (b"IDAT", zlib.compress(bytes(1000))))[:60],
    "JPEG of gigapixels": _jpeg(65_535, 65_535),
    "JPEG cut off": _jpeg(640, 480)[:12],
    "TIFF of gigapixels": b"II*\x00\x08\x00\x00\x00\x02\x00"
    + struct.pack("<HHII", 256, 4, 1, 2**31 - 1) + struct.pack("<HHII", 257, 4, 1, 2**31 - 1) + bytes(4),
    "a program": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n(x) (w) file\n",
}  # fmt: skip


def _write(name: str, content: bytes, folder: Path) -> None:
    (folder / name).write_bytes(content)


def _copy(source: Path, file: str, change: Callable[[bytes], bytes], folder: Path) -> None:
    """The files of `source`, one of them changed."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    (folder / file).write_bytes(change((folder / file).read_bytes()))


def _edited(change: Callable[[dict | list], object]) -> Callable[[bytes], bytes]:
    """As JSON; what change(content) returns where it is not None."""

    def edit(content: bytes) -> bytes:
        values = json.loads(content)
        return json.dumps(values if (new := change(values)) is None else new).encode()

    return edit


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


ANNOTATIONS: dict[str, Callable[[bytes], bytes]] = {
    "cut off": _half,
    "nothing but brackets": lambda content: DEEP.encode(),
    "empty": lambda content: b"",
    "a list": lambda content: b"[1, 2]",
    "no text": lambda content: b"\xff\xfe\x00\x01",
    "images are null": _edited(lambda values: values.update(images=None)),
    "a number of 5000 digits": lambda content: content.replace(b'"id":', b'"id":' + b"9" * 5000, 1),
    "a size as text": _edited(lambda values: values["images"][0].update(height="480")),
    "segments are a number": _edited(lambda values: values["annotations"][0].update(segments_info=7)),
}
PREDICTIONS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "facts cut off": ("predictions.json", _half),
    "facts in brackets": ("predictions.json", lambda content: DEEP.encode()),
    "panoptic results cut off": ("panoptic.json", _half),
    "segments are null": ("panoptic.json", _edited(lambda v: v["annotations"][0].update(segments_info=None))),
    "a score of 10**400": ("instances.json", _edited(lambda v: [{**entry, "score": 10**400} for entry in v])),
    "a mask of terapixels": (
        "instances.json",
        _edited(lambda v: [{**e, "segmentation": {"size": [10**6, 10**6], "counts": "0"}} for e in v]),
    ),
    "a label image of terapixels": ("semantic/000000000114.png", lambda content: IMAGES["PNG of terapixels"]),
}
RECORDS: dict[str, Callable[[bytes], bytes]] = {
    "cut off": _half,
    "nothing but brackets": lambda content: DEEP.encode(),
    "a list": lambda content: b"[]",
    "metrics as text": _edited(lambda values: values.update(metrics={"params": "many"})),
    "not a number": lambda content: content.replace(b'"value":', b'"value": NaN, "was":', 1),
    "of another schema": _edited(lambda values: values.update(schema=99)),
}
CHECKPOINTS: dict[str, Callable[[bytes], bytes]] = {
    "cut off": _half,
    "a program": lambda content: HARM["torch calls os.system"](Path()),
    "a compressed bomb": lambda content: HARM["compressed bomb"](Path()),
    "text": lambda content: b"no checkpoint",
    "empty": lambda content: b"",
}
