"""FRNet: one component, the parameters of what is before and after it, and what AWML answers.

``frnet``: points and where they lie in the range image, to probabilities of the classes of each. Filling gaps, grouping
by frustum and deciding are the runtime's.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from exporter.lidar.framework import load_input
from exporter.lidar.points import point_parameters
from exporter.models.frnet.build import build, classes
from exporter.models.frnet.components import components, strides
from exporter.models.frnet.framework import answer
from exporter.models.frnet.options import Options
from exporter.options import checked_options
from exporter.training_config import TrainingConfig

__all__ = ["TASK", "answer", "build", "classes", "components", "load_input", "parameters", "read_options"]

TASK = "segmentation3d"
read_options = partial(checked_options, Options, model="frnet")


def parameters(model: Any, config: TrainingConfig, options: Options) -> dict[str, Any]:  # noqa: ARG001 (read by `build`)
    """Points, sensor, range images and the network's form."""
    seen, deploy, head = model.data_preprocessor, model.deploy, model.decode_head
    return {
        "points": point_parameters(deploy.points),
        "sensor": {
            "position": list(options.sensor_position),
            "fov_up": seen.fov_up,
            "fov_down": seen.fov_down,
        },
        "interpolation": dict(zip(("height", "width"), deploy.interpolation, strict=True)),
        "gaps": options.gaps,
        "frustums": dict(zip(("height", "width"), seen.size, strict=True)),
        "form": options.form,
        "strides": list(strides(model)),
        "points_per_frustum": options.points_per_frustum,
        "ignored_class": head.ignore_index if head.ignore_index < head.num_classes else None,
    }
