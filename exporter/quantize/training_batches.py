"""Training losses from a deploy config's data set: our samples become the framework's, and its own loss is asked.

mmdet3d and mmdet have their targets, assignment and losses in the model (``model.loss``), so that whatever head a user
trained is fine-tuned by what it was trained with. The classifier's loss is cross entropy on its logits, mmpretrain's
default. Samples are mirrored (and, in 3D, turned and scaled) at random: a few hundred frames are soon known by heart.
"""

from __future__ import annotations

import importlib.metadata
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from exporter.models.calibration import adapter as calibration
from exporter.models.centerpoint import adapter as centerpoint
from exporter.models.yolox import adapter as yolox
from exporter.training_config import TrainingConfig
from shared.data import ImageSample, Sample
from shared.data.camera_pairs import CameraPair
from shared.errors import ConfigError, InputError
from shared.lazy import lazy_import

# Import mmcv's operators: not before `build_model` has provided them.
mmdet3d_structures = lazy_import("mmdet3d.structures")
mmengine_structures = lazy_import("mmengine.structures")
mmdet_losses = lazy_import("mmdet.models.losses")

Labels = Mapping[int, int]  # label of the data set -> label of the model
Losses = dict[str, Tensor]

ENTRY_POINTS = "awml_deploy.trainable"

MIRROR_PROBABILITY = 0.5
MAX_TURN = 0.4  # [rad]
SCALES = (0.95, 1.05)

# AWML's loss of that name differs from mmdet's only in what it returns, class by class; its head adds that up.
_AWML_HEATMAP_LOSS = "AmpGaussianFocalLoss"


@dataclass(frozen=True)
class Trainable:
    """How a kind of model is trained.

    Attributes:
        prepare: puts back what `exporter.training_config.build_model` leaves out, and raises ConfigError for what is
            not to be had.
        load: (model, sample, parameters of the model spec, labels, random numbers) to what ``losses`` takes a list of;
            None where the sample is of no use. Raises InputError for a sample without labels, or broken files.
        losses: the framework's losses of a batch, by name; scalars.
    """

    prepare: Callable[[Any, TrainingConfig], None]
    load: Callable[[Any, Any, Mapping[str, Any], Labels, np.random.Generator], Any]
    losses: Callable[[Any, Sequence[Any]], Losses]


def trainable(model_type: str) -> Trainable:
    """How models of this ``model.type`` are trained; a package of its own says so by an entry point.

    Raises:
        ConfigError: there is no loss for it here.
    """
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        if point.name == model_type:
            return cast(Trainable, point.load())
    if model_type not in _TRAINABLE:
        raise ConfigError(
            f"there is no training loss for '{model_type}' here; there is for {', '.join(_TRAINABLE)}",
            where="model.type",
            hint="fine-tune it in its own training with QATHook (docs/quantization.md), or use `exporter quantize ptq`",
        )
    return _TRAINABLE[model_type]


def label_map(dataset_classes: Sequence[str], model_classes: Sequence[str]) -> dict[int, int]:
    """Which label of the data set is which of the model, by name; classes that the model does not know are left out.

    Raises:
        ConfigError: they have no class in common.
    """
    found = {
        index: list(model_classes).index(name) for index, name in enumerate(dataset_classes) if name in model_classes
    }
    if not found:
        raise ConfigError(
            f"the data set's classes ({', '.join(dataset_classes) or 'none'}) are none of the model's "
            f"({', '.join(model_classes)})",
            where="data.classes",
            hint="list the model's classes, and map the source's names with label_map",
        )
    return found


def _scalars(parts: Mapping[str, Any]) -> Losses:
    """mmengine's rule for what a model's ``loss`` returns: what has "loss" in its name counts, lists are added up."""
    return {
        name: sum((level.mean() for level in value), start=torch.zeros(())) if isinstance(value, list) else value.mean()
        for name, value in parts.items()
        if "loss" in name
    }


def _known(labels: Any, mapping: Labels) -> tuple[Any, Any]:
    """(rows, labels of the model): of (N,) labels of the data set, those that the model knows."""
    translated = np.array([mapping.get(int(label), -1) for label in labels], np.int64)
    rows = np.flatnonzero(translated >= 0)
    return rows, translated[rows]


# -- CenterPoint ------------------------------------------------------------------------------------------------------


