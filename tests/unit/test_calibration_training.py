"""Training of the demo's calibration classifier: a step trains, and what it is judged by means what it says."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from shared.data.miscalibration import Miscalibration, disturbance_of

pytestmark = pytest.mark.exporter

CONFIG = Path(__file__).parents[2] / "configs/train/calibration_demo.py"


def test_a_step_changes_the_weights() -> None:
    torch = pytest.importorskip("torch")
    from exporter.demo_training import Log, fit
    from exporter.models.calibration.demo import RECIPE, Training

    torch.manual_seed(0)
    options = argparse.Namespace(
        seed=5, steps=1, batch=1, draws=1, preset="awml", device="cpu", workers=0, minutes=10.0, keep=None,
        config=CONFIG, rate=2e-3,
    )  # fmt: skip
    training = Training(options)
    before = training.model.head.fc.weight.detach().clone()
    log = Log()
    assert fit(training, RECIPE, options, log) == 1
    assert (training.model.head.fc.weight - before).abs().max() > 0
    assert "loss" in log.lines[-1]


def test_held_out_figures() -> None:
    """With a network that answers the same to everything: both figures are those of guessing."""
    torch = pytest.importorskip("torch")
    from exporter.models.calibration.demo import held_out

    class Always(torch.nn.Module):
        def forward(self, inputs):
            return torch.tensor([[0.0, 1.0]]).repeat(len(inputs), 1)

    figures = held_out(Always(), torch.device("cpu"), "awml", frames=1)
    assert figures == {"accuracy": 0.5, "miscalibrated": 0.0, "calibrated": 1.0, "with a gray image": 0.5}


def test_the_demo_checkpoint_compares_points_with_the_image() -> None:
    """On 48 held-out inputs: right about nearly all, and with a gray image in place of the camera's, guessing."""
    torch = pytest.importorskip("torch")
    from exporter.checkpoints import load_weights
    from exporter.models.calibration.demo import build, held_out

    model = build(CONFIG)
    load_weights(model, CONFIG.parents[2] / "models/calibration_demo.pth")
    figures = held_out(model, torch.device("cpu"), "awml", frames=4)
    assert figures["accuracy"] > 0.9
    assert figures["with a gray image"] < 0.7


def test_held_out_disturbances_are_those_of_the_data_set() -> None:
    """The name that decides a disturbance is the same in the training script and in the data set's tokens."""
    from demo.info_files import calibration_info
    from demo.recording import record_scene
    from shared.data.formats.info.calibration import _name

    recording = record_scene(7, "eval", 0, 1, cameras=True)
    entry = calibration_info([recording])["data_list"][2]
    name = _name(entry, "")
    assert name == f"{recording.name}/0/{entry['frame_id']}"
    assert np.isfinite(disturbance_of(Miscalibration(), name).matrix).all()
