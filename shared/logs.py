"""The log as JSON, an object a line, for the programs of a pipeline; docs/logs.md shows it, `json_schema` describes it.

A log call says what it is about with ``extra``::

    _log.info("%s: up to date", name, extra=event("up_to_date", stage=name))

In text nothing of that is seen.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import math
import re
import time
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from shared.errors import DeployError
from shared.text import one_line

TEXT, JSON = FORMATS = ("text", "json")
#: Environment variable that says the format where the command line does not.
VARIABLE = "AWML_DEPLOY_LOG_FORMAT"

#: What a line can be about.
EVENTS = {
    "stage_started": "a stage of the workspace begins",
    "stage_done": "a stage ended well and is recorded; numbers: seconds, files, bytes of what it made",
    "stage_failed": "a stage ended with an error, or was interrupted; numbers: seconds",
    "stage_skipped": "a stage can't run here; the message says why, and the manifest too",
    "stage_waiting": "another process runs the stage; this one goes on when that has ended",
    "up_to_date": "nothing to do: what is there was made from the same",
    "progress": "how far a long piece of work is; numbers: done, total, seconds_left, or seconds spent",
    "sample": "a sample is answered (evaluation.verbose); numbers: read_ms, latency_ms, results",
    "message": "anything else worth knowing",
    "warning": "something to look at that does not stop the work",
    "error": "what ended the command, with error.exit_code",
    "output": "a line that something else wrote to the standard error: a library, another process",
    "command_done": "the last line of a command that was not killed; numbers: exit_code, seconds",
}
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

_EVENT_OF_LEVEL = {logging.WARNING: "warning", logging.ERROR: "error", logging.CRITICAL: "error"}
_REQUIRED = ("time", "level", "tool", "event", "message")
_KINDS = dict.fromkeys((*_REQUIRED, "stage", "sample"), str) | {"numbers": dict, "error": dict}
_CREDENTIALS = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")

_ABOUT: ContextVar[tuple[str | None, str | None]] = ContextVar("about", default=(None, None))


@dataclass(frozen=True)
class Event:
    """What a line of the log is about, besides its message.

    Attributes:
        name: one of `EVENTS`; None: by the level.
        stage: of the workspace; None: the one that runs (`about`).
        sample: token or name of the sample; None: the one that is worked on.
        numbers: what was measured, by name, the unit at its end.
        only_json: no line in text.
    """

    name: str | None = None
    stage: str | None = None
    sample: str | None = None
    numbers: Mapping[str, float | None] = field(default_factory=dict)
    only_json: bool = False


def event(
    name: str | None = None,
    *,
    stage: str | None = None,
    sample: str | None = None,
    only_json: bool = False,
    **numbers: float | None,
) -> dict[str, Any]:
    """The ``extra`` of a log call, see `Event`."""
    return {"event": Event(name, stage, sample, numbers, only_json)}


class about(contextlib.AbstractContextManager[None]):  # noqa: N801 (read as a verb)
    """Lines and errors of the block are about this stage or sample, unless they say otherwise.

    A class, since a sample has several such blocks, and a generator takes three times as long.
    """

    def __init__(self, *, stage: str | None = None, sample: str | None = None) -> None:
        self._stage, self._sample = stage, sample

    def __enter__(self) -> None:
        self._before = stage, sample = _ABOUT.get()
        self._stage, self._sample = self._stage or stage, self._sample or sample
        _ABOUT.set((self._stage, self._sample))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _ABOUT.set(self._before)
        if isinstance(error, DeployError):
            error.stage, error.sample = error.stage or self._stage, error.sample or self._sample


def line(
    tool: str,
    level: str,
    name: str,
    message: str,
    *,
    stage: str | None = None,
    sample: str | None = None,
    numbers: Mapping[str, float | None] | None = None,
    error: Mapping[str, Any] | None = None,
    seconds: float | None = None,
) -> str:
    """One line of the log, without its line break.

    Args:
        tool: whose.
        level: one of `LEVELS`.
        name: one of `EVENTS`.
        message: in any text; control characters are escaped, passwords in addresses left out.
        stage, sample, numbers: see `Event`.
        error: see `error_object`.
        seconds: when, since the epoch. None: now.
    """
    at = datetime.datetime.fromtimestamp(time.time() if seconds is None else seconds, datetime.timezone.utc)
    values = {
        "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": level,
        "tool": tool,
        "event": name,
        "message": _clean(message),
        "stage": stage and one_line(stage),
        "sample": sample and one_line(sample),
        "numbers": {key: _finite(value) for key, value in (numbers or {}).items()},
        "error": error,
    }
    return json.dumps({key: value for key, value in values.items() if key in _REQUIRED or value})


def _clean(text: str) -> str:
    lines = (one_line(each) for each in text.rstrip("\n").split("\n"))
    return _CREDENTIALS.sub(r"\1***@", "\n".join(lines))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def error_object(
    error: BaseException, message: str, exit_code: int | None = None, hint: str | None = None, *, debug: bool = False
) -> dict[str, Any]:
    """The ``error`` of a line: type, message, where it happened, what to do, exit code, and traceback in debugging."""
    known = error if isinstance(error, DeployError) else None
    values = {
        "type": type(error).__name__,
        "message": _clean(message if known is None else known.message),
        "where": known and known.where and _clean(known.where),
        "hint": _clean((known.hint if known else hint) or ""),
        "exit_code": exit_code,
        "traceback": [_clean(part.rstrip("\n")) for part in traceback.format_exception(error)] if debug else None,
    }
    return {key: value for key, value in values.items() if value or key in ("type", "message")}


class JsonFormatter(logging.Formatter):
    """Formats records as `line` does.

    Args:
        tool: whose records they are.
    """

    def __init__(self, tool: str) -> None:
        super().__init__()
        self._tool = tool

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        of_record = event_of(record)
        stage, sample = _ABOUT.get()
        error = record.exc_info[1] if record.exc_info else None
        return line(
            self._tool,
            record.levelname if record.levelname in LEVELS else "INFO",
            of_record.name or _EVENT_OF_LEVEL.get(record.levelno, "message"),
            record.getMessage(),
            stage=of_record.stage or stage,
            sample=of_record.sample or sample,
            numbers=of_record.numbers,
            error=None if error is None else error_object(error, str(error), debug=True),
            seconds=record.created,
        )


def event_of(record: logging.LogRecord) -> Event:
    """What the log call said the record is about."""
    found = record.__dict__.get("event")
    return found if isinstance(found, Event) else Event()


def in_text(record: logging.LogRecord) -> bool:
    """Whether a log in text shows the record; a filter of handlers."""
    return not event_of(record).only_json


def is_line(text: str) -> bool:
    """Whether a text is a line of this log, as `line` makes them."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if not isinstance(values, dict) or not set(_REQUIRED) <= values.keys() <= _KINDS.keys():
        return False
    known = all(isinstance(value, _KINDS[key]) for key, value in values.items())
    return known and values["event"] in EVENTS and values["level"] in LEVELS


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a line."""
    text = {"type": "string"}
    properties: dict[str, Any] = {
        "time": {**text, "format": "date-time", "description": "RFC 3339, in UTC, to the millisecond."},
        "level": {"enum": list(LEVELS)},
        "tool": {**text, "description": "Whose line it is."},
        "event": {"oneOf": [{"const": name, "description": what} for name, what in EVENTS.items()]},
        "message": {**text, "description": "For people; may hold line breaks, no other control characters."},
        "stage": {**text, "description": "The stage of the workspace that it is about, as manifest.json names it."},
        "sample": {**text, "description": "Token or name of the sample that it is about."},
        "numbers": {
            "type": "object",
            "additionalProperties": {"type": ["number", "null"]},
            "description": "What was measured, by name with its unit; null where it is no finite number.",
        },
        "error": {
            "type": "object",
            "properties": {
                "type": {**text, "description": "Kind of error, a Python class."},
                "message": text,
                "where": {**text, "description": "File, key, component or sample."},
                "hint": {**text, "description": "What to do about it."},
                "exit_code": {"type": "integer", "description": "That the command ends with."},
                "traceback": {"type": "array", "items": text, "description": "With --debug."},
            },
            "required": ["type", "message"],
            "additionalProperties": False,
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of the log of awml-deploy's tools with --log-format json",
        "type": "object",
        "properties": properties,
        "required": list(_REQUIRED),
        "additionalProperties": False,
    }
