"""The kernels of a YOLOX with a mask head, against its NumPy steps: the same mask and boxes, bit for bit.

On a GPU, and everywhere on a CPU that runs the same source with threads in random order (`tests.support.cuda_on_cpu`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from runtime.models.yolox import device as yolox
from runtime.models.yolox_seg.device import YoloxSegOnDevice
from runtime.pipeline import HostPipeline, build_pipeline
from shared.errors import UsageError
from shared.metrics.confusion import UNLABELED
from shared.spec import ModelSpec
from shared.tasks.segmentation2d import ClassMask
from tests.support import tiny_yolox as tiny
from tests.support import tiny_yolox_seg as seg
from tests.support.fixed_session import RowsSession

Array = np.ndarray[Any, Any]

CONVENTIONS = ["awml", "autoware"]
SIZES = [(120, 80), (33, 95), (96, 96), (7, 191), (1, 1)]


def probabilities(seed: int) -> Array:
    """(4, 96, 96) in patches, some of them sure and some not."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, (len(seg.MASK_CLASSES), 12, 12)).repeat(8, axis=1).repeat(8, axis=2)
    values = np.exp(logits + rng.normal(0, 1, logits.shape))
    return (values / values.sum(axis=0)).astype(np.float32)


def on_device(gpu: Any, layers: Array, model: ModelSpec) -> YoloxSegOnDevice:
    session = RowsSession(gpu, tiny.random_rows(1), more={"mask": layers[None]})
    device = build_pipeline(model, session)
    assert isinstance(device, YoloxSegOnDevice)
    return device


def image(width: int, height: int) -> Array:
    return np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def same(gpu: Any, layers: Array, size: tuple[int, int], convention: str) -> ClassMask:
    """The mask that kernels and NumPy agree on."""
    model = seg.spec(mask=convention)
    device = on_device(gpu, layers, model)
    with np.errstate(invalid="ignore", divide="ignore"):
        wanted = build_pipeline(model, seg.StandIn(tiny.random_rows(1), layers)).infer(image(*size))
        got = device.infer(image(*size))
    assert got.counters == wanted.counters
    assert "mask" in got.latency_ms
    for part, columns in (("detection2d", ("corners", "labels", "scores")), ("segmentation2d", ("labels", "margins"))):
        for column in columns:
            pair = (getattr(answer.predictions.parts[part], column) for answer in (got, wanted))
            np.testing.assert_array_equal(*pair, f"{part} {column}")
    mask: ClassMask = got.predictions.parts["segmentation2d"]
    assert got.counters["pixels_nan"] == np.count_nonzero(mask.labels == UNLABELED)
    return mask


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("size", SIZES)
def test_kernels_and_numpy_decide_the_same(gpu: Any, size: tuple[int, int], convention: str) -> None:
    mask = same(gpu, probabilities(1), size, convention)
    assert mask.labels.shape == size[::-1]
    assert size == (1, 1) or len(np.unique(mask.labels)) > 1


def test_half_precision(gpu: Any) -> None:
    for convention in CONVENTIONS:
        same(gpu, probabilities(1).astype(np.float16), (50, 33), convention)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_equal_probabilities_and_what_is_no_number(gpu: Any, convention: str) -> None:
    layers = np.random.default_rng(2).integers(0, 3, (4, 96, 96)).astype(np.float32) / 4
    layers[:, 20:30] = 0.25
    assert not same(gpu, layers, (48, 40), convention).labels[11:14].any(), "of equal ones, the first"
    layers[0, 5, 5], layers[3, 9, 0] = np.nan, np.nan
    layers[:, 12:14, 3:6] = np.nan
    assert 4 <= np.count_nonzero(same(gpu, layers, (90, 96), convention).labels == UNLABELED) < 60


def test_margins_are_those_of_probabilities(gpu: Any) -> None:
    """Where nothing is interpolated: what `ClassMask` says of them."""
    layers = probabilities(4)
    expected = ClassMask.of_probabilities(layers)
    for convention in CONVENTIONS:
        mask = same(gpu, layers, (96, 96), convention)
        np.testing.assert_array_equal(mask.labels, expected.labels)
        assert np.abs(mask.margins.astype(int) - expected.margins).max() <= 1


def test_sizes_and_lanes_do_not_mix(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yolox, "SIZES_KEPT", 2)
    model, layers = seg.spec(), probabilities(5)
    device = on_device(gpu, layers, model)
    lanes = [device, device.another()]
    host = build_pipeline(model, seg.StandIn(tiny.random_rows(1), layers))
    for number in (0, 1, 2, 0):
        data = [image(50 + number + lane, 40 + 3 * number) for lane in range(len(lanes))]
        for lane, each in zip(lanes, data, strict=True):
            lane.submit(each)
        for lane, each in zip(lanes, data, strict=True):
            wanted = host.infer(each).predictions.parts["segmentation2d"]
            np.testing.assert_array_equal(lane.collect().predictions.parts["segmentation2d"].labels, wanted.labels)
    assert len(device._of_masks) == 2


def test_cubic_interpolation_stays_on_the_host(gpu: Any) -> None:
    model = seg.spec(image={**tiny.parameters()["image"], "resize": "autoware"})
    session = RowsSession(gpu, tiny.random_rows(1), more={"mask": probabilities(1)[None]})
    assert isinstance(build_pipeline(model, session), HostPipeline)


@pytest.mark.parametrize("size", SIZES)
def test_nearest_pixels_are_opencvs(size: tuple[int, int]) -> None:
    cv2 = pytest.importorskip("cv2")
    layers, model = probabilities(6), seg.spec(mask="autoware")
    mask = (
        build_pipeline(model, seg.StandIn(tiny.random_rows(1), layers))
        .infer(image(*size))
        .predictions.parts["segmentation2d"]
    )
    scale = min(np.float32(tiny.SIZE) / np.float32(side) for side in size)
    width, height = (max(1, int(np.float32(side) * scale)) for side in size)
    decided = ClassMask.of_probabilities(layers[:, :height, :width])
    np.testing.assert_array_equal(mask.labels, cv2.resize(decided.labels, size, interpolation=cv2.INTER_NEAREST))


def test_a_request_is_one_image(gpu: Any) -> None:
    lane = on_device(gpu, probabilities(0), seg.spec())
    with pytest.raises(UsageError, match="a batch of 6") as refused:
        lane.batch(6)
    assert "'yolox_seg' is one input" in str(refused.value.hint)
