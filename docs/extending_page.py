"""Renders extending.md: its template, with the files of examples/plugin in place."""

from __future__ import annotations

import re
from pathlib import Path

_TEMPLATE = Path(__file__).parent / "templates" / "extending.md"
_EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin"
_LANGUAGES = {".py": "python", ".toml": "toml", ".yaml": "yaml"}


def extending_page() -> str:
    """The text of docs/extending.md. ``{{path}}`` is a file of the example; ``{{+path}}`` one that is folded."""
    text = re.sub(r"\{\{(\+?)(.+)\}\}", lambda match: _file(match[2], folded=bool(match[1])), _TEMPLATE.read_text())
    return f"<!-- Generated from templates/extending.md and examples/plugin by `make docs`. -->\n\n{text}"


def _file(name: str, *, folded: bool) -> str:
    path = _EXAMPLE / name
    block = f"```{_LANGUAGES[path.suffix]}\n{path.read_text()}```"
    if folded:
        return f"<details><summary><code>{name}</code></summary>\n\n{block}\n\n</details>"
    return f"`{name}`:\n\n{block}"
