"""Train the demo TransFusion on the demo's scenes (`exporter.demo_training`); in the tools' sources::

    PYTHONPATH=. .venv/exporter/bin/python -m awml_deploy_transfusion.exporter_model.demo \
        --workers 0 --minutes 52 --frames 500 --out transfusion_demo.pth

Meant for a CPU. Frames are generated once, kept, and turned anew each time they come; the pillar encoder and the first
convolutions are those of the demo CenterPoint, whose pillars are the same, and stay as they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from awml_deploy_transfusion import configs
from awml_deploy_transfusion.exporter_model.build import build
from awml_deploy_transfusion.exporter_model.framework import answer
from awml_deploy_transfusion.exporter_model.supervision import Truth
from awml_deploy_transfusion.exporter_model.training import prepare
from demo.objects import CLASSES
from demo.recording import Frame
from exporter import demo_lidar, demo_training
from exporter.demo_lidar import augmented, joined, labeled_boxes, merged_points, training_frame, voxelize
from exporter.demo_training import HeldOut, Option, Recipe, run
from exporter.lidar.training import boxes_of_mmdet3d
from exporter.training_config import read_training_config
from shared.tasks.detection3d import Boxes3D

CONFIG = Path(configs.__path__[0]) / "transfusion_demo.py"
RANGES = (50.0,)  # [m]

# The logit of one in ten.
_RARE = -2.19

RECIPE = Recipe(
    config=CONFIG,
    steps=3000,
    batch=4,
    minutes=40,
    learning_rate=2e-3,
    betas=(0.95, 0.99),
    max_gradient_norm=5.0,
    significant_bits=8,
)


def initialize(model: Any) -> None:
    """Weights to start from, random: a transformer's by X. Glorot and Y. Bengio, and few objects at first."""
    demo_training.initialize(model)
    head = model.pts_bbox_head
    for weight in head.decoder.parameters():
        if weight.ndim > 1:
            nn.init.xavier_uniform_(weight)
    for says in head.prediction_heads:
        says.init_weights()
    nn.init.constant_(head.heatmap_head[-1].bias, _RARE)


def take_stem(model: Any, checkpoint: Path) -> list[Any]:
    """Put a CenterPoint's pillar encoder and first convolutions in place; returns the modules that now have them.

    Args:
        model: a TransFusion with the same pillars and channels, whose points have an intensity too.
        checkpoint: of the CenterPoint.

    Raises:
        RuntimeError: weights have other shapes.
    """
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    stem = [model.pts_voxel_encoder, model.pts_backbone.blocks[0]]
    for module, prefix in zip(stem, ("pts_voxel_encoder.", "pts_backbone.blocks.0."), strict=True):
        own = module.state_dict()
        taken = {name: state[prefix + name].to(value.dtype) for name, value in own.items()}
        first = "pfn_layers.0.linear.weight"
        if first in taken:
            weights = taken[first]
            # x, y, z, then the intensity, then what a CenterPoint has.
            taken[first] = torch.cat([weights[:, :3], torch.zeros_like(weights[:, :1]), weights[:, 3:]], dim=1)
        module.load_state_dict(taken)
    return stem


class Training:
    """See `exporter.demo_training.DemoTraining`."""

    classes = CLASSES
    unit = "frames"

    def __init__(self, options: Any) -> None:
        self.options = options
        self.device = torch.device(options.device)
        config = read_training_config(options.config)
        self.model = build(config)
        initialize(self.model)
        prepare(self.model, config)
        self.layer = config.model["data_preprocessor"]["voxel_layer"]
        self.head = self.model.pts_bbox_head
        self.stem = take_stem(self.model, options.stem) if options.stem else []
        for module in self.stem:
            module.requires_grad_(False)
        # An encoder that learns norms over all slots.
        most = int(self.layer["max_num_points"])
        self.slots = (2, 6, most) if self.stem else (most,)
        self._frame = cache(self._recorded)

    def sample(self, index: int) -> tuple[NDArray[np.float32], Truth]:
        """A training frame, augmented: points (n, 5) and objects."""
        rng = np.random.default_rng([self.options.seed, index])
        points, boxes = augmented(*self._frame(index % self.options.frames), rng)
        return points, Truth(boxes_of_mmdet3d(boxes).tensor, torch.from_numpy(boxes.labels))

    def _recorded(self, index: int) -> tuple[NDArray[np.float32], Boxes3D]:
        """Points and boxes of a frame that can come into range: frames turn by 0.4 rad at most."""
        reach = 1.4 * max(abs(value) for value in self.layer["point_cloud_range"][:2])
        frame = training_frame(self.options.seed, index)
        points, boxes = merged_points(frame, intensity=True), labeled_boxes(frame)
        near = (np.abs(points[:, :2]) < reach).all(axis=1)
        return points[near], boxes.select(np.flatnonzero((np.abs(boxes.centers[:, :2]) < reach).all(axis=1)))

    def collate(self, samples: list[tuple[NDArray[np.float32], Truth]]) -> dict[str, Any]:
        """Points joined, objects frame by frame."""
        return {
            "points": joined([points for points, _ in samples]),
            "boxes": [truth.boxes for _, truth in samples],
            "labels": [truth.labels for _, truth in samples],
        }

    def loss(self, batch: Mapping[str, Any], progress: float) -> tuple[Tensor, Mapping[str, Tensor]]:  # noqa: ARG002
        """The three losses of the head."""
        for module in self.stem:
            module.eval()
        truths = [Truth(boxes, labels) for boxes, labels in zip(batch["boxes"], batch["labels"], strict=True)]
        features = self._features(batch["points"], len(truths))
        parts = self.head.supervision.losses(self.head, self.head(features, [])[0][0], truths)
        return torch.stack(list(parts.values())).sum(), parts

    def held_out(self) -> HeldOut:
        """Metrics within the range that the demo model has."""
        self.model.eval()

        def detect(frame: Frame) -> Boxes3D:
            return answer(self.model, torch.from_numpy(merged_points(frame, intensity=True)).to(self.device))[1]

        return demo_lidar.held_out(detect, RANGES)

    def _features(self, points: Tensor, batch_size: int) -> Any:
        """The map of a batch."""
        voxels, counts, cells = voxelize(points, self.layer)
        features, order = [], []
        for least, most in itertools.pairwise((0, *self.slots)):
            rows = torch.nonzero((counts > least) & (counts <= most))[:, 0]
            # All unused slots are alike: one is as good as many.
            used = voxels[rows, : most + 1]
            features.append(self.model.pts_voxel_encoder(used, counts[rows], cells[rows]))
            order.append(rows)
        canvas = self.model.pts_middle_encoder(torch.cat(features), cells[torch.cat(order)], batch_size)
        return self.model.pts_neck(self.model.pts_backbone(canvas))


if __name__ == "__main__":
    run(
        "awml_deploy_transfusion.exporter_model.demo", __doc__ or "", RECIPE, Training,
        Option("--frames", int, "distinct frames", 800),
        Option("--stem", Path, "CenterPoint whose first layers are taken", Path("models/centerpoint_demo.pth")),
    )  # fmt: skip
