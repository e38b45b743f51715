"""The demo's calibration classifier: small, loadable as it is, and as good as its log says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from shared.data import DataSettings, open_dataset
from tests.support.calibration_data import DEMO_INFO, make_demo

pytestmark = pytest.mark.exporter

MODELS = Path(__file__).parents[2] / "models"
CHECKPOINT = MODELS / "calibration_demo.pth"


def test_it_is_small_and_in_half_precision() -> None:
    torch = pytest.importorskip("torch")
    assert CHECKPOINT.stat().st_size < 3e6
    content = torch.load(CHECKPOINT, weights_only=True)
    weights = [value for value in content["state_dict"].values() if value.is_floating_point()]
    assert {value.dtype for value in weights} == {torch.float16}
    assert content["meta"]["classes"] == ["miscalibrated", "calibrated"]


def test_log_and_checkpoint_belong_together() -> None:
    torch = pytest.importorskip("torch")
    last = (MODELS / "calibration_demo.log").read_text().strip().splitlines()[-1]
    accuracy = json.loads(torch.load(CHECKPOINT, weights_only=True)["meta"]["held_out"])
    for name, value in accuracy.items():
        assert f"{name} {value:.4f}" in last
    assert min(accuracy[state] for state in ("miscalibrated", "calibrated")) >= 0.95


def test_it_tells_the_states_of_a_scene_apart(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from exporter.checkpoints import load_weights
    from exporter.models.calibration import adapter as calibration
    from exporter.training_config import read_training_config

    config = read_training_config(MODELS.parent / "configs/train/calibration_demo.py")
    options = calibration.read_options({})
    model = calibration.build(config, options)
    load_weights(model, CHECKPOINT)
    parameters = calibration.parameters(model, config, options)
    settings = DataSettings(format="info", root=make_demo(tmp_path / "demo"), info_file=Path(DEMO_INFO))
    dataset = open_dataset(settings, task="classification")
    samples = [dataset.sample(index) for index in range(len(dataset))]
    with torch.no_grad():
        answers = [calibration.answer(model, calibration.load_input(sample, parameters))[1] for sample in samples]
    decided = np.array([answer.logits[0].argmax() for answer in answers])
    assert (decided == [sample.label for sample in samples]).sum() >= 11
