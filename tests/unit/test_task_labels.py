"""Labels of every task, in the containers of its results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.config import DeployConfig
from shared.data import open_dataset
from shared.data.labels import labels_in
from shared.data.types import ImageLabels, ImageSample
from shared.tasks import find
from shared.tasks.detection2d import Boxes2D
from tests.support import calibration_data
from tests.support.workspaces import CLASSES, make_workspace


def labels_of(task: str, samples: Sequence[Any], label_classes: Sequence[str], classes: Sequence[str]) -> list[Any]:
    to_model = labels_in(classes, label_classes)
    return [find(task).labels_of(sample, to_model) for sample in samples]


def image(labels: ImageLabels | None) -> ImageSample:
    return ImageSample(0, "a", 0.0, "s", Path("a.png"), 10, 10, labels)


def test_3d_boxes_get_the_models_classes(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, 2)
    dataset = open_dataset(DeployConfig.model_validate(workspace.config()).data)
    samples = [dataset.sample(index) for index in range(2)]
    same = labels_of("detection3d", samples, dataset.classes, CLASSES)
    swapped = labels_of("detection3d", samples, dataset.classes, CLASSES[::-1])
    fewer = labels_of("detection3d", samples, dataset.classes, CLASSES[:1])
    for one, other, some in zip(same, swapped, fewer, strict=True):
        np.testing.assert_array_equal(one.labels, 1 - other.labels)
        assert len(some) == (one.labels == 0).sum() > 0


def test_2d_boxes_leave_out_what_is_to_be_ignored() -> None:
    boxes = Boxes2D.build([[0, 0, 5, 5], [1, 1, 6, 6], [2, 2, 7, 7]], [0, 1, 0])
    labels = ImageLabels(boxes, np.array([False, False, True]), np.ones(3))
    found = labels_of("detection2d", [image(labels)], ["car", "bus"], ["bus", "car"])
    assert found[0].labels.tolist() == [1, 0]
    assert labels_of("detection2d", [image(None)], ["car", "bus"], ["bus", "car"]) == [None]


@pytest.mark.parametrize("classes", [["miscalibrated", "calibrated"], ["calibrated", "miscalibrated"]])
def test_states_are_logits(tmp_path: Path, classes: list[str]) -> None:
    data = calibration_data.write_pair(tmp_path, [calibration_data.entry()])
    workspace = calibration_data.workspace_of(tmp_path / "w", data)
    dataset = open_dataset(DeployConfig.model_validate(workspace.config()).data, task="classification")
    samples = [dataset.sample(index) for index in range(len(dataset))]
    found = labels_of("classification", samples, dataset.classes, classes)
    assert [classes[int(scores.logits.argmax())] for scores in found] == [
        dataset.classes[sample.label] for sample in samples
    ]
