"""The YOLOX of a training config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from exporter.models.yolox.letterbox import deployed_steps
from exporter.models.yolox.options import Options
from exporter.training_config import TrainingConfig, build_model, classes_of_head, registry_of, unknown_type
from exporter.training_only import short_name
from shared.errors import ConfigError


@dataclass(frozen=True)
class Deployment:
    """What belongs to a model and is not part of mmdet's module.

    Attributes:
        steps: the test pipeline.
        classes: class names, in label order.
        options: see `Options`.
    """

    steps: tuple[dict[str, Any], ...]
    classes: list[str]
    options: Options


def build(config: TrainingConfig, options: Options, model_type: str = "YOLOX") -> Any:
    """The YOLOX of a training config, with random weights, and its test pipeline beside it.

    Args:
        config: the training config.
        options: see `Options`.
        model_type: what the config calls such a model.

    Raises:
        ConfigError: not a YOLOX, or a variant that can't be deployed; options that are for ONNX files.
    """
    where = str(config.path)
    kind = short_name(config.model["type"])
    if kind != model_type:
        if registry_of("mmdet").get(kind) is None:
            raise unknown_type(config, kind)
        raise ConfigError(f"model is a {kind}, not a {model_type}", where=where, hint="check model.type")
    if options.image is not None:
        raise ConfigError(
            "is for ONNX files that come without a training config", where="model.options.image", hint="leave it out"
        )
    model = build_model(config, "mmdet")
    nms = model.bbox_head.test_cfg.get("nms", {})
    if nms.get("type", "nms") != "nms":
        raise ConfigError(
            f"test_cfg.nms is of type {nms['type']}; the runtime has plain suppression", where=where, hint="use nms"
        )
    # What mmdet keeps outside of its models: `answer` and `components` get the model alone.
    count = int(model.bbox_head.num_classes)
    names = classes_of_head(config, count, options.classes, "model.options.classes (or data.classes)")
    model.deploy = Deployment(deployed_steps(config), names, options)
    return model


def classes(model: Any) -> list[str]:
    """Class names, in label order."""
    return list(model.deploy.classes)
