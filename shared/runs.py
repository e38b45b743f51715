"""A run: what a backend (or the training framework) answered on a list of samples.

On disk, in a folder of the workspace (``runs/<backend>-<device>``, ``reference``)::

    run.json          header: backend, device, classes, samples; written first
    journal.jsonl     one line per finished sample, appended and flushed: the commit log
    raw/000003.npz    raw outputs of sample 3 (verification samples only), whole before the journal names it
    predictions.npz   written at the end: the columns of all predictions (`shared.tasks`: those of the task), parallel;
                      `offsets` (S + 1,) delimits the samples
    latency.json      written at the end: per sample, per stage, in milliseconds

A killed run keeps its journal; the same run, started again, goes on at the first sample that is not in it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.arrays import Arrays, read_arrays, write_arrays
from shared.errors import InputError
from shared.files import explain_os_errors, read_json, write_json, write_text
from shared.journal import append_line, read_lines
from shared.tasks import Container, Predictions, Task, find
from shared.tasks.detection3d import Boxes3D

#: Raw outputs by name.
RawOutputs = Arrays

_HEADER = "run.json"
_JOURNAL = "journal.jsonl"
_PREDICTIONS = "predictions.npz"
_LATENCY = "latency.json"


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
    """Writes a run, sample by sample, so that a kill at any moment costs one sample at most."""

    def __init__(self, folder: Path, header: RunHeader, finished: dict[int, dict[str, Any]]) -> None:
        self._folder = folder
        self._header = header
        self._finished = finished
        self._task = find(header.task)

    @staticmethod
    def open(folder: Path, header: RunHeader, *, resume: bool = True) -> RunWriter:
        """Begin a run, or go on with one of the same header.

        Args:
            folder: where the run is kept.
            header: what is run; a different one in the folder is discarded, with its samples.
            resume: False discards what is there in any case.

        Raises:
            EnvironmentLacks: the disk is full or read-only.
        """
        header_path = folder / _HEADER
        value = header.model_dump(mode="json")
        same = resume and header_path.is_file() and read_json(header_path) == value
        with explain_os_errors(folder):
            if not same:
                if folder.exists():
                    shutil.rmtree(folder)
                folder.mkdir(parents=True)
                write_json(header_path, value)
            finished = {entry["index"]: entry for entry in read_lines(folder / _JOURNAL)}
            # A torn last line (power cut in mid-write) must not be continued by the next one.
            lines = "".join(json.dumps(entry) + "\n" for entry in finished.values())
            write_text(folder / _JOURNAL, lines)
        return RunWriter(folder, header, finished)

    @property
    def done(self) -> set[int]:
        """Positions of the samples that are committed already."""
        return set(self._finished)

    def commit(
        self,
        index: int,
        predictions: Predictions,
        latency_ms: dict[str, float],
        counters: dict[str, int] | None = None,
        raw: Mapping[str, Any] | None = None,
    ) -> None:
        """Commit one sample.

        Args:
            index: position in the header's tokens.
            predictions: those of the task in the header.
            latency_ms: per stage and ``total``, milliseconds.
            counters: voxels, dropped points and the like.
            raw: raw outputs by name, for a verification sample; nested ones are kept flat, see `flat_outputs`.

        Raises:
            EnvironmentLacks: the disk is full.
        """
        if raw is not None:
            write_arrays(self._folder / "raw" / f"{index:06d}.npz", flat_outputs(raw))
        entry = {
            "index": index,
            "latency_ms": latency_ms,
            "counters": counters or {},
            "predictions": {name: _listed(array) for name, array in self._task.arrays(predictions).items()},
        }
        append_line(self._folder / _JOURNAL, entry)
        self._finished[index] = entry

    def finish(self) -> list[str]:
        """Write the packed files; returns what the run consists of, relative to its folder.

        Raises:
            InputError: samples are missing.
        """
        missing = [index for index in range(len(self._header.tokens)) if index not in self._finished]
        if missing:
            raise InputError(
                f"{len(missing)} samples are not finished, the first is {missing[0]}", where=str(self._folder)
            )
        entries = [self._finished[index] for index in range(len(self._header.tokens))]
        columns = self._task.arrays(self._task.empty())
        frames = [{name: _array(entry["predictions"][name]) for name in columns} for entry in entries] or [columns]
        offsets = np.concatenate([[0], np.cumsum([len(next(iter(frame.values()))) for frame in frames])])
        packed: dict[str, npt.NDArray[Any]] = {"offsets": offsets[: len(entries) + 1].astype(np.int64)}
        for name in columns:
            packed[name] = np.concatenate([frame[name] for frame in frames])
        write_arrays(self._folder / _PREDICTIONS, packed)
        latency = [{"latency_ms": entry["latency_ms"], "counters": entry["counters"]} for entry in entries]
        write_json(self._folder / _LATENCY, latency)
        raw = [f"raw/{index:06d}.npz" for index in self._header.raw_samples]
        return [_HEADER, _PREDICTIONS, _LATENCY, *raw]


def _listed(array: npt.NDArray[Any]) -> dict[str, Any]:
    return {"dtype": array.dtype.str, "shape": array.shape, "values": array.ravel().tolist()}


def _array(listed: Mapping[str, Any]) -> npt.NDArray[Any]:
    return np.array(listed["values"], listed["dtype"]).reshape(listed["shape"])


def discard_progress(folder: Path) -> None:
    """Forget how far the run in ``folder`` came: its files are another run's now. Does nothing where there is none."""
    (folder / _JOURNAL).unlink(missing_ok=True)


