"""Processes that read samples ahead of the model, in order, in bounded memory."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pickle
import select
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from runtime.input_buffers import InputBuffer, arrays_in
from runtime.model import Model
from runtime.pipeline import DevicePipeline, Pipeline
from runtime.reader_process import ASK, ONE_THREAD, TOLD, Ended, Job, Told
from runtime.reading import Input, Reading, ReadingHere
from shared.errors import DeployError, EnvironmentLacks, InputError
from shared.logs import about

# What a reader has before it: one sample that it reads, one that waits.
_ASKED_EACH = 2
# Where the next sample is there, readers are heard and asked again after so many: that calls the kernel each time.
_HEAR_EVERY = 4
# Large inputs are fewer: together they have so many bytes at most, but a few there must be.
_MOST_BYTES = 1 << 30
_FEWEST = 4
# Readers end when nobody is connected to them, unless a file hangs.
_SECONDS_TO_END = 0.5
_GIVES_WAY = 19
_START = (
    "import json, sys; sys.path[:], arguments = json.loads(sys.argv[1]); "
    "from runtime.reader_process import serve; serve(*arguments)"
)
_HINT = "is there enough memory? --readers 1 takes less; the same command goes on where this one stopped"


@dataclass(frozen=True)
class _Ask:
    """Read the sample at a position of the data set into a buffer; ``number`` of the request."""

    number: int
    index: int
    buffer: int


@dataclass(frozen=True)
class _Answer:
    """What became of a request: a `Told` or an error in its buffer; ``error`` where the reader did not live to tell."""

    ask: _Ask
    failed: bool = False
    start: int = 0
    length: int = 0
    error: Exception | None = None


@dataclass
class _Reader:
    """A reader as this process sees it: the pipe that it is asked in, and what it has not told yet, in order."""

    position: int
    asks: int
    asked: deque[_Ask] = field(default_factory=deque)


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
        self._locked = [(buffer.mapped(0), contextlib.ExitStack()) for buffer in self._buffers]
        # The one that was used last is used next: those that are not needed stay empty.
        self._free = list(range(len(self._buffers)))
        self._numbers = itertools.count()
        self._wanted: set[int] = set()
        self._told: dict[int, _Answer] = {}
        self._largest = 0
        niceness = _GIVES_WAY if model.device.is_cpu else 0
        job = Job(model.spec, model.config.data, model.data_root, model.dataset.digest(), niceness)
        self._process, self._control, asks, self._tells = _started(count, self._buffers, job)
        self._readers = {position: _Reader(position, pipe) for position, pipe in enumerate(asks)}
        # A reader is in it as often as it can be asked.
        self._idle = deque([*self._readers.values()] * _ASKED_EACH)
        self._poll = select.poll()
        for descriptor in (self._tells, self._control.fileno()):
            self._poll.register(descriptor, select.POLLIN)
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
        todo, asked, taken = deque(indices), deque[_Ask](), deque[int]()
        try:
            for position, index in enumerate(indices):
                while len(taken) > held:
                    self._free.append(taken.popleft())
                if position % _HEAR_EVERY == 0 or not asked:
                    self._hear()
                    self._ask(todo, asked)
                while not asked or asked[0].number not in self._told:
                    if not self._readers:
                        raise EnvironmentLacks("all readers have ended", where=self._token(index), hint=_HINT)
                    self._wait()
                    self._ask(todo, asked)
                number = asked.popleft().number
                self._wanted.remove(number)
                answer = self._told.pop(number)
                taken.append(answer.ask.buffer)
                yield self._input(pipeline, answer)
        finally:
            self._free += taken
            for ask in asked:
                self._wanted.remove(ask.number)
                if self._told.pop(ask.number, None) is not None:
                    self._free.append(ask.buffer)

    def close(self) -> None:
        """End the processes, and give up the memory."""
        self._control.close()
        for descriptor in (self._tells, *(reader.asks for reader in self._readers.values())):
            os.close(descriptor)
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

    def _input(self, pipeline: Pipeline, answer: _Answer) -> Input:
        """What a reader read.

        Raises:
            Exception: what reading it raised there; or what there is to say of a reader that has ended.
        """
        ask, buffer = answer.ask, self._buffers[answer.ask.buffer]
        if answer.error is not None:
            with about(sample=self._token(ask.index)):
                raise answer.error
        before, lock = self._locked[ask.buffer]
        mapped = buffer.mapped(answer.start + answer.length)
        told = pickle.loads(mapped.data[answer.start : answer.start + answer.length])
        if answer.failed:
            with about(sample=self._token(ask.index)):
                raise told
        if mapped is not before:
            lock.close()
            lock.enter_context(pipeline.page_locked(mapped))
            self._locked[ask.buffer] = mapped, lock
            self._largest = max(self._largest, len(mapped))
        read = Told(*told)
        arrays = arrays_in(mapped, read.placed)
        if not isinstance(pipeline, DevicePipeline):
            # A step may keep what it was given, which costs a GPU's request more than a CPU's.
            arrays = {name: array.copy() for name, array in arrays.items()}
        data = pipeline.interface.packing.unpack(arrays)
        return Input(ask.index, read.token, data, read.counters, read.milliseconds, read.processor_seconds)

    def _ask(self, todo: deque[int], asked: deque[_Ask]) -> None:
        """Ask readers for the next samples, as far as they and the buffers are free."""
        while todo and self._idle and self._free and self._is_affordable():
            reader = self._idle.popleft()
            if reader.position not in self._readers:
                continue
            ask = _Ask(next(self._numbers), todo.popleft(), self._free.pop())
            asked.append(ask)
            self._wanted.add(ask.number)
            reader.asked.append(ask)
            # That it has ended is heard of, with everything that it was asked for.
            with contextlib.suppress(BrokenPipeError):
                os.write(reader.asks, ASK.pack(ask.number, ask.index, ask.buffer))

    def _is_affordable(self) -> bool:
        used = len(self._buffers) - len(self._free)
        return used < _FEWEST or (self._largest > 0 and (used + 1) * self._largest <= _MOST_BYTES)

    def _hear(self) -> None:
        """Take what readers have told."""
        try:
            records = os.read(self._tells, TOLD.size * len(self._buffers))
        except BlockingIOError:
            return
        for position, number, failed, start, length in TOLD.iter_unpack(records):
            # One that was given up, when the process that forked it ended, may still tell.
            if position in self._readers:
                reader = self._readers[position]
                ask = reader.asked.popleft()
                assert ask.number == number
                self._idle.append(reader)
                self._keep(_Answer(ask, bool(failed), start, length))

    def _wait(self) -> None:
        """Wait until a reader tells, or ends."""
        ready = {descriptor for descriptor, _ in self._poll.poll()}
        self._hear()
        if self._control.fileno() in ready:
            self._hear_of_the_end()

    def _keep(self, answer: _Answer) -> None:
        if answer.ask.number in self._wanted:
            self._told[answer.ask.number] = answer
        else:
            self._free.append(answer.ask.buffer)

    def _hear_of_the_end(self) -> None:
        """Take that a reader has ended; all have where the process that forked them has."""
        try:
            ended: Ended = self._control.recv()
        except (EOFError, ConnectionResetError):
            self._poll.unregister(self._control.fileno())
            gone, status = list(self._readers.values()), None
        else:
            gone, status = [self._readers[ended.reader]], ended.status
        # What they told before they ended is there by now.
        self._hear()
        for reader in gone:
            del self._readers[reader.position]
            os.close(reader.asks)
            for ask in reader.asked:
                self._keep(_Answer(ask, error=_end(status, self._token(ask.index))))

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
) -> tuple[subprocess.Popen[bytes], Connection, list[int], int]:
    """The process that forks the readers, the connection to it, the pipes to ask readers in, and that in which they
    tell."""
    ours, theirs = Pipe()
    asks = [os.pipe() for _ in range(count)]
    heard, told = os.pipe()
    os.set_blocking(heard, False)
    descriptors = [buffer.descriptor for buffer in buffers]
    passed = [theirs.fileno(), *(read for read, _ in asks), told]
    arguments = json.dumps([sys.path, [os.getpid(), passed[0], passed[1:-1], told, descriptors]])
    # Until it ignores interrupts: they are ours to answer.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", _START, arguments],
            pass_fds=[*passed, *descriptors],
            env={**os.environ, **ONE_THREAD},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    theirs.close()
    for descriptor in passed[1:]:
        os.close(descriptor)
    with contextlib.suppress(BrokenPipeError):
        ours.send(job)
    return process, ours, [write for _, write in asks], heard
