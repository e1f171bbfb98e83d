"""What an evaluation has measured so far, image by image in a file, so that it survives a kill."""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.files import writing


class ImageLog:
    """A file of JSON lines: the identity of the evaluation, then what an evaluator measured of each image.

    identity: plain JSON facts that decide the result. A file of another identity is begun anew. One process at a
    time. seconds, images: of the evaluation's earlier parts, known when `replay` has ended.
    """

    def __init__(self, path: Path, identity: Mapping):
        self.path = path
        self._identity = dict(identity)
        self.seconds, self.images = 0.0, 0

    def replay(self) -> Iterator[dict]:
        """The images measured by earlier parts, one in memory at a time; call it once, before `append`.

        The first line that is not whole (the process was killed while writing it) is cut off with all that follow.
        """
        self.path.touch()
        end = 0
        with self.path.open("r+b") as file:
            for line in file:
                entry = _whole(line)
                if entry is None or (end == 0 and entry != self._identity):
                    break
                if end:
                    self.seconds += entry.pop("seconds")
                    self.images += 1
                    yield entry
                end += len(line)
            file.truncate(end)
        if end == 0:
            self._write(self._identity)
        self._last = time.monotonic()

    def append(self, measured: Mapping) -> None:
        """Add an image, with the time since the one before it."""
        now = time.monotonic()
        self._write({**measured, "seconds": now - self._last})
        self._last = now

    def _write(self, entry: dict) -> None:
        with writing(self.path), self.path.open("ab") as file:
            file.write(json.dumps(entry).encode() + b"\n")


def _whole(line: bytes) -> dict | None:
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None
