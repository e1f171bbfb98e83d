"""Objects that are named in declarations, imported when they are needed."""

from importlib import import_module
from typing import Any


def load_object(name: str) -> Any:
    """What "module:name" stands for; raises ModuleNotFoundError for a package that is not installed."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)
