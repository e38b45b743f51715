"""The test pipeline of a training config: as parameters of the runtime, and as mmcv and Autoware carry it out.

Steps of mmcv and of mmpretrain are known. ``CropROI`` is what data format ``crops`` does; its random ``offset`` is left
out, since a deployed model is shown the box that the detector gives.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from exporter.training_config import TrainingConfig
from exporter.training_only import short_name
from shared.arrays import UInt8
from shared.errors import ConfigError
from shared.lazy import lazy_import

cv2 = lazy_import("cv2", install="make setup")
mmcv = lazy_import("mmcv", install="make setup")
mmcv_transforms = lazy_import("mmcv.transforms", install="make setup")

_WITHOUT_EFFECT = ("LoadImageFromFile", "CropROI", "PackInputs", "Collect", "ImageToTensor")
# What each step may say; anything else could change the input.
_KEYS = {
    "Resize": {"type", "scale", "keep_ratio", "backend", "interpolation"},
    "ResizeEdge": {"type", "scale", "edge", "backend", "interpolation"},
    "CenterCrop": {"type", "crop_size"},
    "Pad": {"type", "size", "pad_to_square", "pad_val"},
    "LoadImageFromFile": {"type", "to_float32", "imdecode_backend", "backend_args", "ignore_empty"},
    "CropROI": {"type", "min_size", "offset"},
}
_log = logging.getLogger("exporter")


def steps_of(config: TrainingConfig) -> list[dict[str, Any]]:
    """The steps that change an image, with their arguments as the config has them.

    Raises:
        ConfigError: one is not known, or says something that is not.
    """
    where = str(config.path)
    kept = []
    for step in config.pipeline:
        kind = short_name(step["type"])
        if kind not in (*_KEYS, *_WITHOUT_EFFECT):
            raise ConfigError(f"the test pipeline has the step {kind}, which the runtime does not know", where=where)
        unknown = sorted(set(step) - _KEYS.get(kind, set(step)))
        if unknown:
            raise ConfigError(f"{kind} of the test pipeline has {unknown[0]}, which is not known", where=where)
        if step.get("to_float32") or step.get("imdecode_backend", "cv2") != "cv2":
            raise ConfigError(f"{kind} does not read images as OpenCV does, bytes of blue, green, red", where=where)
        if kind == "CropROI" and step.get("offset"):
            _log.info("%s: CropROI's random offset is left out, crops are the boxes", where)
        if kind not in _WITHOUT_EFFECT:
            kept.append({**step, "type": kind})
    return kept


def image_input(config: TrainingConfig, convention: str) -> dict[str, Any]:
    """``image`` of the parameters, see `awml_deploy_traffic_light.runtime_model.image.ImageInput`.

    Args:
        config: the training config.
        convention: ``mmpretrain``: the test pipeline; ``autoware``: the size that it gives, filled as the node does.

    Raises:
        ConfigError: a step that is not known, or that leaves the size open.
    """
    where = str(config.path)
    steps = steps_of(config)
    width, height = _size_after(steps, where)
    own = [_step(step, where) for step in steps]
    if convention == "autoware":
        own = [
            {"step": "resize", "width": width, "height": height, "keep_ratio": True, "cut_off": True},
            {"step": "pad", "width": width, "height": height},
        ]
    preprocessor = config.model.get("data_preprocessor") or {}
    return {
        "width": width,
        "height": height,
        "steps": own,
        "color": "rgb" if preprocessor.get("to_rgb") else "bgr",
        "mean": [float(value) for value in preprocessor.get("mean") or (0, 0, 0)],
        "std": [float(value) for value in preprocessor.get("std") or (1, 1, 1)],
    }


def _size_after(steps: Sequence[Mapping[str, Any]], where: str) -> tuple[int, int]:
    """Width and height of every image after the steps.

    Raises:
        ConfigError: they depend on the image's.
    """
    size: tuple[int, int] | None = None
    bound: tuple[int, int] | None = None
    for step in steps:
        if step["type"] == "Resize":
            bound = _pair(step["scale"])
            size = None if step.get("keep_ratio") else bound
        elif step["type"] == "ResizeEdge":
            size = bound = None
        elif step["type"] == "CenterCrop":
            size = _pair(step["crop_size"])
        elif step.get("pad_to_square"):
            # Of an image that was fitted into a square, one side is the square's.
            size = size or (bound if bound is not None and bound[0] == bound[1] else None)
            size = None if size is None else (max(size), max(size))
        else:
            size = _pair(step["size"])
    if size is None:
        raise ConfigError(
            "the test pipeline leaves the size of the input to the image",
            where=where,
            hint="it ends in a Resize without keep_ratio, a CenterCrop, or a Pad",
        )
    return size


def _step(step: Mapping[str, Any], where: str) -> dict[str, Any]:
    scaling = {"library": step.get("backend", "cv2"), "interpolation": step.get("interpolation", "bilinear")}
    if step["type"] == "Resize":
        width, height = _pair(step["scale"])
        return {
            "step": "resize",
            "width": width,
            "height": height,
            "keep_ratio": bool(step.get("keep_ratio")),
            **scaling,
        }
    if step["type"] == "ResizeEdge":
        return {"step": "resize_edge", "length": int(step["scale"]), "edge": step.get("edge", "short"), **scaling}
    if step["type"] == "CenterCrop":
        width, height = _pair(step["crop_size"])
        return {"step": "center_crop", "width": width, "height": height}
    value = step.get("pad_val", 0)
    value = value.get("img", 0) if isinstance(value, Mapping) else value
    if not isinstance(value, int):
        raise ConfigError(f"Pad fills with {value}; one gray level is known", where=where)
    size = {} if step.get("pad_to_square") else dict(zip(("width", "height"), _pair(step["size"]), strict=True))
    return {"step": "pad", "fill": value, **size}


def carried_out(image: UInt8, steps: Sequence[Mapping[str, Any]]) -> UInt8:
    """An image after the steps of a test pipeline, by mmcv's own transforms.

    Args:
        image: (h, w, 3) uint8.
        steps: see `steps_of`.
    """
    results: dict[str, Any] = {"img": image, "img_shape": image.shape[:2], "ori_shape": image.shape[:2]}
    for step in steps:
        if step["type"] == "ResizeEdge":
            results["img"] = _resized_edge(results["img"], step)
            results["img_shape"] = results["img"].shape[:2]
        else:
            results = mmcv_transforms.TRANSFORMS.build(dict(step)).transform(results)
    return np.asarray(results["img"], np.uint8)


def _resized_edge(image: UInt8, step: Mapping[str, Any]) -> UInt8:
    """mmpretrain's ResizeEdge, which mmcv does not have."""
    height, width = image.shape[:2]
    length, edge = int(step["scale"]), step.get("edge", "short")
    if edge == "width" or (edge == "short" and width < height) or (edge == "long" and width > height):
        size = length, int(length * height / width)
    else:
        size = int(length * width / height), length
    resized: UInt8 = mmcv.imresize(
        image, size, interpolation=step.get("interpolation", "bilinear"), backend=step.get("backend", "cv2")
    )
    return resized


def as_the_node_does(image: UInt8, width: int, height: int) -> UInt8:
    """An image in Autoware's node: fitted in at the top left, sizes cut off, black beside it."""
    scale = min(np.float32(width) / np.float32(image.shape[1]), np.float32(height) / np.float32(image.shape[0]))
    size = max(1, int(image.shape[1] * scale)), max(1, int(image.shape[0] * scale))
    scaled = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    filled: UInt8 = cv2.copyMakeBorder(
        scaled, 0, height - size[1], 0, width - size[0], cv2.BORDER_CONSTANT, value=(0, 0, 0)
    )
    return filled


def _pair(size: Any) -> tuple[int, int]:
    """Width and height; one number is both."""
    if isinstance(size, int):
        return size, size
    width, height = size
    return int(width), int(height)
