"""What a command answers: a text for people, and the same for programs."""

from __future__ import annotations

import json
from typing import Any


class Answer(str):
    """The text that a command prints, and what it was made from, which ``--json`` prints instead.

    Attributes:
        data: JSON; finite numbers, not rounded. Keys keep their names and meanings (docs/logs.md).
    """

    data: Any

    def __new__(cls, text: str, data: Any = None) -> Answer:
        """Args: the text, and the data."""
        made = super().__new__(cls, text)
        made.data = data
        return made

    def json(self) -> str:
        """The data as a document."""
        return json.dumps(self.data, indent=2, allow_nan=False)
