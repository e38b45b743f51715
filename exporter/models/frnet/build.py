"""The FRNet of a training config."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from exporter.lidar.points import point_loading
from exporter.models.frnet.awml import register_frnet
from exporter.models.frnet.options import Options
from exporter.training_config import TrainingConfig, build_model, classes_of_head, registry_of
from exporter.training_only import short_name
from shared.data import PointLoading
from shared.errors import ConfigError

_PARTS = {
    "data_preprocessor": "FrustumRangePreprocessor",
    "voxel_encoder": "FrustumFeatureEncoder",
    "backbone": "FRNetBackbone",
    "decode_head": "FRHead",
}
_INTERPOLATION = "RangeInterpolation"
# Steps of a test pipeline that have nothing to do with points, and AWML's own name of the step that reads them.
_OTHER_STEPS = frozenset(
    {_INTERPOLATION, "LoadSegAnnotationsWithIdentifier3D", "PointSegClassMapping", "SegLabelMapping", "TestTimeAug"}
)
_AWML_LOADER = "LoadPointsWithIdentifierFromFile"


@dataclass(frozen=True)
class Deployment:
    """What belongs to a model and is not part of the network.

    Attributes:
        classes: class names, in label order, without the class to be ignored.
        points: how points are loaded.
        interpolation: height and width of the range image in which gaps are filled.
        options: see `Options`.
    """

    classes: tuple[str, ...]
    points: PointLoading
    interpolation: tuple[int, int]
    options: Options


def build(config: TrainingConfig, options: Options) -> Any:
    """The FRNet of a training config, with random weights, and what is done before it.

    Raises:
        ConfigError: not an FRNet, or a variant that can't be deployed.
    """
    where, section = str(config.path), config.model
    if section.get("type") != "FRNet":
        raise ConfigError(f"model is a {section.get('type')}, not an FRNet", where=where, hint="check model.type")
    for name, known in _PARTS.items():
        actual = (section.get(name) or {}).get("type")
        if actual != known:
            raise ConfigError(f"{name} is {actual}; only {known} can be deployed", where=where)
    registry_of("mmdet3d")
    register_frnet()
    model = build_model(config)
    _check_size(model, where)
    # What AWML keeps outside of its models: `answer` and `components` get the model alone.
    model.deploy = Deployment(
        _class_names(config, model), _loading(config), _interpolation(config, model.data_preprocessor), options
    )
    return model


def _check_size(model: Any, where: str) -> None:
    size, backbone = model.data_preprocessor.size, model.backbone
    if size != backbone.size:
        raise ConfigError(f"backbone.output_shape is {backbone.size}, data_preprocessor has H, W = {size}", where=where)
    coarsest = max(backbone.strides)
    if size[0] % coarsest or size[1] % coarsest:
        raise ConfigError(f"the stages' strides, {coarsest} in all, don't divide {size[0]} x {size[1]}", where=where)


def _class_names(config: TrainingConfig, model: Any) -> tuple[str, ...]:
    """Class names; the network may have one class more, the last, for what training ignores.

    Raises:
        ConfigError: not as many as the head has.
    """
    head, where = model.decode_head, str(config.path)
    ignores = head.ignore_index < head.num_classes
    if ignores and head.ignore_index != head.num_classes - 1:
        raise ConfigError(
            f"decode_head.ignore_index is {head.ignore_index}; of {head.num_classes} classes only the last can be "
            "ignored",
            where=where,
        )
    return tuple(classes_of_head(config, head.num_classes - ignores, which=" that are not ignored" if ignores else ""))


def _loading(config: TrainingConfig) -> PointLoading:
    steps = [step for step in config.pipeline if short_name(step.get("type")) not in _OTHER_STEPS]
    known = [
        {**step, "type": "LoadPointsFromFile"} if short_name(step.get("type")) == _AWML_LOADER else step
        for step in steps
    ]
    loading = point_loading(replace(config, pipeline=tuple(known)))
    if loading.merge_sweeps or loading.range_filter is not None:
        raise ConfigError(
            "the test pipeline merges sweeps or drops points; each point of a file gets a class", where=str(config.path)
        )
    return loading


def _interpolation(config: TrainingConfig, preprocessor: Any) -> tuple[int, int]:
    """Height and width of the range image in which gaps are filled.

    Raises:
        ConfigError: the test pipeline has no such step, or one with another field of view than the network's.
    """
    where = str(config.path)
    step = next((step for step in config.pipeline if short_name(step.get("type")) == _INTERPOLATION), None)
    if step is None:
        raise ConfigError(f"has no test pipeline with {_INTERPOLATION}", where=where)
    seen = (float(step.get("fov_up", 3.0)), float(step.get("fov_down", -25.0)))
    if seen != (preprocessor.fov_up, preprocessor.fov_down):
        raise ConfigError(
            f"{_INTERPOLATION} has fov_up, fov_down = {seen}, data_preprocessor "
            f"{(preprocessor.fov_up, preprocessor.fov_down)}",
            where=where,
        )
    return int(step.get("H", 64)), int(step.get("W", 2048))


def classes(model: Any) -> list[str]:
    """Class names, in label order."""
    return list(model.deploy.classes)
