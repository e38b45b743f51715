"""How fast samples are answered, and what bounds that: where the time of the thread that drives the model goes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from runtime.reading import Input

#: Waiting for an input; putting a request on a device; waiting for an answer; the time until the next is asked for.
READ, UPLOAD, INFERENCE, COMMIT = "read", "upload", "inference", "commit"


@dataclass
class Pace:
    """An account of the samples that were answered since it was made.

    Attributes:
        samples: how many.
        seconds: by what was waited for or done.
        readers_seconds: of processors, that processes which read ahead took for them.
    """

    samples: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys((READ, UPLOAD, INFERENCE, COMMIT), 0.0))
    readers_seconds: float = 0.0
    _began: float = field(default_factory=time.process_time)
    _since: float = field(default_factory=time.perf_counter)

    def begin(self) -> None:
        """What is accounted for begins now."""
        self._since = time.perf_counter()

    def spent_on(self, what: str) -> None:
        """The time since this was last said was spent on it."""
        now = time.perf_counter()
        self.seconds[what] += now - self._since
        self._since = now

    def add(self, read: Input) -> None:
        """One more was answered."""
        self.samples += 1
        self.readers_seconds += read.reader_seconds

    def result(self) -> dict[str, Any]:
        """What a run records: samples a second, parts of the time, seconds of all processors a sample."""
        whole = sum(self.seconds.values())
        processors = time.process_time() - self._began + self.readers_seconds
        return {
            "samples": self.samples,
            "per_second": self.samples / whole,
            "parts": {what: seconds / whole for what, seconds in self.seconds.items()},
            "processor_seconds": processors / self.samples,
        }


def side_by_side(results: Sequence[dict[str, Any]], seconds: float, taking_in: float) -> dict[str, Any] | None:
    """The result of processes that worked at the same time; None where there is none.

    Args:
        results: of each, see `Pace.result`.
        seconds: from the first sample's start to the last one's end.
        taking_in: seconds of these that the command spent on what the processes left.

    Returns:
        A `Pace.result` of all, with ``at_work``, how many answered at a time, and ``taking_in``, a part of the time.
    """
    samples = sum(result["samples"] for result in results)
    if not samples:
        return None
    worked = [result["samples"] / result["per_second"] for result in results]
    shares = [(part / sum(worked), result) for part, result in zip(worked, results, strict=True)]
    return {
        "samples": samples,
        "per_second": samples / seconds,
        "parts": {what: sum(share * result["parts"][what] for share, result in shares) for what in results[0]["parts"]},
        "processor_seconds": sum(result["samples"] * result["processor_seconds"] for result in results) / samples,
        "at_work": sum(worked) / seconds,
        "taking_in": taking_in / seconds,
    }


def sentence(result: dict[str, Any]) -> str:
    """A result in words."""
    parts = {what: part for what, part in result["parts"].items() if part >= 0.005}
    bound = max(parts, key=lambda what: parts[what])
    shares = ", ".join(f"{what} {part:.0%}" for what, part in parts.items())
    words = (
        f"{result['per_second']:.1f} samples a second, bound by {bound} ({shares}); "
        f"{result['processor_seconds'] * 1e3:.1f} ms of processors a sample"
    )
    if "at_work" not in result:
        return words
    return (
        f"{words}; {result['at_work']:.1f} workers answered at a time, "
        f"this command took their answers in for {result['taking_in']:.0%} of it"
    )