def _prepare_centerpoint(model: Any, config: TrainingConfig) -> None:
    from mmdet3d.registry import MODELS

    _check_losses(config, MODELS, except_for=(_AWML_HEATMAP_LOSS,))
    head, where = model.pts_bbox_head, str(config.path)
    wanted = (config.model.get("pts_bbox_head") or {}).get("loss_cls") or {}
    if _short(wanted.get("type", "")) == _AWML_HEATMAP_LOSS and MODELS.get(wanted["type"]) is None:
        options = {name: value for name, value in wanted.items() if name not in ("type", "reduction")}
        head.loss_cls = mmdet_losses.GaussianFocalLoss(**options, reduction="mean")
    needed = (
        "grid_size", "voxel_size", "point_cloud_range", "out_size_factor", "dense_reg", "gaussian_overlap", "max_objs",
        "min_radius", "code_weights",
    )  # fmt: skip
    missing = [key for key in needed if key not in (head.train_cfg or {})]
    if missing:
        raise ConfigError(
            f"model.train_cfg.pts lacks {', '.join(missing)}, without which mmdet3d's head has no targets",
            where=where,
            hint="give the config that the model was trained with as model.config",
        )


@dataclass(frozen=True)
class _Frame:
    points: Tensor
    boxes: Any
    labels: Tensor


def _load_centerpoint(
    model: Any, sample: Sample, parameters: Mapping[str, Any], labels: Labels, rng: np.random.Generator
) -> _Frame | None:
    truth = sample.ground_truth
    if truth is None:
        raise _unlabeled(sample)
    points = centerpoint.load_input(sample, parameters).clone()
    x0, y0, z0, x1, y1, z1 = parameters["point_cloud_range"]
    # Boxes without a point can't be learned, and those without a size have no logarithm.
    truth = truth.select((truth.num_points > 0) & (truth.sizes > 0).all(axis=1))
    rows, found = _known(truth.labels, labels)
    truth = truth.select(rows)
    # mmdet3d's NuScenesDataset takes unknown velocities for 0 too.
    columns = [truth.centers, truth.sizes, truth.yaws[:, None], np.nan_to_num(truth.velocities)]
    boxes = mmdet3d_structures.LiDARInstance3DBoxes(
        torch.from_numpy(np.concatenate(columns, axis=1)), box_dim=9, origin=(0.5, 0.5, 0.5)
    )
    for direction in ("horizontal", "vertical"):
        if rng.random() < MIRROR_PROBABILITY:
            boxes.flip(direction, points)
    boxes.rotate(rng.uniform(-MAX_TURN, MAX_TURN), points)
    scale = rng.uniform(*SCALES)
    boxes.scale(scale)
    points[:, :3] *= scale
    if centerpoint.trained_on_y_axis(model):
        values = boxes.tensor
        values[:, [3, 4]] = values[:, [4, 3]]
        values[:, 6] = -values[:, 6] - math.pi / 2
    low, high = points.new_tensor([x0, y0, z0]), points.new_tensor([x1, y1, z1])
    # mmdet3d takes the batch size from the last voxel: a frame without one can't be in a batch.
    if not ((points[:, :3] >= low) & (points[:, :3] < high)).all(dim=1).any():
        return None
    return _Frame(points, boxes, torch.from_numpy(found))


def _centerpoint_losses(model: Any, frames: Sequence[_Frame]) -> Losses:
    samples = []
    for frame in frames:
        sample = mmdet3d_structures.Det3DDataSample(metainfo={"box_type_3d": mmdet3d_structures.LiDARInstance3DBoxes})
        sample.gt_instances_3d = mmengine_structures.InstanceData(bboxes_3d=frame.boxes, labels_3d=frame.labels)
        samples.append(sample)
    with warnings.catch_warnings():
        # mmdet3d copies a tensor in a way that PyTorch advises against, at every call.
        warnings.simplefilter("ignore", UserWarning)
        data = model.data_preprocessor(
            {"inputs": {"points": [frame.points for frame in frames]}, "data_samples": samples}, training=True
        )
        return _scalars(model.loss(data["inputs"], data["data_samples"]))


# -- YOLOX ------------------------------------------------------------------------------------------------------------


def _prepare_yolox(model: Any, config: TrainingConfig) -> None:
    from mmdet.registry import MODELS

    _check_losses(config, MODELS)
    if not model.bbox_head.train_cfg:
        raise ConfigError(
            "model.train_cfg is missing, without which mmdet's head assigns no targets",
            where=str(config.path),
            hint="give the config that the model was trained with as model.config",
        )
    # Fine-tuning goes on where a YOLOX training ends: its schedule has the L1 loss in the last epochs.
    model.bbox_head.use_l1 = True


