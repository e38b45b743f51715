"""The CUDA kernels around a YOLOX, compiled for a CPU, against OpenCV and NumPy: bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.bench import throughput
from runtime.models.yolox import device as yolox
from runtime.models.yolox.device import YoloxOnDevice
from runtime.pipeline import HostPipeline, build_pipeline
from tests.support import cuda_on_cpu
from tests.support import tiny_yolox as tiny
from tests.support.fixed_session import RowsSession

pytestmark = pytest.mark.skipif(cuda_on_cpu.compiler() is None, reason="no C++ compiler here")


@pytest.fixture(scope="module")
def folder() -> Path:
    return cuda_on_cpu.KEPT


def on_device(monkeypatch, folder: Path, rows: np.ndarray[Any, Any], seed: int = 0, **changes: Any) -> YoloxOnDevice:
    dtype, batch = changes.pop("dtype", "float32"), changes.pop("batch", 1)
    gpu = cuda_on_cpu.use(monkeypatch, folder, seed)
    built = build_pipeline(tiny.spec(batch, **changes), RowsSession(gpu, rows, dtype))
    assert isinstance(built, YoloxOnDevice)
    return built


def image(width: int, height: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def image_settings(**changes: Any) -> dict[str, Any]:
    return {**tiny.parameters()["image"], **changes}


@pytest.mark.parametrize("size", [(120, 80), (33, 95), (96, 96), (192, 192), (500, 333), (7, 191), (1, 1), (48, 30)])
def test_letterbox_is_opencvs(monkeypatch, folder: Path, size: tuple[int, int]) -> None:
    host = tiny.StandIn(tiny.random_rows(0))
    build_pipeline(tiny.spec(), host).infer(image(*size))
    pipeline = on_device(monkeypatch, folder, tiny.random_rows(0))
    pipeline.infer(image(*size))
    np.testing.assert_array_equal(pipeline.letterboxed(), host.images)


@pytest.mark.parametrize(
    "settings_",
    [
        {"color": "rgb"},
        {"color": "rgb", "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]},
        {"fill": 0, "resize": "megvii"},
    ],
)
def test_channels_normalization_and_conventions(monkeypatch, folder: Path, settings_: dict[str, Any]) -> None:
    host = tiny.StandIn(tiny.random_rows(0))
    build_pipeline(tiny.spec(image=image_settings(**settings_)), host).infer(image(111, 70))
    pipeline = on_device(monkeypatch, folder, tiny.random_rows(0), image=image_settings(**settings_))
    pipeline.infer(image(111, 70))
    np.testing.assert_array_equal(pipeline.letterboxed(), host.images)


@pytest.mark.parametrize("convention", ["mmdet", "megvii", "autoware"])
@pytest.mark.parametrize("output", ["raw", "decoded"])
@pytest.mark.parametrize("seed", range(3))
def test_boxes_are_those_of_the_host(monkeypatch, folder: Path, seed: int, output: str, convention: str) -> None:
    rows = tiny.random_rows(seed)
    if output == "decoded":
        rows[:, :4] = np.abs(rows[:, :4]) * 30 + 1
    nms = {
        "convention": convention,
        "iou_threshold": 0.6,
        "class_agnostic": convention != "mmdet",
        "max_boxes": None,
    }
    changes: dict[str, Any] = {"output": output, "nms": nms, "score_threshold": 0.05}
    expected = build_pipeline(tiny.spec(**changes), tiny.StandIn(rows)).infer(image(120, 80))
    answer = on_device(monkeypatch, folder, rows, seed, **changes).infer(image(120, 80))
    assert len(answer.predictions) > 5
    for name in ("corners", "labels", "scores"):
        assert getattr(answer.predictions, name).tobytes() == getattr(expected.predictions, name).tobytes()
    assert answer.counters == expected.counters
    np.testing.assert_array_equal(answer.outputs["output"], expected.outputs["output"])


def test_all_rows_and_none(monkeypatch, folder: Path) -> None:
    rows = tiny.random_rows(1)
    everything = on_device(monkeypatch, folder, rows, score_threshold=0.0).infer(image(96, 96))
    assert everything.counters["candidates"] == tiny.ROWS
    expected = build_pipeline(tiny.spec(score_threshold=0.0), tiny.StandIn(rows)).infer(image(96, 96))
    assert everything.predictions.corners.tobytes() == expected.predictions.corners.tobytes()
    nothing = on_device(monkeypatch, folder, rows, score_threshold=0.999).infer(image(96, 96))
    assert nothing.counters == {"candidates": 0, "rows_nan": 0, "boxes": 0}


CONVENTIONS = ["mmdet", "megvii", "autoware"]


def suppression(convention: str, **changes: Any) -> dict[str, Any]:
    agnostic = changes.pop("class_agnostic", convention != "mmdet")
    return {
        "convention": convention, "iou_threshold": 0.6, "class_agnostic": agnostic, "max_boxes": None, **changes,
    }  # fmt: skip


def same(monkeypatch, folder: Path, rows: np.ndarray[Any, Any], seed: int = 0, **changes: Any) -> int:
    """Kernels and NumPy give the same boxes; how many."""
    with np.errstate(invalid="ignore", over="ignore"):
        expected = build_pipeline(tiny.spec(**changes), tiny.StandIn(rows)).infer(image(120, 80))
        answer = on_device(monkeypatch, folder, rows, seed, **changes).infer(image(120, 80))
    assert answer.counters == expected.counters
    for name in ("corners", "labels", "scores"):
        np.testing.assert_array_equal(getattr(answer.predictions, name), getattr(expected.predictions, name))
    return len(answer.predictions)


def crowd(seed: int) -> np.ndarray[Any, Any]:
    """Rows in a few heaps, of few different scores: much is suppressed, and much is equal."""
    rng = np.random.default_rng(seed)
    rows = tiny.random_rows(seed)
    rows[:, :2] = rng.integers(20, 70, (len(rows), 2)) // 10 * 10 + rng.normal(0, 0.5, (len(rows), 2))
    rows[:, 2:4] = rng.uniform(5, 30, (len(rows), 2))
    rows[:, 4:] = rng.integers(1, 5, (len(rows), rows.shape[1] - 4)) / 4
    return rows


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("agnostic", [False, True])
def test_heaps_of_boxes_with_equal_scores(monkeypatch, folder: Path, convention: str, agnostic: bool) -> None:
    for seed, limit in enumerate((0.01, 0.3, 0.6, 1.0)):
        nms = suppression(convention, class_agnostic=agnostic, iou_threshold=limit)
        changes: dict[str, Any] = {"output": "decoded", "nms": nms, "score_threshold": 0.05}
        kept = same(monkeypatch, folder, crowd(seed), seed, **changes)
        assert 0 < kept < tiny.ROWS or limit == 1.0


@pytest.mark.parametrize("most", [1, 7, 64])
def test_no_more_boxes_than_are_asked_for(monkeypatch, folder: Path, most: int) -> None:
    nms = suppression("mmdet", max_boxes=most)
    assert same(monkeypatch, folder, tiny.random_rows(3), nms=nms, score_threshold=0.0) == most


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_boxes_that_are_not_numbers_or_infinite(monkeypatch, folder: Path, convention: str) -> None:
    for place, value in enumerate([np.nan, np.inf, -np.inf, 1e30, -1e30]):
        rows = crowd(place)
        for column in range(4):
            rows[20 * column + place : 20 * column + place + 2, column] = value
        changes: dict[str, Any] = {"output": "decoded", "nms": suppression(convention), "score_threshold": 0.05}
        same(monkeypatch, folder, rows, **changes)


@pytest.mark.parametrize("most", [None, 40])
def test_each_box_suppresses_the_next(monkeypatch, folder: Path, most: int | None) -> None:
    """Whether a box stays is known only when it is known of the one before."""
    rows = np.zeros((tiny.ROWS, 8), np.float32)
    number = np.arange(tiny.ROWS, dtype=np.float32)
    rows[:, 0], rows[:, 1], rows[:, 2:4] = 4 * number, 48, 10
    rows[:, 4], rows[:, 5] = 1.0 - number / 1000, 0.9
    for convention in CONVENTIONS:
        nms = suppression(convention, iou_threshold=0.3, max_boxes=most)
        kept = same(monkeypatch, folder, rows, output="decoded", nms=nms, score_threshold=0.05)
        assert kept == most or kept == -(-tiny.ROWS // 2)


def test_raw_rows_of_any_size(monkeypatch, folder: Path) -> None:
    rows = tiny.random_rows(4)
    rows[:, 2:4] = np.random.default_rng(0).uniform(-200, 200, (len(rows), 2))
    same(monkeypatch, folder, rows, score_threshold=0.0)


def test_more_candidates_than_the_kernels_suppress(monkeypatch, folder: Path) -> None:
    monkeypatch.setattr(yolox, "MOST", 64)
    rows = tiny.random_rows(5)
    assert same(monkeypatch, folder, rows, score_threshold=0.0) > 64
    scores = np.sort(rows[:, 5:].max(axis=1) * rows[:, 4])[::-1]
    for candidates in (63, 64, 65):
        same(monkeypatch, folder, rows, score_threshold=float(scores[candidates]))


def test_candidates_of_many_blocks(monkeypatch, folder: Path) -> None:
    """As many as a network with random weights has: several thousand."""
    count = 40 * 40 + 20 * 20 + 10 * 10
    rng = np.random.default_rng(6)
    rows = np.concatenate([tiny.random_rows(seed) for seed in range(count // tiny.ROWS + 1)])[:count]
    rows[:, :2] = rng.uniform(-1, 2, (count, 2))
    for convention in CONVENTIONS:
        kept = same(monkeypatch, folder, rows, size=320, nms=suppression(convention), score_threshold=0.0)
        assert kept > 300


def test_the_threshold_itself(monkeypatch, folder: Path) -> None:
    rows = np.zeros((tiny.ROWS, 8), np.float32)
    rows[7, 4:6] = 0.5
    for convention, expected in (("mmdet", 1), ("megvii", 0), ("autoware", 0)):
        nms = {"convention": convention, "iou_threshold": 0.6, "class_agnostic": True, "max_boxes": None}
        answer = on_device(monkeypatch, folder, rows, nms=nms, score_threshold=0.25).infer(image(96, 96))
        assert answer.counters["candidates"] == expected


def test_rows_that_are_not_numbers(monkeypatch, folder: Path) -> None:
    rows = tiny.random_rows(0)
    rows[3, 6], rows[5, 4], rows[9, 0] = np.nan, np.nan, np.nan
    rows[9, 4:] = 0.0
    expected = build_pipeline(tiny.spec(), tiny.StandIn(rows)).infer(image(96, 96))
    answer = on_device(monkeypatch, folder, rows).infer(image(96, 96))
    assert answer.counters == expected.counters
    assert answer.counters["rows_nan"] == 3


def test_half_precision(monkeypatch, folder: Path) -> None:
    rows = tiny.random_rows(2)
    answer = on_device(monkeypatch, folder, rows, dtype="float16").infer(image(96, 96))
    as_read = rows.astype(np.float16).astype(np.float32)
    expected = build_pipeline(tiny.spec(), tiny.StandIn(as_read)).infer(image(96, 96))
    assert answer.predictions.corners.tobytes() == expected.predictions.corners.tobytes()


def test_requests_of_several_sizes_do_not_mix(monkeypatch, folder: Path) -> None:
    pipeline = on_device(monkeypatch, folder, tiny.random_rows(0), batch=6)
    for number in [*range(12), 3, 0]:
        data = image(50 + number, 40 + 3 * number, number)
        host = tiny.StandIn(tiny.random_rows(0))
        expected = build_pipeline(tiny.spec(6), host).infer(data)
        answer = pipeline.infer(data)
        np.testing.assert_array_equal(pipeline.letterboxed(), host.images)
        assert answer.predictions.corners.tobytes() == expected.predictions.corners.tobytes()
    assert len(pipeline._prepared) == yolox.SIZES_KEPT


def test_lanes_do_not_mix(monkeypatch, folder: Path) -> None:
    rows = tiny.random_rows(1)
    first = on_device(monkeypatch, folder, rows, score_threshold=0.3)
    lanes = [first, first.another(), first.another()]
    images = [image(50 + 40 * number, 90, number) for number in range(len(lanes))]
    for lane, data in zip(lanes, images, strict=True):
        lane.submit(data)
    for lane, data in zip(reversed(lanes), reversed(images), strict=True):
        host = tiny.StandIn(rows)
        expected = build_pipeline(tiny.spec(score_threshold=0.3), host).infer(data)
        answer = lane.collect()
        assert list(answer.latency_ms) == ["enqueue", "total"]
        assert answer.predictions.corners.tobytes() == expected.predictions.corners.tobytes()
        np.testing.assert_array_equal(lane.letterboxed(), host.images)


def test_throughput_of_several_lanes(monkeypatch, folder: Path) -> None:
    pipeline = on_device(monkeypatch, folder, tiny.random_rows(1))
    figures = throughput(pipeline, image(96, 96), streams=3, min_seconds=0.02)
    assert figures["streams"] == 3
    assert figures["per_second"] > 0
    assert len(pipeline.infer(image(96, 96)).predictions) > 5, "no request was left in flight"


def test_shapes_for_the_engine_alone(monkeypatch, folder: Path) -> None:
    pipeline = on_device(monkeypatch, folder, tiny.random_rows(0), batch=6)
    assert pipeline.input_shapes(image(50, 40), {}) == {"yolox": {"images": (6, 3, 96, 96)}}


def test_cubic_interpolation_stays_on_the_host(folder: Path) -> None:
    session = RowsSession(cuda_on_cpu.HostGpu(folder), tiny.random_rows(0))
    assert isinstance(build_pipeline(tiny.spec(image=image_settings(resize="autoware")), session), HostPipeline)


@settings(max_examples=150)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(1, 260), st.integers(1, 260))
def test_weights_are_opencvs(width: int, height: int, to_width: int, to_height: int) -> None:
    import cv2

    columns = yolox.neighbors(width, to_width, clamp=True).astype(np.int64)
    lines = yolox.neighbors(height, to_height, clamp=False).astype(np.int64)
    data = np.random.default_rng(width + height).integers(0, 256, (height, width), dtype=np.uint8)
    along = data[:, columns[:, 0]] * columns[:, 2] + data[:, columns[:, 1]] * columns[:, 3]
    above, below = (along[lines[:, side]] >> 4 for side in (0, 1))
    ours = ((lines[:, 2:3] * above >> 16) + (lines[:, 3:4] * below >> 16) + 2) >> 2
    np.testing.assert_array_equal(ours, cv2.resize(data, (to_width, to_height), interpolation=cv2.INTER_LINEAR))
