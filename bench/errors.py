"""The one exception for a user's mistake, and the helper that names the nearest known value."""

import difflib
from collections.abc import Iterable


class BenchError(Exception):
    """A user's mistake or a damaged file. The message is one line: what is wrong, where, and the remedy."""


def plain(text: str) -> str:
    """Text of a foreign file or name, on one line and without what a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def one_line(error: Exception) -> str:
    """What an exception of a library says, on one line; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def unknown_name(kind: str, name: str, known: Iterable[str]) -> BenchError:
    """Error for an unknown `kind` ("method", "table", ...), naming the nearest known values."""
    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return BenchError(f"unknown {kind} '{name}': {hint}Known: {', '.join(names)}")
