"""Several data sets one after the other, with one class list and tokens that stay unique."""

from __future__ import annotations

import bisect
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from shared.data.types import Dataset
from shared.errors import ConfigError, InputError

#: The format that combines data sets of other formats.
CONCAT = "concat"


def concatenate(name: str, parts: Sequence[Dataset[Any]]) -> Dataset[Any]:
    """Data sets in order. A sample's token becomes ``<data set>/<token>``.

    Raises:
        ConfigError: there are none, or those with labels have different classes.
    """
    if not parts:
        raise ConfigError("a concatenation needs at least one source", where="data.sources")
    class_lists = {part.classes for part in parts if part.classes}
    if len(class_lists) > 1:
        raise ConfigError(
            f"the sources have different classes: {' / '.join(', '.join(names) for names in sorted(class_lists))}",
            where="data.sources",
            hint="give all of them the same data.classes",
        )
    names = _unique([part.name for part in parts])
    ends = list(itertools.accumulate(len(part) for part in parts))

    def build(index: int) -> Any:
        position = bisect.bisect_right(ends, index)
        sample = parts[position].sample(index - (ends[position] - len(parts[position])))
        return replace(sample, index=index, token=f"{names[position]}/{sample.token}")

    return Dataset(
        name=name,
        classes=next(iter(class_lists), ()),
        length=ends[-1],
        build=build,
        digest_parts=lambda: [[name, part.digest()] for name, part in zip(names, parts, strict=True)],
    )


def concatenate_real(folder: Path, parts: Sequence[Dataset[Any]], expected: str) -> Dataset[Any]:
    """The real data sets found in ``folder``, one after the other.

    Raises:
        InputError: none was found; ``expected`` says what could be there.
    """
    if not parts:
        raise InputError("none of the known real data sets is here", where=str(folder), hint=f"expected {expected}")
    return concatenate("real", parts)


def _unique(names: Sequence[str]) -> list[str]:
    """The names, with #2, #3 ... after those that came before."""
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return unique
