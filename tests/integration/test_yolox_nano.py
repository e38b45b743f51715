"""Two real YOLOX-Nano for COCO, as ONNX files alone, on real images: each with its own input, and the other one's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from runtime.pipeline import build_pipeline
from shared.data import ImageSample
from shared.errors import ConfigError, InputError
from shared.tasks.detection2d import Boxes2D

pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

NANO, LEGACY = "yolox_nano_coco_416.onnx", "yolox_nano_coco_416_legacy_preproc.onnx"
# Megvii's YOLOX since 0.1.1 takes 0-255, blue first; before, red first, less ImageNet's mean, over its deviation.
PLAIN = {"color": "bgr"}
IMAGENET = {"color": "rgb", "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}
CONFIG = yaml.safe_load((Path(__file__).parents[2] / "configs" / "yolox_nano.yaml").read_text())
CLASSES: list[str] = CONFIG["model"]["options"]["classes"]


@pytest.fixture(scope="module")
def weights(real_data: Path) -> Path:
    """Folder of the two ONNX files: WEIGHTS, or `weights` beside the real data."""
    folder = Path(os.environ.get("WEIGHTS", real_data.parent / "weights"))
    if not (folder / NANO).is_file() or not (folder / LEGACY).is_file():
        pytest.skip(f"{NANO} and {LEGACY} are not in {folder}; set WEIGHTS to a folder with them")
    return folder


class Session:
    settings: dict = {}  # noqa: RUF012 (never written)

    def __init__(self, path: Path) -> None:
        self.session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(self, component: str, inputs: Any) -> dict[str, Any]:
        return {"output": self.session.run(None, dict(inputs))[0]}


def options(image: dict[str, Any], **nms: Any) -> dict[str, Any]:
    return {"image": image, "classes": CLASSES, "nms": {"score_threshold": 0.3, "iou_threshold": 0.45, **nms}}


def detector(path: Path, image: dict[str, Any], **nms: Any) -> Any:
    """The pipeline of a file, without any training framework."""
    onnx = pytest.importorskip("onnx")
    from shared.spec import ComponentSpec, ModelSpec, TensorSpec

    def specs(values: Any) -> list[TensorSpec]:
        return [
            TensorSpec(name=v.name, dtype="float32", shape=[axis.dim_value for axis in v.type.tensor_type.shape.dim])
            for v in values
        ]

    graph = onnx.load(str(path)).graph
    component = ComponentSpec(
        name="yolox", inputs=specs(graph.input), outputs=specs(graph.output), onnx="onnx/yolox.onnx"
    )
    settings = {"convention": "mmdet", "iou_threshold": 0.45, "class_agnostic": False, "max_boxes": None, **nms}
    parameters = {
        "image": {"height": 416, "width": 416, "fill": 114, "mean": None, "std": None, "resize": "megvii", **image},
        "strides": [8, 16, 32], "output": "raw", "score_threshold": 0.3, "nms": settings,
    }  # fmt: skip
    spec = ModelSpec(model="yolox", task="detection2d", classes=CLASSES, components=[component], parameters=parameters)
    return build_pipeline(spec, Session(path))


def detect(pipeline: Any, image: Path) -> Boxes2D:
    boxes: Boxes2D = pipeline.infer(
        pipeline.read(ImageSample(0, "0", 0.0, "", image, None, None, None)).data
    ).predictions
    return boxes


def best(boxes: Boxes2D) -> dict[str, float]:
    """Best score of each class that was found."""
    found: dict[str, float] = {}
    for label, score in zip(boxes.labels, boxes.scores, strict=True):
        found[CLASSES[label]] = max(float(score), found.get(CLASSES[label], 0.0))
    return found


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = np.prod(np.maximum(high - low, 0))
    return float(shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared))


@pytest.mark.parametrize(("name", "image"), [(NANO, PLAIN), (LEGACY, IMAGENET)])
def test_dog_bicycle_and_car(name: str, image: dict[str, Any], weights: Path, real_data: Path) -> None:
    boxes = detect(detector(weights / name, image), real_data / "yolox_dog.jpg")
    found = best(boxes)
    assert {"dog", "bicycle", "car"} <= found.keys()
    assert found["dog"] > 0.7
    # Where they are, by eye, in the 768 x 576 picture.
    places = {"dog": [130, 220, 310, 540], "bicycle": [120, 120, 570, 430], "car": [465, 75, 690, 170]}
    for what, place in places.items():
        row = next(i for i, label in enumerate(boxes.labels) if CLASSES[label] == what)
        assert overlap(boxes.corners[row], np.array(place, np.float32)) > 0.6, what


@pytest.mark.parametrize(("name", "image"), [(NANO, PLAIN), (LEGACY, IMAGENET)])
def test_cars_of_kitti_000008_are_where_its_labels_are(
    name: str, image: dict[str, Any], weights: Path, real_data: Path
) -> None:
    from shared.data import DataSettings, open_dataset

    dataset = open_dataset(DataSettings("kitti", real_data / "kitti", classes=["car"]), task="detection2d")
    sample = next(s for s in (dataset.sample(i) for i in range(len(dataset))) if s.token == "000008")
    boxes = detect(detector(weights / name, image), sample.image)
    cars = boxes.corners[boxes.labels == CLASSES.index("car")]
    labeled = sample.labels.boxes.corners[~sample.labels.ignored]
    assert max(boxes.scores) > 0.85
    assert sum(max(overlap(car, truth) for car in cars) > 0.6 for truth in labeled) >= 5  # of six


def test_truck_of_nuscenes_front_camera(weights: Path, real_data: Path) -> None:
    image = next((real_data / "nuscenes_demo").glob("*CAM_FRONT__*.jpg"))
    found = best(detect(detector(weights / NANO, PLAIN), image))
    assert found["truck"] == pytest.approx(0.75, abs=0.03)
    assert "car" in found


@pytest.mark.parametrize(("name", "image"), [(NANO, IMAGENET), (LEGACY, PLAIN)])
def test_the_other_ones_preprocessing_gives_nonsense(
    name: str, image: dict[str, Any], weights: Path, real_data: Path
) -> None:
    pipeline = detector(weights / name, image)
    found = best(detect(pipeline, real_data / "yolox_dog.jpg"))
    assert not {"dog", "bicycle", "car"} <= found.keys()
    cars = best(detect(pipeline, real_data / "kitti" / "image_2" / "000008.png"))
    assert cars.get("car", 0.0) < 0.5


def test_autowares_rules_find_the_same_objects(weights: Path, real_data: Path) -> None:
    image = real_data / "kitti" / "image_2" / "000008.png"
    plain = detect(detector(weights / NANO, PLAIN), image)
    autoware = detect(
        detector(weights / NANO, PLAIN, convention="autoware", class_agnostic=True, iou_threshold=0.45), image
    )
    assert (autoware.corners == np.trunc(autoware.corners)).all()
    inside = plain.corners.clip(0, [1242 - 1, 375 - 1] * 2)
    for corners, score in zip(autoware.corners, autoware.scores, strict=True):
        row = np.abs(plain.scores - score).argmin()
        assert np.abs(inside[row] - corners).max() <= 7  # two pixels of the input, three image pixels each, and one


def demo_boxes(session: Session, path: Path) -> Boxes2D:
    """What Megvii's demo for ONNX files finds, box by box: its input, decoding and suppression; scores above 0.3."""
    image = cv2.imread(str(path))
    ratio = min(416 / image.shape[0], 416 / image.shape[1])
    small = cv2.resize(
        image, (int(image.shape[1] * ratio), int(image.shape[0] * ratio)), interpolation=cv2.INTER_LINEAR
    )
    padded = np.full((416, 416, 3), 114, np.uint8)
    padded[: small.shape[0], : small.shape[1]] = small
    tensor = padded.transpose(2, 0, 1)[None].astype(np.float32)
    rows = session.session.run(None, {session.session.get_inputs()[0].name: tensor})[0][0]
    cells = [(x, y, stride) for stride in (8, 16, 32) for y in range(416 // stride) for x in range(416 // stride)]
    found: list[tuple[float, int, list[float]]] = []
    for row, (x, y, stride) in zip(rows, cells, strict=True):
        scores = row[4] * row[5:]
        if scores.max() > 0.3:
            center, size = (row[:2] + np.array([x, y])) * stride, np.exp(row[2:4]) * stride
            corners = np.concatenate([center - size / 2, center + size / 2]) / ratio
            found.append((float(scores.max()), int(scores.argmax()), corners.tolist()))
    kept: list[tuple[float, int, list[float]]] = []
    for candidate in sorted(found, reverse=True):
        if all(_demo_overlap(candidate[2], other[2]) <= 0.45 for other in kept):
            kept.append(candidate)
    scores, labels, corners = zip(*kept, strict=True) if kept else ((), (), ())
    return Boxes2D.build(corners, labels, scores)


def _demo_overlap(a: list[float], b: list[float]) -> float:
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    sides = [max(0.0, min(a[axis + 2], b[axis + 2]) - max(a[axis], b[axis]) + 1) for axis in (0, 1)]
    shared = sides[0] * sides[1]
    return shared / (sum(areas) - shared)


def test_boxes_are_those_of_megviis_demo(weights: Path, real_data: Path) -> None:
    images = sorted(path for path in real_data.rglob("*") if path.suffix in (".jpg", ".png"))
    megvii = detector(weights / NANO, PLAIN, convention="megvii", class_agnostic=True)
    mmdet = detector(weights / NANO, PLAIN)
    session, counts = Session(weights / NANO), np.zeros(3, int)
    for image in images:
        expected, ours = demo_boxes(session, image), detect(megvii, image)
        counts += (len(expected), len(ours), len(detect(mmdet, image)))
        assert ours.labels.tolist() == expected.labels.tolist(), image
        np.testing.assert_allclose(ours.scores, expected.scores, atol=1e-5)
        np.testing.assert_allclose(ours.corners, expected.corners, atol=0.01)
    assert counts[0] == counts[1] > 0
    assert counts[2] > counts[0], "boxes of two classes at one place, which mmdet's rules keep"


# -- the exporter's side ----------------------------------------------------------------------------------------------


def workspace(tmp_path: Path, onnx_path: Path, real: Path, model_options: dict[str, Any]) -> tuple[Path, Path]:
    config = {
        "task_type": "detection2d",
        "model": {"type": "yolox", "options": model_options},
        "data": {"format": "real", "root": str(real), "classes": ["person", "bicycle", "car", "truck"]},
        "export": {"mode": "none", "onnx_path": str(onnx_path)},
        "verification": {"enabled": False},
        "evaluation": {"enabled": True, "num_samples": 3, "backends": {"pytorch": {"enabled": False}}},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    return tmp_path / "config.yaml", tmp_path / "work"


@pytest.mark.exporter
def test_a_workspace_of_an_onnx_file_alone(weights: Path, real_data: Path, tmp_path: Path) -> None:
    from exporter.export import export
    from runtime.run import run
    from shared.runs import Run
    from shared.workspace import Workspace

    config, work = workspace(tmp_path, weights / NANO, real_data, options(PLAIN))
    export(config, work, [])
    spec = Workspace.open(work).spec()
    assert spec.components[0].program is None
    assert spec.components[0].outputs[0].shape == [1, 3549, 85]
    assert spec.parameters["strides"] == [8, 16, 32]
    run(work, "onnx", "cpu")
    found = Run.open(work / "runs" / "onnx-cpu").predictions(0, Boxes2D)
    assert "truck" in best(found)


@pytest.mark.exporter
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"image": None}, ConfigError, "model.options.image: is missing"),
        ({"classes": ()}, ConfigError, "model.options.classes: is missing"),
        ({"classes": ["car"]}, InputError, "1 classes make 6 columns"),
        ({"output": "detections"}, InputError, "num_detections"),
    ],
)
def test_what_the_config_must_say(
    change: dict[str, Any], error: type[Exception], message: str, weights: Path, real_data: Path, tmp_path: Path
) -> None:
    from exporter.export import export

    given = {name: value for name, value in (options(PLAIN) | change).items() if value is not None}
    config, work = workspace(tmp_path, weights / NANO, real_data, given)
    with pytest.raises(error, match=message):
        export(config, work, [])
