"""Several images in one request to a YOLOX: each is answered as it is by itself, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from runtime.bench import throughput
from runtime.models.yolox import device as yolox
from runtime.models.yolox.device import YoloxBatchOnDevice, YoloxOnDevice
from runtime.models.yolox.letterbox import place
from runtime.models.yolox.parameters import YoloxParameters
from runtime.pipeline import DevicePipeline, build_pipeline
from shared.errors import InferenceError, UsageError
from shared.spec import TensorSpec
from tests.support import cuda_on_cpu
from tests.support import tiny_yolox as tiny
from tests.support.fixed_session import RowsSession

pytestmark = pytest.mark.skipif(cuda_on_cpu.compiler() is None, reason="no C++ compiler here")

SIZES = [(120, 80), (33, 95), (96, 96)]


def images(seed: int = 0) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for width, height in SIZES]


def rows_of_each(seed: int = 0) -> np.ndarray[Any, Any]:
    """(images, N, 5 + C), of which the second image has few candidates."""
    rows = np.stack([tiny.random_rows(seed + number) for number in range(len(SIZES))])
    rows[1, 10:, 4] = 0
    return rows


def batch_of(monkeypatch, rows: np.ndarray[Any, Any], seed: int = 0, **changes: Any) -> DevicePipeline[Any]:
    dtype, batch = changes.pop("dtype", "float32"), changes.pop("batch", "batch_size")
    gpu = cuda_on_cpu.use(monkeypatch, cuda_on_cpu.KEPT, seed)
    one = build_pipeline(tiny.spec(batch, **changes), RowsSession(gpu, rows, dtype))
    assert isinstance(one, YoloxOnDevice)
    return one.batch(len(SIZES))


def expected_of(
    rows: np.ndarray[Any, Any], image: np.ndarray[Any, Any], **changes: Any
) -> tuple[Any, np.ndarray[Any, Any]]:
    """The NumPy steps' answer on one image, and the network's input."""
    host = tiny.StandIn(rows)
    answer = build_pipeline(tiny.spec(**changes), host).infer(image)
    assert host.images is not None
    return answer, host.images[0]


@pytest.mark.parametrize("convention", ["mmdet", "megvii", "autoware"])
@pytest.mark.parametrize("most", [None, 20])
@pytest.mark.parametrize("seed", range(2))
def test_each_image_is_answered_as_by_itself(monkeypatch, seed: int, most: int | None, convention: str) -> None:
    nms = {
        "convention": convention,
        "iou_threshold": 0.6,
        "class_agnostic": convention != "mmdet",
        "max_boxes": most,
    }
    changes: dict[str, Any] = {"nms": nms, "score_threshold": 0.05}
    rows = rows_of_each(seed)
    lane = batch_of(monkeypatch, rows, seed, **changes)
    answer = lane.infer(images(seed))
    counters: dict[str, int] = {}
    for number, image in enumerate(images(seed)):
        expected, given = expected_of(rows[number], image, **changes)
        np.testing.assert_array_equal(lane.letterboxed()[number], given)
        for name in ("corners", "labels", "scores"):
            found = getattr(answer.predictions[number], name)
            assert found.tobytes() == getattr(expected.predictions, name).tobytes()
        counters = {name: counters.get(name, 0) + count for name, count in expected.counters.items()}
    assert len(answer.predictions) == len(SIZES)
    assert answer.counters == counters
    assert counters["boxes"] > 20


def test_half_precision(monkeypatch) -> None:
    rows = rows_of_each(2)
    answer = batch_of(monkeypatch, rows, dtype="float16").infer(images())
    for number, image in enumerate(images()):
        expected, _ = expected_of(rows[number].astype(np.float16).astype(np.float32), image)
        assert answer.predictions[number].corners.tobytes() == expected.predictions.corners.tobytes()


def test_more_candidates_in_one_image_than_the_kernels_suppress(monkeypatch) -> None:
    monkeypatch.setattr(yolox, "MOST", 64)
    rows = rows_of_each(5)
    answer = batch_of(monkeypatch, rows, score_threshold=1e-9).infer(images())
    for number, image in enumerate(images()):
        expected, _ = expected_of(rows[number], image, score_threshold=1e-9)
        assert (expected.counters["candidates"] > 64) is (number != 1)
        assert answer.predictions[number].corners.tobytes() == expected.predictions.corners.tobytes()


def test_a_network_that_takes_more_images(monkeypatch) -> None:
    """Those that nobody asked for stay black."""
    rows = np.concatenate([rows_of_each(), rows_of_each()])
    lane = batch_of(monkeypatch, rows, batch=6)
    lane.infer(images())
    assert lane.input_shapes(images(), {}) == {"yolox": {"images": (6, 3, 96, 96)}}
    assert not lane.letterboxed()[3:].any()
    for number, image in enumerate(images()):
        np.testing.assert_array_equal(lane.letterboxed()[number], expected_of(rows[number], image)[1])


def test_requests_and_lanes_do_not_mix(monkeypatch) -> None:
    rows = rows_of_each()
    first = batch_of(monkeypatch, rows)
    assert isinstance(first, YoloxBatchOnDevice)
    lanes = [first, first.another()]
    for repeat in range(3):
        batches = [images(repeat), images(repeat + 7)[::-1]]
        for lane, batch in zip(lanes, batches, strict=True):
            lane.submit(batch)
        for lane, batch in zip(lanes, batches, strict=True):
            answer = lane.collect()
            for number, image in enumerate(batch):
                expected, given = expected_of(rows[number], image)
                np.testing.assert_array_equal(lane.letterboxed()[number], given)
                assert answer.predictions[number].corners.tobytes() == expected.predictions.corners.tobytes()
    assert throughput(first, images(), streams=2, min_seconds=0.02)["per_second"] > 0


def test_a_network_that_suppresses_boxes_itself(monkeypatch) -> None:
    counts, many = [2, 0, 3], 5
    rng = np.random.default_rng(0)
    outputs = {
        "num_detections": np.array(counts, np.int32)[:, None],
        "detection_boxes": rng.uniform(0, 96, (3, many, 4)).astype(np.float32),
        "detection_scores": rng.uniform(0, 1, (3, many)).astype(np.float32),
        "detection_classes": rng.integers(0, 3, (3, many)).astype(np.int32),
    }
    spec = tiny.spec("batch_size", output="detections")
    (component,) = spec.components
    tensors = [
        TensorSpec(name=name, dtype=str(array.dtype), shape=["batch_size", *array.shape[1:]])
        for name, array in outputs.items()
    ]
    spec = spec.model_copy(update={"components": [component.model_copy(update={"outputs": tensors})]})
    session = RowsSession(cuda_on_cpu.use(monkeypatch, cuda_on_cpu.KEPT), rows_of_each(), more=outputs)
    one = build_pipeline(spec, session)
    assert isinstance(one, YoloxOnDevice)
    lane = one.batch(3)
    answer = lane.infer(images())
    # What was answered stays as it is whatever the lane's memory holds next.
    assert isinstance(lane, YoloxBatchOnDevice)
    for memory in lane._host_detections.values():
        assert not any(np.shares_memory(array, memory) for array in answer.predictions[0].arrays().values())
    assert [len(found) for found in answer.predictions] == counts
    for number, (width, height) in enumerate(SIZES):
        placement, _, _ = place(width, height, YoloxParameters.model_validate(spec.parameters).image)
        scales = np.array([placement.scale_x, placement.scale_y] * 2, np.float32)
        wanted = outputs["detection_boxes"][number, : counts[number]] / scales
        assert answer.predictions[number].corners.tobytes() == wanted.tobytes()
    assert answer.counters == {"boxes": 5}


@pytest.mark.parametrize("count", [0, 2, 4])
def test_another_number_of_images_is_refused(monkeypatch, count: int) -> None:
    lane = batch_of(monkeypatch, rows_of_each())
    with pytest.raises(InferenceError, match=f"the request has {count} images, expected 3"):
        lane.infer([*images(), *images()][:count])


@pytest.mark.parametrize("batch", [1, "batch_size"])
def test_a_network_that_takes_fewer_images(monkeypatch, batch: int | str) -> None:
    """As exported, or as its engine's profile says."""
    with pytest.raises(UsageError, match="takes 1 at a time, not 3") as refused:
        batch_of(monkeypatch, tiny.random_rows(0), batch=batch)
    assert "batch_size=3; dynamic needs a tensorrt_profile" in str(refused.value.hint)
