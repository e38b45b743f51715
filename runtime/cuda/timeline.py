"""How long the stages of a request take on the device."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from runtime.cuda.gpu import Gpu


class Timeline:
    """Events between the stages of a request.

    Attributes:
        started: the start of the first stage.
        ends: the end of each stage, by name.
    """

    def __init__(self, gpu: Gpu, stages: Sequence[str]) -> None:
        self.started = gpu.event()
        self.ends = {stage: gpu.event() for stage in stages}

    def marker(self, stream: Any, *, timed: bool, in_graph: bool = False) -> Callable[[str], None]:
        """A function that marks the end of a stage on the stream; one that does nothing if stages are not timed."""
        if not timed:
            return lambda stage: None
        return lambda stage: self.ends[stage].record(stream, in_graph=in_graph)

    def milliseconds(self) -> dict[str, float]:
        """Time of each stage, once all of them have passed."""
        events = itertools.pairwise([self.started, *self.ends.values()])
        return {
            stage: before.milliseconds_until(after) for stage, (before, after) in zip(self.ends, events, strict=True)
        }
