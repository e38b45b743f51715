"""Shards: a run in N parts, each on a machine or GPU of its own, and the run that one process would have given.

``runtime run --shard 2/4`` leaves a piece (`shared.pieces`) in its workspace, a copy of one or a volume that all share.
`merge_shards` brings the pieces of one or more workspaces together and commits the run, with the fingerprint that a
single run has: nobody who reads it can tell, but for latencies, times and hosts. A shard takes neighboring samples, so
that sweeps which frames share are read once.

Pieces that don't fit (of another model, data set or engine, half finished, damaged) are left out. The run is committed
where the rest has every sample; otherwise the shards that are missing are named, with the reasons of those left out,
and the run stays as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shared.arrays import Bool
from shared.errors import InputError, UsageError
from shared.files import sha256_of_json
from shared.manifest import Manifest, Stage
from shared.pieces import Origin, Piece, is_finished
from shared.runs import Run, RunWriter, kind_of
from shared.stages import PIECES, StageRun, differences, stage_lock
from shared.work_path import WorkPath
from shared.workspace import Workspace

RUNS = "runs"
_FOLDER = re.compile(rf"\.(?P<run>.+){re.escape(PIECES)}(?P<fingerprint>[0-9a-f]{{8}})")
_SHARD = re.compile(r"(\d{1,6})/(\d{1,6})")
_MOST_NAMED = 5
_LONGEST_DIFFERENCE = 80


@dataclass(frozen=True)
class Shard:
    """One of the parts of a run.

    Attributes:
        number: which, from 1 on.
        of: how many there are.
    """

    number: int
    of: int

    @staticmethod
    def parse(text: str) -> Shard:
        """The shard that ``I/N`` names.

        Raises:
            UsageError: not two numbers, or I is not one of 1 to N.
        """
        match = _SHARD.fullmatch(text)
        if match is None:
            raise UsageError(f"--shard {text}", hint="give I/N: 1/4, 2/4, 3/4 and 4/4 are all of four")
        shard = Shard(int(match[1]), int(match[2]))
        if not 1 <= shard.number <= shard.of:
            raise UsageError(f"--shard {text}", hint=f"the first of {shard.of or 'N'} is 1, the last is {shard.of}")
        return shard

    def samples(self, count: int) -> range:
        """Positions of its samples among ``count``: neighbors, and as many as another shard has or one fewer."""
        return range((self.number - 1) * count // self.of, self.number * count // self.of)

    @property
    def folder(self) -> str:
        """Name of the folder of its piece."""
        return f"{self.number}-of-{self.of}"

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


@dataclass
class Found:
    """The pieces of a run in some workspaces.

    Attributes:
        run: its name, ``onnx-cpu``.
        done: whether there are such of the run that is done already; they are not looked at.
        pieces: finished ones.
        unusable: what is there and can't be used, a line each.
    """

    run: str
    done: bool = False
    pieces: list[Piece] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)

    @property
    def stage(self) -> str:
        """Name of the run's stage."""
        return f"run:{self.run}"


@dataclass(frozen=True)
class MergedRun:
    """A run that can be committed, or was, or can't be for want of shards.

    Attributes:
        name: ``onnx-cpu``.
        pieces: what it is made of; together they have every sample. Empty: it is done already, or shards are missing.
        left_out: what is there and is not used, a line each.
        missing: which shards are, in words; None: none is.
        done: where some are missing: whether other shards of it were committed already.
    """

    name: str
    pieces: Sequence[Piece]
    left_out: Sequence[str] = ()
    missing: str | None = None
    done: bool = False

    @property
    def stage(self) -> str:
        """Name of the run's stage."""
        return f"run:{self.name}"

    @property
    def problem(self) -> str:
        """What is missing of it, and why what is there is of no use."""
        return f"run {self.name}: " + "; ".join([str(self.missing), *self.left_out[:_MOST_NAMED]])


