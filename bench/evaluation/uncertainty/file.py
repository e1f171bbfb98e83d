"""`ImageCounts` in a file: safetensors, which runs nothing and claims no more than the file holds."""

import json
import re
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from bench.errors import BenchError, one_line
from bench.evaluation.uncertainty.bootstrap import ImageCounts
from bench.evaluation.uncertainty.counts import PanopticCounts, PixelCounts, check
from bench.evaluation.uncertainty.matches import InstanceMatches
from bench.files import write_atomically

IMAGE_COUNTS = "image_counts.safetensors"  # in the work folder of an evaluation; some 3 kB an image of COCO
MOST_BYTES = 1 << 29
_KINDS = {kind.kind: kind for kind in (PanopticCounts, PixelCounts, InstanceMatches)}
_FACTS = "image counts"


def write_counts(counts: ImageCounts, path: Path) -> None:
    """Write a file that `read_counts` reads."""
    tensors, facts = {"image_ids": counts.image_ids}, []
    for number, part in enumerate(counts.parts):
        arrays = {name: value for name, value in vars(part).items() if name != "names"}
        tensors |= {f"{number}.{name}": np.ascontiguousarray(value) for name, value in arrays.items()}
        facts.append({"kind": part.kind, "names": part.names})
    write_atomically(path, save(tensors, {_FACTS: json.dumps(facts)}))


def read_counts(path: Path) -> ImageCounts:
    """Raises BenchError for a file that cannot be read, is damaged or too large."""
    remedy = "evaluate again"
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise ValueError(f"{size} bytes, at most {MOST_BYTES} are read")
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            facts = json.loads((file.metadata() or {})[_FACTS])
        image_ids = tensors.pop("image_ids")
        check(image_ids, np.int64, (None,))
        if not len(image_ids) or (np.diff(image_ids) <= 0).any():
            raise ValueError("images that are not in order")
        parts = [_part(fact, number, tensors, len(image_ids)) for number, fact in enumerate(facts)]
        names = [name for part in parts for name in part.names]
        if not names or len(set(names)) < len(names):
            raise ValueError("no metric, or one twice")
        return ImageCounts(image_ids, parts)
    except (OSError, SafetensorError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise BenchError(f"{path} is no readable file of image counts ({one_line(error)}): {remedy}") from error


def _part(fact: dict, number: int, tensors: dict[str, np.ndarray], images: int):
    kind, names = _KINDS[fact["kind"]], fact["names"]
    if not all(isinstance(name, str) and re.fullmatch(r"\w{1,20}", name) for name in names) or not names:
        raise ValueError("a metric without name")
    prefix = f"{number}."
    arrays = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    part = kind(tuple(names), **arrays)
    most = max(int(getattr(part, name).max(initial=-1)) for name in ("image", "true_image") if hasattr(part, name))
    if most >= images or len(names) > 4:
        raise ValueError("counts of an image without id, or too many metrics")
    return part
