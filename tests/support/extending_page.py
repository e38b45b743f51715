"""Modules as docs/extending.md shows them."""

from __future__ import annotations

import re
from pathlib import Path

_PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


def module_of_page(name: str) -> str:
    """Text of the module that the page shows under this file name."""
    match = re.search(rf"^`{re.escape(name)}`:\n\n```python\n(.*?)```", _PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert match is not None, f"docs/extending.md shows no {name}"
    return match[1]
