"""YOLOX (mmdet's, and AWML's YOLOX-opt-ELAN): one component, the parameters around it, and what mmdet answers.

``yolox``: ``images`` (B, 3, H, W) to ``output`` (B, N, 5 + C), rows as Autoware's node reads them: x, y, width, height
as the head gives them, objectness and class scores after the sigmoid. Decoding (``output: decoded``) and suppression
(``output: detections``) can be part of the graph. Letterboxing and the rest are the runtime's.
"""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor, nn

from exporter.adopt import Adopted, tensors_of
from exporter.component import Component, Sizes
from exporter.models.yolox.graph import BOX_COLUMNS, DecodedRows, Detections, Proposals, RawRows, rows_of
from exporter.models.yolox.letterbox import letterbox_of
from exporter.training_config import TrainingConfig, build_model
from shared.data import ImageSample
from shared.errors import ConfigError, InputError
from shared.lazy import lazy_import
from shared.runs import RawOutputs
from shared.spec import ComponentSpec, TensorSpec
from shared.tasks.detection2d import Boxes2D

# Imports mmcv's operators: not before `build_model` has provided them.
mmengine_dataset = lazy_import("mmengine.dataset")

TASK = "detection2d"
COMPONENT = "yolox"
INPUT, OUTPUT = "images", "output"
DETECTIONS = ("num_detections", "detection_boxes", "detection_scores", "detection_classes")

# The boxes that Autoware's node makes room for, and what AWML exports with.
_MAX_BOXES = 100
# Autoware's own defaults: parameters score_threshold and nms_threshold of its node.
_AUTOWARE_SCORE, _AUTOWARE_IOU = 0.35, 0.7
_STRIDES = (8, 16, 32)

Three = tuple[float, float, float]


class Nms(BaseModel):
    """``model.options.nms``; what is left out is the training config's, or the convention's.

    Attributes:
        convention: ``mmdet`` compares boxes of one class in pixels of the image; ``autoware`` compares all, in whole
            pixels of the input, and cuts boxes off at the image's edge. Everything else follows from it.
        score_threshold: on objectness times class score. mmdet: ``test_cfg.score_thr``; autoware: 0.35.
        iou_threshold: mmdet: ``test_cfg.nms.iou_threshold``; autoware: 0.7.
        class_agnostic: compare boxes of different classes. mmdet: false; autoware: true.
        max_boxes: keep the best so many; None: all. In the graph: 100.
        operator: what suppresses in the graph: ONNX's, or the plugin of TensorRT up to 10.11, which nothing else runs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    convention: Literal["mmdet", "autoware"] = "mmdet"
    score_threshold: float | None = Field(default=None, ge=0, lt=1)
    iou_threshold: float | None = Field(default=None, gt=0, le=1)
    class_agnostic: bool | None = None
    max_boxes: int | None = Field(default=None, gt=0)
    operator: Literal["NonMaxSuppression", "EfficientNMS_TRT"] = "NonMaxSuppression"


class Image(BaseModel):
    """``model.options.image``: the input of an ONNX file that comes without a training config.

    Attributes:
        color: order of the channels, ``bgr`` or ``rgb``.
        mean, std: on the scale of 0-255; left out: values stay 0-255.
        fill: gray level beside the image.
        resize: ``mmdet``, ``megvii`` or ``autoware``, see `runtime.models.yolox.letterbox`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    color: Literal["bgr", "rgb"]
    mean: Three | None = None
    std: Three | None = None
    fill: int = Field(default=114, ge=0, le=255, strict=True)
    resize: Literal["mmdet", "megvii", "autoware"] = "megvii"

    @model_validator(mode="after")
    def _both_or_none(self) -> Image:
        if (self.mean is None) != (self.std is None) or (self.std is not None and min(self.std) <= 0):
            raise ValueError("mean and std go together, and std is positive")
        return self


