"""The arrays of many samples in one .npz file that is read a sample at a time.

The array ``a`` of all samples is one member of the archive, joined along its first axis, uncompressed: NumPy reads it
as it is, and a sample's part of it is a stretch of the file. ``offsets/a`` (S + 1,) int64 says where the samples begin
in it: sample s has ``a[offsets[s] : offsets[s + 1]]``.

Files of version 0.1 have one array ``offsets`` for all the others; they are read too.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from shared.arrays import Arrays, Int32, Int64
from shared.errors import InputError
from shared.files import atomic_path
from shared.npy import read_header
from shared.sample_journal import Slot, read_slot
from shared.work_path import WorkPath

_OFFSETS = "offsets"
_LOCAL_HEADER_BYTES = 30
# Samples that are read at once, where there are no more bytes.
_TOGETHER, _TOGETHER_BYTES = 256, 1 << 20


@dataclass(frozen=True)
class Column:
    """The array of that name of every sample, before it is packed.

    Attributes:
        dtype: of its elements.
        axes: lengths of the axes after the first.
        lengths: (S,) int32, of each sample's first axis.
    """

    dtype: np.dtype[Any]
    axes: tuple[int, ...]
    lengths: Int32

    @staticmethod
    def for_samples(count: int, dtype: np.dtype[Any], axes: tuple[int, ...]) -> Column:
        """The column of ``count`` samples that are still to be placed."""
        return Column(dtype, axes, np.zeros(count, np.int32))

    @property
    def row_bytes(self) -> int:
        """Bytes of one element of the first axis."""
        return self.dtype.itemsize * int(np.prod(self.axes, dtype=np.int64))


@dataclass(frozen=True)
class Stretch:
    """Samples one after another whose arrays are in the same file.

    Attributes:
        samples: their positions.
        source: opens the file.
    """

    samples: range
    source: Callable[[], IO[bytes]]


def write_packed(
    path: Path | WorkPath, columns: Mapping[str, Column], starts: Int64, stretches: Sequence[Stretch]
) -> None:
    """Write a packed file, a megabyte or one sample's array in memory at a time, and one source open.

    Args:
        path: where to.
        columns: what to pack, by name, in the order in which the arrays of a sample follow one another.
        starts: (S,) where the first array of each sample begins in its source, in bytes.
        stretches: where the columns' parts are; all samples, in order.

    Raises:
        InputError: a source ends before a part.
        EnvironmentLacks: the disk is full or read-only.
    """
    with atomic_path(path) as unfinished, zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:
        begin = starts.copy()
        for name, column in columns.items():
            offsets = np.zeros(len(starts) + 1, np.int64)
            np.cumsum(column.lengths, out=offsets[1:])
            _write_member(archive, f"{_OFFSETS}/{name}", offsets.dtype, offsets.shape, [offsets.tobytes()])
            sizes = np.diff(offsets) * column.row_bytes
            shape = (int(offsets[-1]), *column.axes)
            _write_member(archive, name, column.dtype, shape, _parts(stretches, begin, sizes))
            begin += sizes


def _parts(stretches: Sequence[Stretch], starts: Int64, sizes: Int64) -> Iterable[bytes]:
    """One array of all samples, some samples at a time: to write each takes longer than to read it."""
    for stretch in stretches:
        own = slice(stretch.samples.start, stretch.samples.stop)
        parts, waiting = [], 0
        with stretch.source() as source:
            for index, start, size in zip(stretch.samples, starts[own].tolist(), sizes[own].tolist(), strict=True):
                # Not by the file's own buffer, which reads around each as much again.
                content = os.pread(source.fileno(), size, start)
                if len(content) != size:
                    raise InputError(f"ends within sample {index}", where=source.name, hint="start again")
                parts.append(content)
                waiting += size
                if waiting >= _TOGETHER_BYTES:
                    yield b"".join(parts)
                    parts, waiting = [], 0
        yield b"".join(parts)


def _write_member(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], parts: Iterable[bytes]
) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    # A ZipInfo of its own has no date: the same arrays give the same bytes.
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        for part in parts:
            member.write(part)


class PackedFile:
    """A packed file to read from. Only the offsets are in memory."""

    def __init__(
        self, path: Path, members: dict[str, Slot], offsets: dict[str, Int64], identity: tuple[int, ...]
    ) -> None:
        self.path = path
        self._members = members
        self._offsets = offsets
        self._identity = identity

    @staticmethod
    def open(path: Path) -> PackedFile:
        """Open a packed file.

        Raises:
            InputError: not there, no such file, truncated, or offsets that don't fit its arrays.
        """
        try:
            with path.open("rb") as file, zipfile.ZipFile(file) as archive:
                members = dict(_member(file, archive, info) for info in archive.infolist())
                offsets = {
                    name: read_slot(file, slot)
                    for name, slot in members.items()
                    if name == _OFFSETS or name.startswith(f"{_OFFSETS}/")
                }
                identity = _identity(file)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
            raise InputError(f"can't be read as arrays ({error})", where=str(path)) from error
        arrays = {name: slot for name, slot in members.items() if name not in offsets}
        by_name = {name: offsets.get(f"{_OFFSETS}/{name}", offsets.get(_OFFSETS)) for name in arrays}
        checked = {}
        for name, slot in arrays.items():
            own = by_name[name]
            if own is None or not _delimits(own, slot):
                raise InputError(f"the offsets of array '{name}' are missing or don't fit it", where=str(path))
            checked[name] = own
        if len({len(own) for own in checked.values()}) > 1:
            raise InputError("the arrays are of different numbers of samples", where=str(path))
        return PackedFile(path, arrays, checked, identity)

    @property
    def names(self) -> set[str]:
        """Names of the arrays."""
        return set(self._members)

    def __len__(self) -> int:
        return max((len(own) - 1 for own in self._offsets.values()), default=0)

    def read(self, index: int, names: Sequence[str]) -> Arrays:
        """The arrays of sample ``index``, copies of their own.

        Raises:
            IndexError: no such sample.
            InputError: the file was replaced or changed since it was opened, or can't be read.
        """
        (arrays,) = self.each([index], names)
        return arrays

    def each(self, indices: Sequence[int], names: Sequence[str]) -> Iterator[Arrays]:
        """The arrays of these samples, in this order; as `read`, but some that follow one another share their memory.

        To open the file and to look for each array takes ten times as long as to read what few boxes take.
        """
        position = 0
        while position < len(indices):
            first = indices[position]
            if not 0 <= first < len(self):
                raise IndexError(f"sample {first} of {len(self)}")
            end = first + self._together(first, names)
            count = 1
            while position + count < len(indices) and first + count == indices[position + count] < end:
                count += 1
            yield from self._stretch(first, first + count, names)
            position += count

    def _together(self, first: int, names: Sequence[str]) -> int:
        """How many samples from ``first`` on may be read at once: one, or as many as take little memory."""
        total = np.zeros(min(_TOGETHER, len(self) - first), np.int64)
        for name in names:
            offsets = self._offsets[name]
            total += (offsets[first + 1 : first + 1 + len(total)] - offsets[first]) * self._row_bytes(name)
        return max(1, int(np.searchsorted(total, _TOGETHER_BYTES, "right")))

    def _stretch(self, first: int, end: int, names: Sequence[str]) -> Iterator[Arrays]:
        """The arrays of the samples from ``first`` to before ``end``, read at once."""
        columns = []
        try:
            with self.path.open("rb", buffering=0) as file:
                if _identity(file) != self._identity:
                    raise InputError("was changed while it was read", where=str(self.path), hint="start again")
                for name in names:
                    begins = self._offsets[name][first : end + 1]
                    whole = self._members[name]
                    start = whole.start + int(begins[0]) * self._row_bytes(name)
                    rows = read_slot(file, Slot(start, whole.dtype, (int(begins[-1] - begins[0]), *whole.shape[1:])))
                    columns.append((rows, (begins - begins[0]).tolist()))
        except (OSError, EOFError) as error:
            raise InputError(f"can't be read as arrays ({error})", where=str(self.path)) from error
        for sample in range(end - first):
            yield {
                name: rows[begins[sample] : begins[sample + 1]]
                for name, (rows, begins) in zip(names, columns, strict=True)
            }

    def _row_bytes(self, name: str) -> int:
        whole = self._members[name]
        return whole.dtype.itemsize * math.prod(whole.shape[1:])


def _member(file: IO[bytes], archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[str, Slot]:
    """Name of an array, and where it lies in the archive's file."""
    with archive.open(info) as member:
        header = read_header(member)
        header_bytes = member.tell()
    file.seek(info.header_offset)
    local = file.read(_LOCAL_HEADER_BYTES)
    name_bytes, extra_bytes = (int.from_bytes(local[at : at + 2], "little") for at in (26, 28))
    start = info.header_offset + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes + header_bytes
    slot = Slot(start, header.dtype, header.shape)
    stored = info.compress_type == zipfile.ZIP_STORED
    if not stored or (header.fortran_order and len(header.shape) > 1) or not header.shape:
        raise ValueError(f"{info.filename} is compressed, in Fortran order, or a single number")
    if slot.nbytes + header_bytes != info.file_size:
        raise ValueError(f"{info.filename} has {info.file_size - header_bytes} bytes, its shape needs {slot.nbytes}")
    return info.filename.removesuffix(".npy"), slot


def _delimits(offsets: npt.NDArray[Any], slot: Slot) -> bool:
    return (
        offsets.ndim == 1
        and offsets.dtype == np.int64
        and len(offsets) > 0
        and offsets[0] == 0
        and offsets[-1] == slot.shape[0]
        and bool((np.diff(offsets) >= 0).all())
    )


def _identity(file: IO[bytes]) -> tuple[int, ...]:
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
