"""Image classifiers of mmpretrain with a MobileNetV2: one component, from images to probabilities.

``classifier``: ``input`` (B, 3, H, W), scaled and normalized, to ``output`` (B, classes) after the softmax.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from awml_deploy_traffic_light.exporter_model.network import ImageClassifier, Probabilities
from awml_deploy_traffic_light.exporter_model.preprocessing import (
    as_the_node_does,
    carried_out,
    image_input,
    steps_of,
)
from awml_deploy_traffic_light.names import COMPONENT, INPUT, OUTPUT
from exporter.component import Component, Sizes
from exporter.options import ModelOptions, checked_options
from exporter.training_config import TrainingConfig, classes_of_head
from exporter.training_only import short_name
from shared.arrays import UInt8
from shared.data.crops import ImageCrop
from shared.data.views import IMAGE_CROP, sample_of
from shared.errors import ConfigError
from shared.runs import RawOutputs
from shared.spec import AxisSizes, TensorSpec
from shared.tasks.classification import ClassScores

TASK = "classification"
_PARTS = {"backbone": "MobileNetV2", "neck": "GlobalAveragePooling", "head": "LinearClsHead"}
# What has no effect on what is deployed, and what has.
_BACKBONE_KEYS = {"type", "widen_factor", "frozen_stages", "norm_eval", "with_cp", "init_cfg", "out_indices"}
_BATCH = "batch_size"


class Options(ModelOptions):
    """``model.options`` of the deploy config.

    Attributes:
        batch_size: images per call, or ``dynamic``. Autoware's node takes the fixed batch of its file: AWML's are 1, 4
            and 6.
        most_images: of a dynamic batch; engines are built for up to so many.
        resize: ``mmpretrain``: images are scaled as the test pipeline says; ``autoware``: as the node scales them.
    """

    batch_size: int | Literal["dynamic"] = "dynamic"
    most_images: int = Field(default=6, ge=1)
    resize: Literal["mmpretrain", "autoware"] = "mmpretrain"

    @model_validator(mode="after")
    def _positive(self) -> Options:
        if isinstance(self.batch_size, int) and self.batch_size < 1:
            raise ValueError("batch_size should be at least 1, or dynamic")
        return self


read_options = partial(checked_options, Options, model="traffic_light")


@dataclass(frozen=True)
class Deployment:
    """What `answer` must know beside the network.

    Attributes:
        classes: in label order.
        steps: the test pipeline.
        image: see `awml_deploy_traffic_light.runtime_model.image.ImageInput`.
        resize: see `Options`.
    """

    classes: list[str]
    steps: list[dict[str, Any]]
    image: dict[str, Any]
    resize: str


def build(config: TrainingConfig, options: Options) -> Any:
    """The classifier of a training config, with random weights.

    Raises:
        ConfigError: not an image classifier with a MobileNetV2, or a variant that can't be deployed.
    """
    section, where = config.model, str(config.path)
    kind = short_name(section.get("type", "none"))
    if kind != "ImageClassifier":
        raise ConfigError(f"model is a {kind}, not an ImageClassifier", where=where, hint="check model.type")
    for part, known in _PARTS.items():
        actual = short_name((section.get(part) or {}).get("type", "none"))
        if actual != known:
            raise ConfigError(f"{part} is {actual}; a classifier that can be deployed has {known}", where=where)
    backbone, head = section["backbone"], section["head"]
    unknown = sorted(set(backbone) - _BACKBONE_KEYS)
    if unknown or tuple(backbone.get("out_indices", (7,))) != (7,):
        raise ConfigError(f"backbone.{(unknown or ['out_indices'])[0]} can't be deployed", where=where)
    count = int(head["num_classes"])
    model: Any = ImageClassifier(float(backbone.get("widen_factor", 1.0)), count)
    if int(head["in_channels"]) != model.backbone.channels:
        raise ConfigError(
            f"head.in_channels is {head['in_channels']}, the backbone has {model.backbone.channels}", where=where
        )
    names = classes_of_head(config, count)
    # `answer` and `components` get the model alone.
    model.deploy = Deployment(names, steps_of(config), image_input(config, options.resize), options.resize)
    return model.eval().requires_grad_(False)


def classes(model: Any) -> list[str]:
    """Class names in label order."""
    return list(model.deploy.classes)


def parameters(model: Any, config: TrainingConfig, options: Options) -> dict[str, Any]:  # noqa: ARG001
    """How an image becomes the input: see `awml_deploy_traffic_light.runtime_model.image`."""
    return {"image": model.deploy.image}


def load_input(sample: ImageCrop, parameters: Mapping[str, Any]) -> Tensor:  # noqa: ARG001
    """(h, w, 3) uint8 pixels of a crop.

    Raises:
        ConfigError: the data set gives no crops.
        InputError: the file is missing or broken, or its box has no pixel.
    """
    return torch.from_numpy(np.ascontiguousarray(sample_of(IMAGE_CROP, ImageCrop, sample).read()))


def normalized(model: Any, crop: UInt8) -> Tensor:
    """(1, 3, H, W) float32: a crop after the test pipeline and mmpretrain's data preprocessor."""
    deploy = model.deploy
    if deploy.resize == "autoware":
        image = as_the_node_does(crop, deploy.image["width"], deploy.image["height"])
    else:
        image = carried_out(crop, deploy.steps)
    values = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    if deploy.image["color"] == "rgb":
        values = values.flip(0)
    mean, std = (torch.tensor(deploy.image[name]).view(3, 1, 1) for name in ("mean", "std"))
    result: Tensor = (values.float() - mean) / std
    return result[None]


