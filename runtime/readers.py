"""Processes that read samples ahead of the model, in order, in bounded memory."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import selectors
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from runtime.input_buffers import InputBuffer
from runtime.model import Model
from runtime.pipeline import DevicePipeline, Pipeline
from runtime.reader_process import ONE_THREAD, Ask, Ended, Failed, Job, Told
from runtime.reading import Input, Reading, ReadingHere
from shared.errors import DeployError, EnvironmentLacks, InputError
from shared.logs import about

# What a reader has before it: one sample that it reads, one that waits.
_ASKED_EACH = 2
# Large inputs are fewer: together they have so many bytes at most, but a few there must be.
_MOST_BYTES = 1 << 30
_FEWEST = 4
# That a reader has ended is known at once, why a little later.
_SECONDS_FOR_THE_REASON = 2.0
# Readers end when nobody is connected to them, unless a file hangs.
_SECONDS_TO_END = 0.5
_GIVES_WAY = 19
_START = (
    "import json, sys; sys.path[:], arguments = json.loads(sys.argv[1]); "
    "from runtime.reader_process import serve; serve(*arguments)"
)
_HINT = "is there enough memory? --readers 1 takes less; the same command goes on where this one stopped"


@dataclass
class _Reader:
    """A reader as this process sees it: its connection, and what it was asked for and has not told, in order."""

    position: int
    connection: Connection
    asked: deque[Ask] = field(default_factory=deque)


class Readers(Reading):
    """Reads samples in processes of its own, each into one of a fixed number of buffers.

    Args:
        model: the model and its data set.
        count: how many processes.
        in_flight: how many requests may be under way at a time.
    """

    def __init__(self, model: Model, count: int, in_flight: int) -> None:
        self._dataset = model.dataset
        self._buffers = [InputBuffer.make() for _ in range(count * _ASKED_EACH + in_flight + 1)]
        self._locked = [(buffer.mapped(), contextlib.ExitStack()) for buffer in self._buffers]
        # The one that was used last is used next: those that are not needed stay empty.
        self._free = list(range(len(self._buffers)))
        self._numbers = itertools.count()
        self._wanted: set[int] = set()
        self._told: dict[int, tuple[Ask, Told | Failed]] = {}
        self._ended: dict[int, int] = {}
        niceness = _GIVES_WAY if model.device.is_cpu else 0
        job = Job(model.spec, model.config.data, model.data_root, model.dataset.digest(), niceness)
        self._process, self._control, connections = _started(count, self._buffers, job)
        self._readers = [_Reader(position, connection) for position, connection in enumerate(connections)]
        self._selector = selectors.DefaultSelector()
        for reader in self._readers:
            self._selector.register(reader.connection, selectors.EVENT_READ, reader)
        self._reads: bool | None = None

    def inputs(self, pipeline: Pipeline, indices: Sequence[int], *, held: int) -> Iterator[Input]:
        """See `Reading`.

        Raises:
            EnvironmentLacks: a reader was killed. InputError: it crashed.
        """
        if self._reads is None:
            self._reads = self._answer_to_the_job()
        if not self._reads:
            yield from ReadingHere(self._dataset).inputs(pipeline, indices, held=held)
            return
        todo, asked, taken = deque(indices), deque[Ask](), deque[int]()
        try:
            for index in indices:
                while len(taken) > held:
                    self._free.append(taken.popleft())
                self._hear(wait=False)
                self._ask(todo, asked)
                while not asked or asked[0].number not in self._told:
                    if not self._readers:
                        raise EnvironmentLacks("all readers have ended", where=self._token(index), hint=_HINT)
                    self._hear(wait=True)
                    self._ask(todo, asked)
                ask = asked.popleft()
                self._wanted.remove(ask.number)
                _, told = self._told.pop(ask.number)
                taken.append(ask.buffer)
                if isinstance(told, Failed):
                    with about(sample=self._token(index)):
                        raise told.error
                yield self._input(pipeline, ask, told)
        finally:
            self._free += taken
            for ask in asked:
                self._wanted.remove(ask.number)
                if self._told.pop(ask.number, None) is not None:
                    self._free.append(ask.buffer)

    def close(self) -> None:
        """End the processes, and give up the memory."""
        self._selector.close()
        for connection in (self._control, *(reader.connection for reader in self._readers)):
            connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_SECONDS_TO_END)
        self._process.kill()
        self._process.wait()
        for buffer, (_, lock) in zip(self._buffers, self._locked, strict=True):
            lock.close()
            buffer.close()
        self._locked = []

    def _answer_to_the_job(self) -> bool:
        """Whether samples can be read there.

        Raises:
            Exception: what opening the data set raised there.
        """
        try:
            answer: bool | Exception = self._control.recv()
        except (EOFError, ConnectionResetError):
            raise EnvironmentLacks(
                "the process that reads samples ended before the first", where=self._dataset.name, hint=_HINT
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _input(self, pipeline: Pipeline, ask: Ask, told: Told) -> Input:
        buffer = self._buffers[ask.buffer]
        arrays = buffer.read(told.placed)
        before, lock = self._locked[ask.buffer]
        if buffer.mapped() is not before:
            lock.close()
            lock.enter_context(pipeline.page_locked(buffer.mapped()))
            self._locked[ask.buffer] = buffer.mapped(), lock
        if not isinstance(pipeline, DevicePipeline):
            # A step may keep what it was given, which costs a GPU's request more than a CPU's.
            arrays = {name: array.copy() for name, array in arrays.items()}
        data = pipeline.interface.packing.unpack(arrays)
        return Input(ask.index, told.token, data, told.counters, told.milliseconds, told.processor_seconds)

    def _ask(self, todo: deque[int], asked: deque[Ask]) -> None:
        """Ask readers for the next samples, as far as they and the buffers are free."""
        while todo and self._readers and self._free and self._is_affordable():
            reader = min(self._readers, key=lambda each: len(each.asked))
            if len(reader.asked) == _ASKED_EACH:
                return
            ask = Ask(next(self._numbers), todo.popleft(), self._free.pop())
            asked.append(ask)
            self._wanted.add(ask.number)
            reader.asked.append(ask)
            # That it has ended is heard of, with everything that it was asked for.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                reader.connection.send(ask)

    def _is_affordable(self) -> bool:
        used = len(self._buffers) - len(self._free)
        largest = max(len(mapped) for mapped, _ in self._locked)
        return used < _FEWEST or (largest > 0 and (used + 1) * largest <= _MOST_BYTES)

    def _hear(self, *, wait: bool) -> None:
        """Take what readers have told."""
        for key, _ in self._selector.select(None if wait else 0):
            reader: _Reader = key.data
            try:
                told: Told | Failed = reader.connection.recv()
            except (EOFError, ConnectionResetError):
                self._has_ended(reader)
            else:
                self._keep(reader.asked.popleft(), told)

    def _keep(self, ask: Ask, told: Told | Failed) -> None:
        if ask.number in self._wanted:
            self._told[ask.number] = ask, told
        else:
            self._free.append(ask.buffer)

    def _has_ended(self, reader: _Reader) -> None:
        self._selector.unregister(reader.connection)
        self._readers.remove(reader)
        reader.connection.close()
        status = self._status(reader.position)
        for ask in reader.asked:
            self._keep(ask, Failed(ask.number, _end(status, self._token(ask.index))))

    def _status(self, position: int) -> int | None:
        """The exit status of a reader that has ended; None where the process that would know has ended, too."""
        with contextlib.suppress(EOFError, ConnectionResetError):
            while position not in self._ended and self._control.poll(_SECONDS_FOR_THE_REASON):
                ended: Ended = self._control.recv()
                self._ended[ended.reader] = ended.status
        return self._ended.get(position)

    def _token(self, index: int) -> str:
        token: str = self._dataset.sample(index).token
        return token


def _end(status: int | None, token: str) -> DeployError:
    """What to say of a reader that has ended with a sample before it."""
    if status in (None, -signal.SIGKILL, -signal.SIGTERM):
        return EnvironmentLacks("the process that read this sample was killed", where=token, hint=_HINT)
    how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    return InputError(f"reading this sample ended its process {how}", where=token, hint="check the sample's files")


def _started(
    count: int, buffers: Sequence[InputBuffer], job: Job
) -> tuple[subprocess.Popen[bytes], Connection, list[Connection]]:
    """The process that forks the readers, the connection to it, and those to the readers."""
    pairs = [Pipe() for _ in range(count + 1)]
    ours, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    control, *readers = (end.fileno() for end in theirs)
    descriptors = [buffer.descriptor for buffer in buffers]
    arguments = json.dumps([sys.path, [os.getpid(), control, readers, descriptors]])
    # Until it ignores interrupts: they are ours to answer.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", _START, arguments],
            pass_fds=[control, *readers, *descriptors],
            env={**os.environ, **ONE_THREAD},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    for end in theirs:
        end.close()
    with contextlib.suppress(BrokenPipeError):
        ours[0].send(job)
    return process, ours[0], ours[1:]
