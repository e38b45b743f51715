"""The log of a demo model says how it was made and how good it is, and its checkpoint holds the same figures."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

from demo.labels import SEGMENTS
from demo.objects import CLASSES

pytestmark = pytest.mark.exporter

MODELS = Path(__file__).parents[2] / "models"

# File, model, most bytes, classes, where the figures are in what was measured, the first figure, whether they are good.
DEMOS: list[tuple[str, str, int, Sequence[str], Any, str, Any]] = [
    (
        "centerpoint_demo", "centerpoint", 4_000_000, CLASSES, itemgetter("0-50 m"), "mAP",
        lambda figures: figures["mAP"] >= 0.65 and figures["mAOE"] < 0.5,
    ),
    ("yolox_elan_demo", "yolox", 3_000_000, CLASSES, dict, "mAP", lambda figures: figures["mAP"] >= 0.5),
    ("frnet_demo", "frnet", 250_000, SEGMENTS[:-1], dict, "mIoU", lambda figures: figures["mIoU"] >= 0.75),
]  # fmt: skip


@pytest.mark.parametrize(("file", "model", "most_bytes", "classes", "figures_of", "metric", "good"), DEMOS)
def test_log_and_checkpoint_belong_together(
    file: str, model: str, most_bytes: int, classes: Sequence[str], figures_of: Any, metric: str, good: Any
) -> None:
    torch = pytest.importorskip("torch")
    log, checkpoint = (MODELS / f"{file}.log").read_text(), MODELS / f"{file}.pth"
    # The first pattern: trained before the trainings had their places in the models' folders.
    command = rf"^command: python -m exporter\.(demo_models\.train_{model}|models\.{model}\.demo) "
    assert re.search(command, log, re.MULTILINE)
    assert re.search(r"^seed: \d+  sources: [0-9a-f]{64}$", log, re.MULTILINE)
    assert checkpoint.stat().st_size <= most_bytes
    meta = torch.load(checkpoint, weights_only=True)["meta"]
    assert meta["classes"] == list(classes)
    figures = figures_of(json.loads(meta["held_out"]))
    assert good(figures)
    assert f"{metric} {figures[metric]:.4f}" in log
