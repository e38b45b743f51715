"""The demo's checkpoint is the one that its config describes, small, and as good as its log says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.exporter

torch = pytest.importorskip("torch")
pytest.importorskip("mmengine")

from demo.objects import CLASSES  # noqa: E402
from exporter.checkpoints import load_weights  # noqa: E402
from exporter.models.centerpoint import demo as training  # noqa: E402

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "models" / "centerpoint_demo.pth"
MAX_BYTES = 4_000_000
MIN_MAP, MAX_ORIENTATION_ERROR = 0.65, 0.5  # 0-50 m


def test_it_fits_its_config_and_is_small() -> None:
    model, _ = training.build(ROOT / "configs" / "train" / "centerpoint_demo.py")
    load_weights(model, CHECKPOINT)
    assert CHECKPOINT.stat().st_size <= MAX_BYTES


def test_its_log_says_how_it_was_made_and_how_good_it_is() -> None:
    log = CHECKPOINT.with_suffix(".log").read_text()
    assert re.search(
        r"^command: python -m exporter\.(demo_models\.train_centerpoint|models\.centerpoint\.demo) ", log, re.MULTILINE
    )
    assert re.search(r"^seed: \d+  sources: [0-9a-f]{64}$", log, re.MULTILINE)
    meta = torch.load(CHECKPOINT, weights_only=True)["meta"]
    assert meta["classes"] == list(CLASSES)
    held_out = json.loads(meta["held_out"])["0-50 m"]
    assert held_out["mAP"] >= MIN_MAP
    assert held_out["mAOE"] < MAX_ORIENTATION_ERROR
    assert f"mAP {held_out['mAP']:.4f}" in log


def test_a_few_held_out_frames_confirm_the_log() -> None:
    model, section = training.build(ROOT / "configs" / "train" / "centerpoint_demo.py")
    load_weights(model, CHECKPOINT)
    metrics = training.held_out(model, section, torch.device("cpu"), frames=6).metrics["0-50 m"]
    # Six frames of one scene: some classes may hardly occur, cars always do.
    assert metrics["AP/car"] > MIN_MAP
    assert metrics["AOE/car"] < MAX_ORIENTATION_ERROR
