"""The CUDA kernels of the calibration classifier's input, compiled for a CPU, against NumPy and OpenCV: bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.models.calibration import device as calibration
from runtime.models.calibration import steps
from runtime.models.calibration.device import CalibrationOnDevice
from runtime.models.calibration.steps import CAMERAS_KEPT, CameraView
from runtime.pipeline import build_pipeline
from shared.errors import InferenceError
from tests.support import cuda_on_cpu
from tests.support.calibration_data import FakeSession, spec
from tests.support.cuda_on_cpu import HostGpu
from tests.support.fixed_session import LogitsSession

pytestmark = pytest.mark.skipif(cuda_on_cpu.compiler() is None, reason="no C++ compiler here")

BENT = np.array([-0.3, 0.1, 0.002, -0.001, -0.01])


def view(seed: int = 0, count: int = 3000, height: int = 40, width: int = 61, **changes: Any) -> CameraView:
    rng = np.random.default_rng(seed)
    points = np.column_stack(
        [rng.normal(0, 6, (count, 2)), rng.uniform(-5, 140, (count, 1)), rng.uniform(0, 255, (count, 1))]
    ).astype(np.float32)
    points[: count // 4] = points[count // 4 : count // 4 + len(points[: count // 4])]  # the same place twice
    points[: count // 4, 3] = rng.uniform(0, 255, count // 4)
    tilted = np.eye(4)
    tilted[:3, 3] = rng.normal(0, 0.3, 3)
    values: dict[str, Any] = {
        "image": rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        "points": points,
        "intrinsics": np.array([[50.0, 0, width / 2], [0, 51.0, height / 2], [0, 0, 1]]),
        "distortion": np.zeros(0),
        "lidar2cam": tilted,
    }
    return CameraView(**(values | changes))


@pytest.fixture(scope="module")
def folder() -> Path:
    return cuda_on_cpu.KEPT


def on_device(monkeypatch, folder: Path, seed: int = 0, **options: Any) -> CalibrationOnDevice:
    parameters = options.pop("parameters", {})
    gpu = cuda_on_cpu.use(monkeypatch, folder, seed)
    built = build_pipeline(spec(**parameters), LogitsSession(gpu, **options))
    assert isinstance(built, CalibrationOnDevice)
    return built


def by_numpy(data: CameraView, **parameters: Any) -> tuple[np.ndarray[Any, Any], Any]:
    session = FakeSession()
    answer = build_pipeline(spec(**parameters), session).infer(data)
    return session.given[0], answer


@pytest.mark.parametrize("distortion", [np.zeros(0), np.zeros(5), BENT, np.append(BENT, [0.01, 0.02, 0.001])])
@pytest.mark.parametrize("seed", range(3))
def test_equal_to_numpy(monkeypatch, folder: Path, seed: int, distortion: np.ndarray[Any, Any]) -> None:
    data = view(seed, distortion=distortion)
    pipeline = on_device(monkeypatch, folder, seed)
    answer = pipeline.infer(data)
    expected, reference = by_numpy(data)
    np.testing.assert_array_equal(pipeline.fused(40, 61), expected)
    assert answer.counters == reference.counters
    np.testing.assert_array_equal(answer.predictions.logits, reference.predictions.logits)


@pytest.mark.parametrize("reach", [0, 1, 3])
def test_points_of_every_width(monkeypatch, folder: Path, reach: int) -> None:
    data = view(5)
    pipeline = on_device(monkeypatch, folder, parameters={"dilation_size": reach})
    pipeline.infer(data)
    expected, _ = by_numpy(data, dilation_size=reach)
    np.testing.assert_array_equal(pipeline.fused(40, 61), expected)


def test_half_precision_input(monkeypatch, folder: Path) -> None:
    data = view(2, distortion=BENT)
    pipeline = on_device(monkeypatch, folder, dtype="float16")
    pipeline.infer(data)
    expected, _ = by_numpy(data)
    np.testing.assert_array_equal(pipeline.fused(40, 61), expected.astype(np.float16))


def test_requests_of_several_cameras_and_sizes_do_not_mix(monkeypatch, folder: Path) -> None:
    views = [
        view(0),
        view(1, distortion=BENT),
        view(2, height=30, width=50, distortion=BENT / 2),
        view(3, count=0),
        view(4, count=20_000),  # more than there was room for
        view(5, distortion=BENT / 3),
    ]
    pipeline = on_device(monkeypatch, folder)
    for index in (0, 1, 2, 3, 4, 5, 2, 1, 3, 0):
        data = views[index]
        answer = pipeline.infer(data)
        expected, reference = by_numpy(data)
        np.testing.assert_array_equal(pipeline.fused(*data.image.shape[:2]), expected)
        assert answer.counters == reference.counters


@pytest.mark.parametrize("columns", [4, 5, 7])
def test_points_go_to_the_device_from_where_they_lie_with_all_their_columns(
    monkeypatch, folder: Path, columns: int
) -> None:
    data = view(1, distortion=BENT)
    rest = np.full((len(data.points), columns - 4), np.nan, np.float32)
    wide = replace(data, points=np.ascontiguousarray(np.concatenate([data.points, rest], axis=1)))
    pipeline = on_device(monkeypatch, folder)
    copied = []
    original = HostGpu.to_device

    def noted(gpu: HostGpu, array: np.ndarray[Any, Any], address: int, stream: Any) -> None:
        copied.append(array.ctypes.data)
        original(gpu, array, address, stream)

    monkeypatch.setattr(HostGpu, "to_device", noted)
    pipeline.infer(wide)
    np.testing.assert_array_equal(pipeline.fused(40, 61), by_numpy(data)[0])
    assert {wide.points.ctypes.data, wide.image.ctypes.data} < set(copied)


@pytest.mark.parametrize(
    ("locked", "order"), [(True, ["request", "image", "points"]), (False, ["request", "points", "image"])]
)
def test_an_image_that_the_device_fetches_by_itself_is_asked_for_before_the_points_are_worked_on(
    monkeypatch, folder: Path, locked: bool, order: list[str]
) -> None:
    data = view(1, distortion=BENT)
    monkeypatch.setattr(HostGpu, "is_page_locked", lambda gpu, array: locked)
    pipeline = on_device(monkeypatch, folder)
    pipeline.infer(data)
    done: list[str] = []
    monkeypatch.setattr(pipeline, "_upload_image", lambda view, size: done.append("image"))
    monkeypatch.setattr(pipeline, "_upload_request", lambda view, mapping: done.append("request"))
    monkeypatch.setitem(pipeline._sizes[40, 61].points, False, lambda: done.append("points"))
    pipeline.submit(data)
    assert done == order


@pytest.mark.parametrize("fitting", range(3))
def test_a_frame_that_finds_no_memory_leaves_the_buffers_as_they_were(monkeypatch, folder: Path, fitting: int) -> None:
    monkeypatch.setattr(calibration, "POINT_CAPACITY", 4096)
    pipeline = on_device(monkeypatch, folder)
    pipeline.infer(view())
    before = pipeline._points, pipeline._cells, pipeline._depths
    many = view(1, count=20_000)
    with monkeypatch.context() as full, pytest.raises(InferenceError, match="no memory"):
        cuda_on_cpu.full_after(full, HostGpu, fitting)
        pipeline.submit(many)
    assert (pipeline._points, pipeline._cells, pipeline._depths) == before
    for data in (many, view(2)):
        pipeline.infer(data)
        np.testing.assert_array_equal(pipeline.fused(40, 61), by_numpy(data)[0])


def test_sizes_and_cameras_do_not_fill_the_memory(monkeypatch, folder: Path) -> None:
    pipeline = on_device(monkeypatch, folder)
    for number in range(20):
        data = view(number, count=50, height=20 + number, distortion=BENT * (number + 1) / 20)
        pipeline.infer(data)
        np.testing.assert_array_equal(pipeline.fused(20 + number, 61), by_numpy(data)[0])
    assert len(pipeline._sizes) == calibration.SIZES_KEPT
    assert len(pipeline._maps) == CAMERAS_KEPT


def test_stages(monkeypatch, folder: Path) -> None:
    latency = on_device(monkeypatch, folder).infer(view()).latency_ms
    on_the_way = ["upload", "project", "choose", "paint", "image", "fuse", "end2end", "download"]
    assert list(latency) == [*on_the_way, "enqueue", "total"]


def test_lanes_do_not_mix(monkeypatch, folder: Path) -> None:
    first = on_device(monkeypatch, folder)
    lanes = [first, first.another(), first.another()]
    views = [view(number, width=50 + number, distortion=BENT * number) for number in range(len(lanes))]
    for lane, data in zip(lanes, views, strict=True):
        lane.submit(data)
    for lane, data in zip(reversed(lanes), reversed(views), strict=True):
        expected, reference = by_numpy(data)
        answer = lane.collect()
        assert answer.counters == reference.counters
        np.testing.assert_array_equal(lane.fused(*data.image.shape[:2]), expected)
        assert lane.input_shapes(data, answer.counters) == {"end2end": {"input": expected.shape}}


def test_where_pixels_come_from_is_computed_once_for_all_lanes(monkeypatch, folder: Path) -> None:
    computed = []
    original = steps.undistortion_map

    def counted(*arguments: Any) -> Any:
        computed.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(steps, "undistortion_map", counted)
    first = on_device(monkeypatch, folder)
    for lane in (first, first.another(), first.another()):
        lane.infer(view(distortion=BENT))
    assert len(computed) == 1


def test_threshold_and_refusals(monkeypatch, folder: Path) -> None:
    parameters = {"miscalibration_confidence_threshold": 3.5}
    assert on_device(monkeypatch, folder, parameters=parameters).infer(view()).counters["miscalibrated"] == 1
    with pytest.raises(InferenceError, match="shape"):
        on_device(monkeypatch, folder).infer(view(image=np.zeros((4, 4), np.uint8)))
