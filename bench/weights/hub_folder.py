"""What lies around the tensors in a folder of the Hugging Face hub: shards with their index, and `config.json`.

Both JSON files are as untrusted as the weights: their size is limited, their names lead to no other folder, and
everything in them is checked before it is used.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError
from bench.experiments.methods import METHODS
from bench.weights import shown
from bench.weights.pickles import quoted

INDEX = ".index.json"
FILES = ("model.safetensors", f"model.safetensors{INDEX}", "pytorch_model.bin", f"pytorch_model.bin{INDEX}")
MAX_INDEX_BYTES = 4 * 2**20  # a name and a file, some 150 bytes a tensor: 28,000 tensors; Swin-L's models have 900
MAX_CONFIG_BYTES = 2**20  # the largest of a published model has 82 kB
MAX_SHARDS = 1000
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.safetensors|\.bin)")
_NAMED = 3  # missing shards that an error names


@dataclass(frozen=True)
class Config:
    """What a `config.json` says of the model; None where it does not, or not of a model that is known here."""

    method: str | None = None
    backbone: str | None = None
    num_classes: int | None = None


def weight_file(path: Path) -> Path:
    """The file to read: `path` itself, or in a folder the weights or the index that the hub's models have.

    Raises BenchError for a folder without them, and for one shard of several, naming the index to give instead.
    """
    if path.is_dir():
        found = next((path / name for name in FILES if (path / name).is_file()), None)
        path = found or next((file for file in sorted(path.iterdir()) if _is_shard(file)), path)
        if path.is_dir():
            raise BenchError(f"{path} is no file, and a folder without {', '.join(FILES)}: give the weight file itself")
    if _is_shard(path):
        raise _lone_shard(path)
    return path


def read_index(path: Path) -> dict[str, str]:
    """Name of each tensor -> the file name of its shard, which lies beside the index.

    Raises BenchError for an index that is damaged, too large or hostile: tensors listed twice, shards elsewhere.
    """
    content = _read_json(path, MAX_INDEX_BYTES)
    places = content.get("weight_map")
    if not isinstance(places, dict) or not places:
        raise BenchError(f"{path} has no weight_map: give the index of a model's shards")
    for shard in dict.fromkeys(places.values() if all(isinstance(s, str) for s in places.values()) else [None]):
        if shard is None:
            raise BenchError(f"{path} names a shard that is no text: download it again")
        if not re.fullmatch(r"[\w.+-]+", shard) or shard.startswith("."):
            raise BenchError(f"{path} is refused, {quoted(shard)} is no name of a file beside it: take it elsewhere")
    shards = sorted(set(places.values()))
    if len(shards) > MAX_SHARDS:
        raise BenchError(f"{path} is refused, it has more than {MAX_SHARDS} shards: take it from another source")
    missing = [shard for shard in shards if not path.with_name(shard).is_file()]
    if missing:
        raise BenchError(
            f"{path} needs {_some(missing)} of its {len(shards)} shards beside it: download what is missing"
        )
    return places


def read_config(path: Path) -> Config:
    """What the `config.json` beside a file of the hub says; a file with another name than the hub's has none.

    Raises BenchError for one that is damaged or too large.
    """
    file = path.with_name("config.json")
    if not (path.name in FILES or _is_shard(path)) or not file.is_file():
        return Config()
    content = _read_json(file, MAX_CONFIG_BYTES)
    labels, kind = content.get("id2label"), content.get("model_type")
    method = kind if isinstance(kind, str) and kind in METHODS else None
    return Config(method, _backbone(content.get("backbone_config")), len(labels) if isinstance(labels, dict) else None)


def _backbone(config: object) -> str | None:
    values: Mapping = config if isinstance(config, dict) else {}
    depths, width = values.get("depths"), values.get("embed_dim")
    if not isinstance(depths, list) or len(depths) != 4 or not isinstance(depths[2], int):
        return None
    if values.get("model_type") == "resnet":
        return shown.RESNETS.get(depths[2])
    return shown.SWINS.get((depths[2], width)) if isinstance(width, int) else None


def _read_json(path: Path, limit: int) -> dict:
    try:
        with path.open("rb") as file:
            text = file.read(limit + 1)
        if len(text) > limit:
            raise BenchError(f"{path} is refused, it has more than {limit} bytes: take it from another source")
        content = json.loads(text, object_pairs_hook=_no_name_twice)
    except OSError as error:
        raise BenchError(f"{path} cannot be read ({error.strerror}): check its path and rights") from error
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{path} is damaged ({quoted(str(error))}): download it again") from error
    if not isinstance(content, dict):
        raise BenchError(f"{path} holds a {type(content).__name__}, no names with values: download it again")
    return content


def _no_name_twice(pairs: list[tuple[str, object]]) -> dict:
    made: dict[str, object] = {}
    for name, value in pairs:
        if name in made:
            raise ValueError(f"it names {quoted(name)} twice")
        made[name] = value
    return made


def _is_shard(path: Path) -> bool:
    match = _SHARD.fullmatch(path.name)
    return bool(match) and int(match[3]) > 1 and path.is_file()


def _lone_shard(path: Path) -> BenchError:
    match = _SHARD.fullmatch(path.name)
    assert match
    stem, _, total, ending = match.groups()
    what, index = f"{path} is one shard of {int(total)}", path.with_name(f"{stem}{ending}{INDEX}")
    if index.is_file():
        return BenchError(f"{what}: give the index of all of them, {index}")
    names = (f"{stem}-{number:05}-of-{total}{ending}" for number in range(1, min(int(total), MAX_SHARDS) + 1))
    missing = [*(name for name in names if not path.with_name(name).is_file()), index.name]
    return BenchError(f"{what}, without {_some(missing)} beside it: download them too and give {index.name}")


def _some(names: list[str]) -> str:
    """The first names; of more only how many."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
