"""Labels in the report: what the page draws is what was said, points and range image alike."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluator.report.labels import EMPTY, colors
from evaluator.report.report import OUTPUT, report
from evaluator.report.scene import cloud
from evaluator.report.tasks.segmentation3d import range_image
from shared.metrics.confusion import UNLABELED
from shared.runs import Run
from shared.tasks.segmentation2d import ClassMask
from shared.workspace import Workspace
from tests.support.report_workspaces import segmentation2d, segmentation3d


def _planes(holder: dict[str, Any], count: int) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(holder["labels"])), np.uint8).reshape(-1, count)


def test_points_keep_their_labels() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-300, 300, (4000, 3))
    labels = np.stack([np.floor(points[:, 0] / 10) % 200, np.floor(points[:, 1] / 10) % 200]).astype(np.uint8)
    packed = cloud(np.concatenate([points, [[1e5, 0, 0]]]), 3000, np.pad(labels, ((0, 0), (0, 1))))
    steps = np.frombuffer(zlib.decompress(base64.b64decode(packed["data"])), "<i2").reshape(3, -1) / 100
    found = _planes(packed, packed["count"])
    assert 500 < packed["count"] <= 3000
    # Where rounding to centimeters can't have moved a point into the next stripe.
    inside = (np.abs(steps[:2] / 10 - np.round(steps[:2] / 10)) > 0.01).all(axis=0)
    np.testing.assert_array_equal(found[:, inside], (np.floor(steps[:2] / 10) % 200).astype(np.uint8)[:, inside])


def test_a_range_image_shows_the_nearest() -> None:
    points = np.array([[10.0, 0, 0], [5, 0, 0], [0, 10, 1], [0, 0, 0]])  # two ahead, one to the left, none at the lidar
    [image] = range_image(points, np.array([[1, 2, 3, 4]], np.uint8), 40)
    assert (image == 2).sum() == 1 and (image == 3).sum() == 1
    assert (image == EMPTY).sum() == image.size - 2
    assert np.argwhere(image == 2)[0, 1] == 20 and np.argwhere(image == 3)[0, 1] == 10
    assert np.argwhere(image == 3)[0, 0] < np.argwhere(image == 2)[0, 0], "what is higher is further up"
    assert (range_image(np.zeros((0, 3)), np.zeros((2, 0), np.uint8), 40) == EMPTY).all()


def test_colors_differ() -> None:
    shades = np.array([list(bytes.fromhex(shade[1:])) for shade in colors(40)], float)
    apart = np.linalg.norm(shades[:, None] - shades[None], axis=-1) + 1000 * np.eye(40)
    assert apart.min() > 15
    assert apart[:10, :10].min() > 50


def _frames(workspace: Workspace) -> dict[str, Any]:
    report(workspace.root, None, False)
    page = workspace.artifact(OUTPUT).read_text(encoding="utf-8")
    match = re.search(r'id="frames-data">(.*?)</script>', page, re.DOTALL)
    assert match is not None
    content: dict[str, Any] = json.loads(match[1])
    return content


def test_masks_are_those_of_the_runs(tmp_path: Path) -> None:
    workspace = segmentation2d(tmp_path)
    content = _frames(workspace)
    assert content["runs"] == ["onnx-cpu", "pytorch-cpu"]
    scores = json.loads((workspace.root / "evaluation/onnx-cpu.json").read_text())["metrics"]["frame_mIoU"]
    runs = [Run.open(workspace.path(f"runs/{name}")) for name in content["runs"]]
    for frame in content["frames"]:
        index = int(frame["token"])
        assert frame["score"] == scores[index]
        [raster] = frame["media"]["rasters"]
        truth, *said = _planes(raster, 15 * 40)
        for run, plane in zip(runs, said, strict=True):
            np.testing.assert_array_equal(plane.reshape(15, 40), run.predictions(index, ClassMask).labels)
        judged = truth != UNLABELED
        assert judged.sum() == 15 * 30 == sum(frame["truths"])
        for label in range(3):
            assert frame["right"][label] == ((truth == label) & (said[0] == label)).sum()
            assert frame["found"][label] == (judged & (said[0] == label)).sum()
            apart = said[0] != said[1]
            assert frame["differs"][label] == (apart & ((said[0] == label) | (said[1] == label))).sum()


@pytest.mark.parametrize("make", [segmentation3d, segmentation2d])
def test_without_its_files_the_page_says_so(tmp_path: Path, make: Callable[[Path], Workspace]) -> None:
    workspace = make(tmp_path)
    for file in (tmp_path / "data").rglob("*"):
        if file.is_file() and ("lidarseg" in file.parts or file.suffix == ".png"):
            file.unlink()
    report(workspace.root, None, False)
    page = workspace.artifact(OUTPUT).read_text(encoding="utf-8")
    assert "No frames: " in page and "Intersection over union by class" in page
