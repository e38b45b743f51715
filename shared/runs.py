"""A run: what a backend (or the training framework) answered on a list of samples.

On disk, in a folder of the workspace (``runs/<backend>-<device>``, ``reference``)::

    run.json          header: backend, device, classes, samples; written first
    journal.jsonl     the samples that are committed, with journal.bin: see `shared.sample_journal`
    raw/000003.npz    raw outputs of sample 3 (verification samples only), whole before the journal names it
    predictions.npz   written at the end: the arrays of all predictions, named <task>/<array>: see `shared.packed`
    samples.jsonl     written at the end: latencies in milliseconds and counters, one line a sample

A run is written in a folder of its stage's attempt (`shared.stages`), and gets its name when it is finished. A killed
run keeps its journal; the same run, started again, goes on at the first sample that is not in it. When the run is
finished the journal becomes one line with the hashes of the run's files, and journal.bin goes. Memory grows by a few
numbers a sample, never by predictions.

Samples may also come from pieces that other processes wrote, on other machines too: see `shared.pieces`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from copy import copy as shallow_copy
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared import several_tasks
from shared.arrays import Arrays, read_arrays, write_arrays
from shared.errors import InputError
from shared.files import copy, explain_os_errors, inside, sha256_of_file, write_json, write_text
from shared.json_reader import DATA_BYTES, RECORD_BYTES, parse_json, read_json
from shared.packed import Column, PackedFile, Stretch, write_packed
from shared.sample_journal import DATA, JOURNAL, Entry, SampleJournal
from shared.sample_table import SAMPLES, SampleColumns, read_samples, write_samples
from shared.several_tasks import SeveralTasks
from shared.tasks import Container, Predictions, Task, find
from shared.tasks.detection3d import Boxes3D
from shared.work_path import WorkPath

if TYPE_CHECKING:
    from shared.pieces import Piece

#: Raw outputs by name.
RawOutputs = Arrays

_HEADER = "run.json"
_PREDICTIONS = "predictions.npz"
_FINISHED = "finished"
_KINDS = {_HEADER: "run", _PREDICTIONS: "predictions", SAMPLES: "latency"}


class RunHeader(BaseModel):
    """What was run on what."""

    model_config = ConfigDict(extra="forbid")

    backend: str = Field(description="pytorch, onnx, tensorrt, or framework for the reference")
    device: str
    model: str
    task: str
    classes: list[str]
    dataset: str = Field(description="Digest of the data set")
    tokens: list[str] = Field(description="Tokens of the samples, in order")
    raw_samples: list[int] = Field(description="Positions in `tokens` whose raw outputs are kept")
    fingerprint: str = Field(description="Fingerprint of the stage; another one starts the run afresh")
    details: dict[str, Any] = Field(default_factory=dict, description="Threads, target, versions, ...")


def flat_outputs(outputs: Mapping[str, Any]) -> RawOutputs:
    """Outputs by name, however nested: the scores of the second of ``boxes`` become ``boxes.1.scores``."""
    flat: RawOutputs = {}
    for name, value in outputs.items():
        if isinstance(value, (list, tuple)):
            value = {str(position): each for position, each in enumerate(value)}  # noqa: PLW2901
        if isinstance(value, Mapping):
            flat.update({f"{name}.{inner}": array for inner, array in flat_outputs(value).items()})
        else:
            flat[name] = np.asarray(value)
    return flat


class RunWriter:
    """Writes a run, sample by sample, so that a kill costs only what was not committed yet.

    Attributes:
        header: what is run on what.
    """

    def __init__(self, folder: WorkPath, header: RunHeader, journal: SampleJournal | None) -> None:
        self._folder = folder
        self.header = header
        self._journal = journal  # None: the run is finished
        self._task = find(header.task)
        self._pieces: list[SampleJournal] = []
        # Per sample: -1 missing, 0 in the journal, from 1 on in a piece.
        self._source = np.full(len(header.tokens), -1, np.int32)
        if journal is not None:
            self._source[journal.committed()] = 0

    @staticmethod
    def open(folder: Path | WorkPath, header: RunHeader, *, resume: bool = True) -> RunWriter:
        """Begin a run, or go on with one of the same header.

        Args:
            folder: where the run is kept.
            header: what is run; a different one in the folder is discarded, with its samples.
            resume: False discards what is there in any case.

        Raises:
            EnvironmentLacks: the disk is full or read-only.
        """
        place = WorkPath.of(folder)
        header_path = place / _HEADER
        value = header.model_dump(mode="json")
        with explain_os_errors(place):
            same = resume and header_path.is_file() and read_json(header_path.checked(), most_bytes=DATA_BYTES) == value
            if not same:
                place.remove()
                place.make_folder()
                write_json(header_path, value)
            if _is_finished(place):
                (place / DATA).remove_file()  # killed between the two
                return RunWriter(place, header, None)
            return RunWriter(place, header, SampleJournal.open(place, range(len(header.tokens))))

    @property
    def done(self) -> AbstractSet[int]:
        """Positions of the samples that are committed already."""
        return set(range(len(self.header.tokens))).difference(self.missing())

    def missing(self) -> list[int]:
        """Positions of the samples that are not committed yet, in order."""
        return [] if self._journal is None else np.flatnonzero(self._source < 0).tolist()

    def commit(
        self,
        index: int,
        predictions: Predictions,
        latency_ms: dict[str, float],
        counters: dict[str, int] | None = None,
        raw: Mapping[str, Any] | None = None,
    ) -> None:
        """Commit one sample; one that is committed already stays as it is.

        Args:
            index: position in the header's tokens.
            predictions: those of the task in the header.
            latency_ms: per stage and ``total``, milliseconds; none where the sample shared the device with others.
            counters: voxels, dropped points and the like.
            raw: raw outputs by name, for a verification sample; nested ones are kept flat, see `flat_outputs`.

        Raises:
            ValueError: the predictions' arrays are not laid out as those of the samples before.
            EnvironmentLacks: the disk is full.
        """
        if self._journal is None or self._source[index] >= 0:
            return
        arrays = stored_arrays(self._task, self.header.task, predictions)
        commit_sample(self._folder, self._journal, index, arrays, latency_ms, counters, raw)
        self._source[index] = 0

    def adopt(self, piece: Piece) -> int:
        """Take those samples of a piece that are not committed yet. Their raw outputs are copied; the rest stays where
        it is until `finish`, so that a killed process adopts the piece again.

        Args:
            piece: of this run; it may lie in another workspace.

        Returns:
            How many samples were missing until now.

        Raises:
            InputError: it is of another run, or its arrays are laid out otherwise.
            EnvironmentLacks: the disk is full.
        """
        piece.check_belongs_to(self.header)
        journal, layouts = piece.journal, {each.layout() for each in self._sources() if each.layout()}
        if self._journal is None or not len(journal.samples):
            return 0
        if layouts - {journal.layout()}:
            raise InputError("holds arrays of another layout than the samples before", where=str(piece.folder))
        samples = journal.committed()
        new = samples[self._source[samples] < 0]
        for index in set(self.header.raw_samples).intersection(new.tolist()):
            copy((piece.folder / raw_path(index)).checked(), self._folder / raw_path(index))
        self._pieces.append(journal)
        self._source[new] = len(self._pieces)
        return len(new)

    def _sources(self) -> list[SampleJournal]:
        return [] if self._journal is None else [self._journal, *self._pieces]

    def finish(self) -> list[str]:
        """Write the packed files; returns what the run consists of, relative to its folder.

        Raises:
            InputError: samples are missing.
            EnvironmentLacks: the disk is full.
        """
        missing = self.missing()
        if missing:
            raise InputError(
                f"{len(missing)} samples are not finished, the first is {missing[0]}", where=str(self._folder)
            )
        raw = [raw_path(index) for index in self.header.raw_samples]
        if self._journal is not None:
            self._pack()
            self._journal = None
            hashes = {name: sha256_of_file((self._folder / name).checked()) for name in (_PREDICTIONS, SAMPLES, *raw)}
            write_text(self._folder / JOURNAL, json.dumps({_FINISHED: hashes}) + "\n")
            (self._folder / DATA).remove_file()
        return [_HEADER, _PREDICTIONS, SAMPLES, *raw]

    def _pack(self) -> None:
        count, sources = len(self.header.tokens), self._sources()
        starts = np.zeros(count, np.int64)
        columns: dict[str, Column] = {}
        if not count:
            for name, array in stored_arrays(self._task, self.header.task, self._task.empty()).items():
                columns[name] = Column.for_samples(0, array.dtype, array.shape[1:])
        # Where the source changes, a stretch begins.
        bounds = [0, *(np.flatnonzero(np.diff(self._source)) + 1).tolist(), count] if count else []
        stretches = [(sources[self._source[first]], range(first, end)) for first, end in pairwise(bounds)]

        def place(entry: Entry) -> tuple[dict[str, float], dict[str, int]]:
            for name, (dtype, (length, *axes)) in entry.arrays.items():
                if name not in columns:
                    columns[name] = Column.for_samples(count, np.dtype(dtype), tuple(axes))
                columns[name].lengths[entry.index] = length
            starts[entry.index] = entry.start
            return entry.latency_ms, entry.counters

        entries = chain.from_iterable(source.entries(samples) for source, samples in stretches)
        write_samples(self._folder / SAMPLES, map(place, entries))
        parts = [Stretch(samples, source.open_data) for source, samples in stretches]
        write_packed(self._folder / _PREDICTIONS, columns, starts, parts)


def kind_of(name: str) -> str:
    """The kind, in the manifest, of a file of a run."""
    return _KINDS.get(name, "raw")


def raw_path(index: int) -> str:
    """Where the raw outputs of a sample are, in the folder of a run or piece."""
    return f"raw/{index:06d}.npz"


def commit_sample(
    folder: WorkPath,
    journal: SampleJournal,
    index: int,
    arrays: Arrays,
    latency_ms: dict[str, float],
    counters: dict[str, int] | None,
    raw: Mapping[str, Any] | None,
) -> None:
    """Commit one sample to a run or piece in ``folder``; arguments and errors are those of `RunWriter.commit`.

    Of predictions, their `stored_arrays`.
    """
    if raw is not None:
        write_arrays(folder / raw_path(index), flat_outputs(raw))
    journal.add(index, latency_ms, counters or {}, arrays)


def stored_arrays(task: Task[Any], name: str, predictions: Predictions) -> Arrays:
    """The arrays of predictions, under the names that they have in a run's files."""
    return {f"{name}/{array}": values for array, values in task.arrays(predictions).items()}


