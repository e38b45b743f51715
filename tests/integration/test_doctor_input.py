"""`runtime doctor-input`, and what `runtime run` says of itself when a network gets another input than it learned.

The network is an ONNX file in ONNX Runtime that finds blue squares, whose red and green are 0, in BGR of 0-255.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
from onnx import TensorProto, helper, numpy_helper

from runtime.cli import cli
from runtime.run import run
from shared.config import DeployConfig, resolved
from shared.workspace import Workspace
from tests.support import tiny_yolox as tiny

CELL = 8
SQUARES = [(16, 24), (48, 8), (72, 80)]
BLUE, RED = (255, 0, 0), (0, 0, 255)
IMAGENET = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}


def _network() -> Any:
    """Cells of 8 x 8 px that are blue on the whole are cars of this size; nothing else is anything."""
    weights = np.zeros((8, 3, CELL, CELL), np.float32)
    weights[4, 0], weights[4, 1], weights[4, 2] = 0.1 / CELL**2, -0.1 / CELL**2, -0.1 / CELL**2
    # x and y in the middle of the cell, one cell wide and high; then the logits: object, car, truck, pedestrian.
    bias = np.array([0.5, 0.5, 0.0, 0.0, -10.0, 10.0, -10.0, -10.0], np.float32)
    coarser = np.zeros((1, tiny.ROWS - (tiny.SIZE // CELL) ** 2, 8), np.float32)
    constants = {"w": weights, "b": bias, "flat": np.array([1, 8, -1]), "coarser": coarser, "parts": np.array([4, 4])}
    nodes = [
        helper.make_node("Conv", ["images", "w", "b"], ["cells"], strides=[CELL, CELL]),
        helper.make_node("Reshape", ["cells", "flat"], ["columns"]),
        helper.make_node("Transpose", ["columns"], ["rows"], perm=[0, 2, 1]),
        helper.make_node("Split", ["rows", "parts"], ["boxes", "logits"], axis=2),
        helper.make_node("Sigmoid", ["logits"], ["scores"]),
        helper.make_node("Concat", ["boxes", "scores"], ["fine"], axis=2),
        helper.make_node("Concat", ["fine", "coarser"], ["output"], axis=1),
    ]
    graph = helper.make_graph(
        nodes, "blue_squares",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, tiny.SIZE, tiny.SIZE])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, tiny.ROWS, 8])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _write_images(folder: Path, color: tuple[int, int, int], *, labeled: bool) -> None:
    """Gray images with a square of ``color`` each, COCO's file beside them."""
    folder.mkdir()
    content: dict[str, Any] = {"images": [], "categories": [{"id": 1, "name": "car"}]}
    if labeled:
        content["annotations"] = []
    for number, (x, y) in enumerate(SQUARES):
        image = np.full((tiny.SIZE, tiny.SIZE, 3), 90, np.uint8)
        image[y : y + CELL, x : x + CELL] = color
        cv2.imwrite(str(folder / f"{number}.png"), image)
        content["images"].append({"id": number, "file_name": f"{number}.png", "width": tiny.SIZE, "height": tiny.SIZE})
        if labeled:
            box = {"id": number + 1, "image_id": number, "category_id": 1, "bbox": [x, y, CELL, CELL], "area": 64.0}
            content["annotations"].append({**box, "iscrowd": 0})
    (folder / "instances.json").write_text(json.dumps(content))


def _workspace(
    folder: Path, image: dict[str, Any], color: tuple[int, int, int] = BLUE, *, labeled: bool = True
) -> Path:
    """The network in a workspace that says ``image`` of its input, and images with squares of ``color``."""
    _write_images(folder / "images", color, labeled=labeled)
    config = DeployConfig.model_validate(
        {
            "task_type": "detection2d",
            "model": {"type": "yolox"},
            "data": {"format": "coco", "root": str(folder / "images"), "info_file": "instances.json"},
            "export": {"mode": "none"},
            "verification": {"enabled": False},
            "evaluation": {"enabled": True, "num_samples": -1},
        }
    )
    spec = tiny.spec(score_threshold=0.3)
    parameters = {**spec.parameters, "image": {**spec.parameters["image"], **image}}
    workspace = Workspace.create(folder / "work")
    with workspace.stage("export", tool="exporter") as stage:
        with stage.artifact("onnx/yolox.onnx", kind="onnx") as path:
            onnx.save(_network(), str(path))
        stage.spec(spec.model_copy(update={"parameters": parameters}))
        stage.config(resolved(config))
    return folder / "work"


