"""Pieces of a run: samples that a process answered for one that commits the run, on this machine or another.

A piece is a folder of its own, so that any number of them are written at a time, to a copy of the workspace or to a
volume that all share, and none of them writes to the manifest::

    piece.json       header: which samples of which run; written first
    journal.jsonl    the samples, with journal.bin: see `shared.sample_journal`
    raw/000003.npz   raw outputs of sample 3, where the run keeps them
    finished.json    hashes of all these, and where the piece comes from; written last: without it the piece goes on

Whoever commits the run takes finished pieces in (`shared.runs.RunWriter.adopt`), in any order; where two hold the same
sample, the first one's is taken. The files of the run are then those that a single process writes, to the bit but for
the latencies.

The pieces of a run lie in a folder beside the run's, ``runs/.<name>.pieces-<fingerprint>``, which goes when the run is
committed (`shared.stages.StageRun.pieces`). A piece from elsewhere is data: its header, every line of its journal and
the hashes are checked when it is opened. Of one that a process has just written for this one, it tells what is in it
(`Contents`): the files must have the hashes that it told.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import InputError
from shared.files import explain_os_errors, sha256_of_file, write_json
from shared.json_reader import DATA_BYTES, read_json
from shared.manifest import Stage
from shared.runs import RunHeader, RunWriter, commit_sample, raw_path, stored_arrays
from shared.sample_journal import DATA, JOURNAL, Lines, SampleJournal, read_slot
from shared.tasks import Predictions, find
from shared.temporaries import remove_orphans_in
from shared.work_path import WorkPath

_log = logging.getLogger("run")

_HEADER = "piece.json"
_FINISHED = "finished.json"
_Model = TypeVar("_Model", bound=BaseModel)


class PieceHeader(BaseModel):
    """Which samples of which run."""

    model_config = ConfigDict(extra="forbid")

    run: RunHeader = Field(description="Header of the run, with the tokens of the piece's samples only")
    first: int = Field(ge=0, description="Position of the first sample in the run's tokens")
    count: int = Field(ge=0, le=100_000_000, description="Samples of the whole run")

    @staticmethod
    def of(run: RunHeader, samples: range) -> PieceHeader:
        """The header of the piece that holds ``samples``, positions without gaps, of the run with this header."""
        tokens = run.tokens[samples.start : samples.stop]
        return PieceHeader(run=run.model_copy(update={"tokens": tokens}), first=samples.start, count=len(run.tokens))

    @property
    def samples(self) -> range:
        """Positions of its samples in the run's tokens."""
        return range(self.first, self.first + len(self.run.tokens))

    @property
    def raw_samples(self) -> list[int]:
        """Positions of those samples whose raw outputs are kept."""
        return [index for index in self.run.raw_samples if index in self.samples]


class Origin(BaseModel):
    """How a piece came about, where the process that commits the run can't know it: see `shared.shards`."""

    model_config = ConfigDict(extra="forbid")

    stage: Stage = Field(description="The stage of the run, as a single process would have recorded it")
    shards: int = Field(ge=1, le=999_999, description="How many shards there are")
    alerts: list[str] = Field(description="What a user must know of its samples")


class _Finished(BaseModel):
    model_config = ConfigDict(extra="forbid")

    files: dict[str, str] = Field(description="sha256 by name")
    origin: Origin | None = None


@dataclass(frozen=True)
class Contents:
    """What is in a piece, as the process that wrote it tells the one that has it written.

    Attributes:
        files: sha256 by name.
        lines: where the samples are in the journal.
    """

    files: dict[str, str]
    lines: Lines


class PieceWriter:
    """Writes a piece, sample by sample, so that a kill costs only what was not committed yet."""

    def __init__(self, folder: WorkPath, header: PieceHeader, journal: SampleJournal) -> None:
        self.folder = folder
        self.header = header
        self._journal = journal
        self._task = find(header.run.task)

    @staticmethod
    def open(folder: Path | WorkPath, header: PieceHeader, *, resume: bool = True) -> PieceWriter:
        """Begin a piece, or go on with one of the same header. One process writes a piece at a time.

        Args:
            folder: where the piece is kept; of one name in the run's folder of pieces.
            header: which samples of which run; another piece in the folder is discarded.
            resume: False discards what is there in any case.

        Raises:
            EnvironmentLacks: the disk is full or read-only.
        """
        place = WorkPath.of(folder)
        value = header.model_dump(mode="json")
        path = place / _HEADER
        with explain_os_errors(place):
            same = resume and path.is_file() and read_json(path.checked(), most_bytes=DATA_BYTES) == value
            if not same:
                place.remove()
                place.make_folder()
                write_json(path, value)
            (place / _FINISHED).remove_file()  # until it is looked at again
            remove_orphans_in(place)
            return PieceWriter(place, header, SampleJournal.open(place, header.samples))

    def missing(self) -> list[int]:
        """Positions, in the run's tokens, of the samples that are not committed yet, in order."""
        return self._journal.missing()

    def commit(
        self,
        index: int,
        predictions: Predictions,
        latency_ms: dict[str, float],
        counters: dict[str, int] | None = None,
        raw: Mapping[str, Any] | None = None,
    ) -> None:
        """Commit one sample, at position ``index`` of the run's tokens; see `shared.runs.RunWriter.commit`."""
        if index not in self._journal:
            arrays = stored_arrays(self._task, self.header.run.task, predictions)
            commit_sample(self.folder, self._journal, index, arrays, latency_ms, counters, raw)

    def read(self) -> Piece:
        """What is committed, to look at before `finish`."""
        return Piece(self.folder, self.header, self._journal, None)

    def finish(self, origin: Origin | None = None) -> Contents:
        """Bring the piece to the disk, and say that it is whole.

        Args:
            origin: how it came about, where no process waits for it that knows.

        Returns:
            What is in it, for a process that waits for it.

        Raises:
            InputError: samples are missing.
            EnvironmentLacks: the disk is full.
        """
        missing = self.missing()
        if missing:
            raise InputError(
                f"{len(missing)} samples are not finished, the first is {missing[0]}", where=str(self.folder)
            )
        names = [_HEADER, JOURNAL, DATA, *map(raw_path, self.header.raw_samples)]
        with explain_os_errors(self.folder):
            for name in (JOURNAL, DATA):
                (self.folder / name).flush()
            files = {name: sha256_of_file((self.folder / name).checked()) for name in names}
            write_json(self.folder / _FINISHED, _Finished(files=files, origin=origin).model_dump(mode="json"))
        return Contents(files, self._journal.lines())