def plan_shards(work: Path, others: Sequence[Path]) -> list[MergedRun]:
    """The runs of ``work`` that shards in it or in its copies ``others`` are of."""
    mine = Workspace.open(work).manifest()
    found: dict[str, Found] = {}
    for root in (work, *others):
        _find(root, mine, found)
    return [_planned(mine, each) for each in found.values()]


def commit_shards(work: Path, run: MergedRun) -> list[str]:
    """Commit a run from its pieces, which it has; killed at any moment, the next call does.

    Returns:
        What a user must know of it, as its shards recorded it.

    Raises:
        InputError: a piece was changed since it was planned.
        EnvironmentLacks: the disk is full or read-only.
    """
    first = run.pieces[0]
    header = first.header.run.model_copy(update={"tokens": _tokens(run.pieces)})
    origins = _origins(run.pieces)
    folder = f"{RUNS}/{run.name}"
    stage = StageRun.of(work, run.stage, _together([origin.stage for origin in origins]))
    with stage:
        attempt = stage.folder(folder)
        stage.pieces(folder)
        writer = RunWriter.open(attempt, header)
        for piece in run.pieces:
            writer.adopt(piece)
        for name in writer.finish():
            stage.add_artifact(f"{folder}/{name}", kind_of(name))
        finished = Run.open(attempt.checked())
        alerts = list(dict.fromkeys(alert for origin in origins for alert in origin.alerts))
        counters = finished.counters.sums()
        result = {"samples": len(finished), "counters": counters, "alerts": alerts, "shards": len(run.pieces)}
        stage.result("runs", run.name, result)
    return alerts


def was_merged(manifest: Manifest) -> bool:
    """Whether a run of the workspace was committed from shards."""
    return any("shards" in result for result in manifest.results.get("runs", {}).values())


# -- planning ---------------------------------------------------------------------------------------------------------


def _find(root: Path, mine: Manifest, found: dict[str, Found]) -> None:
    """Add the pieces in the workspace at ``root``."""
    runs = WorkPath(root, RUNS)
    for name in runs.names():
        match = _FOLDER.fullmatch(name)
        if match is None:
            continue
        of_run = found.setdefault(match["run"], Found(match["run"]))
        here = mine.stages.get(of_run.stage)
        if here is not None and here.status == "done" and here.fingerprint.startswith(match["fingerprint"]):
            of_run.done = True
            continue
        for piece in (runs / name).names():
            folder = runs / name / piece
            if is_finished(folder):
                try:
                    of_run.pieces.append(_with_origin(Piece.open(folder)))
                except InputError as error:
                    of_run.unusable.append(str(error))
            else:
                running = stage_lock(root, f"{of_run.stage}-{piece}").is_held()
                status = "is running" if running else "is not finished; run it again, it goes on"
                of_run.unusable.append(f"{folder} {status}")


def _with_origin(piece: Piece) -> Piece:
    """The piece, where it says what recorded it.

    Raises:
        InputError: it does not, or in a way that does not hold.
    """
    if piece.origin is None:
        raise InputError("is no shard: the process that has it made commits it", where=str(piece.folder))
    stage, fingerprint = piece.origin.stage, piece.header.run.fingerprint
    if not stage.fingerprint == fingerprint == sha256_of_json(stage.key):
        raise InputError("the fingerprint is not that of its key", where=str(piece.folder))
    return piece


def _planned(mine: Manifest, found: Found) -> MergedRun:
    left_out = list(found.unusable)
    fitting: dict[str, list[Piece]] = {}
    for piece in found.pieces:
        stale = _other_model(mine, _origin(piece).stage)
        if stale is not None:
            left_out.append(f"{piece.folder} was run with another {stale} than is here")
        else:
            fitting.setdefault(_identity(piece), []).append(piece)
    # One that is whole, whatever else is there of larger ones.
    pieces = max(fitting.values(), key=lambda pieces: (_missing(pieces) is None, _covered(pieces).sum()), default=[])
    for others in fitting.values():
        if others is not pieces:
            left_out += [f"{piece.folder} is of another run than {pieces[0].folder.name}: {_why(pieces[0], piece)}"
                         for piece in others]  # fmt: skip
    missing = _missing(pieces)
    if missing is None or (found.done and not pieces):
        return MergedRun(found.run, sorted(pieces, key=lambda piece: piece.header.first), left_out)
    return MergedRun(found.run, (), left_out, missing, found.done)


