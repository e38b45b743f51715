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

    def count(self, predictions):
        return len(predictions)

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

    def agreement(self, truth, results, classes):
        hits = [wanted == given for wanted, given in zip(truth, results, strict=True)]
        return {"accuracy": float(np.concatenate(hits).mean())}


TASK = PointLabels()
'''


def install_point_labels(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Install the package into ``folder`` for one test."""
    install(
        monkeypatch,
        folder,
        "point_labels_package",
        {"task.py": _TASK},
        {"awml_deploy.tasks": {NAME: "point_labels_package.task"}},
    )
