"""What the exporter must know of the network: how it is built, what it takes, and what it answers by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from clearance.geometry import REACH, SECTORS
from clearance.network import CELLS, HEIGHTS, SectorNet, median_distances, polar_grid
from clearance.task import Clearance
from exporter.component import Component
from exporter.options import ModelOptions, checked_options
from exporter.training_config import TrainingConfig
from shared.data import Sample, read_points
from shared.errors import ConfigError
from shared.spec import TensorSpec

TASK = "clearance"


def read_options(options: Mapping[str, Any]) -> ModelOptions:
    """There are none."""
    return checked_options(ModelOptions, options, "sector_net")


def build(config: TrainingConfig, options: ModelOptions) -> SectorNet:  # noqa: ARG001
    """The network with random weights."""
    if config.model.get("type") != "SectorNet":
        raise ConfigError("is no config of a SectorNet", where=str(config.path))
    return SectorNet(int(config.model["channels"])).eval()


def classes(model: SectorNet) -> list[str]:  # noqa: ARG001
    """What is looked for."""
    return ["road user"]


def parameters(model: SectorNet, config: TrainingConfig, options: ModelOptions) -> dict[str, Any]:  # noqa: ARG001
    """What the runtime must know: see `clearance.runtime_model.pipeline.SectorNetParameters`."""
    return {"sectors": SECTORS, "cells": CELLS, "reach": REACH, "heights": list(HEIGHTS)}


def load_input(sample: Sample, parameters: Mapping[str, Any]) -> torch.Tensor:  # noqa: ARG001
    """The polar grid, as in training."""
    return polar_grid(read_points(sample.lidar))


def components(model: SectorNet, model_input: torch.Tensor, options: ModelOptions) -> list[Component]:  # noqa: ARG001
    """The whole network, of fixed size."""
    return [
        Component(
            name="sector_net",
            module=model,
            inputs=(TensorSpec(name="grid", dtype="float32", shape=list(model_input.shape)),),
            outputs=(TensorSpec(name="logits", dtype="float32", shape=[1, CELLS, SECTORS]),),
            inputs_of=lambda sizes: (model_input,),
            trace_sizes={},
            check_sizes=({},),
            deployed_sizes={},
        )
    ]


def answer(model: SectorNet, model_input: torch.Tensor) -> tuple[dict[str, Any], Clearance, dict[str, int]]:
    """What the training code itself says."""
    with torch.no_grad():
        logits = model(model_input.to(next(model.parameters()).device)).cpu()
    return {"logits": logits.numpy()}, Clearance(median_distances(logits)[0].numpy()), {}
