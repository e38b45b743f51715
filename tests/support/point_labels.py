"""A task that none of ours is, as another package would add it: a label for every lidar point."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.plugin_packages import install

NAME = "point_labels"

_TASK = '''
"""A label for every lidar point of a frame."""

import numpy as np

from shared.pairing import Pairing
from shared.tasks import Task


class PointLabels(Task[np.ndarray]):
    container = np.ndarray
    view = "lidar_frame"
    errors = {}
    metric = "accuracy"

    def empty(self):
        return np.zeros(0, np.int64)

    def arrays(self, predictions):
        return {"labels": predictions}

    def from_arrays(self, arrays):
        if set(arrays) != {"labels"}:
            raise ValueError("not labels")
        return arrays["labels"]

    def pair(self, reference, test):
        same = int((reference == test).sum())
        return Pairing(len(reference), len(test), 0, same, {}, len(test) - same, np.zeros(0), np.zeros(0))

    def labels_of(self, sample, to_model):
        return None

    def agreement(self, truth, results):
        hits = [wanted == given for wanted, given in zip(truth, results, strict=True)]
        return {"accuracy": float(np.concatenate(hits).mean())}


TASK = PointLabels()
'''

_METRIC = '''
"""Accuracy of point labels."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Truth:
    tokens: list
    scenes: list
    labels: list


def ground_truth(samples, label_classes, classes):
    listed = list(samples)
    return Truth([s.token for s in listed], [s.scene for s in listed], [s.labels for s in listed]) if listed else None


def match(run, truth, classes, evaluation):
    answers = [run.predictions(index, np.ndarray) for index in range(len(run))]
    return [(given == wanted) for given, wanted in zip(answers, truth.labels, strict=True)]


def evaluate(matched):
    return {"accuracy": float(np.concatenate(matched).mean())}


def headline(result):
    return dict(result)


LOWER_IS_BETTER = frozenset()


def headline_names(classes):
    return ["accuracy"]


def resample(matched, copies):
    return evaluate([np.repeat(hits, count) for hits, count in zip(matched, copies)])


def per_class(result):
    return {}


def tables(result):
    return []
'''

_SCORE = '''
"""Point labels in .npy files."""

import numpy as np

from shared.table import Table


def score(results):
    accuracy = float((np.load(results.predictions) == np.load(results.truth)).mean())
    return {"accuracy": accuracy}, [Table("point labels", ["accuracy"], [[str(accuracy)]])]
'''


def install_point_labels(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Install the package into ``folder`` for one test."""
    install(
        monkeypatch,
        folder,
        "point_labels_package",
        {"task.py": _TASK, "metric.py": _METRIC, "score.py": _SCORE},
        {
            "awml_deploy.tasks": {NAME: "point_labels_package.task"},
            "awml_deploy.metrics": {NAME: "point_labels_package.metric"},
            "awml_deploy.score": {NAME: "point_labels_package.score"},
        },
    )