def _origin(piece: Piece) -> Origin:
    assert piece.origin is not None, "others were left out when they were found"
    return piece.origin


def _origins(pieces: Sequence[Piece]) -> list[Origin]:
    return [_origin(piece) for piece in pieces]


def _other_model(mine: Manifest, stage: Stage) -> str | None:
    """What the stage was made from and is another file here; None: all is the same."""
    inputs: dict[str, str] = stage.key.get("inputs", {})
    for path, sha256 in sorted(inputs.items()):
        record = mine.artifacts.get(path)
        if "/" in path and (record is None or record.sha256 != sha256):
            return path
    spec = None if mine.spec is None else sha256_of_json(mine.spec.model_dump(mode="json"))
    return None if inputs.get("spec") == spec else "model spec"


def _identity(piece: Piece) -> str:
    """What is the same in all pieces of a run."""
    run = piece.header.run.model_copy(update={"tokens": []})
    return json.dumps([run.model_dump(mode="json"), piece.header.count])


def _why(one: Piece, other: Piece) -> str:
    lines = differences(_origin(one).stage.key, _origin(other).stage.key)
    lines += differences(one.header.run.details, other.header.run.details)
    if not lines:
        return "their headers differ"
    # Of a hash, its name says enough.
    return lines[0] if len(lines[0]) <= _LONGEST_DIFFERENCE else lines[0].partition(":")[0]


def _covered(pieces: Sequence[Piece]) -> Bool:
    """(N,) which samples of the run are in a piece."""
    covered = np.zeros(pieces[0].header.count, np.bool_)
    for piece in pieces:
        covered[piece.header.first : piece.header.samples.stop] = True
    return covered


def _missing(pieces: Sequence[Piece]) -> str | None:
    """Which shards are missing, in words; None where none is."""
    if not pieces:
        return "no shard of the model that is here is finished"
    count, covered = pieces[0].header.count, _covered(pieces)
    if covered.all():
        return None
    divisions = {_origin(piece).shards for piece in pieces}
    if len(divisions) > 1:
        first = int(np.argmin(covered))
        return f"{count - int(covered.sum())} of {count} samples are in no shard, the first is {first}"
    (of,) = divisions
    shards = [Shard(number, of) for number in range(1, of + 1)]
    absent = [str(shard) for shard in shards if not all(covered[index] for index in shard.samples(count))]
    named = ", ".join(absent[:_MOST_NAMED]) + (", ..." if len(absent) > _MOST_NAMED else "")
    return f"{len(absent)} of {of} shards {'is' if len(absent) == 1 else 'are'} missing: {named}"


# -- committing -------------------------------------------------------------------------------------------------------


def _tokens(pieces: Sequence[Piece]) -> list[str]:
    """The tokens of the run, from pieces in order that together have all."""
    tokens: list[str] = []
    for piece in pieces:
        tokens += piece.header.run.tokens[len(tokens) - piece.header.first :]
    return tokens


def _together(stages: Sequence[Stage]) -> Stage:
    """What is recorded of a run whose shards were recorded so."""
    return stages[0].model_copy(
        update={
            "host": _joined([stage.host for stage in stages]),
            "image": _joined([stage.image for stage in stages]),
            "gpu": _joined([stage.gpu for stage in stages]),
            "driver": _joined([stage.driver for stage in stages]),
            "started": min(stage.started for stage in stages),
            "ended": max(stage.ended or stage.started for stage in stages),
        }
    )


def _joined(values: Sequence[str | None]) -> str | None:
    distinct = list(dict.fromkeys(value for value in values if value is not None))
    more = len(distinct) - _MOST_NAMED
    return ", ".join(distinct[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "") if distinct else None