class Run:
    """A finished run, read. Raw outputs are loaded one sample at a time."""

    def __init__(
        self, folder: Path, header: RunHeader, packed: dict[str, npt.NDArray[Any]], latency: list[dict[str, Any]]
    ) -> None:
        self.folder = folder
        self.header = header
        self._packed = packed
        self._latency = latency

    @staticmethod
    def open(folder: Path) -> Run:
        """Open the run in ``folder``.

        Raises:
            InputError: not a run, half a run, or files that don't fit together.
        """
        try:
            header = RunHeader.model_validate(read_json(folder / _HEADER))
        except ValidationError as error:
            raise InputError(
                f"not the header of a run: {error.errors()[0]['msg']}", where=f"{folder}/{_HEADER}"
            ) from error
        if not (folder / _PREDICTIONS).is_file():
            raise InputError(
                "the run is not finished", where=str(folder), hint="run it again; it goes on where it stopped"
            )
        packed = read_arrays(folder / _PREDICTIONS)
        latency = read_json(folder / _LATENCY)
        task = find(header.task)
        names = {*task.arrays(task.empty()), "offsets"}
        if set(packed) != names:
            raise InputError(f"holds {sorted(packed)}, expected {sorted(names)}", where=f"{folder}/{_PREDICTIONS}")
        count = len(header.tokens)
        if len(packed["offsets"]) != count + 1 or not isinstance(latency, list) or len(latency) != count:
            raise InputError(f"does not hold the {count} samples of its header", where=str(folder))
        return Run(folder, header, packed, latency)

    def __len__(self) -> int:
        return len(self.header.tokens)

    def predictions(self, index: int, kind: type[Container]) -> Container:
        """Predictions of the sample at position ``index``.

        Args:
            index: position in the header's tokens.
            kind: what they are expected to be.

        Raises:
            InputError: the run is of another task.
        """
        task: Task[Container] = find(self.header.task)
        if task.container is not kind:
            raise InputError(f"holds results of task '{self.header.task}', not {kind.__name__}", where=str(self.folder))
        first, last = self._packed["offsets"][index], self._packed["offsets"][index + 1]
        return task.from_arrays({name: array[first:last] for name, array in self._packed.items() if name != "offsets"})

    def boxes(self, index: int) -> Boxes3D:
        """3D boxes of the sample at position ``index``, see `predictions`."""
        return self.predictions(index, Boxes3D)

    def raw(self, index: int) -> RawOutputs:
        """Raw outputs of the sample at position ``index``, by name.

        Raises:
            InputError: they were not kept, or can't be read.
        """
        return read_arrays(self.folder / "raw" / f"{index:06d}.npz")

    @property
    def latencies(self) -> list[dict[str, float]]:
        """Per sample: milliseconds by stage, and ``total``."""
        return [entry["latency_ms"] for entry in self._latency]

    @property
    def counters(self) -> list[dict[str, int]]:
        """Per sample: voxels, dropped points and the like."""
        return [entry["counters"] for entry in self._latency]
