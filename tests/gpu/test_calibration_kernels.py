"""The CUDA kernels of the calibration classifier's input on a GPU, against NumPy: bit for bit, and how long they take.

Without OpenCV, which the machine need not have: maps of an undistortion are drawn at random.
"""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pycuda", reason="pycuda is not installed here; the runtime image has it")
pytest.importorskip("PIL", reason="Pillow is not installed here; the test's data are made with it")

from runtime.cuda.gpu import open_gpu
from runtime.devices import parse_device
from runtime.models.calibration.device import CalibrationOnDevice
from runtime.models.calibration.paint import paint
from runtime.models.calibration.project import project
from runtime.models.calibration.steps import CameraView
from runtime.models.calibration.undistort import UndistortionMap
from runtime.pipeline import build_pipeline
from tests.support.calibration_data import spec
from tests.support.fixed_session import LogitsSession

pytestmark = pytest.mark.gpu

MAX_DEPTH = 128.0


def scene(count: int, height: int, width: int, seed: int = 0) -> tuple[Any, Any, UndistortionMap]:
    """An image of noise, points over all of it (some twice), and an undistortion that moves pixels by up to 9."""
    rng = np.random.default_rng(seed)
    depth = rng.uniform(2, 130, count)
    points = np.column_stack(
        [
            (rng.uniform(-20, width + 20, count) - width / 2) / 900 * depth,
            (rng.uniform(-20, height + 20, count) - height / 2) / 900 * depth,
            depth,
            rng.uniform(0, 255, count),
        ]
    ).astype(np.float32)
    points[: count // 10, :3] = points[count // 10 : 2 * (count // 10), :3]
    rows, columns = np.mgrid[:height, :width]
    source = np.stack([columns, rows], axis=-1) + rng.integers(-9, 10, (height, width, 2))
    mapping = UndistortionMap(
        np.array([[900.0, 0, width / 2], [0, 900.0, height / 2], [0, 0, 1]]),
        source.astype(np.int16),
        rng.integers(0, 1024, (height, width), dtype=np.uint16),
    )
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8), points, mapping


def straight(image: Any, mapping: UndistortionMap) -> Any:
    """OpenCV's remap in NumPy: fixed point, 0 outside."""
    height, width = image.shape[:2]
    x, y = mapping.source[..., 0].astype(int), mapping.source[..., 1].astype(int)
    right, low = mapping.fraction.astype(int) % 32, mapping.fraction.astype(int) // 32

    def at(row: Any, column: Any) -> Any:
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        pixels = image[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)].astype(int)
        return np.where(inside[..., None], pixels, 0)

    weights = [(32 - right) * (32 - low), right * (32 - low), (32 - right) * low, right * low]
    corners = [at(y, x), at(y, x + 1), at(y + 1, x), at(y + 1, x + 1)]
    total = sum(w[..., None] * 32 * corner for w, corner in zip(weights, corners, strict=True))
    return ((total + (1 << 14)) >> 15).astype(np.uint8)


def by_numpy(image: Any, points: Any, mapping: UndistortionMap) -> tuple[Any, int, int]:
    height, width = image.shape[:2]
    fused = np.zeros((1, 5, height, width), np.float32)
    fused[0, :3] = straight(image, mapping).transpose(2, 0, 1) / np.float32(255)
    seen = project(points, np.eye(4), mapping.intrinsics, height, width, MAX_DEPTH)
    painted = paint(seen, points[:, 3], MAX_DEPTH, 1, fused[0, 3], fused[0, 4])
    return fused, len(seen), painted


def view(monkeypatch: pytest.MonkeyPatch, image: Any, points: Any, mapping: UndistortionMap, camera: int) -> CameraView:
    """A request of a camera that is undistorted by ``mapping``."""
    monkeypatch.setattr("runtime.models.calibration.steps.undistortion_map", lambda *camera: mapping)
    return CameraView(image, points, mapping.intrinsics, np.array([float(camera)]), np.eye(4))


def on_device(dtype: str) -> CalibrationOnDevice:
    pipeline = build_pipeline(spec(), LogitsSession(open_gpu(parse_device("cuda:0", {})), dtype))
    assert isinstance(pipeline, CalibrationOnDevice)
    return pipeline


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("count", "height", "width"), [(0, 60, 80), (5000, 123, 457), (60_000, 900, 1600)])
def test_equal_to_numpy(monkeypatch: pytest.MonkeyPatch, count: int, height: int, width: int, dtype: str) -> None:
    pipeline = on_device(dtype)
    for seed in range(3):
        image, points, mapping = scene(count, height, width, seed)
        answer = pipeline.infer(view(monkeypatch, image, points, mapping, camera=seed))
        expected, seen, painted = by_numpy(image, points, mapping)
        np.testing.assert_array_equal(pipeline.fused(height, width), expected.astype(dtype))
        assert (answer.counters["points_seen"], answer.counters["pixels_painted"]) == (seen, painted)
        np.testing.assert_array_equal(answer.outputs["output"], np.array([[-1.0, 2.0]], dtype))


def test_lanes_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    first = on_device("float32")
    lanes = [first, first.another(), first.another()]
    scenes = [scene(5000, 123, 400 + 10 * number, number) for number in range(len(lanes))]
    for _ in range(10):
        for number, (lane, parts) in enumerate(zip(lanes, scenes, strict=True)):
            lane.submit(view(monkeypatch, *parts, camera=number))
        for lane, (image, points, mapping) in zip(lanes, scenes, strict=True):
            answer = lane.collect()
            expected, seen, painted = by_numpy(image, points, mapping)
            assert (answer.counters["points_seen"], answer.counters["pixels_painted"]) == (seen, painted)
            assert isinstance(lane, CalibrationOnDevice)
            np.testing.assert_array_equal(lane.fused(*image.shape[:2]), expected)


def test_eight_megapixels_in_a_few_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = on_device("float16")
    data = view(monkeypatch, *scene(200_000, 1860, 2880), camera=0)
    times = []
    for _ in range(30):
        started = time.perf_counter()
        answer = pipeline.infer(data)
        times.append((time.perf_counter() - started) * 1e3)
    steps = {name: round(value, 3) for name, value in answer.latency_ms.items()}
    print("1860 x 2880, 200,000 points [ms]:", round(float(np.median(times)), 2), json.dumps(steps))  # noqa: T201
    assert steps["project"] + steps["choose"] + steps["fuse"] < 10
