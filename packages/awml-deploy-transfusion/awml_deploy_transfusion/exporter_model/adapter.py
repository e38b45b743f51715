"""TransFusion-L on pillars: one component, from voxels to what is said of each query.

Voxelization before it, and decoding and suppression after it, are the runtime's.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from awml_deploy_transfusion.exporter_model import build as builder
from awml_deploy_transfusion.exporter_model import parameters as needed
from awml_deploy_transfusion.exporter_model.components import network_component
from awml_deploy_transfusion.exporter_model.framework import answer
from exporter.component import Component
from exporter.lidar.framework import load_input, voxels_to_trace_with
from exporter.options import ModelOptions, checked_options
from exporter.training_config import TrainingConfig

__all__ = ["TASK", "answer", "build", "classes", "components", "load_input", "parameters", "read_options"]

TASK = "detection3d"
read_options = partial(checked_options, ModelOptions, model="transfusion")


def build(config: TrainingConfig, options: ModelOptions) -> Any:  # noqa: ARG001
    """The network with random weights.

    Raises:
        ConfigError: not a TransFusion on pillars, or a variant that can't be deployed.
    """
    model = builder.build(config)
    model.class_names = builder.class_names(config)
    model.decoration = needed.decoration(model, config)
    return model


def classes(model: Any) -> list[str]:
    """Class names in label order."""
    return list(model.class_names)


def parameters(model: Any, config: TrainingConfig, options: ModelOptions) -> dict[str, Any]:  # noqa: ARG001
    """What the runtime must know: see `awml_deploy_transfusion.runtime_model.parameters`.

    Raises:
        ConfigError: parts of the training config contradict one another, or it does not say how points are loaded.
    """
    return needed.parameters(model, config)


def components(model: Any, model_input: Tensor, options: ModelOptions) -> list[Component]:  # noqa: ARG001
    """The network, with real data of one sample.

    Args:
        model: a TransFusion.
        model_input: (N, columns) float32 points.
        options: none.

    Raises:
        ExportError: no point of the sample lies in range.
    """
    voxels = voxels_to_trace_with(model, model_input)
    return [network_component(model, voxels["voxels"], voxels["num_points"].int(), voxels["coors"].int())]
