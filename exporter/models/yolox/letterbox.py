"""Test pipelines of mmdet that letterbox, read as the numbers that describe the letterbox."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from exporter.training_config import TrainingConfig
from exporter.training_only import short_name
from shared.errors import ConfigError

_log = logging.getLogger("exporter")

_PASSIVE_STEPS = frozenset({"LoadAnnotations", "PackDetInputs"})
# AWML's traffic light detectors are trained, and tested, on what is cut at random around a label.
_RANDOM_CROP = "RandomCropWithROI"


def deployed_steps(config: TrainingConfig) -> tuple[dict[str, Any], ...]:
    """The steps of the test pipeline that an image goes through when nothing is known of it."""
    steps = tuple(_without_masks(step) for step in config.pipeline if _short(step) != _RANDOM_CROP)
    if len(steps) < len(config.pipeline):
        _log.info(
            "dropped, as only training needs it: test_pipeline.%s, which cuts at random around a label; "
            "images are taken whole, so give it what the vehicle cuts out", _RANDOM_CROP
        )  # fmt: skip
    return steps


def _without_masks(step: Mapping[str, Any]) -> dict[str, Any]:
    """A step that loads no labels of pixels: there are none where a model is deployed."""
    return {name: value for name, value in step.items() if name != "with_seg"}


def _short(step: Mapping[str, Any]) -> str:
    return short_name(step.get("type"))


def letterbox_of(steps: Sequence[Mapping[str, Any]], config: TrainingConfig, coarsest: int) -> dict[str, Any]:
    """A test pipeline as a letterbox: size, fill, channels, normalization, and how images are scaled.

    Args:
        steps: see `deployed_steps`.
        config: the training config.
        coarsest: the network's greatest stride, which the input is a multiple of [px].

    Raises:
        ConfigError: it is none, or one that the runtime can't do.
    """
    where = str(config.path)
    by_type = {_short(step): step for step in steps}
    unknown = sorted(set(by_type) - _PASSIVE_STEPS - {"LoadImageFromFile", "Resize", "Pad"})
    if unknown:
        raise ConfigError(f"the test pipeline has the steps {', '.join(unknown)}, which the runtime does not know",
                          where=where)  # fmt: skip
    load, resize, pad = (by_type.get(name) for name in ("LoadImageFromFile", "Resize", "Pad"))
    if load is None or resize is None or pad is None:
        raise ConfigError(
            "has no test pipeline of LoadImageFromFile, Resize and Pad", where=where, hint="define test_pipeline"
        )
    if load.get("color_type", "color") != "color" or load.get("imdecode_backend", "cv2") != "cv2":
        raise ConfigError("LoadImageFromFile does not load color images by OpenCV", where=where)
    scale = tuple(int(side) for side in resize.get("scale") or ())
    square = len(scale) == 2 and scale[0] == scale[1]
    padded = pad.get("pad_to_square", False) or tuple(pad.get("size") or ()) == scale
    if not (square and padded):
        raise ConfigError("Resize and Pad make no square (scale of two equal sides, pad_to_square)", where=where)
    preprocessor = config.model.get("data_preprocessor") or {}
    multiple = max(int(preprocessor.get("pad_size_divisor", 1)), coarsest)
    if scale[0] % multiple:
        raise ConfigError(f"the input of {scale[0]} px is no multiple of {multiple}", where=where)
    values = pad.get("pad_val", 0)
    fills = np.unique(values.get("img", 0) if isinstance(values, Mapping) else values)
    if len(fills) != 1 or fills[0] != int(fills[0]):
        raise ConfigError(f"Pad fills with {values}, which is no gray", where=where)
    mean, std = preprocessor.get("mean"), preprocessor.get("std")
    if preprocessor.get("rgb_to_bgr"):
        raise ConfigError("data_preprocessor.rgb_to_bgr turns images that are read as BGR", where=where)
    return {
        "height": scale[1],
        "width": scale[0],
        "fill": int(fills[0]),
        "color": "rgb" if preprocessor.get("bgr_to_rgb") else "bgr",
        "mean": None if mean is None else [float(value) for value in mean],
        "std": None if std is None else [float(value) for value in std],
        "resize": "mmdet" if resize.get("keep_ratio", False) else "mmdet_stretched",
    }
