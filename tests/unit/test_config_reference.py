"""The reference and the JSON Schema are what the models say, and every key is described."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.config.schema import DeployConfig
from shared.config.section import Section
from shared.config.walk import field_types, shape_of

ROOT = Path(__file__).parents[2]


def sections(section: type[Section]) -> Iterator[type[Section]]:
    """A section and every one in it."""
    todo, seen = [section], set()
    while todo:
        found = todo.pop()
        if found in seen:
            continue
        seen.add(found)
        yield found
        for annotation in field_types(found).values():
            shape = shape_of(annotation)
            while shape.item is not None:
                shape = shape_of(shape.item)
            if shape.section is not None:
                todo.append(shape.section)


@pytest.mark.parametrize("section", list(sections(DeployConfig)), ids=lambda section: section.__name__)
def test_every_key_is_described_and_in_the_reference(section: type[Section]) -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for name, field in section.model_fields.items():
        assert field.description, f"{section.__name__}.{name}"
        assert field.description.endswith("."), f"{section.__name__}.{name}"
        assert f"`{name}`" in page, f"{section.__name__}.{name}"
