"""Answers of a long search, kept as they come: a killed one, started again, does not ask what it knows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shared.files import explain_os_errors


class Journal:
    """Answers so far, one line of JSON each, flushed as they come; each has its ``key``."""

    def __init__(self, path: Path, answers: dict[str, dict[str, Any]]) -> None:
        self.path = path
        self.answers = answers

    @staticmethod
    def open(path: Path, fingerprint: str, afresh: bool) -> Journal:
        """The journal of a search.

        Args:
            path: where it is kept.
            fingerprint: of the search; the journal of another one is discarded.
            afresh: discard it in any case.

        Raises:
            EnvironmentLacks: the disk is full or read-only.
        """
        answers = {} if afresh else dict(_answers(path, fingerprint))
        lines = [json.dumps({"fingerprint": fingerprint}), *map(json.dumps, answers.values())]
        with explain_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return Journal(path, answers)

    def add(self, answer: dict[str, Any]) -> None:
        """Keep an answer.

        Raises:
            EnvironmentLacks: the disk is full.
        """
        self.answers[answer["key"]] = answer
        with explain_os_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(answer, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _answers(path: Path, fingerprint: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if not path.is_file():
        return
    for position, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        try:
            entry = json.loads(line)
        except ValueError:
            return  # the last line of a killed search
        if position == 0 and entry != {"fingerprint": fingerprint}:
            return
        if position:
            yield entry["key"], entry
