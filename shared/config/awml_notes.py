"""What becomes of each key of AWML's deploy config: where it is here, or why it is dropped or changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.config.problems import place
from shared.config.python_literals import LinedDict, place_of
from shared.config.walk import KeyPath, key_text


@dataclass(frozen=True)
class Note:
    """What became of one key.

    Attributes:
        keys: the key in AWML's file; empty: the file as a whole.
        text: what became of it.
        changed: the value is dropped, or is not the same here; otherwise it only has another name.
        source: file that the key is in: the config, or one of its bases.
        line: its line; None when the file does not set it.
    """

    keys: KeyPath
    text: str
    changed: bool
    source: Path
    line: int | None

    def __str__(self) -> str:
        return f"{place(self.source, self.line, self.keys)}: {self.text}"

    def comment(self, path: Path) -> str:
        """The note as a comment in what the config ``path`` was converted to."""
        file = "" if self.source == path else f"{self.source.name} "
        line = "" if self.line is None else f"{file}line {self.line}"
        return ": ".join(part for part in (", ".join(filter(None, (line, key_text(self.keys)))), self.text) if part)


class Notes:
    """The notes on one file, and which of its keys each of ours came from."""

    def __init__(self, path: Path, raw: LinedDict) -> None:
        self.path = path
        self.raw = raw
        self.notes: list[Note] = []
        self._origins: dict[KeyPath, KeyPath] = {}

    def value(self, *keys: str | int) -> Any:
        """The value that the file itself sets at a key path; None if it sets none."""
        value: Any = self.raw
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def changed(self, keys: KeyPath, text: str) -> None:
        """The value of a key is dropped, or means something else here."""
        self._add(keys, text, changed=True)

    def dropped(self, keys: KeyPath, text: str, *, changed: bool) -> None:
        """A key has no counterpart; ``changed``: its value would mean something here."""
        self._add(keys, text, changed=changed)

    def moved(self, source: KeyPath, target: KeyPath) -> None:
        """Ours at ``target`` is the file's at ``source``; no note where the name is the same, or the file is silent."""
        self._origins[target] = source
        if source != target and self.value(*source) is not None:
            self._add(source, f"is {key_text(target)} here", changed=False)

    def moved_into(self, source: KeyPath, target: KeyPath, text: str) -> None:
        """Like `moved`, where a key becomes a part of one of ours: ``text`` is that part."""
        self._add(source, f"is {key_text(target)} here: {text}", changed=False)

    def same_anyway(self, keys: KeyPath) -> None:
        """A key, if the file sets it, says what is so anyway."""
        if self.value(*keys) is not None:
            self._add(keys, "dropped: so it is anyway", changed=False)

    def _add(self, keys: KeyPath, text: str, *, changed: bool) -> None:
        source, line = place_of(self.raw, keys) or (self.path, 0)
        note = Note(keys, text, changed, source if line else self.path, line or None)
        if note not in self.notes:
            self.notes.append(note)

    def lines(self, value: Mapping[str, Any]) -> dict[KeyPath, int]:
        """Line of the file for each key path of the converted config that came from one, for errors found in it."""
        lines: dict[KeyPath, int] = {}

        def walk(item: Any, keys: KeyPath) -> None:
            for length in range(len(keys), 0, -1):
                if keys[:length] in self._origins:
                    origin = place_of(self.raw, (*self._origins[keys[:length]], *keys[length:]))
                    if origin is not None and origin[0] == self.path:
                        lines[keys] = origin[1]
                    break
            children = item.items() if isinstance(item, Mapping) else enumerate(item) if isinstance(item, list) else ()
            for key, child in children:
                walk(child, (*keys, key))

        walk(value, ())
        return lines
