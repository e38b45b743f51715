"""`exporter inspect --summary`: many training configs at once, a line each, and how often which answer."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from exporter.inspection import inspect
from exporter.training_config import NoModel, Unreadable
from shared.errors import DeployError, UsageError
from shared.progress import track
from shared.table import MISSING, Table
from shared.text import one_line

Result = Literal["inspected", "refused", "unreadable", "no model", "failed"]

_LONGEST_REASON = 160


@dataclass(frozen=True)
class Summary:
    """A line of the summary.

    Attributes:
        path: the training config.
        result: ``inspected``; ``refused`` with a reason; ``unreadable`` as a training config; ``no model`` in it: a
            base of others; ``failed`` with an error that is not foreseen.
        reason: why it was not inspected, or why Autoware's node can't run the model; empty where it can.
        hint: what to do about it, where that is known.
        model: the kind of model, where that is known.
    """

    path: Path
    result: Result
    reason: str = ""
    hint: str = ""
    model: str = ""

    @property
    def autoware(self) -> bool | None:
        """Whether Autoware's node can run the model; None where it was not inspected."""
        return None if self.result != "inspected" else not self.reason

    def to_json(self) -> dict[str, Any]:
        """The line as JSON."""
        return {
            "file": str(self.path),
            "result": self.result,
            "model": self.model,
            "autoware": self.autoware,
            "reason": self.reason,
            "hint": self.hint,
        }


def summarize(paths: Sequence[Path], overrides: Sequence[str] = ()) -> Iterator[Summary]:
    """Inspect many training configs; what is wrong with one does not stop the others.

    Args:
        paths: files, and folders whose ``.py`` files are meant, those in folders within too.
        overrides: see `exporter.inspection.inspect`.

    Raises:
        UsageError: there is no config.
    """
    files = [file for path in paths for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    if not files:
        raise UsageError("there is no .py file", where=", ".join(str(path) for path in paths))
    for file in track(files, "inspect", total=len(files)):
        yield _summary(file, overrides)


def _summary(path: Path, overrides: Sequence[str]) -> Summary:
    try:
        found = inspect(path, overrides)
    except NoModel:
        return Summary(path, "no model")
    except DeployError as error:
        result: Result = "unreadable" if isinstance(error, Unreadable) else "refused"
        return Summary(path, result, error.message, error.hint or "")
    except Exception as error:  # noqa: BLE001  # configs meet frameworks here; one that breaks them is one line, too
        return Summary(path, "failed", one_line(f"{type(error).__name__}: {error}"))
    return Summary(path, "inspected", found.refusal or "", model=found.spec.model)


def counts(summaries: Sequence[Summary]) -> dict[str, int]:
    """How many files have which result, the frequent ones first."""
    return dict(Counter(line.result for line in summaries).most_common())


def summary_json(summaries: Sequence[Summary]) -> dict[str, Any]:
    """Counts and lines as JSON."""
    taken = sum(1 for line in summaries if line.autoware)
    return {
        "counts": counts(summaries),
        "taken_by_autoware": taken,
        "files": [line.to_json() for line in summaries],
    }


def summary_text(summaries: Sequence[Summary]) -> str:
    """Counts, how often which answer, and a line a file, for a terminal."""
    # Of one file, its folder; names are shown from there on.
    common = Path(os.path.commonpath([line.path.absolute().parent for line in summaries]))
    answers = Counter(
        (line.result, line.model or MISSING, _yes_or_no(line.autoware), _short(line.reason)) for line in summaries
    )
    files = Table(
        f"Files in {common}",
        ("result", "model", "Autoware", "file", "reason"),
        [
            (
                line.result,
                line.model or MISSING,
                _yes_or_no(line.autoware),
                str(line.path.absolute().relative_to(common)),
                _short(line.reason),
            )
            for line in summaries
        ],
    )
    reasons = Table(
        "Answers",
        ("files", "result", "model", "Autoware", "reason"),
        [(str(count), *answer) for answer, count in answers.most_common()],
    )
    taken = sum(1 for line in summaries if line.autoware)
    total = ", ".join(f"{count} {result}" for result, count in counts(summaries).items())
    return (
        f"{files.text()}\n\n{reasons.text()}\n\n"
        f"{len(summaries)} training configs: {total}; Autoware's nodes take {taken}"
    )


def _yes_or_no(value: bool | None) -> str:
    return MISSING if value is None else "yes" if value else "no"


def _short(reason: str) -> str:
    return one_line(reason, _LONGEST_REASON) or MISSING
