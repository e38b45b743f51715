"""Uploads by way of page-locked memory: whatever the parts, the device has what the host had, and the host is free."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.cuda import staging
from tests.support.cuda_on_cpu import HostDriver


class CountingDriver(HostDriver):
    """The host's memory as a device, which counts copies."""

    copies = 0

    @staticmethod
    def memcpy_htod_async(address: int, array: np.ndarray[Any, Any], stream: Any = None) -> None:
        CountingDriver.copies += 1
        HostDriver.memcpy_htod_async(address, array, stream)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> type[CountingDriver]:
    monkeypatch.setattr(staging, "driver", CountingDriver)
    monkeypatch.setattr(staging, "_cores", lambda: 4)
    CountingDriver.copies = 0
    return CountingDriver


@given(rows=st.integers(0, 5000), columns=st.integers(1, 6), extra=st.integers(0, 2), least=st.sampled_from([64, 4096]))
@settings(deadline=None, max_examples=60)
def test_the_device_has_what_the_host_had(rows: int, columns: int, extra: int, least: int) -> None:
    source = np.random.default_rng(rows).normal(size=(rows, columns + extra)).astype(np.float32)[:, :columns]
    staged, device = np.full((rows, columns), np.nan, np.float32), np.full((rows, columns), np.nan, np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(staging, "driver", HostDriver)
        patch.setattr(staging, "LEAST_PART", least)
        patch.setattr(staging, "_cores", lambda: 4)
        staging.upload(source, staged, device.ctypes.data, None)
    np.testing.assert_array_equal(device, source)


def test_large_arrays_go_in_parts_and_small_ones_at_once(driver: type[CountingDriver]) -> None:
    for size, copies in ((1 << 10, 1), (1 << 20, 4)):
        source = np.arange(size, dtype=np.float32)
        staged, device = np.zeros_like(source), np.zeros_like(source)
        driver.copies = 0
        staging.upload(source, staged, device.ctypes.data, None)
        assert driver.copies == copies
        np.testing.assert_array_equal(device, source)
