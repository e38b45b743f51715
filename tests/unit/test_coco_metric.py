"""COCO's numbers: pycocotools gives the same, and empty sets give none."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from evaluator.boxes2d import coco
from shared.data.types import ImageLabels
from shared.tasks.detection2d import Boxes2D
from tests.unit.test_voc_metric import scene

CLASSES = ["a", "b", "c"]


@pytest.mark.parametrize("seed", range(3))
def test_pycocotools_gives_the_same(seed: int) -> None:
    pycoco = pytest.importorskip("pycocotools.coco")
    pyeval = pytest.importorskip("pycocotools.cocoeval")
    predictions, truths = scene(seed, images=30)
    truths = [
        ImageLabels(t.boxes, t.ignored, np.prod(t.boxes.corners[:, 2:] - t.boxes.corners[:, :2], axis=1))
        for t in truths
    ]
    ours = coco.evaluate(predictions, truths, CLASSES)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = pycoco.COCO()
        truth.dataset = coco._dataset(truths, CLASSES)
        truth.createIndex()
        evaluation = pyeval.COCOeval(truth, truth.loadRes(coco._results(predictions)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    theirs = [None if value < 0 else value for value in evaluation.stats]
    for name, value in zip(coco.SUMMARY, theirs, strict=True):
        assert ours["summary"][name] == (None if value is None else pytest.approx(value, abs=1e-9)), name
    assert ours["summary"]["AP"] > 0.05


def test_truth_as_predictions_is_one() -> None:
    boxes = Boxes2D.build([[0, 0, 50, 50], [60, 60, 90, 99]], [0, 2])
    result = coco.evaluate([boxes], [ImageLabels(boxes, np.zeros(2, np.bool_), np.array([2500.0, 1170.0]))], CLASSES)
    assert result["summary"]["AP"] == pytest.approx(1.0)
    assert result["classes"]["a"]["AP"] == pytest.approx(1.0)
    assert result["classes"]["b"] == {"AP": None, "AP50": None, "AP75": None}


def test_no_predictions_and_no_truth() -> None:
    boxes = Boxes2D.build([[0, 0, 50, 50]], [0])
    labeled = ImageLabels(boxes, np.zeros(1, np.bool_), np.array([2500.0]))
    assert coco.evaluate([Boxes2D.empty()], [labeled], CLASSES)["summary"]["AP"] == 0.0
    nothing = ImageLabels(Boxes2D.empty(), np.zeros(0, np.bool_), np.zeros(0))
    assert coco.evaluate([boxes], [nothing], CLASSES)["summary"]["AP"] is None
    assert coco.evaluate([Boxes2D.empty()], [nothing], CLASSES)["summary"]["AP"] is None
