"""The YOLOX pipeline on a stand-in session: rows to boxes, forms of the output, batches, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.models.yolox.decode import cells
from runtime.pipeline import build_pipeline
from shared.data import ImageSample
from shared.errors import InferenceError, InputError, ManifestError
from shared.spec import ComponentSpec, ModelSpec, TensorSpec
from tests.support import tiny_yolox as tiny


def image(width: int = 120, height: int = 80, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def one_row(index: int, **values: float) -> np.ndarray:
    """Rows of nothing but one: x, y, w, h raw, objectness, class scores."""
    rows = np.zeros((tiny.ROWS, 5 + len(tiny.CLASSES)), np.float32)
    names = ("x", "y", "w", "h", "objectness", *tiny.CLASSES)
    for name, value in values.items():
        rows[index, names.index(name)] = value
    return rows


def test_a_row_becomes_its_box_in_pixels_of_the_image() -> None:
    # Stride 16, line 2, column 3 of 6: cell corner (48, 32). Image 192 x 96 in 96 x 96: scale 1/2.
    row = 12 * 12 + 2 * 6 + 3
    rows = one_row(row, x=0.5, y=0.25, w=np.log(2.0), h=0.0, objectness=0.5, truck=0.8, car=0.1)
    answer = build_pipeline(tiny.spec(), tiny.StandIn(rows)).infer(image(192, 96))
    boxes = answer.predictions
    # Center (56, 36), size 32 x 16 in the input; times two in the image.
    np.testing.assert_allclose(boxes.corners, [[80, 56, 144, 88]], atol=1e-4)
    assert boxes.labels.tolist() == [1]
    np.testing.assert_allclose(boxes.scores, [0.4], rtol=1e-6)
    assert answer.counters == {"candidates": 1, "rows_nan": 0, "boxes": 1}
    assert list(answer.latency_ms) == ["letterbox", "yolox", "decode", "nms", "total"]


def test_autoware_cuts_to_whole_pixels_and_to_the_image() -> None:
    rows = one_row(0, x=0.0, y=0.1, w=np.log(3.0), h=np.log(1.3), objectness=1.0, car=0.9)
    nms = {"convention": "autoware", "iou_threshold": 0.7, "class_agnostic": True, "max_boxes": None}
    answer = build_pipeline(tiny.spec(nms=nms, score_threshold=0.35), tiny.StandIn(rows)).infer(image(192, 192))
    # In the input: left -12, top 0.8 - 5.2 = -4.4 -> -4, width 24, height 10.4 -> 10. In the image twice that,
    # cut at 0: the box ends at 24 and 12.
    assert answer.predictions.corners.tolist() == [[0, 0, 24, 12]]


def test_the_threshold_itself_passes_for_mmdet_only() -> None:
    rows = one_row(5, objectness=0.5, car=0.5)
    for convention, expected in (("mmdet", 1), ("autoware", 0)):
        nms = {"convention": convention, "iou_threshold": 0.65, "class_agnostic": True, "max_boxes": None}
        pipeline = build_pipeline(tiny.spec(nms=nms, score_threshold=0.25), tiny.StandIn(rows))
        assert len(pipeline.infer(image()).predictions) == expected


def test_decoded_rows_give_the_boxes_of_raw_rows() -> None:
    raw = tiny.random_rows(3)
    own = cells(tiny.SIZE, tiny.SIZE, tiny.STRIDES)
    decoded = raw.copy()
    decoded[:, :2] = raw[:, :2] * own[:, 2:] + own[:, :2]
    decoded[:, 2:4] = np.exp(raw[:, 2:4]) * own[:, 2:]
    first = build_pipeline(tiny.spec(), tiny.StandIn(raw)).infer(image()).predictions
    second = build_pipeline(tiny.spec(output="decoded"), tiny.StandIn(decoded)).infer(image()).predictions
    np.testing.assert_allclose(first.corners, second.corners, atol=1e-4)
    assert first.labels.tolist() == second.labels.tolist()


def test_the_best_boxes_are_kept() -> None:
    nms = {"convention": "mmdet", "iou_threshold": 0.65, "class_agnostic": False, "max_boxes": None}
    everything = build_pipeline(tiny.spec(nms=nms), tiny.StandIn(tiny.random_rows(1))).infer(image()).predictions
    limited = build_pipeline(tiny.spec(nms={**nms, "max_boxes": 7}), tiny.StandIn(tiny.random_rows(1)))
    assert limited.infer(image()).predictions.scores.tolist() == everything.scores[:7].tolist()
    assert len(everything) > 7


@pytest.mark.parametrize("batch", [6, "batch_size"])
def test_a_network_of_a_larger_batch_gets_the_image_first(batch: int | str) -> None:
    session = tiny.StandIn(tiny.random_rows(2))
    alone = build_pipeline(tiny.spec(), tiny.StandIn(tiny.random_rows(2))).infer(image()).predictions
    pipeline = build_pipeline(tiny.spec(batch), session)
    answer = pipeline.infer(image())
    assert session.images is not None
    assert len(session.images) == (6 if batch == 6 else 1)
    assert not session.images[1:].any()
    assert answer.predictions.corners.tobytes() == alone.corners.tobytes()
    assert pipeline.comparable(answer.outputs)["output"].shape == (1, tiny.ROWS, 5 + len(tiny.CLASSES))


def test_requests_do_not_touch_one_another() -> None:
    session = tiny.StandIn(tiny.random_rows(2))
    pipeline = build_pipeline(tiny.spec(), session)
    pipeline.infer(image(500, 20, seed=1))
    pipeline.infer(image(20, 500, seed=2))
    again = session.images
    build_pipeline(tiny.spec(), session).infer(image(20, 500, seed=2))
    assert again is not None
    assert session.images is not None
    assert again.tobytes() == session.images.tobytes()


def test_rows_that_are_not_numbers_are_counted_and_reported() -> None:
    rows = tiny.random_rows(0)
    rows[3, 6] = np.nan
    pipeline = build_pipeline(tiny.spec(), tiny.StandIn(rows))
    answer = pipeline.infer(image())
    assert answer.counters["rows_nan"] == 1
    assert np.isfinite(answer.predictions.scores).all()
    assert "1 rows of the output are NaN" in pipeline.alerts(answer.counters)[0]
    assert pipeline.alerts({"rows_nan": 0}) == []


@pytest.mark.parametrize(
    "data",
    [
        np.zeros((80, 120), np.uint8),
        np.zeros((80, 120, 4), np.uint8),
        np.zeros((80, 120, 3), np.float32),
        np.zeros((0, 120, 3), np.uint8),
    ],
)
def test_what_is_no_image_is_refused(data: Any) -> None:
    with pytest.raises(InferenceError, match=r"expected \(H, W, 3\) uint8"):
        build_pipeline(tiny.spec(), tiny.StandIn(tiny.random_rows(0))).infer(data)


def test_image_files(tmp_path: Path) -> None:
    paths = tiny.write_images(tmp_path)
    pipeline = build_pipeline(tiny.spec(), tiny.StandIn(tiny.random_rows(0)))

    def read(path: Path) -> Any:
        return pipeline.read(ImageSample(0, "0", 0.0, "", path, None, None, None)).data

    assert read(paths[0]).shape == (80, 120, 3)
    broken = tmp_path / "broken.png"
    broken.write_bytes(paths[0].read_bytes()[:40])
    empty = tmp_path / "empty.jpg"
    empty.touch()
    for path, message in ((broken, "decode"), (empty, "decode"), (tmp_path / "none.jpg", "can't be read")):
        with pytest.raises(InputError, match=message):
            read(path)


def test_gray_and_transparent_images_become_color(tmp_path: Path) -> None:
    import cv2

    pipeline = build_pipeline(tiny.spec(), tiny.StandIn(tiny.random_rows(0)))
    for name, shape in (("gray.png", (40, 50)), ("transparent.png", (40, 50, 4))):
        cv2.imwrite(str(tmp_path / name), np.full(shape, 90, np.uint8))
        data = pipeline.read(ImageSample(0, "0", 0.0, "", tmp_path / name, None, None, None)).data
        assert data.shape == (40, 50, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strides": [8, 16]}, "the strides and classes make"),
        ({"output": "detections"}, "expected .*num_detections"),
        ({"score_threshold": 1.0}, "parameters.score_threshold"),
        ({"unknown": 1}, "parameters.unknown"),
        ({"image": {**tiny.parameters()["image"], "resize": "torch"}}, "resize 'torch' is unknown"),
        ({"image": {**tiny.parameters()["image"], "mean": [1, 2, 3]}}, "mean and std go together"),
        ({"image": {**tiny.parameters()["image"], "height": 64}}, "parameters.image says 64 x 96"),
    ],
)
def test_specs_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        build_pipeline(tiny.spec(**changes), tiny.StandIn(tiny.random_rows(0)))


def test_detections_of_the_graph_are_taken_as_they_are() -> None:
    shapes = {
        "num_detections": [1, 1],
        "detection_boxes": [1, 5, 4],
        "detection_scores": [1, 5],
        "detection_classes": [1, 5],
    }
    component = ComponentSpec(
        name="yolox",
        inputs=[TensorSpec(name="images", dtype="float32", shape=[1, 3, 96, 96])],
        outputs=[TensorSpec(name=name, dtype="float32", shape=shape) for name, shape in shapes.items()],
        onnx="onnx/yolox.onnx",
    )
    spec = ModelSpec(
        model="yolox", task="detection2d", classes=tiny.CLASSES, components=[component],
        parameters=tiny.parameters(output="detections"),
    )  # fmt: skip

    class Session:
        settings: dict = {}  # noqa: RUF012 (never written)

        def run(self, component: str, inputs: Any) -> dict[str, Any]:
            boxes = np.zeros((1, 5, 4), np.float32)
            boxes[0, :2] = [[0, 0, 10, 20], [5, 5, 6, 6]]
            scores = np.array([[0.9, 0.4, 0, 0, 0]], np.float32)
            classes = np.array([[2, 0, 0, 0, 0]], np.int32)
            return {
                "num_detections": np.array([[2]], np.int32), "detection_boxes": boxes, "detection_scores": scores,
                "detection_classes": classes,
            }  # fmt: skip

    answer = build_pipeline(spec, Session()).infer(image(192, 192))
    assert answer.predictions.corners.tolist() == [[0, 0, 20, 40], [10, 10, 12, 12]]
    assert answer.predictions.labels.tolist() == [2, 0]
