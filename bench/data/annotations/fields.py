"""Fields of JSON entries that come from elsewhere: each is of one type and in its range, or refused.

The functions raise ValueError with the field, its value and what it should be; `named` adds the file, the entry and
the remedy.
"""

import json
import math
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.errors import BenchError, one_line

AGAIN = "download the file again or correct it"
LARGEST_ID = 2**63 - 1


def read_json(path: Path) -> object:
    """Content of a JSON file in any encoding of Unicode. Raises BenchError for one that cannot be read."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BenchError(f"{path} is not readable JSON ({one_line(error)}): {AGAIN}") from error


@contextmanager
def named(path: Path, entry: str, remedy: str = AGAIN) -> Iterator[None]:
    """What goes wrong in a field inside becomes a BenchError of the file and the entry."""
    try:
        yield
    except ValueError as error:
        raise BenchError(f"{path}: {entry} {error}: {remedy}") from None


def entries(content: object, name: str) -> list[Mapping]:
    """The list `content[name]` of objects."""
    if not isinstance(content, Mapping) or not isinstance(found := content.get(name), list):
        raise ValueError(f"has no list '{name}'")
    for entry in found:
        if not isinstance(entry, dict):
            raise ValueError(f"has an entry {reprlib.repr(entry)} in '{name}', which is no object with an 'id'")
    return found


def whole(entry: Mapping, name: str, least: int = 0, most: int = LARGEST_ID) -> int:
    """A whole number from least to most; neither true, nor 1.0, nor "1" is one."""
    value = entry.get(name)
    if type(value) is not int or not least <= value <= most:
        limits = f"from {least} to {most}" if most < LARGEST_ID else f"of {least} or more"
        raise wrong(entry, name, f"a whole number {limits}")
    return value


def flag(entry: Mapping, name: str, required: bool = False) -> bool:
    """0, 1, false or true; null or missing is false, unless it is required."""
    value = entry.get(name)
    if value is None and not required:
        return False
    if type(value) not in (int, bool) or value not in (0, 1):
        raise wrong(entry, name, "0, 1, false or true")
    return bool(value)


def number(entry: Mapping, name: str, least: float = -math.inf) -> float:
    """A finite number, not below `least`."""
    value = entry.get(name)
    if type(value) not in (int, float) or not abs(value) < 1e300 or value < least:
        raise wrong(entry, name, "a finite number" + (f" of {least:g} or more" if least > -math.inf else ""))
    return float(value)


def text(entry: Mapping, name: str) -> str:
    """Text that is not empty."""
    value = entry.get(name)
    if type(value) is not str or not value.strip():
        raise wrong(entry, name, "text")
    return value


def file_name(entry: Mapping, name: str = "file_name") -> str:
    """Name of a file, which may have folders or be absolute, see `is_usable_name`."""
    value = text(entry, name)
    if not is_usable_name(value):
        raise wrong(entry, name, "a file's name in printable letters, with / between folders")
    return value


def is_usable_name(name: str) -> bool:
    """Whether an image of this name can be told in messages and can name its prediction: not "..", a folder, a name
    with control characters, with bytes that are no UTF-8, or with the folders of another system."""
    return name.isprintable() and "\\" not in name and Path(name).name not in ("", "..") and not name.endswith("/")


def wrong(entry: Mapping, name: str, wanted: str) -> ValueError:
    """That the field is not what it should be."""
    if name not in entry:
        return ValueError(f"has no '{name}' ({wanted})")
    value = entry[name]
    shown = json.dumps(value) if value is None or isinstance(value, bool) else reprlib.repr(value)
    return ValueError(f"has '{name}' {shown}, not {wanted}")
