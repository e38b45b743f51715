"""Reading ahead in processes: what one after the other gives, in order, in bounded memory, whatever becomes of them."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.pipeline import DevicePipeline
from runtime.readers import Readers
from shared.errors import DeployError, EnvironmentLacks, InputError
from tests.support import odd_frames
from tests.support.odd_frames import CRASH, KILL, REFUSE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="readers are forked, and share files without a name")

ROOT = Path(__file__).parents[2]
# Sizes that make buffers grow, and delays that change the order in which readers are done.
FRAMES = [
    {"rows": rows, "seconds": (0.0, 0.004, 0.001, 0.0, 0.002)[position % 5]}
    for position, rows in enumerate((1, 3000, 7, 250_000, 40, 120_000, 1, 900, 300_000, 5))
]


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("site") / "packages"


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory, site: Path, patch: pytest.MonkeyPatch) -> Iterator[list[Readers]]:
    folder = odd_frames.write_frames(tmp_path_factory.mktemp("frames") / "frames", FRAMES)
    model = odd_frames.model_of(folder, site, patch)
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(Readers(model, count, 2))) for count in (1, 2, 3)]


def _open(
    tmp_path: Path,
    site: Path,
    patch: pytest.MonkeyPatch,
    frames: list[dict[str, float]],
    count: int = 2,
    **options: bool,
) -> contextlib.closing[Readers]:
    folder = odd_frames.write_frames(tmp_path / "frames", frames)
    return contextlib.closing(Readers(odd_frames.model_of(folder, site, patch, **options), count, 1))


def _read(readers: Readers, indices: list[int] | range) -> list[int]:
    """Positions of the samples that come, until one fails."""
    return [each.index for each in readers.inputs(odd_frames.pipeline(), indices, held=1)]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    which=st.integers(0, 2),
    indices=st.lists(st.integers(0, len(FRAMES) - 1), max_size=25),
    held=st.integers(1, 2),
    taken=st.integers(0, 30),
)
def test_what_comes_is_what_one_after_the_other_gives(
    readers: list[Readers], which: int, indices: list[int], held: int, taken: int
) -> None:
    one, pipeline = readers[which], odd_frames.pipeline()
    inputs = one.inputs(pipeline, indices, held=held)
    kept: list[tuple[np.ndarray, bytes]] = []
    for index in indices[:taken]:  # and no more: what was asked for ahead is forgotten
        read = next(inputs)
        sample = one._dataset.sample(index)
        expected = odd_frames.read_points(sample)
        assert (read.index, read.token, read.counters) == (index, sample.token, expected.counters)
        assert read.data.dtype == expected.data.dtype and read.data.shape == expected.data.shape
        assert read.data.tobytes() == expected.data.tobytes()
        kept.append((read.data, expected.data.tobytes()))
        # Those that are held are what they were.
        assert all(data.tobytes() == content for data, content in kept[-held - 1 :])
    if taken > len(indices):
        assert next(inputs, None) is None
    inputs.close()


def test_memory_is_bounded_by_the_buffers_however_slow_the_model_is(
    tmp_path: Path, site: Path, patch: pytest.MonkeyPatch
) -> None:
    with _open(tmp_path, site, patch, [{"rows": 100}] * 40) as readers:
        inputs = readers.inputs(odd_frames.pipeline(), range(40), held=1)
        next(inputs)
        log = tmp_path / "frames" / "log"
        most = len(readers._buffers)
        deadline = time.monotonic() + 60
        while len(log.read_text().split()) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.3)
        assert len(log.read_text().split()) <= most < 10
        assert sum(os.fstat(buffer.descriptor).st_size for buffer in readers._buffers) <= most << 21
        assert [each.index for each in inputs] == list(range(1, 40))


def test_large_inputs_are_read_ahead_in_fewer_buffers(
    tmp_path: Path, site: Path, patch: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.readers._MOST_BYTES", 10 << 21)
    with _open(tmp_path, site, patch, [{"rows": 200_000}] * 30, count=3) as readers:
        assert _read(readers, range(30)) == list(range(30))
        assert sum(os.fstat(buffer.descriptor).st_size for buffer in readers._buffers) <= 10 << 21


@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        (REFUSE, InputError, r"^006.bin: is refused. look at it$"),
        (KILL, EnvironmentLacks, r"^006.bin: the process that read this sample was killed. is there enough memory"),
        (CRASH, InputError, r"^006.bin: reading this sample ended its process by SIGSEGV. check"),
    ],
)
def test_a_sample_that_can_not_be_read_is_named_and_those_before_it_come(
    tmp_path: Path, site: Path, patch: pytest.MonkeyPatch, what: int, kind: type[DeployError], message: str
) -> None:
    frames = [{"rows": 10, "seconds": 0.01}] * 6 + [{"rows": 10, "what": what}] + [{"rows": 10}] * 5
    with _open(tmp_path, site, patch, frames) as readers:
        inputs, seen = readers.inputs(odd_frames.pipeline(), range(12), held=1), []
        with pytest.raises(kind, match=message):
            seen.extend(each.index for each in inputs)
        assert seen == list(range(6))


def test_the_other_readers_go_on_where_one_was_killed(tmp_path: Path, site: Path, patch: pytest.MonkeyPatch) -> None:
    with _open(tmp_path, site, patch, [{"rows": 10, "what": KILL}] + [{"rows": 10}] * 5) as readers:
        with pytest.raises(EnvironmentLacks, match=r"^000\.bin"):
            _read(readers, range(6))
        assert _read(readers, range(1, 6)) == list(range(1, 6))
        with pytest.raises(EnvironmentLacks, match=r"^000\.bin"):
            _read(readers, range(6))
        with pytest.raises(EnvironmentLacks, match="all readers have ended"):
            _read(readers, range(1, 6))


def test_when_what_started_the_readers_is_killed_that_is_said(
    tmp_path: Path, site: Path, patch: pytest.MonkeyPatch
) -> None:
    with _open(tmp_path, site, patch, [{"rows": 10, "seconds": 0.05}] * 30) as readers:
        inputs = readers.inputs(odd_frames.pipeline(), range(30), held=1)
        next(inputs)
        readers._process.kill()
        with pytest.raises(EnvironmentLacks, match=r"^0\d\d.bin: .*(was killed|have ended)"):
            list(inputs)


def test_before_the_first_sample_too(tmp_path: Path, site: Path, patch: pytest.MonkeyPatch) -> None:
    with _open(tmp_path, site, patch, [{"rows": 10}]) as readers:
        readers._process.kill()
        with pytest.raises(EnvironmentLacks, match=r"^frames: .* ended before the first"):
            _read(readers, [0])


def test_a_data_set_that_is_another_one_there_is_refused(tmp_path: Path, site: Path, patch: pytest.MonkeyPatch) -> None:
    model = odd_frames.model_of(odd_frames.write_frames(tmp_path / "frames", [{"rows": 10}] * 3), site, patch)
    before = replace(model.dataset, digest_parts=lambda: ["before"])
    model = replace(model, open_dataset=lambda: before)
    with (
        contextlib.closing(Readers(model, 1, 1)) as readers,
        pytest.raises(InputError, match=r"^frames: changed while it was opened"),
    ):
        _read(readers, range(3))


def test_a_pipeline_that_needs_its_session_is_read_for_here(
    tmp_path: Path, site: Path, patch: pytest.MonkeyPatch
) -> None:
    with _open(tmp_path, site, patch, [{"rows": 10}] * 3, needs_gpu=True) as readers:
        assert _read(readers, range(3)) == [0, 1, 2]
    assert not (tmp_path / "frames" / "log").exists()


def _descendants(pid: int) -> set[int]:
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = status.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                child = int(status.parent.name)
                found |= {child} | _descendants(child)
    return found


def _alive(pids: set[int]) -> set[int]:
    alive = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                alive.add(pid)
    return alive


def _open_files() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_nothing_is_left_when_it_is_closed(tmp_path: Path, site: Path, patch: pytest.MonkeyPatch) -> None:
    files, processes = _open_files(), _descendants(os.getpid())
    with _open(tmp_path, site, patch, [{"rows": 10}] + [{"rows": 10, "seconds": 60}] * 3) as readers:
        assert next(readers.inputs(odd_frames.pipeline(), range(4), held=1)).index == 0
        assert len(_descendants(os.getpid()) - processes) == 3
    assert (_open_files(), _descendants(os.getpid())) == (files, processes)


class Locking(DevicePipeline[None]):
    """A pipeline that keeps account of what memory is page-locked for it, and does nothing else."""

    def __init__(self) -> None:
        session = SimpleNamespace(gpu=None, open_lane=lambda: SimpleNamespace(stream=None))
        super().__init__(odd_frames.pipeline().interface, None, None, session)
        self.locked: list[np.ndarray] = []

    @contextlib.contextmanager
    def page_locked(self, memory: np.ndarray) -> Iterator[None]:
        self.locked.append(memory)
        yield
        self.locked = [each for each in self.locked if each is not memory]

    def enqueue(self, data, *, stages): ...

    def answer(self, request, *, stages): ...

    def input_shapes(self, data, counters): ...


def test_a_pipeline_on_a_gpu_takes_inputs_from_memory_that_it_has_locked(
    tmp_path: Path, site: Path, patch: pytest.MonkeyPatch
) -> None:
    pipeline = Locking()
    with _open(tmp_path, site, patch, FRAMES) as readers:
        for _ in range(2):
            for read in readers.inputs(pipeline, range(len(FRAMES)), held=1):
                assert sum(np.shares_memory(read.data, memory) for memory in pipeline.locked) == 1
                assert len(pipeline.locked) <= len(readers._buffers)
    assert not pipeline.locked


def test_steps_on_the_host_may_keep_what_they_were_given(tmp_path: Path, site: Path, patch: pytest.MonkeyPatch) -> None:
    with _open(tmp_path, site, patch, FRAMES) as readers:
        kept = [read.data for read in readers.inputs(odd_frames.pipeline(), range(len(FRAMES)), held=1)]
        for index, data in enumerate(kept):
            assert data.tobytes() == odd_frames.read_points(readers._dataset.sample(index)).data.tobytes()


PARENT = """
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
import pytest
from runtime.pipeline import DevicePipeline
from runtime.readers import Readers
from tests.support import odd_frames

folder, site = Path(sys.argv[1]), Path(sys.argv[2])
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(site))
    readers = Readers(odd_frames.model_of(folder, site, patch), 2, 1)
    inputs = readers.inputs(odd_frames.pipeline(), range(9), held=1)
    next(inputs)
    print("reading", flush=True)
    {then}
"""


@pytest.mark.parametrize("hanging", [False, True])
def test_nothing_is_left_when_the_process_of_the_model_is_killed(
    tmp_path: Path, site: Path, readers: list[Readers], hanging: bool
) -> None:
    slow = {"rows": 10, "seconds": 300.0 if hanging else 0.0}
    folder = odd_frames.write_frames(tmp_path / "frames", [{"rows": 10}] + [slow] * 8)
    program = PARENT.format(then="list(inputs)" if hanging else "signal.pause()")
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(folder), str(site)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "reading\n"
    children = _descendants(process.pid)
    assert len(children) == 3
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 60
    while _alive(children):
        assert time.monotonic() < deadline
        time.sleep(0.01)
