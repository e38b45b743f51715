"""The kernels around a YOLOX on a GPU, against OpenCV and NumPy: the same input, the same boxes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("pycuda", reason="pycuda is not installed here; the runtime image has it")
pytest.importorskip("cv2", reason="OpenCV is not installed here; the kernels are compared with it")

from runtime.cuda.gpu import open_gpu
from runtime.devices import Device
from runtime.pipeline import build_pipeline
from tests.support import tiny_yolox as tiny
from tests.support.fixed_session import RowsSession

pytestmark = pytest.mark.gpu


def image(width: int, height: int, seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("convention", ["mmdet", "autoware"])
@pytest.mark.parametrize("size", [(120, 80), (96, 96), (500, 333), (7, 191)])
def test_equal_to_the_host(size: tuple[int, int], convention: str) -> None:
    rows, data = tiny.random_rows(1), image(*size, 1)
    nms = {"convention": convention, "iou_threshold": 0.6, "class_agnostic": True, "max_boxes": None}
    host = tiny.StandIn(rows)
    expected = build_pipeline(tiny.spec(nms=nms), host).infer(data)
    pipeline: Any = build_pipeline(tiny.spec(nms=nms), RowsSession(open_gpu(Device("cuda", 0)), rows))
    answer = pipeline.infer(data)
    np.testing.assert_array_equal(pipeline.letterboxed(), host.images)
    assert answer.predictions.corners.tobytes() == expected.predictions.corners.tobytes()
    assert answer.counters == expected.counters


def test_lanes_do_not_mix() -> None:
    rows = tiny.random_rows(1)
    first: Any = build_pipeline(tiny.spec(), RowsSession(open_gpu(Device("cuda", 0)), rows))
    lanes = [first, first.another(), first.another()]
    for repeat in range(20):
        images = [image(300 + 40 * number, 200 + repeat, number) for number in range(len(lanes))]
        for lane, data in zip(lanes, images, strict=True):
            lane.submit(data)
        for lane, data in zip(lanes, images, strict=True):
            host = tiny.StandIn(rows)
            expected = build_pipeline(tiny.spec(), host).infer(data)
            assert lane.collect().predictions.corners.tobytes() == expected.predictions.corners.tobytes()
            np.testing.assert_array_equal(lane.letterboxed(), host.images)


@pytest.mark.parametrize("convention", ["mmdet", "autoware"])
def test_several_images_in_a_request(convention: str) -> None:
    rows = np.stack([tiny.random_rows(number) for number in range(6)])
    nms = {"convention": convention, "iou_threshold": 0.6, "class_agnostic": True, "max_boxes": None}
    one: Any = build_pipeline(tiny.spec(6, nms=nms), RowsSession(open_gpu(Device("cuda", 0)), rows))
    lane = one.batch(6)
    for repeat in range(5):
        images = [image(300 + 40 * number, 200 + repeat, number) for number in range(6)]
        answer = lane.infer(images)
        for number, data in enumerate(images):
            host = tiny.StandIn(rows[number])
            expected = build_pipeline(tiny.spec(nms=nms), host).infer(data)
            assert host.images is not None
            np.testing.assert_array_equal(lane.letterboxed()[number], host.images[0])
            assert answer.predictions[number].corners.tobytes() == expected.predictions.corners.tobytes()
