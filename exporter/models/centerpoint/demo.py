"""Train the demo CenterPoint on scenes that are generated as it trains (`exporter.demo_training`).

    PYTHONPATH=. python -m exporter.models.centerpoint.demo --out models/centerpoint_demo.pth

8,000 steps of 8 frames take 6.5 minutes on an H200 with 16 cores, of which 15 generate scenes. A CPU trains the same
way, at about one frame a second on two cores: enough to try a change, too slow for a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demo.objects import CLASSES
from exporter import demo_lidar
from exporter.demo_lidar import augmented, joined, labeled_boxes, merged_points, training_frame, voxelize
from exporter.demo_training import HELD_OUT_FRAMES, HeldOut, Recipe, initialize, run
from exporter.lidar.training import boxes_of_mmdet3d, instances
from exporter.models.centerpoint.framework import answer
from exporter.training_config import build_model, read_training_config
from shared.tasks.detection3d import Boxes3D

RANGES = (50.0, 121.0)  # [m]

RECIPE = Recipe(
    config=Path("configs/train/centerpoint_demo.py"),
    steps=8000,
    batch=8,
    minutes=6.5,
    learning_rate=3e-3,
    betas=(0.95, 0.99),
    max_gradient_norm=10.0,
)


def build(config_path: Path) -> tuple[Any, dict[str, Any]]:
    """Build the model of a training config for training; returns it and the ``model`` section."""
    config = read_training_config(config_path)
    model = build_model(config)
    initialize(model)
    return model, config.model


def head_outputs(model: Any, points: Tensor, batch_size: int, layer: dict[str, Any], amp: bool) -> dict[str, Tensor]:
    """Run the model on joined points; returns the head's raw maps by name."""
    voxels, counts, cells = voxelize(points, layer)
    # The encoder stays in float32: coordinates of 100 m need more digits than bfloat16 has.
    pillars = model.pts_voxel_encoder(voxels, counts, cells)
    with torch.autocast(points.device.type, torch.bfloat16, enabled=amp):
        canvas = model.pts_middle_encoder(pillars, cells, batch_size)
        canvas = canvas.contiguous(memory_format=torch.channels_last)
        outputs: dict[str, Tensor] = model.pts_bbox_head(model.pts_neck(model.pts_backbone(canvas)))[0][0]
    return {name: value.float() for name, value in outputs.items()}


def held_out(model: Any, device: torch.device, frames: int = HELD_OUT_FRAMES) -> HeldOut:
    """Return the metrics on the demo's evaluation frames, by range: mmdet3d's own voxels, decoding and suppression."""
    model.eval()
    return demo_lidar.held_out(
        lambda frame: answer(model, torch.from_numpy(merged_points(frame)).to(device))[1], RANGES, frames
    )


class Training:
    """See `exporter.demo_training.DemoTraining`."""

    classes = CLASSES
    unit = "frames"

    def __init__(self, options: Any) -> None:
        self.options = options
        self.device = torch.device(options.device)
        self.model, self.section = build(options.config)
        head = self.model.pts_bbox_head
        # A loop over all objects: the workers do it, and the head takes what they made.
        self._targets, head.get_targets = head.get_targets, lambda targets: targets

    def sample(self, index: int) -> tuple[NDArray[np.float32], Boxes3D]:
        """Training frame ``index``, augmented: points (n, 4) and boxes."""
        frame, rng = training_frame(self.options.seed, index), np.random.default_rng([self.options.seed, index])
        return augmented(merged_points(frame), labeled_boxes(frame), rng)

    def collate(self, samples: list[tuple[NDArray[np.float32], Boxes3D]]) -> dict[str, Any]:
        """Points joined, (n, 5) with the sample's number in front, and the head's targets."""
        return {
            "points": joined([points for points, _ in samples]),
            "targets": self._targets(
                [instances(boxes_of_mmdet3d(boxes), torch.from_numpy(boxes.labels)) for _, boxes in samples]
            ),
        }

    def loss(self, batch: Mapping[str, Any], progress: float) -> tuple[Tensor, Mapping[str, Tensor]]:  # noqa: ARG002
        """The two losses of the head."""
        layer = self.section["data_preprocessor"]["voxel_layer"]
        amp = self.device.type == "cuda"
        outputs = head_outputs(self.model, batch["points"], self.options.batch, layer, amp)
        parts = self.model.pts_bbox_head.loss_by_feat(([outputs],), batch["targets"])
        return torch.stack(list(parts.values())).sum(), parts

    def held_out(self) -> HeldOut:
        """Metrics by range."""
        return held_out(self.model, self.device)


if __name__ == "__main__":
    run("exporter.models.centerpoint.demo", __doc__ or "", RECIPE, Training)