class Options(BaseModel):
    """``model.options`` of the deploy config.

    Attributes:
        batch_size: images per call, or ``dynamic``. Autoware's node wants as many as it has cameras.
        output: ``raw`` rows, ``decoded`` rows, or ``detections`` after suppression in the graph.
        relu6_to_relu: export ReLU in place of ReLU6. The verification compares with the model as it was trained.
        nms: see `Nms`.
        image, classes: for ONNX files made elsewhere.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    batch_size: int | Literal["dynamic"] = 1
    output: Literal["raw", "decoded", "detections"] = "raw"
    relu6_to_relu: bool = False
    nms: Nms = Nms()
    image: Image | None = Field(default=None, strict=False)
    classes: tuple[str, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _positive(self) -> Options:
        if isinstance(self.batch_size, int) and self.batch_size < 1:
            raise ValueError("batch_size should be at least 1, or dynamic")
        if self.nms.operator == "EfficientNMS_TRT" and self.output != "detections":
            raise ValueError("nms.operator EfficientNMS_TRT suppresses in the graph: set output to detections")
        return self


def read_options(options: Mapping[str, Any]) -> Options:
    """The options, checked.

    Raises:
        ConfigError: an unknown option or a wrong value.
    """
    try:
        return Options.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"{first['msg']}",
            where="model.options" + "".join(f".{part}" for part in first["loc"]),
            hint=f"options of yolox: {', '.join(Options.model_fields)}",
        ) from error


# -- the model ------------------------------------------------------------------------------------------------------


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


def build(config: TrainingConfig, options: Options) -> Any:
    """The YOLOX of a training config, with random weights, and its test pipeline beside it.

    Raises:
        ConfigError: not a YOLOX, or a variant that can't be deployed; options that are for ONNX files.
    """
    where = str(config.path)
    if str(config.model.get("type")).rsplit(".", maxsplit=1)[-1] != "YOLOX":
        raise ConfigError(f"model is a {config.model.get('type')}, not a YOLOX", where=where, hint="check model.type")
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
    model.deploy = Deployment(config.pipeline, _class_names(config, model, options), options)
    return model


def _class_names(config: TrainingConfig, model: Any, options: Options) -> list[str]:
    """Class names: the options', else those of the training config's data set.

    Raises:
        ConfigError: not as many as the head has, or none.
    """
    names = list(options.classes or config.classes)
    count = int(model.bbox_head.num_classes)
    if len(names) != count:
        raise ConfigError(
            f"names {len(names)} classes, the head has {count}",
            where=str(config.path),
            hint="list them in model.options.classes, or in test_dataloader.dataset.metainfo",
        )
    return names


def classes(model: Any) -> list[str]:
    """Class names, in label order."""
    return list(model.deploy.classes)


# -- parameters -----------------------------------------------------------------------------------------------------


def parameters(model: Any, config: TrainingConfig, options: Options) -> dict[str, Any]:
    """Input image, rows and suppression, as the model was trained.

    Raises:
        ConfigError: the test pipeline is not a letterbox.
    """
    head = model.bbox_head
    return {
        "image": {**letterbox_of(config, max(_STRIDES)), "resize": "mmdet"},
        "strides": [int(stride[0] if isinstance(stride, Sequence) else stride) for stride in head.strides],
        "output": options.output,
        **_suppression(options, head.test_cfg),
    }


def _suppression(options: Options, trained: Mapping[str, Any]) -> dict[str, Any]:
    """``score_threshold`` and ``nms``: the options', else those of ``test_cfg`` or of the convention.

    Raises:
        ConfigError: nothing says a threshold.
    """
    nms = options.nms
    autoware = nms.convention == "autoware"
    score, iou = trained.get("score_thr"), (trained.get("nms") or {}).get("iou_threshold")
    if autoware:
        score, iou = _AUTOWARE_SCORE, _AUTOWARE_IOU
    found = {
        "score_threshold": score if nms.score_threshold is None else nms.score_threshold,
        "iou_threshold": iou if nms.iou_threshold is None else nms.iou_threshold,
    }
    for name, value in found.items():
        if value is None:
            raise ConfigError("is missing, and no training config says it", where=f"model.options.nms.{name}")
    limit = _MAX_BOXES if options.output == "detections" else None
    return {
        "score_threshold": float(found["score_threshold"] or 0.0),
        "nms": {
            "convention": nms.convention,
            "iou_threshold": float(found["iou_threshold"] or 0.0),
            "class_agnostic": autoware if nms.class_agnostic is None else nms.class_agnostic,
            "max_boxes": nms.max_boxes or limit,
        },
    }


# -- components -----------------------------------------------------------------------------------------------------


def components(model: Any, model_input: ModelInput, options: Options) -> list[Component]:
    """The network, with the image of one sample.

    Args:
        model: mmdet's YOLOX.
        model_input: the sample.
        options: see `Options`.
    """
    images = model_input.normalized(model)
    height, width = images.shape[2:]
    raw = RawRows(model, options.relu6_to_relu)
    module: nn.Module = raw
    rows = sum((height // stride) * (width // stride) for stride in _STRIDES)
    columns = BOX_COLUMNS + len(model.deploy.classes)
    batch: int | str = "batch_size" if options.batch_size == "dynamic" else options.batch_size
    outputs: tuple[TensorSpec, ...] = (TensorSpec(name=OUTPUT, dtype="float32", shape=[batch, rows, columns]),)
    if options.output != "raw":
        decoded = DecodedRows(raw, _cells(model, height, width))
        module = decoded
    before_plugin = None
    if options.output == "detections":
        suppression = _suppression(options, model.bbox_head.test_cfg)
        nms = suppression["nms"]
        plugin = options.nms.operator == "EfficientNMS_TRT"
        module = Detections(
            decoded,
            nms["iou_threshold"],
            suppression["score_threshold"],
            nms["max_boxes"],
            nms["class_agnostic"],
            plugin=plugin,
        )
        before_plugin = Proposals(decoded).eval() if plugin else None
        outputs = detection_tensors(batch, nms["max_boxes"])
    trace, check, deployed = _batch_sizes(options)

    def inputs_of(sizes: Sizes) -> tuple[Tensor]:
        count = sizes.get("batch_size", options.batch_size)
        return (images.expand(int(count), -1, -1, -1).contiguous(),)

    return [
        Component(
            name=COMPONENT,
            module=module.eval(),
            inputs=(TensorSpec(name=INPUT, dtype="float32", shape=[batch, 3, height, width]),),
            outputs=outputs,
            inputs_of=inputs_of,
            trace_sizes=trace,
            check_sizes=check,
            deployed_sizes=deployed,
            before_plugin=before_plugin,
        )
    ]


def detection_tensors(batch: int | str, max_boxes: int) -> tuple[TensorSpec, ...]:
    """The outputs of a network that suppresses itself."""
    shapes: list[list[int | str]] = [[batch, 1], [batch, max_boxes, 4], [batch, max_boxes], [batch, max_boxes]]
    dtypes = ("int32", "float32", "float32", "int32")
    return tuple(
        TensorSpec(name=name, dtype=dtype, shape=shape)
        for name, dtype, shape in zip(DETECTIONS, dtypes, shapes, strict=True)
    )


def _batch_sizes(options: Options) -> tuple[Sizes, tuple[Sizes, ...], Sizes]:
    """Sizes to trace with, to check at, and to deploy with."""
    if options.batch_size == "dynamic":
        return {"batch_size": 2}, ({"batch_size": 1}, {"batch_size": 3}), {"batch_size": 1}
    return {}, ({},), {}


def _cells(model: Any, height: int, width: int) -> Tensor:
    """mmdet's own priors: (N, 3) x, y and stride of each row [px]."""
    generator = model.bbox_head.prior_generator
    sizes = [(height // stride, width // stride) for stride in _STRIDES]
    with _quiet():
        priors: Tensor = torch.cat(generator.grid_priors(sizes, device="cpu", with_stride=True))
    return priors[:, :3]


# -- what the framework answers -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelInput:
    """An image file, for mmdet's own pipeline to load."""

    path: Path
    device: str = "cpu"

    def to(self, device: str) -> ModelInput:
        """The same, for another device."""
        return ModelInput(self.path, device)

    def prepared(self, model: Any) -> dict[str, Any]:
        """The image as a batch of one, after the training config's test pipeline.

        Raises:
            InputError: the image can't be read.
        """
        with _mmdet_scope():
            pipeline = mmengine_dataset.Compose([dict(step) for step in model.deploy.steps])
            try:
                packed = pipeline({"img_path": str(self.path), "img_id": 0, "instances": []})
            # mmcv reports what it can't read or decode in several ways.
            except (OSError, AttributeError, TypeError, ValueError, AssertionError) as error:
                raise InputError(f"the image can't be read ({error})", where=str(self.path)) from error
        return {"inputs": [packed["inputs"]], "data_samples": [packed["data_samples"]]}

    def normalized(self, model: Any) -> Tensor:
        """What the network gets: (1, 3, H, W) float32."""
        images: Tensor = model.data_preprocessor(self.prepared(model), training=False)["inputs"]
        return images


def load_input(sample: ImageSample, parameters: Mapping[str, Any]) -> ModelInput:  # noqa: ARG001 (mmdet loads it)
    """The image of a sample."""
    return ModelInput(sample.image)


def answer(model: Any, model_input: ModelInput) -> tuple[RawOutputs, Boxes2D, dict[str, int]]:
    """What mmdet answers: its own pipeline, data preprocessor, model and post-processing, nothing of ours between.

    With the convention ``autoware`` the last steps are Autoware's, made of mmdet's decoding and mmcv's suppression.

    Args:
        model: mmdet's YOLOX.
        model_input: the image file.

    Returns:
        raw: the head's maps as rows, (1, N, 5 + C); boxes: the final boxes in pixels of the image; counters: how many.
    """
    options = model.deploy.options
    suppression = _suppression(options, model.bbox_head.test_cfg)
    data = model_input.prepared(model)
    with torch.no_grad(), _quiet(), _mmdet_scope(), _recorded(model.bbox_head) as maps, _settings(model, suppression):
        result = model.test_step(data)[0]
    found = result.pred_instances.cpu()
    rows = rows_of(maps[-1])[0].cpu()
    if suppression["nms"]["convention"] == "autoware":
        boxes = _autoware_boxes(model, rows, suppression, result.metainfo)
    else:
        limit = suppression["nms"]["max_boxes"]
        boxes = Boxes2D.build(found.bboxes.numpy()[:limit], found.labels.numpy()[:limit], found.scores.numpy()[:limit])
    return _raw(model, rows, boxes), boxes, {"boxes": len(boxes)}


@contextlib.contextmanager
def _settings(model: Any, suppression: Mapping[str, Any]) -> Iterator[None]:
    """mmdet's head with the thresholds that are asked for, while the block runs."""
    head, nms = model.bbox_head, suppression["nms"]
    before = head.test_cfg
    head.test_cfg = type(before)(
        {
            **before, "score_thr": suppression["score_threshold"],
            "nms": {"type": "nms", "iou_threshold": nms["iou_threshold"], "class_agnostic": nms["class_agnostic"]},
        }
    )  # fmt: skip
    try:
        yield
    finally:
        head.test_cfg = before


def _autoware_boxes(model: Any, rows: Tensor, suppression: Mapping[str, Any], meta: Mapping[str, Any]) -> Boxes2D:
    """Boxes by Autoware's rules: whole pixels of the input, suppression, image pixels, the image's edge, whole pixels.

    Args:
        model: mmdet's YOLOX.
        rows: (N, 5 + C) raw.
        suppression: score threshold and ``nms``.
        meta: mmdet's, for the scale and the image's size.
    """
    nms = suppression["nms"]
    batched_nms = lazy_import("mmcv.ops").batched_nms
    height, width = meta["img_shape"][:2]
    cells = _cells(model, height, width)
    priors = torch.cat([cells, cells[:, 2:]], dim=1)
    scores, labels = (rows[:, BOX_COLUMNS:] * rows[:, 4:5]).max(dim=1)
    passed = scores > suppression["score_threshold"]
    corners = model.bbox_head._bbox_decode(priors, rows[None, :, :4])[0][passed]
    start = corners[:, :2].trunc()
    whole = torch.cat([start, start + (corners[:, 2:] - corners[:, :2]).trunc()], dim=1)
    settings = {"type": "nms", "iou_threshold": nms["iou_threshold"], "class_agnostic": nms["class_agnostic"]}
    kept = batched_nms(whole, scores[passed], labels[passed], settings)[1][: nms["max_boxes"]]
    image_height, image_width = meta["ori_shape"][:2]
    edges = torch.tensor([image_width - 1, image_height - 1] * 2, dtype=whole.dtype)
    image = (whole[kept] / torch.tensor(list(meta["scale_factor"]) * 2, dtype=whole.dtype)).clamp(min=0).minimum(edges)
    start = image[:, :2].trunc()
    final = torch.cat([start, start + (image[:, 2:] - image[:, :2]).trunc()], dim=1)
    return Boxes2D.build(final.numpy(), labels[passed][kept].numpy(), scores[passed][kept].numpy())


def _raw(model: Any, rows: Tensor, boxes: Boxes2D) -> RawOutputs:
    """What compares with the component's output, by its name: rows, decoded rows, or the scores of the boxes."""
    options = model.deploy.options
    if options.output == "detections":
        limit = _suppression(options, model.bbox_head.test_cfg)["nms"]["max_boxes"]
        scores = np.zeros((1, limit), np.float32)
        scores[0, : len(boxes)] = boxes.scores
        return {"detection_scores": scores}
    if options.output == "decoded":
        side = round((len(rows) / sum(stride**-2 for stride in _STRIDES)) ** 0.5)
        priors = _cells(model, side, side)
        corners = model.bbox_head._bbox_decode(torch.cat([priors, priors[:, 2:]], dim=1), rows[None, :, :4])[0]
        centers, sizes = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
        rows = torch.cat([centers, sizes, rows[:, 4:]], dim=1)
    return {OUTPUT: rows[None].numpy()}


@contextlib.contextmanager
def _recorded(head: nn.Module) -> Iterator[list[Any]]:
    """Outputs of the head's calls inside the block."""
    calls: list[Any] = []
    hook = head.register_forward_hook(lambda _, inputs, output: calls.append(output))
    try:
        yield calls
    finally:
        hook.remove()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """mmdet makes its grids in a way that PyTorch advises against, at every call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


@contextlib.contextmanager
def _mmdet_scope() -> Iterator[None]:
    """Types are looked up in mmdet's registries while the block runs."""
    from mmengine.registry import DefaultScope

    importlib.import_module("mmdet.datasets.transforms")
    with DefaultScope.overwrite_default_scope("mmdet"):
        yield


# -- ONNX files made elsewhere ----------------------------------------------------------------------------------------


def adopt(path: Path, options: Options) -> Adopted:
    """A YOLOX from an ONNX file alone, as Megvii's exporter writes it: one input, one output of rows or four of boxes.

    Args:
        path: the file.
        options: ``image`` says what its input is, ``classes`` what its labels are, ``nms`` what is done with its rows,
            ``output`` whether these are decoded.

    Raises:
        ConfigError: the options lack what the file does not say, or contradict it.
        InputError: not a YOLOX.
    """
    if options.image is None or not options.classes:
        missing = "image" if options.image is None else "classes"
        raise ConfigError(
            "is missing; an ONNX file does not say it", where=f"model.options.{missing}",
            hint="image: {color: bgr} for YOLOX 0.1.1 and later" if missing == "image" else "list the class names",
        )  # fmt: skip
    inputs, outputs = tensors_of(path)
    where = str(path)
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[1] != 3:
        raise InputError(
            f"has the inputs {[tensor.shape for tensor in inputs]}, not one image (B, 3, H, W)", where=where
        )
    height, width = inputs[0].shape[2:]
    if not isinstance(height, int) or not isinstance(width, int):
        raise InputError("its image size is not fixed", where=where, hint="export it with fixed height and width")
    image = options.image.model_dump(mode="json")
    suppression = _suppression(options, {})
    if options.output == "detections":
        if [tensor.name for tensor in outputs] != list(DETECTIONS):
            raise InputError(f"has the outputs {[tensor.name for tensor in outputs]}, not {DETECTIONS}", where=where)
        strides = list(_STRIDES)
    else:
        strides = _strides_of(outputs, height, width, len(options.classes), where)
    return Adopted(
        component=ComponentSpec(name=COMPONENT, inputs=inputs, outputs=outputs, onnx=f"onnx/{COMPONENT}.onnx"),
        classes=list(options.classes),
        parameters={
            "image": {"height": height, "width": width, **image},
            "strides": strides,
            "output": options.output,
            **suppression,
        },
    )


def _strides_of(outputs: Sequence[TensorSpec], height: int, width: int, count: int, where: str) -> list[int]:
    """The strides that make as many rows as the output has.

    Raises:
        InputError: the output is no rows, or of another number of classes.
    """
    shape = outputs[0].shape if len(outputs) == 1 else []
    if len(shape) != 3 or shape[2] != BOX_COLUMNS + count:
        raise InputError(
            f"has outputs {[tensor.shape for tensor in outputs]}, {count} classes make {BOX_COLUMNS + count} columns",
            where=where, hint="check model.options.classes and model.options.output",
        )  # fmt: skip
    for strides in (list(_STRIDES), [*_STRIDES, 64], [4, *_STRIDES]):
        if sum((height // stride) * (width // stride) for stride in strides) == shape[1]:
            return strides
    raise InputError(f"has {shape[1]} rows, which strides 8, 16, 32 of {height} x {width} px do not make", where=where)
