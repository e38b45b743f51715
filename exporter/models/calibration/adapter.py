"""CalibrationStatusClassification: one component, the parameters of its input, and what mmpretrain answers.

``end2end``: blue, green, red, depth and intensity, (B, 5, H, W) / 255, to logits (B, 2), miscalibrated first.
How image and points become the five channels is the runtime's; the framework reference has AWML's way of its own.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from exporter.component import Component, Sizes
from exporter.mmcv_ops import provide_mmcv_ops
from exporter.models.calibration.image_classifier import ImageClassifier, build_image_classifier
from exporter.models.calibration.transform import five_channels
from exporter.options import ModelOptions, checked_options
from exporter.package_bases import install_hint
from exporter.training_config import TrainingConfig
from exporter.training_only import short_name
from shared.data import read_points
from shared.data.camera_image import read_camera_image
from shared.data.camera_pairs import STATES, CameraPair
from shared.data.views import CAMERA_PAIR, sample_of
from shared.errors import ConfigError
from shared.runs import RawOutputs
from shared.spec import TensorSpec
from shared.tasks.classification import ClassScores

TASK = "classification"
COMPONENT = "end2end"
INPUT, OUTPUT = "input", "output"
CHANNELS = 5

# The step of AWML's test pipeline that makes the input, and its defaults.
_TRANSFORM = "CalibrationClassificationTransform"
_MAX_DEPTH, _DILATION = 128.0, 1

# Sizes to trace and check with: enough for every stride, little enough for a CPU.
_LARGEST_TRACE = (96, 128)
_LARGEST_CHECK = (480, 640)
_SMALLEST = 32

_log = logging.getLogger("exporter")


class Options(ModelOptions):
    """``model.options`` of the deploy config.

    Attributes:
        miscalibration_confidence_threshold: a pair counts as calibrated when the logit of calibrated is above that of
            miscalibrated by more than this: the parameter of the same name of Autoware's node.
        max_depth: depth that becomes 1 in the input, where the training config does not say it [m].
    """

    miscalibration_confidence_threshold: float = 0.0
    max_depth: float | None = Field(default=None, gt=0)


read_options = partial(checked_options, Options, model="calibration")


# -- the model ------------------------------------------------------------------------------------------------------


def build(config: TrainingConfig, options: Options) -> Any:
    """The classifier of a training config, with random weights: mmpretrain's where that imports, else of our modules.

    Raises:
        ConfigError: not an image classifier of five channels and two classes, or a part that is not known.
    """
    where = str(config.path)
    section = config.model
    if short_name(section.get("type")) != "ImageClassifier":
        raise ConfigError(
            f"model is a {section.get('type')}, not an ImageClassifier", where=where, hint="check model.type"
        )
    channels = (section.get("backbone") or {}).get("in_channels", 3)
    if channels != CHANNELS:
        raise ConfigError(
            f"the backbone takes {channels} channels, the input has {CHANNELS}: blue, green, red, depth, intensity",
            where=where,
            hint="set backbone.in_channels to 5",
        )
    if (section.get("head") or {}).get("num_classes") != len(STATES):
        raise ConfigError(f"the head should have {len(STATES)} classes: {', '.join(STATES)}", where=where)
    _check_no_normalization(section, where)
    try:
        model = _mmpretrain_model(section) if has_mmpretrain() else _own_model(section)
    except (ValueError, KeyError, TypeError, AssertionError, AttributeError) as error:
        reason = str(error.args[0] if error.args else error).splitlines()[0]
        hint = install_hint(config.absent_bases) if config.absent_bases else None
        raise ConfigError(f"the model can't be built: {reason}", where=where, hint=hint) from error
    model.eval().requires_grad_(False)
    model.decision_threshold = options.miscalibration_confidence_threshold  # `answer` gets the model alone
    return model


def has_mmpretrain() -> bool:
    """Whether mmpretrain is installed with what it needs: torchvision."""
    return all(importlib.util.find_spec(name) is not None for name in ("mmpretrain", "torchvision"))


def _mmpretrain_model(section: Mapping[str, Any]) -> Any:
    provide_mmcv_ops()
    build_classifier = importlib.import_module("mmpretrain.models").build_classifier
    # The loss is training's; mmpretrain's data preprocessor has no part in what is exported.
    head = {name: value for name, value in section["head"].items() if name != "loss"}
    config = {**section, "type": "ImageClassifier", "head": head, "data_preprocessor": None, "init_cfg": None}
    return build_classifier(config)


def _own_model(section: Mapping[str, Any]) -> Any:
    _log.info("mmpretrain can't be imported: our own ImageClassifier, of the same weights, stands in")
    provide_mmcv_ops()
    return build_image_classifier(section)


def _check_no_normalization(section: Mapping[str, Any], where: str) -> None:
    """AWML's transform divides by 255 and that is all; a mean in the data preprocessor would be a second scaling.

    Raises:
        ConfigError: there is one.
    """
    preprocessor = section.get("data_preprocessor") or {}
    scalings = [name for name in ("mean", "std", "to_rgb") if preprocessor.get(name)]
    if scalings:
        raise ConfigError(
            f"model.data_preprocessor.{scalings[0]} is set; the five channels are divided by 255 and not normalized",
            where=where,
        )


def classes(model: Any) -> list[str]:  # noqa: ARG001  as above
    """Class names, in label order."""
    return list(STATES)


def parameters(model: Any, config: TrainingConfig, options: Options) -> dict[str, Any]:  # noqa: ARG001  as above
    """How the five channels are made, as the test pipeline says, and from which margin a pair counts as calibrated.

    Raises:
        ConfigError: the test pipeline has a step that changes the input and is not known, or makes another input.
    """
    where = str(config.path)
    steps = {short_name(step["type"]): step for step in config.pipeline if "type" in step}
    unknown = sorted(set(steps) - {_TRANSFORM, "PackInputs"})
    if unknown:
        raise ConfigError(
            f"the test pipeline has the steps {', '.join(unknown)}, which the runtime does not know", where=where
        )
    step = steps.get(_TRANSFORM, {})
    if not step:
        _log.info("%s has no %s in its test pipeline: its defaults are taken", where, _TRANSFORM)
    elif options.max_depth is None:
        _check_generation(step, where)
    if not step.get("undistort", True):
        raise ConfigError(
            f"{_TRANSFORM} has undistort=False: AWML then paints points through the lens's distortion, and the runtime "
            "does not", where=where, hint="images without distortion stay as they are with undistort=True"
        )  # fmt: skip
    # Older configs of AWML call it lidar_range.
    depth = options.max_depth or step.get("max_depth", step.get("lidar_range", _MAX_DEPTH))
    return {
        "max_depth": float(depth),
        "dilation_size": int(step.get("dilation_size", _DILATION)),
        "undistort": True,
        "miscalibration_confidence_threshold": options.miscalibration_confidence_threshold,
    }


def _check_generation(step: Mapping[str, Any], where: str) -> None:
    """AWML's transform of before September 2025 makes another input: 0 to 255, depth up to 80 m, wider points.

    Raises:
        ConfigError: the step is one of its, by what it does not say.
    """
    settings = step.get("transform_config")
    current = {"max_depth", "lidar_range", "dilation_size"} & set(step)
    if current or (settings is not None and not {"depth_scale", "radius"} & set(settings)):
        return
    raise ConfigError(
        f"{_TRANSFORM} is that of AWML before September 2025, whose input (0 to 255, depth up to 80 m) neither the "
        "runtime nor Autoware's node makes",
        where=where,
        hint="if the model was trained with a later one, say its depth: --set model.options.max_depth=128",
    )


# -- the component ----------------------------------------------------------------------------------------------------


class Classifier(nn.Module):
    """From the five channels to logits, whichever framework the parts are of."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.fc = model.head.fc

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, 5, H, W) to (B, 2)."""
        features = self.backbone(inputs)[-1]
        logits: Tensor = self.fc(torch.flatten(nn.functional.adaptive_avg_pool2d(features, 1), 1))
        return logits


def components(model: Any, model_input: Tensor, options: Options) -> list[Component]:  # noqa: ARG001  as above
    """The one component, with real data of one sample.

    Args:
        model: the classifier.
        model_input: (1, 5, H, W) float32.
        options: see `Options`.
    """
    height, width = model_input.shape[2:]

    def inputs_of(sizes: Sizes) -> tuple[Tensor]:
        # The middle of the image, the lower half of it: where the points are. Repeated where the image is smaller.
        rows, columns = sizes["height"], sizes["width"]
        tiled = model_input.repeat(1, 1, -(-rows // height), -(-columns // width))
        top, left = (tiled.shape[2] - rows) * 2 // 3, (tiled.shape[3] - columns) // 2
        window = tiled[:, :, top : top + rows, left : left + columns]
        return (window.expand(sizes["batch_size"], -1, -1, -1).contiguous(),)

    tall, wide = max(_SMALLEST, min(height, _LARGEST_CHECK[0])), max(_SMALLEST, min(width, _LARGEST_CHECK[1]))
    return [
        Component(
            name=COMPONENT,
            module=Classifier(model).eval(),
            inputs=(TensorSpec(name=INPUT, dtype="float32", shape=["batch_size", CHANNELS, "height", "width"]),),
            outputs=(TensorSpec(name=OUTPUT, dtype="float32", shape=["batch_size", len(STATES)]),),
            inputs_of=inputs_of,
            trace_sizes={
                "batch_size": 2,
                "height": min(tall, _LARGEST_TRACE[0]),
                "width": min(wide, _LARGEST_TRACE[1]),
            },
            check_sizes=(
                {"batch_size": 1, "height": tall, "width": wide},
                {"batch_size": 1, "height": tall // 2 + 1, "width": wide - 3},
                {"batch_size": 3, "height": max(_SMALLEST, tall // 4), "width": max(_SMALLEST, wide // 4)},
            ),
            deployed_sizes={"batch_size": 1, "height": height, "width": width},
        )
    ]


# -- what the framework answers ---------------------------------------------------------------------------------------


def load_input(sample: CameraPair, parameters: Mapping[str, Any]) -> Tensor:
    """The five channels of a pair as AWML's transform makes them: (1, 5, H, W) float32.

    Raises:
        ConfigError: the data set gives no pairs.
        InputError: a file is missing or broken, or the image is not in color.
    """
    sample = sample_of(CAMERA_PAIR, CameraPair, sample)
    points = read_points(sample.lidar)
    points = points[np.isfinite(points[:, :4]).all(axis=1)]
    channels = five_channels(
        read_camera_image(sample.image, sample.camera.width, sample.camera.height),
        points,
        sample.camera.intrinsics,
        sample.camera.distortion if parameters["undistort"] else np.zeros(0),
        sample.camera.lidar2cam,
        max_depth=parameters["max_depth"],
        dilation_size=parameters["dilation_size"],
    )
    return torch.from_numpy(channels)[None]


def answer(model: Any, model_input: Tensor) -> tuple[RawOutputs, ClassScores, dict[str, int]]:
    """What mmpretrain's classifier answers, or our modules where it can't be imported.

    Args:
        model: the classifier.
        model_input: (1, 5, H, W) float32.

    Returns:
        raw: logits (1, 2) as ``output``; the same as scores, with the decision that the threshold of `Options` gives;
        counters: pixels that show a point.
    """
    with torch.no_grad():
        own = isinstance(model, ImageClassifier)
        # Called as a whole, mmpretrain's classifier gives features, not logits.
        logits = model(model_input) if own else model.head(model.extract_feat(model_input))
    values = logits.float().cpu().numpy()
    painted = int((model_input[:, 3] > 0).sum())
    calibrated = values[:, 1] - values[:, 0] > model.decision_threshold
    return {OUTPUT: values}, ClassScores.build(values, calibrated), {"pixels_painted": painted}
