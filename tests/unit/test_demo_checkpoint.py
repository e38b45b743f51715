"""The demo's checkpoint is the one that its config describes, and as good as its log says."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.exporter

torch = pytest.importorskip("torch")
pytest.importorskip("mmengine")

from exporter.checkpoints import load_weights  # noqa: E402
from exporter.models.centerpoint import demo as training  # noqa: E402

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "models" / "centerpoint_demo.pth"
MIN_MAP, MAX_ORIENTATION_ERROR = 0.65, 0.5  # 0-50 m


def test_it_fits_its_config() -> None:
    model, _ = training.build(ROOT / "configs" / "train" / "centerpoint_demo.py")
    load_weights(model, CHECKPOINT)


def test_a_few_held_out_frames_confirm_the_log() -> None:
    model, _ = training.build(ROOT / "configs" / "train" / "centerpoint_demo.py")
    load_weights(model, CHECKPOINT)
    metrics = training.held_out(model, torch.device("cpu"), frames=6).metrics["0-50 m"]
    # Six frames of one scene: some classes may hardly occur, cars always do.
    assert metrics["AP/car"] > MIN_MAP
    assert metrics["AOE/car"] < MAX_ORIENTATION_ERROR
