"""From sections to one HTML file: template, style and scripts are files in ``static/``, and go into the page."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

from evaluator.report.blocks import Explorer, Graph, Section
from shared.lazy import lazy_import

jinja2 = lazy_import("jinja2", install="make setup")

_PACKAGE = "evaluator.report.static"
_TEMPLATE, _STYLE = "page.html", "page.css"
# In the order in which they stand in the page: each may use what those before it define.
_SCRIPTS = (
    "ogl.min.js",
    "dom.js",
    "pictures.js",
    "judge.js",
    "cloud.js",
    "labels.js",
    "birdseye.js",
    "space.js",
    "photo.js",
    "explorer.js",
    "dagre.min.js",
    "graph.js",
    "tables.js",
)


def files() -> dict[str, str]:
    """Template, style and scripts, by name."""
    folder = resources.files(_PACKAGE)
    return {name: folder.joinpath(name).read_text(encoding="utf-8") for name in (_TEMPLATE, _STYLE, *_SCRIPTS)}


def digest() -> str:
    """Hex sha256 over the files that make the page look as it does."""
    return hashlib.sha256("".join(files().values()).encode()).hexdigest()


def render(title: str, subtitle: str, sections: Sequence[Section], facts: dict[str, Any]) -> str:
    """The page. Its policy lets the browser run our script alone, by its hash.

    Raises:
        EnvironmentLacks: Jinja2 is not installed.
    """
    sources = files()
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script = "".join(sources[name] for name in _SCRIPTS)
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page: str = environment.from_string(sources[_TEMPLATE]).render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        facts=facts,
        style=sources[_STYLE],
        script=script,
        # Behind the text, which is shown while the browser still reads them.
        data=[
            (block.key, block.json())
            for section in sections
            for block in section.blocks
            if isinstance(block, Explorer | Graph)
        ],
        script_hash=script_hash,
    )
    return page