@dataclass(frozen=True)
class Piece:
    """A finished piece, checked.

    Attributes:
        folder: where it lies.
        header: which samples of which run.
        journal: the samples.
        origin: how it came about, where that was recorded with it.
    """

    folder: WorkPath
    header: PieceHeader
    journal: SampleJournal
    origin: Origin | None

    @staticmethod
    def open(folder: Path | WorkPath, told: Contents | None = None) -> Piece:
        """The finished piece in ``folder``, which is only read.

        Args:
            folder: of the piece.
            told: what is in it, by the process of ours that has just written it; None: the journal is read line by
                line, which takes ten times as long.

        Raises:
            InputError: not finished, or not a whole piece: a hash, the header or a line of the journal does not hold.
            ManifestError: a link is in the way.
        """
        place = WorkPath.of(folder)
        if not is_finished(place):
            raise InputError("the piece is not finished", where=str(place), hint="run it again; it goes on")
        header = _read(place / _HEADER, PieceHeader)
        finished = _read(place / _FINISHED, _Finished)
        names = {_HEADER, JOURNAL, DATA, *map(raw_path, header.raw_samples)}
        files = finished.files if told is None else told.files
        if files.keys() != names:
            raise InputError("names other files than those of its header", where=str(place / _FINISHED))
        for name in sorted(names):
            if sha256_of_file((place / name).checked()) != files[name]:
                raise InputError("differs from the hash in its piece", where=str(place / name), hint="copy it again")
        try:
            if told is None:
                journal = SampleJournal.read(place, header.samples)
            else:
                journal = SampleJournal.told(place, header.samples, told.lines)
        except (OSError, ValueError) as error:
            raise InputError(f"can't be read ({error})", where=str(place)) from error
        _check_journal(place, header, journal)
        return Piece(place, header, journal, finished.origin)

    def predictions(self, index: int) -> Predictions:
        """Predictions of the sample at position ``index`` of the run's tokens."""
        task = self.header.run.task
        (entry,) = self.journal.entries([index])
        with self.journal.open_data() as data:
            arrays = {name.removeprefix(f"{task}/"): read_slot(data, slot) for name, slot in entry.slots().items()}
        return find(task).from_arrays(arrays)

    def counters(self) -> dict[str, int]:
        """The counters of its samples, summed by name."""
        sums: Counter[str] = Counter()
        for entry in self.journal.entries():
            sums.update(entry.counters)
        return dict(sums)

    def check_belongs_to(self, run: RunHeader) -> None:
        """Refuse a piece of another run than that with the header ``run``.

        Raises:
            InputError: names what differs.
        """
        ours = self.header.run
        tokens = run.tokens[self.header.first : self.header.samples.stop]
        theirs = run.model_copy(update={"tokens": tokens})
        for name in RunHeader.model_fields:
            if getattr(ours, name) != getattr(theirs, name):
                raise InputError(f"is a piece of another run: its {name} differ", where=str(self.folder))
        if self.header.count != len(run.tokens):
            raise InputError(f"is a piece of a run of {self.header.count} samples", where=str(self.folder))


def is_finished(folder: WorkPath) -> bool:
    """Whether the piece in ``folder`` says that it is."""
    return (folder / _FINISHED).is_file()


def adopt_pieces(writer: RunWriter, folder: WorkPath) -> int:
    """Take in the finished pieces in a run's folder of pieces, in the order of their names.

    Those that are damaged or of another run are left out, with a warning: their samples stay missing.

    Returns:
        How many samples were missing until now.
    """
    taken = 0
    for name in folder.names():
        if is_finished(folder / name):
            try:
                taken += writer.adopt(Piece.open(folder / name))
            except InputError as error:
                _log.warning("left out: %s", error)
    return taken


def _read(path: WorkPath, kind: type[_Model]) -> _Model:
    try:
        return kind.model_validate(read_json(path.checked(), most_bytes=DATA_BYTES))
    except ValidationError as error:
        raise InputError(f"not what a piece has: {error.errors()[0]['msg']}", where=str(path)) from error


def _check_journal(folder: WorkPath, header: PieceHeader, journal: SampleJournal) -> None:
    missing = journal.missing()
    if missing:
        raise InputError(f"the piece lacks sample {missing[0]}, or its line is not whole", where=str(folder / JOURNAL))
    task, layout = find(header.run.task), journal.layout()
    known = stored_arrays(task, header.run.task, task.empty()).keys()
    required = {name for name in known if name.rpartition("/")[2] not in task.optional_arrays}
    names = {name for name, _, _ in layout or ()}
    if layout is not None and not required <= names <= known:
        raise InputError(f"holds {sorted(names)}, expected {sorted(known)}", where=str(folder / JOURNAL))