def _load_yolox(
    model: Any,
    sample: ImageSample,
    parameters: Mapping[str, Any],
    labels: Labels,
    rng: np.random.Generator,
) -> dict[str, Any]:
    if sample.labels is None:
        raise _unlabeled(sample)
    data = yolox.load_input(sample, parameters).prepared(model)
    image, packed = data["inputs"][0], data["data_samples"][0]
    kept = ~sample.labels.ignored
    rows, found = _known(sample.labels.boxes.labels[kept], labels)
    scale = np.asarray([*packed.scale_factor, *packed.scale_factor], np.float32)
    corners = torch.from_numpy(sample.labels.boxes.corners[kept][rows] * scale)
    if rng.random() < MIRROR_PROBABILITY:
        # Only the picture, which lies at the left; what fills the rest stays at the right.
        width = min(image.shape[2], round(packed.ori_shape[1] * float(packed.scale_factor[0])))
        image = torch.cat([image[:, :, :width].flip(2), image[:, :, width:]], dim=2)
        corners[:, [0, 2]] = width - corners[:, [2, 0]]
    packed.gt_instances = mmengine_structures.InstanceData(bboxes=corners, labels=torch.from_numpy(found))
    return {"inputs": image, "data_samples": packed}


def _yolox_losses(model: Any, items: Sequence[Mapping[str, Any]]) -> Losses:
    batch = {key: [item[key] for item in items] for key in ("inputs", "data_samples")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        # training=False: the size of the images stays that of the deployed network.
        data = model.data_preprocessor(batch, training=False)
        return _scalars(model.loss(data["inputs"], data["data_samples"]))


# -- calibration status -----------------------------------------------------------------------------------------------


def _prepare_calibration(model: Any, config: TrainingConfig) -> None:
    """Nothing was left out."""


def _load_calibration(
    model: Any,  # noqa: ARG001  every model has these arguments
    sample: CameraPair,
    parameters: Mapping[str, Any],
    labels: Labels,  # noqa: ARG001
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    channels = calibration.load_input(sample, parameters)
    # Image and points alike: a mirrored pair is as well or as badly calibrated as before.
    return channels.flip(3) if rng.random() < MIRROR_PROBABILITY else channels, torch.tensor([sample.label])


def _calibration_losses(model: Any, items: Sequence[tuple[Tensor, Tensor]]) -> Losses:
    device = next(model.parameters()).device
    classifier = calibration.Classifier(model)
    # One by one: cameras of a data set may have different sizes, and batch norms are frozen.
    parts = [
        nn.functional.cross_entropy(classifier(channels.to(device)), label.to(device)) for channels, label in items
    ]
    return {"loss": torch.stack(parts).mean()}


# -- shared -----------------------------------------------------------------------------------------------------------


def _unlabeled(sample: Any) -> InputError:
    return InputError(
        "has no labels, and training needs them", where=f"sample {sample.token}", hint="use a labeled data set"
    )


def _short(name: Any) -> str:
    return str(name).rsplit(".", maxsplit=1)[-1]


def _check_losses(config: TrainingConfig, registry: Any, except_for: Sequence[str] = ()) -> None:
    """Raises ConfigError where `build_model` had to put something else in the place of a loss."""
    pending: list[Any] = [config.model]
    while pending:
        section = pending.pop()
        for key, value in section.items() if isinstance(section, Mapping) else ():
            if isinstance(value, Mapping) and key.startswith("loss") and "type" in value:
                name = value["type"]
                if isinstance(name, str) and registry.get(name) is None and _short(name) not in except_for:
                    raise ConfigError(
                        f"its loss {name} is not installed, so the model can't be trained here",
                        where=str(config.path),
                        hint="install the package that has it, or fine-tune there with QATHook (docs/quantization.md)",
                    )
            pending.extend(value if isinstance(value, (list, tuple)) else [value])


_TRAINABLE = {
    "centerpoint": Trainable(_prepare_centerpoint, _load_centerpoint, _centerpoint_losses),
    "yolox": Trainable(_prepare_yolox, _load_yolox, _yolox_losses),
    "calibration": Trainable(_prepare_calibration, _load_calibration, _calibration_losses),
}
