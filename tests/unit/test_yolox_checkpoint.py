"""The demo's YOLOX checkpoint is the one that its config describes, and as good as its log says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exporter.models.yolox.demo_images import compressed, held_out_image, mirrored, training_image

pytestmark = pytest.mark.exporter

torch = pytest.importorskip("torch")
pytest.importorskip("mmengine")

from exporter.checkpoints import load_weights  # noqa: E402
from exporter.models.yolox import demo as training  # noqa: E402

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "models" / "yolox_elan_demo.pth"
CONFIG = ROOT / "configs" / "train" / "yolox_elan_demo.py"


def test_it_fits_its_config() -> None:
    model, size = training.build(CONFIG)
    load_weights(model, CHECKPOINT)
    assert size == 640


def test_a_few_held_out_images_confirm_the_log() -> None:
    model, size = training.build(CONFIG)
    load_weights(model, CHECKPOINT)
    metrics = training.held_out(model, size, torch.device("cpu"), workers=0, frames=2)
    assert metrics["AP/car"] > 0.5


def test_a_training_step_lowers_the_loss() -> None:
    torch.manual_seed(0)
    model, size = training.build(CONFIG)
    model.train()
    batch = training.collate([training_image(1, number) for number in range(2)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        loss = training.loss_of(model, batch, size // 4, amp=False)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_training_and_held_out_images_are_never_the_same() -> None:
    trained, held_out = training_image(7, 0), held_out_image(7, 40, 0)
    assert trained.pixels.shape == held_out.pixels.shape
    assert np.abs(trained.pixels.astype(int) - held_out.pixels).mean() > 5


def test_mirroring_twice_changes_nothing() -> None:
    taken = held_out_image(7, 40, 0)
    twice = mirrored(mirrored(taken))
    np.testing.assert_array_equal(twice.pixels, taken.pixels)
    np.testing.assert_allclose(twice.corners, taken.corners, atol=1e-4)
    once = mirrored(taken)
    assert (once.corners[:, 2] > once.corners[:, 0]).all()


def test_compression_puts_a_little_noise_on_the_image() -> None:
    taken = held_out_image(7, 40, 0)
    noisy = compressed(taken, 90)
    difference = np.abs(noisy.pixels.astype(int) - taken.pixels)
    assert 0.1 < difference.mean() < 3
    assert noisy.corners is taken.corners
