"""The task metric that quantization is judged by is the evaluator's; without labels it says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluator.metrics import detection3d
from exporter.quantize.metric import open_metric
from shared.data import DataSettings, ImageLabels, ImageSample, open_dataset
from shared.errors import InputError
from shared.metrics import nuscenes, voc
from shared.metrics.box_table import table_of, to_ego_frame
from shared.metrics.signal_to_noise import SNR_BOUNDS, snr_db
from shared.tasks.classification import ClassScores
from shared.tasks.detection2d import Boxes2D
from shared.tasks.detection3d import Boxes3D
from tests.support.workspaces import make_labels


@dataclass
class Samples:
    """A data set of given samples."""

    samples: Sequence[Any]
    classes: tuple[str, ...]
    name: str = "frames"

    def __len__(self) -> int:
        return len(self.samples)

    def sample(self, index: int) -> Any:
        return self.samples[index]


def test_map_of_3d_boxes_is_the_evaluators(tmp_path: Path) -> None:
    """With the lidar turned on the vehicle, a class that the model does not know, and boxes without a point."""
    make_labels(tmp_path)
    source = open_dataset(DataSettings("info", tmp_path, Path("infos.json")))
    rng = np.random.default_rng(0)
    pose = np.eye(4)
    pose[:3, :3] = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    pose[:3, 3] = [15.0, 3.0, 1.7]
    samples = []
    for index in range(len(source)):
        sample = source.sample(index)
        points = sample.ground_truth.num_points * (rng.random(len(sample.ground_truth)) > 0.2)
        samples.append(replace(sample, lidar2ego=pose, ground_truth=replace(sample.ground_truth, num_points=points)))
    dataset = Samples(samples, source.classes)
    for classes in (["pedestrian", "car"], ["car"]):
        metric = open_metric("detection3d", dataset, classes, len(samples))
        predictions = []
        for sample in samples:
            truth = sample.ground_truth
            predictions.append(
                replace(
                    truth,
                    centers=truth.centers + rng.normal(0, 0.7, truth.centers.shape).astype(np.float32),
                    labels=rng.integers(0, len(classes), len(truth)),
                    scores=rng.random(len(truth)).astype(np.float32),
                )
            )
        expected = detection3d.ground_truth(samples, source.classes, classes)
        assert expected is not None
        found = table_of([to_ego_frame(boxes, pose) for boxes in predictions])
        candidates = nuscenes.find_candidates(found, expected.boxes)
        wanted = nuscenes.score_range(candidates, classes, 0.0, nuscenes.REACH).mean_average_precision
        assert 0.05 < wanted < 0.95
        assert metric.score(predictions) == pytest.approx(100 * wanted, abs=1e-9)


def test_map_of_2d_boxes_is_the_evaluators() -> None:
    rng = np.random.default_rng(1)
    classes = ["car", "truck"]
    samples, predictions, truths = [], [], []
    for index in range(5):
        corners = rng.uniform(0, 100, (9, 4)).astype(np.float32)
        corners[:, 2:] = corners[:, :2] + 30
        labels, ignored = rng.integers(0, 3, 9), rng.random(9) < 0.2
        boxes = Boxes2D.build(corners, labels)
        given = ImageLabels(boxes, ignored, np.full(9, 900.0))
        samples.append(ImageSample(index, str(index), 0.0, "drive", Path("x.png"), 200, 200, given))
        known = labels < 2
        truths.append(ImageLabels(boxes.select(known), ignored[known], np.full(int(known.sum()), 900.0)))
        moved = corners + rng.normal(0, 5, corners.shape)
        predictions.append(Boxes2D.build(moved, rng.integers(0, 2, 9), rng.random(9)))
    metric = open_metric("detection2d", Samples(samples, ("car", "truck", "tram")), classes, 5)
    matches = voc.match(predictions, truths, len(classes))
    expected = voc.mean_ap([voc.score(each) for each in matches])
    assert expected is not None and 0.01 < expected < 0.9
    assert metric.score(predictions) == pytest.approx(100 * expected, abs=1e-4)


def test_accuracy_counts_the_largest_logit_in_the_models_order() -> None:
    @dataclass
    class Pair:
        label: int

    pairs = Samples([Pair(0), Pair(1), Pair(1), Pair(0)], ("bad", "good"))
    metric = open_metric("classification", pairs, ["good", "bad"], 4)
    answers = [ClassScores.build([0.1, 0.9]), ClassScores.build([0.9, 0.1])]
    assert metric.name == "accuracy"
    assert metric.score([answers[0], answers[1], answers[0], answers[0]]) == 75.0


def test_frames_are_spread_over_the_data_set() -> None:
    dataset = Samples([type("Pair", (), {"label": 0})] * 11, ("bad",))
    assert open_metric("classification", dataset, ["bad"], 3).positions == (0, 5, 10)
    assert len(open_metric("classification", dataset, ["bad"], 99).positions) == 11


def test_no_labels_is_one_line_and_exit_code_3(tmp_path: Path) -> None:
    np.zeros((5, 5), np.float32).tofile(tmp_path / "0.bin")
    dataset = open_dataset(DataSettings("folder", tmp_path, num_features=5))
    with pytest.raises(InputError) as caught:
        open_metric("detection3d", dataset, ["car"], 4)
    assert caught.value.exit_code == 3
    assert "labels" in str(caught.value) and "\n" not in str(caught.value)


def test_signal_to_noise_ratio() -> None:
    right = [{"a": np.full((1, 4), 10.0, np.float32), "rows": np.zeros((3, 2)), "same": np.ones(2)}] * 2
    given = [
        {"a": right[0]["a"] + 1, "rows": np.zeros((4, 2)), "same": np.ones(2)},
        {"a": right[0]["a"], "rows": np.zeros((3, 2)), "same": np.ones(2)},
    ]
    ratios = snr_db(zip(right, given, strict=True))
    assert ratios["a"] == pytest.approx(10 * np.log10(800 / 4))
    assert ratios["same"] == SNR_BOUNDS[1]
    assert "rows" not in ratios  # as many rows as boxes: not comparable
    assert snr_db([(right[0], {**given[0], "a": np.full((1, 4), np.nan)})])["a"] == SNR_BOUNDS[0]


def test_boxes_that_are_no_numbers_score_nothing() -> None:
    """A choice of layers that breaks the model is measured, not an error."""
    truth = Boxes3D.build([[10.0, 0.0, 0.0]], [[4.0, 2.0, 1.5]], [0.0], num_points=[5])
    frame = type("Frame", (), {"ground_truth": truth, "lidar2ego": np.eye(4)})
    metric = open_metric("detection3d", Samples([frame], ("car",)), ["car"], 1)
    broken = replace(truth, centers=np.full((1, 3), np.nan, np.float32))
    assert metric.score([truth]) == pytest.approx(100.0)
    assert metric.score([broken]) == 0.0
