"""What was measured per sample: a file of one line a sample, and its columns.

``samples.jsonl`` has, in the order of the run's samples, ``{"index": 0, "latency_ms": {...}, "counters": {...}}``.
Version 0.1 wrote ``latency.json``, a list of such objects; it is read too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt

from shared.errors import InputError
from shared.files import atomic_path
from shared.json_reader import DATA_BYTES, parse_json, read_json
from shared.latency import RENAMED_STAGES
from shared.work_path import WorkPath

SAMPLES = "samples.jsonl"
_FORMER = "latency.json"
NumberT = TypeVar("NumberT", int, float)


class SampleColumns(Sequence[dict[str, NumberT]], Generic[NumberT]):
    """Numbers by name for each sample, kept as columns: ``columns[3]`` makes the mapping of sample 3.

    Attributes:
        values: (S,) by name, float64 or int64; 0 where the sample has no such number.
        present: (S,) bool by name, whether it has.
    """

    def __init__(self, count: int, dtype: type[np.float64] | type[np.int64]) -> None:
        self._count = count
        self._dtype = dtype
        self.values: dict[str, npt.NDArray[Any]] = {}
        self.present: dict[str, npt.NDArray[np.bool_]] = {}

    def _set(self, index: int, numbers: Mapping[str, Any]) -> None:
        for name, number in numbers.items():
            if not isinstance(number, int if self._dtype is np.int64 else (int, float)):
                raise ValueError(f"'{name}' is {number!r}, not a number")
            if name not in self.values:
                self.values[name] = np.zeros(self._count, self._dtype)
                self.present[name] = np.zeros(self._count, np.bool_)
            self.values[name][index] = number
            self.present[name][index] = True

    def sums(self) -> dict[str, NumberT]:
        """The sum over all samples, by name."""
        return {name: column.sum().item() for name, column in self.values.items()}

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> dict[str, NumberT]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, NumberT]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, NumberT] | list[dict[str, NumberT]]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(self._count))]
        if not -self._count <= index < self._count:
            raise IndexError(f"sample {index} of {self._count}")
        return {name: column[index].item() for name, column in self.values.items() if self.present[name][index]}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(_equal, self, other))

    __hash__ = None  # type: ignore[assignment]  # as lists have none


def _equal(one: object, other: object) -> bool:
    return one == other


def write_samples(path: Path | WorkPath, samples: Iterable[tuple[Mapping[str, float], Mapping[str, int]]]) -> None:
    """Write the file from latencies and counters, sample by sample.

    Raises:
        EnvironmentLacks: the disk is full or read-only.
    """
    with atomic_path(path) as unfinished, unfinished.open("x", encoding="utf-8") as file:
        for index, (latency_ms, counters) in enumerate(samples):
            file.write(json.dumps({"index": index, "latency_ms": latency_ms, "counters": counters}) + "\n")


def read_samples(folder: Path, count: int) -> tuple[SampleColumns[float], SampleColumns[int]]:
    """Latencies [ms] and counters of a run of ``count`` samples.

    Raises:
        InputError: missing, no such file, or of another number of samples.
    """
    path = folder / SAMPLES
    former = not path.exists() and (folder / _FORMER).exists()
    path = folder / _FORMER if former else path
    latencies: SampleColumns[float] = SampleColumns(count, np.float64)
    counters: SampleColumns[int] = SampleColumns(count, np.int64)
    number = 0
    try:
        for number, sample in enumerate(read_json(path, most_bytes=DATA_BYTES) if former else _lines(path), 1):
            if number <= count:
                milliseconds = sample["latency_ms"]
                if former:
                    milliseconds = {RENAMED_STAGES.get(name, name): value for name, value in milliseconds.items()}
                latencies._set(number - 1, milliseconds)
                counters._set(number - 1, sample["counters"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"can't be read, sample {number} ({reason})", where=str(path)) from error
    if number != count:
        raise InputError(f"has {number} samples, the run's header {count}", where=str(path))
    return latencies, counters


def _lines(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield parse_json(line, str(path))