def _is_finished(folder: WorkPath) -> bool:
    """Whether the run in ``folder`` was finished, and its files are what they were then."""
    try:
        with (folder / JOURNAL).open_file() as file:
            hashes = dict(parse_json(file.readline(RECORD_BYTES), str(folder / JOURNAL))[_FINISHED])
    except (OSError, InputError, ValueError, KeyError, TypeError):
        return False
    return all(
        (folder / name).is_file() and sha256_of_file((folder / name).checked()) == sha for name, sha in hashes.items()
    )


def read_header(path: Path) -> RunHeader:
    """The header of a run.

    Raises:
        InputError: not the header of a run.
    """
    try:
        return RunHeader.model_validate(read_json(path, most_bytes=DATA_BYTES))
    except ValidationError as error:
        raise InputError(f"not the header of a run: {error.errors()[0]['msg']}", where=str(path)) from error


class Run:
    """A finished run, read a sample at a time.

    Attributes:
        folder: where it lies.
        header: what was run on what.
        latencies: per sample: milliseconds by stage, and ``total``; kept as columns.
        counters: per sample: voxels, dropped points and the like; kept as columns.
    """

    def __init__(
        self,
        folder: Path,
        header: RunHeader,
        packed: PackedFile,
        latencies: SampleColumns[float],
        counters: SampleColumns[int],
    ) -> None:
        self.folder = folder
        self.header = header
        self.latencies = latencies
        self.counters = counters
        self._packed = packed
        self._task = find(header.task)
        self._arrays = _stored_names(self._task, header.task, packed)

    @staticmethod
    def open(folder: Path) -> Run:
        """Open the run in ``folder``.

        Raises:
            InputError: not a run, half a run, or files that don't fit together.
        """
        for name in (_HEADER, _PREDICTIONS, SAMPLES):
            inside(folder, name)
        header = read_header(folder / _HEADER)
        if not (folder / _PREDICTIONS).is_file():
            raise InputError(
                "the run is not finished", where=str(folder), hint="run it again; it continues where it stopped"
            )
        packed = PackedFile.open(folder / _PREDICTIONS)
        count = len(header.tokens)
        if len(packed) != count:
            raise InputError(f"does not hold the {count} samples of its header", where=f"{folder}/{_PREDICTIONS}")
        return Run(folder, header, packed, *read_samples(folder, count))

    def __len__(self) -> int:
        return len(self.header.tokens)

    def timed(self) -> npt.NDArray[np.bool_]:
        """(S,) which samples have a latency.

        All, unless several requests were in flight (``in_flight`` in the header's details): then those that had the
        device to themselves.
        """
        if self.header.details.get("in_flight", 1) == 1:
            return np.ones(len(self), np.bool_)
        timed = np.zeros(len(self), np.bool_)
        for present in self.latencies.present.values():
            timed |= present
        return timed

    def timed_latencies(self) -> dict[str, npt.NDArray[np.float64]]:
        """Latencies [ms] by stage, of the samples that have one."""
        timed = self.timed()
        return {stage: values[timed] for stage, values in self.latencies.values.items()}

    def predictions(self, index: int, kind: type[Container]) -> Container:
        """Predictions of the sample at position ``index``.

        Args:
            index: position in the header's tokens.
            kind: what they are expected to be.

        Raises:
            InputError: the run is of another task, or its file was changed since it was opened.
        """
        (found,) = self.predictions_at([index], kind)
        return found

    def predictions_at(self, positions: Sequence[int], kind: type[Container]) -> Iterator[Container]:
        """Predictions of the samples at these positions, in this order.

        Several times as fast as `predictions` of each. Samples that follow one another may share memory, a megabyte at
        most: copy what is to be kept of few of them.

        Raises:
            InputError: as for one.
        """
        task: Task[Container] = self._task
        if task.container is not kind:
            raise InputError(f"holds results of task '{self.header.task}', not {kind.__name__}", where=str(self.folder))
        stored = self._packed.each(positions, list(self._arrays.values()))
        return (task.from_arrays({name: arrays[under] for name, under in self._arrays.items()}) for arrays in stored)

    def parts(self) -> dict[str, Run]:
        """The run as one of each of its tasks, by the task's name; one of a single task itself, under an empty name."""
        if not isinstance(self._task, SeveralTasks):
            return {"": self}
        return {name: self._part(name, task) for name, task in self._task.parts.items()}

    def _part(self, name: str, task: Task[Any]) -> Run:
        part = shallow_copy(self)
        part.header = self.header.model_copy(
            update={"task": name, "classes": several_tasks.classes_of(name, self.header.classes)}
        )
        part._task, part._arrays = task, several_tasks.of_part(name, self._arrays)
        return part

    def boxes(self, index: int) -> Boxes3D:
        """3D boxes of the sample at position ``index``, see `predictions`."""
        return self.predictions(index, Boxes3D)

    def raw(self, index: int) -> RawOutputs:
        """Raw outputs of the sample at position ``index``, by name.

        Raises:
            InputError: they were not kept, or can't be read.
        """
        return read_arrays(self.folder / raw_path(index))


def _stored_names(task: Task[Any], name: str, packed: PackedFile) -> dict[str, str]:
    """The names under which a file has the arrays of a task; version 0.1 wrote them without the task.

    Raises:
        InputError: the file has other arrays.
    """
    arrays = list(task.arrays(task.empty()))
    for prefix in (f"{name}/", ""):
        under = {array: f"{prefix}{array}" for array in arrays}
        required = {under[array] for array in arrays if array not in task.optional_arrays}
        if required <= packed.names <= set(under.values()):
            return {array: stored for array, stored in under.items() if stored in packed.names}
    raise InputError(f"holds {sorted(packed.names)}, expected those of task '{name}': {arrays}", where=str(packed.path))
