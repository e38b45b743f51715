"""Inputs of a model, read for a run: which samples, in which order, and who reads them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.pipeline import Pipeline
from shared.data.types import Dataset
from shared.logs import about


@dataclass(frozen=True)
class Input:
    """What a request takes, read.

    Attributes:
        index: position of the sample in the data set.
        token: of the sample.
        data: what `Pipeline.infer` takes, for as long as it is held (`Reading.inputs`).
        counters: what reading left out, by name.
        milliseconds: that reading took, wherever it was done.
        reader_seconds: of a processor that another process took for it.
    """

    index: int
    token: str
    data: Any
    counters: dict[str, int]
    milliseconds: float
    reader_seconds: float = 0.0


class Reading(ABC):
    """Who reads the samples of a data set."""

    @abstractmethod
    def inputs(self, pipeline: Pipeline, indices: Sequence[int], *, held: int) -> Iterator[Input]:
        """The inputs of samples, in the order of ``indices``.

        Args:
            pipeline: what takes them.
            indices: positions in the data set.
            held: an input is valid until so many others have been taken, and one more is asked for.

        Raises:
            InputError: a file of a sample is missing or corrupt.
        """


class ReadingHere(Reading):
    """This process reads a sample when its turn comes."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self._dataset = dataset

    def inputs(self, pipeline: Pipeline, indices: Sequence[int], *, held: int) -> Iterator[Input]:  # noqa: ARG002 (nothing is written twice)
        """See `Reading`."""
        for index in indices:
            sample = self._dataset.sample(index)
            started = time.perf_counter()
            with about(sample=sample.token):
                read = pipeline.read(sample)
            yield Input(index, sample.token, read.data, read.counters, (time.perf_counter() - started) * 1e3)