def _doctor(work: Path, *options: str) -> str:
    answer = CliRunner().invoke(cli, ["doctor-input", "--work", str(work), "--backend", "onnx", *options])
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def _metrics(table: str) -> dict[str, str]:
    rows = [line.rsplit(maxsplit=3) for line in table.splitlines()[3:11]]
    return {row[0]: row[1] for row in rows}


@pytest.mark.parametrize(
    ("image", "color"),
    [
        ({"mean": [0.0] * 3, "std": [255.0] * 3}, BLUE),
        ({"color": "rgb"}, BLUE),
        (IMAGENET | {"color": "rgb"}, BLUE),
    ],
    ids=["0-1 for 0-255", "RGB for BGR", "a mean that the network never saw"],
)
def test_a_wrong_input_is_suspected_and_the_right_one_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, image: dict[str, Any], color: tuple[int, int, int]
) -> None:
    caplog.set_level(logging.WARNING)
    work = _workspace(tmp_path, image, color)
    run(work, "onnx", "cpu")
    assert (
        "is the input what the network was trained on? mAP 0.0000 as configured, 1.0000 with bgr, 0-255" in caplog.text
    )
    alerts = Workspace.open(work).manifest().results["runs"]["onnx-cpu"]["alerts"]
    assert len(alerts) == 1 and "runtime doctor-input" in alerts[0]
    text = _doctor(work)
    metrics = _metrics(text)
    assert metrics["as configured"] == "0.0000"
    assert metrics["bgr, 0-255"] == "1.0000"
    assert len(metrics) == 8
    assert text.splitlines()[-1].endswith(
        "model.options.image, or data_preprocessor of the training config: {color: bgr}"
    )


def test_the_right_input_is_not_suspected(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    work = _workspace(tmp_path, {})
    run(work, "onnx", "cpu")
    assert "is the input" not in caplog.text
    assert "No other input gives a better mAP." in _doctor(work)
    told = json.loads(_doctor(work, "--json"))
    assert told["metric"] == "mAP"
    assert max(told["inputs"], key=lambda each: each["metric"])["name"] == "as configured"


def test_results_that_no_input_gives_are_not_suspected(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    run(_workspace(tmp_path, {}, color=(90, 200, 90)), "onnx", "cpu")
    assert "is the input" not in caplog.text


def test_without_labels_no_result_at_all_is_suspicious(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    work = _workspace(tmp_path, {"color": "rgb"}, labeled=False)
    run(work, "onnx", "cpu")
    assert "0.0 results a sample as configured, 1.0 with bgr, 0-255, on 3 samples without labels" in caplog.text
    assert "Scores alone don't decide" in _doctor(work)


def test_a_red_square_asks_for_the_other_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The network learned on images whose blue and red were swapped."""
    caplog.set_level(logging.WARNING)
    run(_workspace(tmp_path, {}, RED), "onnx", "cpu")
    assert "1.0000 with rgb, 0-255" in caplog.text


def test_models_of_which_no_other_input_is_known(tmp_path: Path) -> None:
    from tests.support import tiny_centerpoint

    pytest.importorskip("torch")
    frames = tiny_centerpoint.write_frames(tmp_path / "frames", [50])
    tiny_centerpoint.make_workspace(tmp_path / "work", frames)
    answer = CliRunner().invoke(cli, ["doctor-input", "--work", str(tmp_path / "work"), "--backend", "onnx"])
    assert answer.exit_code == 2
    assert "no other input is known for models of kind 'centerpoint'" in answer.output
