"""Train the demo's classifier on lights that are painted as it trains (`exporter.demo_training`).

    python -m awml_deploy_traffic_light.demo --out traffic_light_demo.pth --workers 1

A step of 64 crops takes 0.6 s of one core. With ``--config`` of the pedestrians' lights, those are learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from awml_deploy_traffic_light import demo_data
from awml_deploy_traffic_light.exporter_model.adapter import build, normalized, read_options
from exporter.demo_training import HELD_OUT_FRAMES, HELD_OUT_SEED, HeldOut, Recipe, concatenated, figures, run
from exporter.training_config import read_training_config
from shared.arrays import UInt8

RECIPE = Recipe(
    config=Path(__file__).parent / "configs" / "traffic_light_demo.py",
    steps=300,
    batch=8,
    minutes=10,
    learning_rate=4e-3,
    max_gradient_norm=5.0,
    weight_decay=0.02,
    significant_bits=4,
)


def crops_of(seed: int, split: str, number: int, classes: list[str]) -> list[tuple[UInt8, int]]:
    """The crops of a frame that are of ``classes``, with their labels among them."""
    image, boxes, labels = demo_data.frame(seed, split, number)
    crops = []
    for box, label in zip(boxes, labels, strict=True):
        name = demo_data.CLASSES[label]
        if name in classes:
            left, top, right, bottom = (int(edge) for edge in box)
            crops.append((image[top:bottom, left:right], classes.index(name)))
    return crops


class Training:
    """See `exporter.demo_training.DemoTraining`."""

    unit = "frames, 8 lights of cars or 4 of pedestrians each,"

    def __init__(self, options: Any) -> None:
        self.options = options
        self.device = torch.device(options.device)
        self.model = build(read_training_config(options.config), read_options({}))
        self.classes: list[str] = self.model.deploy.classes
        for module in self.model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for parameter in self.model.parameters():
            parameter.requires_grad_(True)

    def sample(self, index: int) -> tuple[Tensor, ...]:
        """Inputs (K, 3, H, W) and labels (K,) of the lights of a frame, another one for every seed."""
        crops = crops_of(self.options.seed, "train", index, self.classes)
        inputs = torch.cat([normalized(self.model, crop) for crop, _ in crops])
        return inputs, torch.tensor([label for _, label in crops])

    def collate(self, samples: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """The lights of all frames together."""
        return concatenated(samples)

    def loss(self, batch: tuple[Tensor, ...], progress: float) -> tuple[Tensor, Mapping[str, Tensor]]:  # noqa: ARG002
        """Cross entropy."""
        inputs, labels = batch
        logits = self.model(inputs)
        loss = nn.functional.cross_entropy(logits, labels)
        return loss, {"loss": loss, "accuracy of the batch": (logits.argmax(1) == labels).float().mean()}

    @torch.no_grad()
    def held_out(self) -> HeldOut:
        """Accuracy on the lights that the evaluator is shown, of all and by class."""
        self.model.eval()
        right: dict[str, list[bool]] = {name: [] for name in self.classes}
        for number in range(HELD_OUT_FRAMES):
            for crop, label in crops_of(HELD_OUT_SEED, "eval", number, self.classes):
                said = int(self.model(normalized(self.model, crop).to(self.device))[0].argmax())
                right[self.classes[label]].append(said == label)
        everything = [value for values in right.values() for value in values]
        by_class = {name: float(np.mean(values)) for name, values in right.items() if values}
        metrics = {"accuracy": float(np.mean(everything)), **by_class}
        return HeldOut([f"{len(everything)} lights: {figures(metrics)}"], metrics)


if __name__ == "__main__":
    run("awml_deploy_traffic_light.demo", __doc__ or "", RECIPE, Training)
