"""Checkpoint files of a training."""

import zipfile
from pathlib import Path

import torch

from bench.errors import BenchError
from bench.files import whole_file

REMEDY = "delete it to train this run from its start"


def save_checkpoint(path: Path, state: dict) -> None:
    """A kill or a full disk leaves the old checkpoint or the new one. Raises as `whole_file`."""
    for left in path.parent.glob(f".{path.stem}-*.tmp"):  # by a kill: one process of a run writes
        left.unlink(missing_ok=True)
    with whole_file(path, durable=True) as temporary, temporary.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # by which torch's zip writer hides that of the disk
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load_checkpoint(path: Path, identity: str) -> dict | None:
    """The checkpoint's state, None if there is none. Raises BenchError for a damaged file or another run's."""
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as entries:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.infolist()):
                raise ValueError("compressed, which torch.save never does: it could become any size")
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise TypeError("not a dictionary")
        found = state["identity"]
    except Exception as error:  # torch raises many kinds for a truncated or foreign file
        raise damaged(path, error) from error
    if found != identity:
        raise BenchError(f"checkpoint {path} belongs to another run ({found}): {REMEDY}")
    return state


def damaged(path: Path, error: Exception) -> BenchError:
    return BenchError(f"checkpoint {path} is damaged ({type(error).__name__}): {REMEDY}")
