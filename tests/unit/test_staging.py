"""Uploads from ordinary host memory, by several threads: what was there when the call returned arrives."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from runtime.cuda import staging
from runtime.cuda.staging import FIRST_SHARE, Staging, copy_by_threads, parts_of
from tests.support.cuda_on_cpu import HostGpu

LEAST, LINE = staging.LEAST_BYTES, staging.LINE
SIZES = [0, 1, LEAST - 1, LEAST, 4_000_000, 4_000_001, 16_070_400]


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
def five_threads() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(5)
    yield
    cv2.setNumThreads(before)


@pytest.fixture
def gpu(tmp_path: Path) -> SlowGpu:
    return SlowGpu(tmp_path)


def values(size: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


@pytest.mark.parametrize("share", [0.01, 1 / 2, FIRST_SHARE, 1])
@pytest.mark.parametrize("size", SIZES)
def test_two_parts_cover_all_bytes_once_the_first_in_whole_lines(size: int, share: float) -> None:
    parts = parts_of(size, share)
    assert len(parts) <= 2
    assert sum(end - start for start, end in parts) == size
    assert all(end == start and start % LINE == 0 for (_, end), (start, _) in itertools.pairwise(parts))
    assert parts == [] if size == 0 else share * size <= parts[0][1] < share * size + LINE


@pytest.mark.parametrize("size", [0, 1, LINE - 1, LINE, LINE + 1, 1_000_003])
def test_a_threshold_copies_all_values(size: int) -> None:
    source, target = np.arange(size, dtype=np.uint32).astype(np.uint8), np.full(size, 7, np.uint8)
    copy_by_threads(source, target)
    np.testing.assert_array_equal(target, source)


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


def test_with_one_thread_the_driver_copies(gpu: SlowGpu) -> None:
    cv2.setNumThreads(1)
    data = values(4_000_000)
    target = gpu.allocate(data.shape, np.uint8)
    Staging(gpu).to_device(data, target.address, None)  # type: ignore[arg-type]
    assert not gpu.locked
    np.testing.assert_array_equal(target.get(), data)


def test_room_for_the_arrays_of_a_request_is_made_once(gpu: SlowGpu) -> None:
    lane = Staging(gpu)  # type: ignore[arg-type]
    target = gpu.allocate((3_000_000,), np.uint8)
    for _ in range(4):
        lane.begin()
        for seed in range(6):
            lane.to_device(values(3_000_000, seed), target.address, None)
        rooms, gpu.locked = len(gpu.locked), gpu.locked[-1:]
    assert rooms == 1
