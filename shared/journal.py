"""Files of JSON lines that long searches append to, so that a killed one resumes where it stopped."""

from __future__ import annotations

import json
import os
from typing import Any

from shared.errors import InputError
from shared.files import explain_os_errors, write_text
from shared.json_reader import parse_json
from shared.work_path import WorkPath


def read_lines(path: WorkPath) -> list[Any]:
    """The values of a file with one line of JSON each, up to the last whole one; none without a file."""
    values: list[Any] = []
    for line in path.read_bytes().split(b"\n") if path.status() is not None else ():
        try:
            values.append(parse_json(line, str(path)))
        except InputError:
            break  # the last line of a killed writer
    return values


def append_line(path: WorkPath, value: Any) -> None:
    """Add a line to such a file, flushed to disk.

    Raises:
        EnvironmentLacks: the disk is full or read-only.
    """
    with explain_os_errors(path), path.open_file("ab") as file:
        file.write(json.dumps(value).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


class Journal:
    """The answers of a search so far, one JSON line each, flushed at once; each has its ``key``."""

    def __init__(self, path: WorkPath, answers: dict[str, dict[str, Any]]) -> None:
        self.path = path
        self.answers = answers

    @staticmethod
    def open(path: WorkPath, fingerprint: str, afresh: bool) -> Journal:
        """The journal of a search.

        Args:
            path: where it is kept.
            fingerprint: of the search; the journal of another one is discarded.
            afresh: discard it in any case.

        Raises:
            EnvironmentLacks: the disk is full or read-only.
        """
        entries = [] if afresh else read_lines(path)
        ours = entries[:1] == [{"fingerprint": fingerprint}]
        answers = {answer["key"]: answer for answer in entries[1:]} if ours else {}
        lines = [json.dumps({"fingerprint": fingerprint}), *map(json.dumps, answers.values())]
        write_text(path, "\n".join(lines) + "\n")
        return Journal(path, answers)

    def add(self, answer: dict[str, Any]) -> None:
        """Keep an answer.

        Raises:
            EnvironmentLacks: the disk is full.
        """
        self.answers[answer["key"]] = answer
        append_line(self.path, answer)
