"""Fixtures that several test folders use."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference facts and small real data beside the checkout; tests that need it skip without it."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not (path / "reference").is_dir():
        pytest.skip("../shared (reference fixtures and small real data) is not beside this checkout")
    return path
