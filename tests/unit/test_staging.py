"""Uploads from ordinary host memory, in pieces by several threads: what was there when the call returned arrives."""

from __future__ import annotations

import os
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest

from runtime.cuda import staging
from runtime.cuda.staging import Staging, pieces_of, threads_for
from tests.support.cuda_on_cpu import HostGpu

SIZES = [0, 1, staging.BYTES_A_THREAD, 2 * staging.BYTES_A_THREAD, 4_000_000, 4_000_001, 16_070_400]


class SlowGpu(HostGpu):
    """Copies page-locked memory when somebody waits, as a device does; ordinary memory at once, as the driver."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.waiting: list[tuple[np.ndarray[Any, Any], int]] = []
        self.locked: list[np.ndarray[Any, Any]] = []

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        self.locked.append(super().pinned(shape, dtype))
        return self.locked[-1]

    def is_page_locked(self, array: np.ndarray[Any, Any]) -> bool:
        return any(np.shares_memory(array, memory) for memory in self.locked)

    def to_device(self, array: np.ndarray[Any, Any], address: int, stream: Any) -> None:
        if array.size and self.is_page_locked(array):
            self.waiting.append((array, address))
        else:
            super().to_device(array, address, stream)

    def synchronize(self) -> None:
        for array, address in self.waiting:
            super().to_device(array, address, None)
        self.waiting.clear()


@pytest.fixture(autouse=True)
def five_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "_processors", lambda: 5)


@pytest.fixture
def gpu(tmp_path: Path) -> SlowGpu:
    return SlowGpu(tmp_path)


def values(size: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


@pytest.mark.parametrize("size", SIZES[1:])
def test_pieces_cover_all_bytes_once(size: int) -> None:
    spans = pieces_of(size)
    assert [start for start, _ in spans] == [0, *(end for _, end in spans[:-1])]
    assert spans[-1][1] == size
    assert len(spans) <= staging.MOST_PIECES
    assert threads_for(size) == max(1, min(5, size // staging.BYTES_A_THREAD)) <= len(spans)


@pytest.mark.parametrize("size", SIZES)
def test_the_array_may_be_written_again_at_once(gpu: SlowGpu, size: int) -> None:
    lane = Staging(gpu)  # type: ignore[arg-type]
    for seed in range(5):
        lane.begin()
        data = values(size, seed)
        wanted, target = data.copy(), gpu.allocate((size,), np.uint8)
        lane.to_device(data, target.address, None)
        data[:] = 0
        gpu.synchronize()
        np.testing.assert_array_equal(target.get(), wanted)


def test_several_arrays_of_a_request_do_not_mix(gpu: SlowGpu) -> None:
    lane = Staging(gpu)  # type: ignore[arg-type]
    for _ in range(3):
        lane.begin()
        arrays = [values(3_000_000 + 7 * seed, seed) for seed in range(4)]
        targets = [gpu.allocate(array.shape, np.uint8) for array in arrays]
        for array, target in zip(arrays, targets, strict=True):
            lane.to_device(array, target.address, None)
        gpu.synchronize()
        for array, target in zip(arrays, targets, strict=True):
            np.testing.assert_array_equal(target.get(), array)


def test_page_locked_memory_is_fetched_from_where_it_is(gpu: SlowGpu) -> None:
    data = gpu.pinned((4_000_000,), np.uint8)
    data[:] = values(data.size)
    Staging(gpu).to_device(data, gpu.allocate(data.shape, np.uint8).address, None)  # type: ignore[arg-type]
    ((array, _),) = gpu.waiting
    assert array.ctypes.data == data.ctypes.data


def test_rows_that_do_not_lie_side_by_side(gpu: SlowGpu) -> None:
    data = np.random.default_rng(0).normal(0, 1, (400_000, 5)).astype(np.float32)
    target = gpu.allocate((400_000, 4), np.float32)
    Staging(gpu).to_device(data[:, :4], target.address, None)  # type: ignore[arg-type]
    gpu.synchronize()
    np.testing.assert_array_equal(target.get(), data[:, :4])


def test_on_one_processor_the_driver_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "_processors", lambda: 1)
    assert threads_for(16_000_000) == 1


def test_threads_that_get_no_processor_hold_nobody_up(gpu: SlowGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody: SimpleQueue[Any] = SimpleQueue()
    monkeypatch.setattr(staging, "_helpers", lambda process: nobody)
    data = values(4_000_000)
    target = gpu.allocate(data.shape, np.uint8)
    Staging(gpu).to_device(data, target.address, None)  # type: ignore[arg-type]
    gpu.synchronize()
    np.testing.assert_array_equal(target.get(), data)
    assert nobody.qsize() == threads_for(data.nbytes) - 1
    assert not list(nobody.get().copied()), "late, they find nothing left to do"


def test_threads_are_those_of_the_process() -> None:
    assert staging._helpers(os.getpid()) is staging._helpers(os.getpid())
