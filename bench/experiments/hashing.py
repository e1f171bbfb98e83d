"""Content hashes of plain values."""

import hashlib
import json
from collections.abc import Mapping, Sequence


def content_hash(value: Mapping | Sequence) -> str:
    """First 8 hexadecimal digits of the SHA-256 of `value` as canonical JSON (keys sorted, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
