"""From sections to one HTML file: template, style and script are files beside this one, and go into the page."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

from evaluator.report.blocks import Section
from shared.lazy import lazy_import

jinja2 = lazy_import("jinja2", install="make setup")

_PACKAGE = "evaluator.report"
_FILES = ("page.html", "page.css", "page.js")


def files() -> dict[str, str]:
    """Template, style and script, by name."""
    return {name: resources.files(_PACKAGE).joinpath(name).read_text(encoding="utf-8") for name in _FILES}


def digest() -> str:
    """Hex sha256 over the files that make the page look as it does."""
    return hashlib.sha256("".join(files().values()).encode()).hexdigest()


def render(title: str, subtitle: str, sections: Sequence[Section], facts: dict[str, Any]) -> str:
    """The page.

    Raises:
        EnvironmentLacks: Jinja2 is not installed.
    """
    sources = files()
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page: str = environment.from_string(sources["page.html"]).render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        facts=facts,
        style=sources["page.css"],
        script=sources["page.js"],
    )
    return page
