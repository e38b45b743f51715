"""Training: targets, assignment and losses are AWML's by their definition; the demo's training is the network's."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pytest
import torch
from awml_deploy_transfusion.exporter_model import demo
from awml_deploy_transfusion.exporter_model.assignment import assigned, overlaps_3d
from awml_deploy_transfusion.exporter_model.supervision import Truth

from exporter.training import trainable
from shared.errors import ConfigError

# x, y, z of the bottom face's center, l, w, h, yaw, vx, vy: a car, a pedestrian near it, and one out of range.
BOXES = torch.tensor(
    [
        [10.0, 5.0, -1.0, 4.0, 2.0, 1.5, 0.3, 1.0, 0.5],
        [-20.0, 8.0, -1.0, 0.6, 0.6, 1.8, -2.0, 0.0, 0.0],
        [80.0, 0.0, -1.0, 4.0, 2.0, 1.5, 0.0, 0.0, 0.0],
    ]
)
LABELS = torch.tensor([0, 4, 0])


@pytest.fixture(scope="module")
def training() -> demo.Training:
    torch.manual_seed(0)
    return demo.Training(
        argparse.Namespace(device="cpu", config=demo.CONFIG, stem=None, seed=3, steps=1, batch=2, frames=2)
    )


def said_of(training: demo.Training, boxes: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
    """What a head says that knows the objects: a query each, in reverse, and the others far away and unsure."""
    head, supervision = training.head, training.head.supervision
    said = {name: torch.zeros(1, count, head.num_proposals) for name, count in
            (("center", 2), ("height", 1), ("dim", 3), ("rot", 2), ("vel", 2), ("heatmap", 5))}  # fmt: skip
    said["heatmap"] -= 20.0
    coded = supervision._coded(boxes).flip(0)
    start = 0
    for name in ("center", "height", "dim", "rot", "vel"):
        width = said[name].shape[1]
        said[name][0, :, : len(boxes)] = coded[:, start : start + width].T
        start += width
    for query, label in enumerate(labels.flip(0).tolist()):
        said["heatmap"][0, label, query] = 20.0
    heatmap = supervision.heatmap(Truth(boxes, labels), (5, 64, 64)).clamp(1e-6, 1 - 1e-6)
    said["dense_heatmap"] = torch.logit(heatmap)[None]
    return said


def test_a_head_that_knows_the_objects_has_no_loss_but_the_gaussians(training: demo.Training) -> None:
    said = said_of(training, BOXES[:2], LABELS[:2])
    losses = training.head.supervision.losses(training.head, said, [Truth(BOXES, LABELS)])
    assert float(losses["layer_-1_loss_bbox"]) == pytest.approx(0.0, abs=1e-5)
    assert float(losses["layer_-1_loss_cls"]) == pytest.approx(0.0, abs=1e-5)
    said["center"] = said["center"] + 1.0
    moved = training.head.supervision.losses(training.head, said, [Truth(BOXES, LABELS)])
    # A cell along x and one along y, times the weight of the loss.
    assert float(moved["layer_-1_loss_bbox"]) == pytest.approx(0.25 * 2, rel=1e-3)


def test_a_frame_without_objects_has_losses_too(training: demo.Training) -> None:
    said = said_of(training, BOXES[:1], LABELS[:1])
    losses = training.head.supervision.losses(training.head, said, [Truth(BOXES[:0], LABELS[:0])])
    assert float(losses["layer_-1_loss_bbox"]) == 0.0
    assert float(losses["layer_-1_loss_cls"]) > 1.0


def test_the_heatmap_is_one_at_the_objects_cells(training: demo.Training) -> None:
    heatmap = training.head.supervision.heatmap(Truth(BOXES[:2], LABELS[:2]), (5, 64, 64))
    column, row = ((BOXES[0, :2] + 51.2) / 1.6).int().tolist()
    assert heatmap[0, row, column] == 1.0
    assert 0.0 < float(heatmap[0, row, column + 1]) < 1.0
    assert int(heatmap.eq(1).sum()) == 2
    assert not heatmap[1:4].any()


def test_each_object_gets_the_query_that_says_it(training: demo.Training) -> None:
    rng = torch.Generator().manual_seed(0)
    order = torch.randperm(3, generator=rng)
    logits = torch.full((3, 5), -4.0)
    logits[torch.arange(3), LABELS[order]] = 4.0
    queries, objects = assigned(
        logits, BOXES[order], BOXES, LABELS, training.head.supervision.costs, (-51.2, -51.2, -3, 51.2, 51.2, 5)
    )
    assert order[queries].tolist() == objects.tolist()
    assert sorted(objects.tolist()) == [0, 1, 2]


def test_overlaps_of_upright_boxes() -> None:
    box = np.array([[1.0, 2.0, 0.0, 4.0, 2.0, 1.5, 0.0]])
    others = np.array(
        [
            [1.0, 2.0, 0.0, 4.0, 2.0, 1.5, np.pi],  # turned by half: the same
            [3.0, 2.0, 0.0, 4.0, 2.0, 1.5, 0.0],  # half of the length away: a third
            [1.0, 2.0, 0.0, 4.0, 2.0, 1.5, np.pi / 2],  # across: a square of 2 m
            [1.0, 2.0, 1.5, 4.0, 2.0, 1.5, 0.0],  # on top of it
            [40.0, 2.0, 0.0, 4.0, 2.0, 1.5, 0.0],
        ]
    )
    assert overlaps_3d(box, others)[0] == pytest.approx([1.0, 1 / 3, 4 / 12, 0.0, 0.0], abs=1e-9)


def test_a_demo_step_is_what_mmdet3d_would_compute(training: demo.Training) -> None:
    """Voxels by slots and losses by name: equal to the model's own preprocessor and ``loss``."""
    from exporter.lidar.training import Frame, losses, mmdet3d_structures

    items = [training.sample(0), training.sample(1)]
    batch = training.collate(items)
    training.slots = (2, 6, 20)
    training.model.eval()
    with torch.no_grad():
        _, ours = training.loss(batch, 0.0)
        boxes = mmdet3d_structures.LiDARInstance3DBoxes
        frames = [
            Frame(torch.from_numpy(points), boxes(truth.boxes, box_dim=9), truth.labels) for points, truth in items
        ]
        theirs = losses(training.model, frames)
    assert {name: float(value) for name, value in ours.items()} == pytest.approx(
        {name: float(value) for name, value in theirs.items()}, rel=1e-3
    )


def test_other_assigners_are_refused(training: demo.Training) -> None:
    from dataclasses import replace

    from exporter.training_config import read_training_config

    config = read_training_config(demo.CONFIG)
    settings = config.model["train_cfg"]["pts"]
    other = {**settings, "assigner": {"type": "HeuristicAssigner3D"}}
    changed = replace(config, model={**config.model, "train_cfg": {"pts": other}})
    with pytest.raises(ConfigError, match="HeuristicAssigner3D"):
        trainable("transfusion").prepare(training.model, changed)
    lacking = {name: value for name, value in settings.items() if name != "code_weights"}
    changed = replace(config, model={**config.model, "train_cfg": {"pts": lacking}})
    with pytest.raises(ConfigError, match="code_weights"):
        trainable("transfusion").prepare(training.model, changed)
