"""YOLOX (mmdet's, and AWML's YOLOX-opt-ELAN): one component, the parameters around it, and what mmdet answers.

``yolox``: ``images`` (B, 3, H, W) to ``output`` (B, N, 5 + C), rows as Autoware's node reads them: x, y, width, height
as the head gives them, objectness and class scores after the sigmoid. Decoding (``output: decoded``) and suppression
(``output: detections``) can be part of the graph. Letterboxing and the rest are the runtime's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from exporter.models.yolox.build import build, classes
from exporter.models.yolox.components import components
from exporter.models.yolox.framework import answer, load_input
from exporter.models.yolox.graph import STRIDES
from exporter.models.yolox.letterbox import letterbox_of
from exporter.models.yolox.options import Options, suppression
from exporter.options import checked_options
from exporter.training_config import TrainingConfig

__all__ = ["TASK", "answer", "build", "classes", "components", "load_input", "parameters", "read_options"]

TASK = "detection2d"
read_options = partial(checked_options, Options, model="yolox")


def parameters(model: Any, config: TrainingConfig, options: Options) -> dict[str, Any]:
    """Input image, rows and suppression, as the model was trained.

    Raises:
        ConfigError: the test pipeline is not a letterbox.
    """
    head = model.bbox_head
    return {
        "image": letterbox_of(model.deploy.steps, config, max(STRIDES)),
        "strides": [int(stride[0] if isinstance(stride, Sequence) else stride) for stride in head.strides],
        "output": options.output,
        **suppression(options, head.test_cfg),
    }
