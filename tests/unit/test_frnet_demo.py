"""The demo FRNet's checkpoint is the one that its config describes, and as good as its log says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.exporter

torch = pytest.importorskip("torch")
pytest.importorskip("mmengine")

from demo.labels import SEGMENTS  # noqa: E402
from demo.recording import FRAMES_PER_SCENE, draw_scene, record_frame  # noqa: E402
from exporter.checkpoints import load_weights  # noqa: E402
from exporter.demo_training import HELD_OUT_SEED  # noqa: E402
from exporter.models.frnet import demo as training  # noqa: E402
from exporter.models.frnet.build import build, classes  # noqa: E402
from exporter.models.frnet.framework import answer  # noqa: E402
from exporter.training_config import read_training_config  # noqa: E402

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "models" / "frnet_demo.pth"


def test_a_held_out_frame_confirms_it() -> None:
    model = build(read_training_config(ROOT / "configs" / "train" / "frnet_demo.py"), training.OPTIONS)
    load_weights(model, CHECKPOINT)
    assert classes(model) == list(SEGMENTS[:-1])
    scene = draw_scene(HELD_OUT_SEED, "eval", 0, FRAMES_PER_SCENE)
    frame = record_frame(scene, HELD_OUT_SEED, "eval", 0, 0, cameras=False, previous=False, labels=True).key
    assert frame.labels is not None
    _, found, _ = answer(model, torch.from_numpy(np.ascontiguousarray(frame.points[:, :4])))
    assert (found.labels == frame.labels).mean() > 0.9


def test_the_training_lowers_what_is_missing_in_the_iou() -> None:
    """Lovász extension: 0 where all is right, 1 where nothing is, between them one minus the IoU of hard answers."""
    labels = torch.tensor([0, 0, 1, 1, 1])
    right = torch.nn.functional.one_hot(labels, 3).float()
    assert training.lovasz(right, labels) == pytest.approx(0, abs=1e-6)
    assert training.lovasz(right.roll(1, dims=1), labels) == pytest.approx(1, abs=1e-6)
    off = torch.nn.functional.one_hot(torch.tensor([0, 1, 1, 1, 1]), 3).float()
    assert training.lovasz(off, labels) == pytest.approx(1 - (1 / 2 + 3 / 4) / 2, abs=1e-6)