def components(model: Any, model_input: Tensor, options: Options) -> list[Component]:
    """The one component, with the image of one sample.

    Args:
        model: the classifier.
        model_input: (h, w, 3) uint8.
        options: see `Options`.
    """
    return [network(model, normalized(model, model_input.numpy()), options)]


def network(model: Any, images: Tensor, options: Options) -> Component:
    """The one component, of images (1, 3, H, W)."""
    is_dynamic = options.batch_size == "dynamic"
    batch: int | str = _BATCH if is_dynamic else options.batch_size

    def inputs_of(sizes: Sizes) -> tuple[Tensor]:
        return (images.expand(int(sizes.get(_BATCH, options.batch_size)), -1, -1, -1).contiguous(),)

    return Component(
        name=COMPONENT,
        module=Probabilities(model).eval(),
        inputs=(TensorSpec(name=INPUT, dtype="float32", shape=[batch, *images.shape[1:]]),),
        outputs=(TensorSpec(name=OUTPUT, dtype="float32", shape=[batch, len(model.deploy.classes)]),),
        inputs_of=inputs_of,
        trace_sizes={_BATCH: 2} if is_dynamic else {},
        check_sizes=({_BATCH: 1}, {_BATCH: 4}, {_BATCH: 6}) if is_dynamic else ({},),
        deployed_sizes={_BATCH: 1} if is_dynamic else {},
        varying_axes={_BATCH: AxisSizes(min=1, opt=1, max=options.most_images)} if is_dynamic else {},
    )


def answer(model: Any, model_input: Tensor) -> tuple[RawOutputs, ClassScores, dict[str, int]]:
    """What PyTorch answers on a crop after the pipeline of mmcv, or that of the node.

    Args:
        model: the classifier.
        model_input: (h, w, 3) uint8.

    Returns:
        raw: probabilities (1, classes) as ``output``; their logarithms as scores; no counters.
    """
    image = normalized(model, model_input.cpu().numpy()).to(next(model.parameters()).device)
    with torch.no_grad():
        scores = torch.log_softmax(model(image), dim=1).cpu()
    return {OUTPUT: scores.exp().numpy()}, ClassScores.build(scores.numpy()), {}
