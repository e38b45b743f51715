"""Mutates inputs of a reader and sees what becomes of them: data, a line for the user, or a finding.

Each input is made from a seed number alone, so a finding can be made again. The reader runs in a process of its own,
with a limit on its memory: a crash or a hang ends that process, is recorded, and the next one goes on behind it.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import random
import resource
import signal
import struct
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shared.errors import DeployError

# Of a clock, for what waits for nothing; of a processor, however busy the machine is, for what computes on and on.
SECONDS_PER_INPUT, PROCESSOR_SECONDS_PER_INPUT = 60.0, 20.0
_FEWEST = 20
# That an input may take, beyond what this process had before: other tests leave it more or less.
_MEMORY = 3 << 30
_MOST_BYTES = 1 << 16
_SCRATCH = "/dev/shm" if Path("/dev/shm").is_dir() else None
_INTERESTING = [struct.pack(kind, value) for kind, value in (
    ("<B", 0), ("<B", 0x7F), ("<B", 0xFF), ("<H", 0xFFFF), ("<I", 0x7FFFFFFF), ("<I", 0xFFFFFFFF),
    ("<I", 0x10000), ("<Q", 0x7FFFFFFFFFFFFFFF), ("<d", float("nan")), ("<d", float("inf")),
)]  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """Something that reads files of users.

    Args:
        name: of the reader, and of its folder in ``corpus/``.
        read: reads a file; data, or a `DeployError`, is an answer.
        suffix: of its files.
        seeds: whole files that it reads.
        tokens: pieces that mean something to it.
    """

    name: str
    read: Callable[[Path], object]
    suffix: str
    seeds: Callable[[], Sequence[bytes]]
    tokens: Sequence[bytes] = ()


@dataclass
class Outcome:
    """What became of the inputs of a reader."""

    inputs: int = 0
    seconds: float = 0.0
    findings: dict[str, bytes] = field(default_factory=dict)  # what happened, and an input with which it does


def mutated(seed: int, seeds: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """The input of a seed number."""
    rng = random.Random(seed)
    content = bytearray(rng.choice(seeds))
    for _ in range(1 << rng.randrange(5)):
        _mutate(content, rng, seeds, tokens)
    return bytes(content[:_MOST_BYTES])


def _mutate(content: bytearray, rng: random.Random, seeds: Sequence[bytes], tokens: Sequence[bytes]) -> None:
    at = rng.randrange(len(content) + 1)
    length = min(len(content) - at, 1 << rng.randrange(8))
    kind = rng.randrange(8)
    if kind == 0 and length:
        content[at] = rng.randrange(256)
    elif kind == 1 and length:
        content[at] ^= 1 << rng.randrange(8)
    elif kind == 2:
        del content[at : at + length]
    elif kind == 3:
        content[at:at] = content[at : at + length] * rng.choice((1, 1, 2, 50))
    elif kind == 4:
        value = rng.choice(_INTERESTING)
        content[at : at + len(value)] = value
    elif kind == 5:
        other = rng.choice(seeds)
        start = rng.randrange(len(other) + 1)
        content[at : at + length] = other[start : start + (1 << rng.randrange(10))]
    elif tokens:
        content[at : at + (length if kind == 6 else 0)] = rng.choice(tokens)


def fuzz(reader: Reader, seconds: float, *, first: int = 0, most: int | None = None) -> Outcome:
    """Give a reader mutated inputs.

    Args:
        reader: the reader.
        seconds: for how long; longer on a machine that is too slow for a few inputs.
        first: the first seed number.
        most: how many inputs at most.
    """
    seeds = [*reader.seeds(), *(file.read_bytes() for file in corpus(reader))]
    outcome, started = Outcome(), time.monotonic()
    at = first

    def left() -> float:
        over = seconds - (time.monotonic() - started)
        return over if at - first > _FEWEST else max(over, 1.0)

    with tempfile.TemporaryDirectory(dir=_SCRATCH) as folder, mmap.mmap(-1, 4096) as shared:
        while left() > 0 and (most is None or at - first < most):
            shared[:8] = struct.pack("<Q", at)
            last = first + most if most is not None else 1 << 62
            arguments = (reader, seeds, Path(folder), shared, at, last, left())
            child = multiprocessing.get_context("fork").Process(target=_work, args=arguments)
            child.start()
            hung = _wait(child, shared) or child.exitcode == -signal.SIGPROF
            at = struct.unpack("<Q", shared[:8])[0]
            if child.exitcode != 0:
                size = struct.unpack("<I", shared[8:12])[0]
                what = (
                    "hang" if hung else shared[12 : 12 + size].decode() or f"ended by signal {-(child.exitcode or 0)}"
                )
                outcome.findings.setdefault(what, mutated(at, seeds, reader.tokens))
                at += 1
    outcome.inputs, outcome.seconds = at - first, time.monotonic() - started
    return outcome


def corpus(reader: Reader) -> list[Path]:
    """Files of the reader in the tree: what was once a finding, and rare forms."""
    return sorted((Path(__file__).parent / "corpus" / reader.name).glob("*"))


def _wait(child: multiprocessing.process.BaseProcess, shared: mmap.mmap) -> bool:
    """Wait for the child; True when it had to be ended because it did not get on."""
    position, since = shared[:8], time.monotonic()
    while child.is_alive():
        child.join(0.5)
        if shared[:8] != position:
            position, since = shared[:8], time.monotonic()
        elif time.monotonic() - since > SECONDS_PER_INPUT:
            child.kill()
            child.join()
            return True
    return False


def _work(
    reader: Reader, seeds: Sequence[bytes], folder: Path, shared: mmap.mmap, first: int, last: int, seconds: float
) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = _MEMORY + pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    file = folder / f"input{reader.suffix}"
    until = time.monotonic() + seconds
    for seed in range(first, last):
        shared[:8] = struct.pack("<Q", seed)
        shared[8:12] = struct.pack("<I", 0)
        if time.monotonic() > until:
            break
        file.write_bytes(mutated(seed, seeds, reader.tokens))
        signal.setitimer(signal.ITIMER_PROF, PROCESSOR_SECONDS_PER_INPUT)
        finding = answer_of(reader, file)
        if finding is not None:
            text = finding.encode()[:2000]
            shared[8 : 12 + len(text)] = struct.pack("<I", len(text)) + text
            os._exit(1)
    else:
        shared[:8] = struct.pack("<Q", last)
    os._exit(0)


def answer_of(reader: Reader, file: Path) -> str | None:
    """What is wrong with how the reader answers; None for an answer."""
    try:
        reader.read(file)
    except DeployError as error:
        if "memory" in error.message:
            return f"out of memory: {error.message[:60]}"
    except BaseException as error:  # noqa: BLE001  # every escape is a finding
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place is not None else ""
        return f"{type(error).__name__} at {where}: {str(error)[:60]}"
    return None
