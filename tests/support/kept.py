"""Files of ``tests/data`` that are compressed, since all that is tracked should stay small."""

from __future__ import annotations

import gzip
from pathlib import Path

DATA = Path(__file__).parents[1] / "data"


def kept(name: str) -> bytes:
    """The content of ``tests/data/<name>.gz``."""
    return gzip.decompress(DATA.joinpath(f"{name}.gz").read_bytes())
