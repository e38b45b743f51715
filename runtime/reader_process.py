"""The process that reads samples ahead: it opens the data set once, and forks readers that share it.

Started afresh (`runtime.readers`), not forked from the process of the model: that one has threads, and a GPU. Here is
one thread, so that forking is safe; the readers have one each, for BLAS and OpenCV too.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import pickle
import signal
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from runtime.backends import Tensors
from runtime.input_buffers import InputBuffer, Placed
from runtime.pipeline import Interface, build_pipeline
from shared.config.model_sections import Data
from shared.data import open_dataset
from shared.data.types import Dataset
from shared.errors import InputError
from shared.spec import ModelSpec

#: Variables that say how many threads a library may have.
ONE_THREAD = dict.fromkeys(
    ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1"
)
# Value of Linux's prctl (sys/prctl.h): PR_SET_PDEATHSIG.
_SIGNAL_AT_PARENTS_DEATH = 1
# Of glibc's mallopt (malloc.h): M_MMAP_THRESHOLD and M_TRIM_THRESHOLD, with the largest values that it takes and needs.
_KEPT_MEMORY = {-3: 1 << 25, -1: 1 << 27}


#: What a reader is asked: number of the request, position of the sample in the data set, position of the buffer.
ASK = struct.Struct("=3q")
#: What a reader tells: its position, number of the request, whether it failed, and where in the buffer more of that is:
#: a `Told`, pickled as a tuple, or the error. Short enough for writing and reading it to be one step (PIPE_BUF).
TOLD = struct.Struct("=5q")


@dataclass(frozen=True)
class Job:
    """What is read.

    Attributes:
        spec: the model.
        data: the deploy config's section.
        root: where the data set lies, when not where the config says.
        digest: of the data set, as the process of the model opened it.
        niceness: readers give way to others by so much.
    """

    spec: ModelSpec
    data: Data
    root: Path | None
    digest: str
    niceness: int


class Told(NamedTuple):
    """A sample was read.

    Attributes:
        token: of the sample.
        placed: where its arrays are in the buffer.
        counters: what reading left out.
        milliseconds: that reading took.
        processor_seconds: that went into it.
    """

    token: str
    placed: list[Placed]
    counters: dict[str, int]
    milliseconds: float
    processor_seconds: float


@dataclass(frozen=True)
class Ended:
    """A reader has ended.

    Attributes:
        reader: its position.
        status: its exit status; negative: the signal that ended it.
    """

    reader: int
    status: int


class NoSession:
    """Stands for the components where none are needed: a pipeline is built on it for its interface alone."""

    settings: dict[str, Any] = {}  # noqa: RUF012 (of the protocol)

    def run(self, component: str, inputs: Tensors) -> dict[str, npt.NDArray[Any]]:  # noqa: ARG002 (of the protocol)
        """See `runtime.backends.Session`."""
        raise RuntimeError(f"{component} runs in another process")


def serve(parent: int, control: int, readers: Sequence[int], told: int, buffers: Sequence[int]) -> None:
    """Open the data set, fork the readers, and say when one ends.

    Args:
        parent: id of the process of the model; this one ends with it.
        control: descriptor of the connection to it; the job comes there, and goes back whether samples can be read
            here, or what opening the data set raised.
        readers: of the pipes in which the readers are asked, one each.
        told: of the pipe in which they all tell.
        buffers: of the buffers.
    """
    _end_with(parent)
    # The terminal sends an interrupt to all; the process of the model tells us when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    # What there is to say of the data set, the process of the model says.
    logging.disable()
    connection = Connection(control)
    job: Job = connection.recv()
    try:
        dataset = open_dataset(job.data, root=job.root, task=job.spec.task)
        if dataset.digest() != job.digest:
            raise InputError("changed while it was opened", where=dataset.name, hint="run it again")
    except Exception as error:  # noqa: BLE001  # whatever it is, it is raised there
        _tell(connection, _portable(error))
        return
    try:
        interface = build_pipeline(job.spec, NoSession()).interface
    except Exception:  # noqa: BLE001  # a pipeline of another package, which needs more than this
        _tell(connection, False)
        return
    os.nice(job.niceness)
    _keep_memory()
    # What the readers share stays shared.
    gc.freeze()
    children, own = {}, os.getpid()
    for position, descriptor in enumerate(readers):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                _end_with(own)
                # What nobody else holds open ends with the process of the model.
                connection.close()
                for other in readers[position + 1 :]:
                    os.close(other)
                reader = _Reader(position, dataset, interface, [InputBuffer(each) for each in buffers])
                reader.answer(descriptor, told)
                status = 0
            finally:
                os._exit(status)
        children[child] = position
        os.close(descriptor)
    _tell(connection, True)
    while children:
        child, status = os.wait()
        _tell(connection, Ended(children.pop(child), os.waitstatus_to_exitcode(status)))


def _tell(connection: Connection, message: Any) -> None:
    """Send something to the process of the model, which may have ended with an error of its own."""
    with contextlib.suppress(BrokenPipeError):
        connection.send(message)


def _end_with(parent: int) -> None:
    """End when the parent does, even in the middle of a call that hangs."""
    ctypes.CDLL(None).prctl(_SIGNAL_AT_PARENTS_DEATH, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _keep_memory() -> None:
    """Keep what an array gives up for the next one: mapping each anew takes half of the time of reading a frame."""
    with contextlib.suppress(AttributeError):  # a C library without it
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in _KEPT_MEMORY.items():
            mallopt(parameter, value)


class _Reader:
    """Reads samples into buffers, in a process of its own."""

    def __init__(
        self, position: int, dataset: Dataset[Any], interface: Interface, buffers: Sequence[InputBuffer]
    ) -> None:
        self._position, self._dataset, self._interface, self._buffers = position, dataset, interface, buffers

    def answer(self, asks: int, told: int) -> None:
        """Read what is asked for in one pipe, and tell in the other, until nobody asks any more."""
        while record := os.read(asks, ASK.size):
            number, index, buffer = ASK.unpack(record)
            answer: tuple[Any, ...] | Exception
            try:
                answer, end = self._told(index, self._buffers[buffer])
            except Exception as error:  # noqa: BLE001  # whatever it is, it is raised there
                answer, end = _portable(error), 0
            failed = isinstance(answer, Exception)
            content = np.frombuffer(pickle.dumps(answer, pickle.HIGHEST_PROTOCOL), np.uint8)
            self._buffers[buffer].write({"": content}, end)
            try:
                os.write(told, TOLD.pack(self._position, number, failed, end, len(content)))
            except BrokenPipeError:
                return

    def _told(self, index: int, buffer: InputBuffer) -> tuple[tuple[Any, ...], int]:
        """A `Told`, as a tuple, and the byte after the arrays."""
        began = time.process_time()
        sample = self._dataset.sample(index)
        started = time.perf_counter()
        read = self._interface.read(sample)
        arrays = {name: np.asarray(array) for name, array in self._interface.packing.pack(read.data).items()}
        placed, end = buffer.write(arrays)
        milliseconds = (time.perf_counter() - started) * 1e3
        return tuple(Told(sample.token, placed, read.counters, milliseconds, time.process_time() - began)), end


def _portable(error: Exception) -> Exception:
    """The error, or its text where it can't be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  # it can fail in any way
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
