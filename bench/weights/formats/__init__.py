"""The formats of public checkpoints: every `Format` that a file of this folder gives."""

from collections.abc import Collection
from importlib import import_module
from pkgutil import iter_modules

from bench.errors import BenchError
from bench.weights.rules import Format

_FILES = [import_module(f"{__name__}.{name}") for name in sorted(module.name for module in iter_modules(__path__))]
FORMATS = [value for file in _FILES for value in vars(file).values() if isinstance(value, Format)]


def detect(names: Collection[str]) -> Format:
    """The format of a file with these tensors. Raises BenchError (without the file's name) for an unknown one."""
    for kind in FORMATS:
        if kind.recognise(names):
            return kind
    known = "; ".join(kind.title for kind in FORMATS)
    raise BenchError(f"holds no model that is known here, which are {known}")
