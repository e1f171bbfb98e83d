"""COCO's instance results, one JSON list of hundreds of megabytes, read a piece at a time."""

import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path

from bench.errors import BenchError, one_line

_AGAIN = "save the predictions again"
_CHUNK = 1 << 20  # bytes
# One byte is one character: places in the text are places in the file. What is used of a result is ASCII.
_ENCODING = "latin-1"


class ResultFile:
    """Where in the file the results of each image lie; what is there is read when it is asked for.

    Raises BenchError where the file is no list of results of those images and categories with finite scores.
    """

    def __init__(self, path: Path, image_ids: Collection[int], category_ids: Collection[int]):
        self._path = path
        self._spans: dict[int, list[list[int]]] = defaultdict(list)  # first and last byte + 1 of neighbouring results
        last = None
        try:
            for entry, begin, end in _list_entries(path):
                image_id = self._checked(entry, image_ids, category_ids)
                if image_id == last:
                    self._spans[image_id][-1][1] = end
                else:
                    self._spans[image_id].append([begin, end])
                last = image_id
        except (OSError, ValueError, OverflowError, RecursionError) as error:
            raise BenchError(f"{path} is no JSON list of COCO results ({one_line(error)}): {_AGAIN}") from None

    def of(self, image_id: int) -> list[dict]:
        """The results of an image, in the order of the file."""
        results: list[dict] = []
        with self._path.open("rb") as file:
            for begin, end in self._spans.get(image_id, ()):
                file.seek(begin)
                results += json.loads("[" + file.read(end - begin).decode(_ENCODING) + "]")
        return results

    def _checked(self, entry: object, image_ids: Collection[int], category_ids: Collection[int]) -> int:
        image_id = entry.get("image_id") if isinstance(entry, dict) else None
        if not isinstance(image_id, int) or isinstance(image_id, bool):
            raise BenchError(f"{self._path}: a result has no image id: {_AGAIN}")
        if image_id not in image_ids:
            raise BenchError(f"{self._path} has image {image_id}, which is not in the data set: name the one it is of")
        category, score = entry.get("category_id"), entry.get("score")
        if not isinstance(category, int) or category not in category_ids:
            raise BenchError(
                f"{self._path}: image {image_id} has category id {category!r}, not of the data set: {_AGAIN}"
            )
        if not isinstance(score, int | float) or isinstance(score, bool) or not math.isfinite(score):
            raise BenchError(f"{self._path}: a result of image {image_id} has no finite score: {_AGAIN}")
        return image_id


def _list_entries(path: Path) -> Iterator[tuple[object, int, int]]:
    """The entries of a file that is one JSON list, each with its first byte and last byte + 1.

    Raises ValueError for anything else.
    """
    decoder, text, start, position = json.JSONDecoder(), "", 0, 0  # text: of the file from byte `start` on
    with path.open("rb") as file:

        def more() -> bool:
            """Forget what was read and read on, the more the longer an entry is."""
            nonlocal text, start, position
            piece = file.read(max(_CHUNK, len(text) - position))
            start, text, position = start + position, text[position:] + piece.decode(_ENCODING), 0
            return bool(piece)

        def skip() -> str:
            """The next character that is no blank; "" at the end."""
            nonlocal position
            while True:
                while position < len(text) and text[position] in " \t\r\n":
                    position += 1
                if position < len(text) or not more():
                    return text[position : position + 1]

        if skip() != "[":
            raise ValueError("no list")
        position += 1
        if skip() == "]":
            position += 1
        else:
            while True:
                skip()
                while True:
                    try:
                        entry, end = decoder.raw_decode(text, position)
                        break
                    except json.JSONDecodeError:
                        if not more():
                            raise
                yield entry, start + position, start + end
                position = end
                following = skip()
                position += 1
                if following == "]":
                    break
                if following != ",":
                    raise ValueError("entries without a comma between them, or no end")
        if skip():
            raise ValueError("something after the list")
