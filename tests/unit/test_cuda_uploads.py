"""What is uploaded or cleared has arrived before a stream can read it: our streams do not wait for the default one."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from runtime.cuda import gpu, graph
from shared import cuda
from shared.errors import InferenceError
from tests.support.cuda_on_cpu import HostDriver, HostStream
from tests.support.libcuda_on_cpu import CONTEXT, HostLibrary

VALUES = np.arange(1, 7, dtype=np.float32)


class DefaultStream:
    """Takes work, and does it when somebody waits: a GPU that is busy with other processes."""

    def __init__(self) -> None:
        self._work: list[Callable[[], None]] = []

    def put(self, work: Callable[[], None]) -> None:
        self._work.append(work)

    def finish(self) -> None:
        while self._work:
            self._work.pop(0)()


def seen_by_a_stream(address: int) -> np.ndarray[Any, Any]:
    """What a kernel would read now."""
    return np.frombuffer((ctypes.c_float * VALUES.size).from_address(address), np.float32).copy()


class LateLibrary(HostLibrary):
    """libcuda with copies from pageable memory that are staged when the call returns, and no more."""

    def __init__(self) -> None:
        super().__init__()
        self._default = DefaultStream()

    def cuMemsetD8_v2(self, address: Any, value: Any, size: Any) -> int:  # noqa: N802 (CUDA's name)
        self._default.put(lambda: ctypes.memset(address.value, value.value, size.value))
        return 0

    def cuMemcpyHtoD_v2(self, address: Any, data: Any, size: Any) -> int:  # noqa: N802
        staged = ctypes.string_at(data.value, size.value)
        self._default.put(lambda: ctypes.memmove(address.value, staged, len(staged)))
        return 0

    def cuCtxSynchronize(self) -> int:  # noqa: N802
        self._default.finish()
        return 0


@pytest.fixture
def late_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    library = LateLibrary()
    monkeypatch.setattr(cuda, "library", lambda: library)


@pytest.mark.usefixtures("late_gpu")
def test_the_runtime_s_memory_holds_what_it_was_given() -> None:
    device = object.__new__(gpu.Gpu)
    cleared = device.allocate(VALUES.shape, VALUES.dtype)
    assert seen_by_a_stream(cleared.address).tolist() == [0] * VALUES.size
    uploaded = device.upload(VALUES[::-1])
    assert (uploaded.shape, uploaded.dtype) == (VALUES.shape, VALUES.dtype)
    assert seen_by_a_stream(uploaded.address).tolist() == VALUES[::-1].tolist()


def test_what_pycuda_refuses_to_record_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(stream: Any, enqueue: Any) -> None:
        raise HostDriver.Error("not in a graph")

    monkeypatch.setattr(gpu, "driver", HostDriver)
    monkeypatch.setattr(gpu, "Graph", refuse)
    with pytest.raises(InferenceError, match="not in a graph"):
        object.__new__(gpu.Gpu).graph(None, lambda: None)


@pytest.mark.usefixtures("late_gpu")
def test_the_builder_s_memory_holds_what_it_was_given() -> None:
    memory = cuda.Memory(VALUES.nbytes)
    assert seen_by_a_stream(memory.address).tolist() == [0] * VALUES.size
    cuda.upload(memory.address, VALUES)
    assert seen_by_a_stream(memory.address).tolist() == VALUES.tolist()


def test_memory_is_freed_with_its_object_in_its_own_context(monkeypatch: pytest.MonkeyPatch) -> None:
    library = HostLibrary()
    monkeypatch.setattr(cuda, "library", lambda: library)
    memory = cuda.Memory(8)
    address = memory.address
    del memory
    assert library.calls[-3:] == [("push", CONTEXT), ("free", address), ("pop", None)]


def test_streams_and_events_go_with_their_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines are measured one after the other, each with its own."""
    library = HostLibrary()
    monkeypatch.setattr(cuda, "library", lambda: library)
    stream, event, set_by_a_graph = cuda.Stream(), cuda.Event(), cuda.Event(blocking=True)
    event.record(stream)
    set_by_a_graph.record(stream, in_graph=True)
    del event
    assert library.calls == [("push", CONTEXT), ("destroy event", 2), ("pop", None)]
    del set_by_a_graph
    assert len(library.calls) == 3, "the graph may still be launched"
    del stream
    assert library.calls[3:] == [("push", CONTEXT), ("destroy stream", 1), ("pop", None)]


def test_a_recorded_graph_goes_with_its_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model keeps a few sizes of images, and records each anew that comes again later."""
    library = HostLibrary()
    monkeypatch.setattr(cuda, "library", lambda: library)
    monkeypatch.setattr(graph, "library", lambda: library)
    recorded = graph.Graph(HostStream(), lambda: None)
    assert [name for name, _ in library.calls] == ["destroy graph"], "launches need the executable alone"
    del recorded
    assert [name for name, _ in library.calls[1:]] == ["push", "destroy executable", "pop"]


def test_a_call_that_fails_names_the_function_and_cuda_s_error(monkeypatch: pytest.MonkeyPatch) -> None:
    library = HostLibrary()
    monkeypatch.setattr(cuda, "library", lambda: library)
    with pytest.raises(InferenceError, match="cuMemAlloc_v2 failed: CUDA_ERROR_OUT_OF_MEMORY"):
        cuda.Memory(1 << 40)


def test_memory_is_page_locked_for_the_time_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    library = HostLibrary()
    monkeypatch.setattr(cuda, "library", lambda: library)
    memory = np.zeros(1 << 16, np.uint8)
    with pytest.raises(RuntimeError), cuda.page_locked(memory):
        assert library.page_locked == {memory.ctypes.data: memory.nbytes}
        raise RuntimeError
    assert not library.page_locked


def test_where_the_driver_does_not_lock_memory_nothing_else_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    library = HostLibrary()
    monkeypatch.setattr(cuda, "library", lambda: library)
    memory = np.zeros(1 << 16, np.uint8)
    with cuda.page_locked(memory):
        with cuda.page_locked(memory):
            assert library.page_locked == {memory.ctypes.data: memory.nbytes}
        assert library.page_locked
