"""The samples of a run that is not finished: their arrays in one file, and an index of it.

In the run's folder::

    journal.bin      the arrays of every committed sample, one after another
    journal.jsonl    one line a sample: what was measured, and where in journal.bin its arrays are

One file that grows, not one a sample: creating, flushing and renaming a file costs more than the millisecond that a
sample may take, and a hundred thousand of them are a burden to every tool that walks the folder.

A killed process loses nothing: what it wrote is the kernel's. A power cut may lose what the kernel had not written yet,
in any order. So both files are flushed every few seconds, each line says how much of journal.bin was flushed before it,
and has a checksum; what comes after the last flush is read back and compared when the run is resumed. Samples are
trusted up to the first that does not hold.
"""

from __future__ import annotations

import functools
import json
import math
import os
import time
import weakref
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from shared.arrays import Arrays, Int64
from shared.errors import InputError
from shared.files import explain_os_errors
from shared.json_reader import parse_json
from shared.work_path import WorkPath

JOURNAL = "journal.jsonl"
DATA = "journal.bin"
# Both took 20 ms on an ext4 disk: each second, a fiftieth of a run's time.
_FLUSH_EVERY_SECONDS = 5.0
_JSON = json.JSONEncoder(allow_nan=False)


#: Of the arrays of a sample, in the order in which they follow one another: name, dtype, axes after the first.
Layout = tuple[tuple[str, str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Slot:
    """An array of one sample in a file.

    Attributes:
        start: byte at which it begins.
        dtype: of its elements; C order.
        shape: of the array.
    """

    start: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Entry:
    """A committed sample, as its line of the journal has it.

    Attributes:
        index: position in the run's tokens.
        latency_ms: per stage, milliseconds.
        counters: by name.
        arrays: dtype and shape of its arrays, by name, in the order in which they lie in the data file.
        start: byte of the data file where they begin.
        end: byte after them.
        crc32: of these bytes.
        flushed: so many bytes of the data file were on disk before the line was written.
    """

    index: int
    latency_ms: dict[str, float]
    counters: dict[str, int]
    arrays: dict[str, tuple[str, list[int]]]
    start: int
    end: int
    crc32: int
    flushed: int

    def slots(self) -> dict[str, Slot]:
        """Where its arrays are in the data file, by name."""
        slots, start = {}, self.start
        for name, (dtype, shape) in self.arrays.items():
            slots[name] = Slot(start, np.dtype(dtype), tuple(shape))
            start += slots[name].nbytes
        return slots

    def layout(self) -> Layout:
        """What is the same in all samples."""
        return tuple((name, dtype, tuple(shape[1:])) for name, (dtype, shape) in self.arrays.items())


@dataclass(frozen=True)
class Lines:
    """Where the samples of a journal are in it, for a process that is told and need not read it.

    Attributes:
        starts: (S,) byte at which the line of each sample begins; -1 where it is not committed.
        layout: of the arrays of all samples.
    """

    starts: Int64
    layout: Layout | None


class SampleJournal:
    """Committed samples of a run, or of a piece of one. Memory is eight bytes a sample; the rest stays on disk.

    Attributes:
        samples: positions in the run's tokens that it is to have.
    """

    def __init__(self, folder: WorkPath, samples: range) -> None:
        self.samples = samples
        self._index_path, self._data_path = folder / JOURNAL, folder / DATA
        self._line_starts = np.full(len(samples), -1, np.int64)
        self._layout: Layout | None = None
        # Of the samples that were added: the layout as NumPy has it, and as a line does but for the lengths.
        self._kinds: list[tuple[str, np.dtype[Any], tuple[int, ...]]] | None = None
        self._arrays_text = ""
        self._files: tuple[BinaryIO, BinaryIO] | None = None  # data and index; opened at the first sample
        self._index_end = self._data_end = self._flushed = 0
        self._last_flush = time.monotonic()

    @staticmethod
    def open(folder: WorkPath, samples: range) -> SampleJournal:
        """The journal in ``folder``, cut after the last sample that can be trusted; an empty one where there is none.

        Args:
            folder: of the run; it exists.
            samples: positions that it is to have, without gaps.

        Raises:
            EnvironmentLacks: the disk is full or read-only.
        """
        journal = SampleJournal(folder, samples)
        with (
            explain_os_errors(folder),
            journal._index_path.open_file("r+b", make=True) as index,
            journal._data_path.open_file("r+b", make=True) as data,
        ):
            journal._read(index, data)
            index.truncate(journal._index_end)
            data.truncate(journal._data_end)
        return journal

    @staticmethod
    def read(folder: WorkPath, samples: range) -> SampleJournal:
        """The journal in ``folder``, as `open`, without changing it.

        Raises:
            OSError: it is not there.
        """
        journal = SampleJournal(folder, samples)
        with journal._index_path.open_file() as index, journal._data_path.open_file() as data:
            journal._read(index, data)
        return journal

    @staticmethod
    def told(folder: WorkPath, samples: range, lines: Lines) -> SampleJournal:
        """The journal in ``folder`` of which the process that wrote it says where its lines are; only to be read.

        Raises:
            ValueError: it is of another number of samples.
        """
        if lines.starts.shape != (len(samples),):
            raise ValueError(f"lines of {lines.starts.size} samples, not {len(samples)}")
        journal = SampleJournal(folder, samples)
        # A copy: what was sent may lie in memory that its sender shares.
        journal._line_starts, journal._layout = lines.starts.copy(), lines.layout
        return journal

    def lines(self) -> Lines:
        """Where its samples are."""
        return Lines(self._line_starts, self._layout)

    def _read(self, index: IO[bytes], data: IO[bytes]) -> None:
        size = data.seek(0, os.SEEK_END)
        unproven: deque[tuple[int, Entry]] = deque()
        line_start = 0
        for line in index:
            entry = _parse(line)
            if entry is None or entry.index not in self.samples or entry.end > size:
                break
            layout = entry.layout()
            if self._layout not in (None, layout):
                break
            self._flushed = max(self._flushed, entry.flushed)
            unproven.append((line_start, entry))
            while unproven and unproven[0][1].end <= self._flushed:
                unproven.popleft()
            self._layout = layout
            self._add(entry.index, line_start, len(line), entry.end)
            line_start += len(line)
        for line_start, entry in unproven:
            data.seek(entry.start)
            if zlib.crc32(data.read(entry.end - entry.start)) != entry.crc32:
                self._line_starts[self._line_starts >= line_start] = -1
                self._index_end, self._data_end = line_start, entry.start
                break

    def _add(self, index: int, line_start: int, line_length: int, data_end: int) -> None:
        self._line_starts[index - self.samples.start] = line_start
        self._index_end, self._data_end = line_start + line_length, data_end

    def __contains__(self, index: int) -> bool:
        return index in self.samples and bool(self._line_starts[index - self.samples.start] >= 0)

    def committed(self) -> Int64:
        """Positions of the samples that are committed, in order."""
        return np.flatnonzero(self._line_starts >= 0) + self.samples.start

    def missing(self) -> list[int]:
        """Positions of the samples that are not committed, in order."""
        return (np.flatnonzero(self._line_starts < 0) + self.samples.start).tolist()

    def layout(self) -> Layout | None:
        """Of the arrays of all samples; None where there is no sample."""
        return self._layout

    def add(self, index: int, latency_ms: dict[str, float], counters: dict[str, int], arrays: Arrays) -> None:
        """Commit a sample.

        Args:
            index: position in the run's tokens.
            latency_ms: per stage, milliseconds.
            counters: by name.
            arrays: by name, each of at least one axis.

        Raises:
            ValueError: the arrays differ from those of the samples before in names, dtypes or axes after the first.
            EnvironmentLacks: the disk is full.
        """
        kinds = [(name, array.dtype, array.shape[1:]) for name, array in arrays.items()]
        if kinds != self._kinds:
            layout: Layout = tuple((name, dtype.str, axes) for name, dtype, axes in kinds)
            if self._layout not in (None, layout):
                raise ValueError(f"arrays of sample {index} are {layout}, those of the ones before {self._layout}")
            self._kinds, self._layout, self._arrays_text = kinds, layout, _arrays_text(layout)
        # Nothing is copied on the way to the file: a mask is half a megabyte, and memory for that costs as much again.
        blocks: list[Any] = [np.ascontiguousarray(array) for array in arrays.values()]
        crc32, start, end = 0, self._data_end, self._data_end
        for block in blocks:
            crc32, end = zlib.crc32(block, crc32), end + block.nbytes
        now = time.monotonic()
        flush = now - self._last_flush >= _FLUSH_EVERY_SECONDS
        flushed = end if flush else self._flushed
        # An `Entry` by hand: to encode one takes as long as all the rest.
        measured = _JSON.encode({"index": int(index), "latency_ms": latency_ms, "counters": counters})
        line = (
            f'{measured[:-1]}, "arrays": {self._arrays_text % tuple([len(array) for array in arrays.values()])}, '
            f'"start": {start}, "end": {end}, "crc32": {crc32}, "flushed": {flushed}}}\n'
        ).encode()
        with explain_os_errors(self._data_path):
            data_file, index_file = self._opened()
            _append(data_file, start, blocks, end, flush)
            _append(index_file, self._index_end, [line], self._index_end + len(line), flush)
        if flush:
            self._flushed, self._last_flush = end, now
        self._add(index, self._index_end, len(line), end)

    def _opened(self) -> tuple[BinaryIO, BinaryIO]:
        if self._files is None:
            data, index = (path.open_file("r+b", buffering=0) for path in (self._data_path, self._index_path))
            for file in (data, index):
                weakref.finalize(self, file.close)
            self._files = data, index
        return self._files

    def entries(self, indices: Iterable[int] | None = None) -> Iterator[Entry]:
        """Committed samples, in the order of ``indices``; None: all, in the order of the run's tokens.

        Raises:
            InputError: the journal was changed since it was opened.
        """
        with self._index_path.open_file() as file:
            for index in self.committed().tolist() if indices is None else indices:
                file.seek(self._line_starts[index - self.samples.start])
                try:
                    entry = Entry(**json.loads(file.readline()))  # which was checked when the journal was opened
                    same = entry.index == index and entry.layout() == self._layout
                except (ValueError, TypeError, AttributeError):
                    same = False
                if not same:
                    raise InputError("was changed while it was read", where=str(self._index_path), hint="start again")
                yield entry

    def open_data(self) -> IO[bytes]:
        """The file that the slots of the entries are in."""
        return self._data_path.open_file()


def _append(file: BinaryIO, start: int, blocks: Sequence[Any], end: int, flush: bool) -> None:
    """Write blocks one behind the other, from ``start`` to ``end``; all of them, or nothing."""
    descriptor = file.fileno()
    try:
        written = start + os.pwritev(descriptor, blocks, start)
        # A disk that is nearly full takes a part, and says what is the matter when it is asked to take the rest.
        while written < end:
            written += os.pwrite(descriptor, b"".join(blocks)[written - start :], written)
    except OSError:
        file.truncate(start)
        raise
    if flush:
        os.fsync(descriptor)


def _arrays_text(layout: Layout) -> str:
    """The arrays of an `Entry` in JSON, with ``%d`` where the length of each stands."""
    arrays = (
        f'{_JSON.encode(name)}: ["{dtype}", '.replace("%", "%%") + f"[{', '.join(['%d', *map(str, axes)])}]]"
        for name, dtype, axes in layout
    )
    return f"{{{', '.join(arrays)}}}"


def _parse(line: bytes) -> Entry | None:
    """The sample of a line; None for one that is torn, or that no writer of ours wrote."""
    if not line.endswith(b"\n"):
        return None
    try:
        entry = Entry(**parse_json(line, "journal"))
        return entry if _is_sound(entry) else None
    except (InputError, TypeError, ValueError, AttributeError):
        return None


def _is_sound(entry: Entry) -> bool:
    """Whether the values are such as a writer writes: a piece of a run may come from elsewhere."""
    numbers = (entry.index, entry.start, entry.end, entry.crc32, entry.flushed)
    return (
        all(type(number) is int and number >= 0 for number in numbers)
        and all(type(value) in (int, float) for value in entry.latency_ms.values())
        and all(type(value) is int for value in entry.counters.values())
        and all(_is_plain(dtype) and _is_shape(shape) for dtype, shape in entry.arrays.values())
        and entry.end - entry.start
        == sum(rows * _row_bytes(dtype, *axes) for dtype, (rows, *axes) in entry.arrays.values())
    )


def _is_shape(shape: list[int]) -> bool:
    return bool(shape) and all(type(axis) is int and axis >= 0 for axis in shape)


@functools.lru_cache(maxsize=64)
def _row_bytes(dtype: str, *axes: int) -> int:
    """Bytes of one element of an array's first axis; ``axes`` are the others."""
    return np.dtype(dtype).itemsize * math.prod(axes)


@functools.lru_cache(maxsize=64)
def _is_plain(dtype: str) -> bool:
    return type(dtype) is str and np.dtype(dtype).kind in "biufc"


def read_slot(file: IO[bytes], slot: Slot) -> npt.NDArray[Any]:
    """The array of a slot, a copy.

    Raises:
        EOFError: the file ends before it.
    """
    file.seek(slot.start)
    content = file.read(slot.nbytes)
    if len(content) != slot.nbytes:
        raise EOFError(f"ends at byte {slot.start + len(content)} of {slot.start + slot.nbytes}")
    return np.frombuffer(bytearray(content), slot.dtype).reshape(slot.shape)
