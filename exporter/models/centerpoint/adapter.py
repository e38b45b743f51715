"""CenterPoint on pillars: two components, the parameters of its pre- and post-processing, and what mmdet3d answers.

``pts_voxel_encoder``: decorated points of each pillar to its features. The decoration itself is outside.
``pts_backbone_neck_head``: the map of pillar features to the head's raw maps (logits; no sigmoid, no exp).
What lies between and around them (voxelization, decoration, scatter, decoding, suppression) is the runtime's.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from exporter.component import Component, Sizes
from exporter.models.centerpoint.layers import folded
from exporter.training_config import TrainingConfig, build_model
from shared.data import PointLoading, Sample, load_points
from shared.errors import ConfigError, ExportError
from shared.lazy import lazy_import
from shared.runs import RawOutputs
from shared.spec import AxisSizes, TensorSpec
from shared.tasks.detection3d import Boxes3D

# Imports mmcv's operators: not before `build_model` has provided them.
mmdet3d_structures = lazy_import("mmdet3d.structures")

TASK = "detection3d"

ENCODER = "pts_voxel_encoder"
HEAD = "pts_backbone_neck_head"

# Autoware binds the head's outputs by position, in this order.
_OUTPUT_ORDER = ("heatmap", "reg", "height", "dim", "rot", "vel")

# Sizes to trace and check with: enough for every stride, little enough for a CPU (and for programs, which keep the
# inputs that they were traced with). Multiples of the alignment pass through all strides of the backbones in use (16 at
# most) without remainder.
_LARGEST_CHECK = 256
_LARGEST_TRACE = 64
_ALIGNMENT = 32
_TRACED_PILLARS = 256
_CHECKED_PILLARS = 20_000

_log = logging.getLogger("exporter")


class Options(BaseModel):
    """``model.options`` of the deploy config.

    Attributes:
        rot_y_axis_reference: export boxes as w, l, h and the yaw as [-cos, -sin] (measured clockwise from the y axis),
            as Autoware's node expects; the runtime turns them back.
        nms_type: ``circle`` replaces a training config's rotated suppression, which the runtime does not have, by
            circle suppression with the config's own ``min_radius``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    rot_y_axis_reference: bool = False
    nms_type: str | None = None


def read_options(options: Mapping[str, Any]) -> Options:
    """The options, checked.

    Raises:
        ConfigError: an unknown option or a wrong value.
    """
    try:
        parsed = Options.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"{first['msg']}",
            where="model.options." + ".".join(map(str, first["loc"])),
            hint=f"options of centerpoint: {', '.join(Options.model_fields)}",
        ) from error
    if parsed.nms_type not in (None, "circle"):
        raise ConfigError(f"'{parsed.nms_type}' is unknown", where="model.options.nms_type", hint="there is: circle")
    return parsed


# -- the model ------------------------------------------------------------------------------------------------------


def build(config: TrainingConfig, options: Options) -> Any:
    """The CenterPoint of a training config, with random weights.

    Raises:
        ConfigError: not a CenterPoint on pillars, or a variant that can't be deployed.
    """
    where = str(config.path)
    _check_variant(config.model, where)
    model = build_model(replace(config, model={**config.model, "type": "CenterPoint"}))
    head = model.pts_bbox_head
    if options.nms_type is not None:
        head.test_cfg["nms_type"] = options.nms_type
    if head.test_cfg.get("nms_type") != "circle":
        raise ConfigError(
            f"test_cfg.pts.nms_type is '{head.test_cfg.get('nms_type')}'; the runtime has circle suppression",
            where=where,
            hint=f"set model.options.nms_type: circle to use it, with min_radius {head.test_cfg.get('min_radius')}",
        )
    return model


# Types whose layers and decoding this module knows; AWML's deployment writes those with ONNX into the configs it dumps.
_TYPES = {
    "pts_voxel_encoder": (
        "PillarFeatureNet", "BackwardPillarFeatureNet", "PillarFeatureNetONNX", "BackwardPillarFeatureNetONNX",
    ),
    "pts_middle_encoder": ("PointPillarsScatter",),
    "pts_bbox_head": ("CenterHead", "CenterHeadONNX"),
}  # fmt: skip


def _check_variant(section: Mapping[str, Any], where: str) -> None:
    """A training config's model section, before it is built.

    Raises:
        ConfigError: not a CenterPoint on pillars, or a variant that can't be deployed.
    """
    if section.get("type") not in ("CenterPoint", "CenterPointONNX"):
        raise ConfigError(f"model is a {section.get('type')}, not a CenterPoint", where=where, hint="check model.type")
    parts = {name: section.get(name) or {} for name in (*_TYPES, "data_preprocessor")}
    for name, known in _TYPES.items():
        actual = parts[name].get("type")
        if actual not in known:
            raise ConfigError(
                f"{name} is {actual}; only a CenterPoint on pillars can be deployed",
                where=where,
                hint=f"known for {name}: {', '.join(known)}",
            )
    preprocessor, encoder, head = parts["data_preprocessor"], parts["pts_voxel_encoder"], parts["pts_bbox_head"]
    if not preprocessor.get("voxel") or preprocessor.get("voxel_type", "hard") != "hard":
        raise ConfigError("data_preprocessor does not voxelize points, or not into voxels of a fixed size", where=where)
    if encoder.get("mode", "max") != "max":
        raise ConfigError("pts_voxel_encoder averages over points; only mode='max' can be deployed", where=where)
    if head.get("separate_head", {}).get("type") == "DCNSeparateHead":
        raise ConfigError("the head has deformable convolutions, which ONNX lacks", where=where)
    if not (section.get("test_cfg") or {}).get("pts"):
        raise ConfigError("has no test_cfg.pts, so how boxes are suppressed is unknown", where=where)
    if not head.get("bbox_coder", {}).get("post_center_range"):
        raise ConfigError("the box coder has no post_center_range, which mmdet3d needs", where=where)


def classes(model: Any) -> list[str]:
    """Class names of all tasks, in label order."""
    return [name for names in model.pts_bbox_head.class_names for name in names]


# -- parameters -----------------------------------------------------------------------------------------------------


def parameters(model: Any, config: TrainingConfig, options: Options) -> dict[str, Any]:
    """Ranges, voxels, decoration, decoding and suppression, as the model has them.

    Raises:
        ConfigError: parts of the training config contradict one another, or it does not say how points are loaded.
    """
    where = str(config.path)
    voxels, head, coder = model.data_preprocessor.voxel_layer, model.pts_bbox_head, model.pts_bbox_head.bbox_coder
    point_range = [float(value) for value in voxels.point_cloud_range]
    voxel_size = [float(value) for value in voxels.voxel_size]
    # As mmdet3d rounds it: in float32.
    low, high = np.asarray(point_range, np.float32).reshape(2, 3)
    grid = [int(cells) for cells in np.round((high - low) / np.asarray(voxel_size, np.float32))]
    _check_consistency(model, point_range, voxel_size, grid, where)
    loading, decoration = point_loading(config), _decoration(model.pts_voxel_encoder, config)
    if len(loading.use_dim) != decoration["raw_features"]:
        raise ConfigError(
            f"the test pipeline loads {len(loading.use_dim)} columns {list(loading.use_dim)}, the voxel encoder takes "
            f"{decoration['raw_features']} (in_channels)",
            where=where,
        )
    test = head.test_cfg
    radius = [float(value) for value in test["min_radius"]]
    if len(radius) != len(head.task_heads):
        raise ConfigError(
            f"test_cfg.pts.min_radius has {len(radius)} values for {len(head.task_heads)} tasks", where=where
        )
    return {
        "point_cloud_range": point_range,
        "voxel_size": voxel_size,
        "grid_size": grid,
        "max_points_per_voxel": int(voxels.max_num_points),
        # mmdet3d keeps two limits: the first is for training.
        "max_voxels": int(voxels.max_voxels[1]),
        "points": {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(loading).items()},
        "decoration": decoration,
        "encoder_channels": int(model.pts_middle_encoder.in_channels),
        "out_size_factor": int(coder.out_size_factor),
        "norm_bbox": bool(head.norm_bbox),
        "rot_y_axis_reference": _y_axis_outputs(model, options),
        "bbox_coder": {
            "max_num": int(coder.max_num),
            # A threshold of 0 is none, as in mmdet3d.
            "score_threshold": float(coder.score_threshold) if coder.score_threshold else None,
            "post_center_range": [float(value) for value in coder.post_center_range],
        },
        "nms": {
            "type": "circle",
            "radius": radius,
            "pre_max_size": None,
            "post_max_size": int(test["post_max_size"]),
        },
        "tasks": [
            {"classes": list(names), "outputs": dict(outputs)}
            for names, outputs in zip(head.class_names, _output_names(model), strict=True)
        ],
    }


def _check_consistency(
    model: Any, point_range: list[float], voxel_size: list[float], grid: list[int], where: str
) -> None:
    """The same quantity stands at several places of a training config; they must agree, or nothing downstream is right.

    Raises:
        ConfigError: they don't.
    """
    encoder, scatter, coder = model.pts_voxel_encoder, model.pts_middle_encoder, model.pts_bbox_head.bbox_coder
    pairs: dict[str, tuple[list[float], list[float]]] = {
        "the voxel encoder's point_cloud_range": ([float(v) for v in encoder.point_cloud_range], point_range),
        "the voxel encoder's voxel_size": ([float(encoder.vx), float(encoder.vy)], voxel_size[:2]),
        "the box coder's pc_range": ([float(v) for v in coder.pc_range[:2]], point_range[:2]),
        "the box coder's voxel_size": ([float(v) for v in coder.voxel_size[:2]], voxel_size[:2]),
        "the scatter's output_shape (y, x)": ([scatter.ny, scatter.nx], [grid[1], grid[0]]),
    }
    for what, (actual, expected) in pairs.items():
        if not np.allclose(actual, expected, rtol=0, atol=1e-6):
            raise ConfigError(f"{what} is {actual}, the data preprocessor's voxel layer says {expected}", where=where)
    if grid[2] != 1:
        raise ConfigError(f"the grid has {grid[2]} cells along z; pillars have one", where=where)


def _decoration(encoder: Any, config: TrainingConfig) -> dict[str, Any]:
    section = config.model["pts_voxel_encoder"]
    raw = int(section.get("in_channels", 4))
    cluster = bool(section.get("with_cluster_center", True))
    distance = bool(section.get("with_distance", False))
    # The layers' own width says how many offsets to the center there are: 3, 2 (AWML's Backward type) or none.
    offsets = encoder.pfn_layers[0].linear.in_features - raw - 3 * cluster - distance
    centers = {3: "xyz", 2: "xy", 0: "none"}
    if offsets not in centers:
        raise ConfigError(
            f"the voxel encoder {section['type']} has {offsets} features beside the known ones", where=str(config.path)
        )
    return {
        "raw_features": raw,
        "cluster_center": cluster,
        "voxel_center": centers[offsets],
        "distance": distance,
        "legacy": bool(encoder.legacy),
    }


_LOADING_STEPS = ("LoadPointsFromFile", "LoadPointsFromMultiSweeps", "PointsRangeFilter")
# Steps of a test pipeline that leave the points as they are (or, in test-time augmentation, are set to do nothing).
_PASSIVE_STEPS = frozenset(
    {"Pack3DDetInputs", "LoadAnnotations3D", "MultiScaleFlipAug3D", "GlobalRotScaleTrans", "RandomFlip3D"}
)


def point_loading(config: TrainingConfig) -> PointLoading:
    """How the training config's test pipeline loads points.

    Raises:
        ConfigError: it has no such pipeline, or a step that this tool does not know.
    """
    where = str(config.path)
    steps = {step["type"].rsplit(".", 1)[-1]: step for step in config.pipeline if isinstance(step.get("type"), str)}
    unknown = sorted(set(steps) - _PASSIVE_STEPS - set(_LOADING_STEPS))
    if unknown:
        raise ConfigError(
            f"the test pipeline has the steps {', '.join(unknown)}, which the runtime does not know",
            where=where,
            hint="deploy with a config whose test pipeline does without them",
        )
    load, merge, limits = (steps.get(name) for name in _LOADING_STEPS)
    if load is None:
        raise ConfigError(
            "has no test pipeline with LoadPointsFromFile, so how points are loaded is unknown",
            where=where,
            hint="define test_dataloader.dataset.pipeline or test_pipeline",
        )
    if merge is not None and not merge.get("test_mode", False):
        _log.info("the test pipeline draws sweeps at random (no test_mode); here the most recent ones are taken")
    load_dim, columns = int(load.get("load_dim", 6)), _columns(load.get("use_dim", [0, 1, 2]))
    changed = [name for name in ("shift_height", "use_color", "norm_elongation") if load.get(name)]
    if changed:
        raise ConfigError(f"LoadPointsFromFile has {changed[0]}, which the runtime does not know", where=where)
    if merge is not None:
        if columns != tuple(range(load_dim)) or int(merge.get("load_dim", 5)) != load_dim:
            raise ConfigError(
                f"LoadPointsFromMultiSweeps takes points of {merge.get('load_dim', 5)} columns, "
                f"LoadPointsFromFile gives {len(columns)} of {load_dim}",
                where=where,
                hint="give both the same load_dim, and LoadPointsFromFile use_dim equal to it",
            )
        columns = _columns(merge.get("use_dim", [0, 1, 2, 4]))
    try:
        return PointLoading(
            load_dim=load_dim,
            use_dim=columns,
            merge_sweeps=merge is not None,
            sweeps_num=int(merge.get("sweeps_num", 10)) if merge is not None else 0,
            remove_close=bool(merge.get("remove_close", False)) if merge is not None else False,
            pad_empty_sweeps=bool(merge.get("pad_empty_sweeps", False)) if merge is not None else False,
            range_filter=_six(limits["point_cloud_range"]) if limits is not None else None,
            norm_intensity=bool(load.get("norm_intensity", False)),
        )
    except ValueError as error:
        raise ConfigError(f"the test pipeline can't be: {error}", where=where) from error


def _columns(use_dim: int | Sequence[int]) -> tuple[int, ...]:
    """mmdet3d's ``use_dim``: columns, or how many of the first."""
    return tuple(range(use_dim)) if isinstance(use_dim, int) else tuple(int(column) for column in use_dim)


def _six(values: Sequence[float]) -> tuple[float, float, float, float, float, float]:
    x0, y0, z0, x1, y1, z1 = (float(value) for value in values)
    return x0, y0, z0, x1, y1, z1


def _output_names(model: Any) -> list[dict[str, str]]:
    """Per task: what an output means to its name. One task: plain names; several: with the task's number."""
    heads = model.pts_bbox_head.task_heads
    return [
        {kind: kind if len(heads) == 1 else f"{kind}_{task}" for kind in _OUTPUT_ORDER if kind in head.heads}
        for task, head in enumerate(heads)
    ]


def trained_on_y_axis(model: Any) -> bool:
    """Whether the network itself answers with w, l, h and the yaw from the y axis (AWML's box coder has a flag)."""
    return bool(vars(model.pts_bbox_head.bbox_coder).get("y_axis_reference", False))


def _y_axis_outputs(model: Any, options: Options) -> bool:
    return options.rot_y_axis_reference or trained_on_y_axis(model)


# -- components -----------------------------------------------------------------------------------------------------


class Encoder(nn.Module):
    """The layers of a pillar encoder, without the decoration: (N, M, F) to (N, 1, C)."""

    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, input_features: Tensor) -> Tensor:
        """Decorated points of N pillars, unused slots zero, to the pillars' features."""
        features = input_features
        for layer in self.layers:
            features = layer(features)
        return features


class BackboneNeckHead(nn.Module):
    """Backbone, neck and head: (B, C, H, W) to the raw maps of every task, in a fixed order.

    Args:
        model: mmdet3d's CenterPoint.
        to_y_axis: see `to_y_axis_reference`.
    """

    def __init__(self, model: Any, to_y_axis: bool) -> None:
        super().__init__()
        self.backbone = model.pts_backbone
        self.neck = model.pts_neck
        self.head = model.pts_bbox_head
        self.to_y_axis = to_y_axis

    def forward(self, spatial_features: Tensor) -> tuple[Tensor, ...]:
        """The map of pillar features to heatmap, reg, height, dim, rot, vel of each task."""
        features = self.neck(self.backbone(spatial_features))
        tasks = self.head.forward_single(features[0])
        return tuple(_ordered_outputs(tasks, self.to_y_axis))


def _ordered_outputs(tasks: Sequence[Mapping[str, Tensor]], to_y_axis: bool) -> Iterator[Tensor]:
    for maps in tasks:
        converted = to_y_axis_reference(maps) if to_y_axis else maps
        yield from (converted[kind] for kind in _OUTPUT_ORDER if kind in converted)


def to_y_axis_reference(maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The head's maps with boxes as w, l, h and the yaw measured clockwise from the y axis.

    With l, w, h = dim and [sin, cos] = rot: dim becomes [w, l, h], rot becomes [-cos, -sin].

    Args:
        maps: by name, (B, C, H, W) each.
    """
    dim, rot = maps["dim"], maps["rot"]
    return {
        **maps,
        "dim": torch.cat([dim[:, 1:2], dim[:, 0:1], dim[:, 2:3]], dim=1),
        "rot": -torch.cat([rot[:, 1:2], rot[:, 0:1]], dim=1),
    }


@dataclass(frozen=True)
class Intermediate:
    """What flows between the framework's parts for one sample.

    Attributes:
        decorated: (V, M, F) decorated points.
        spatial: (1, C, H, W) map of pillar features.
        coordinates: (V, 3) cell of each pillar along z, y, x.
    """

    decorated: Tensor
    spatial: Tensor
    coordinates: Tensor


def components(model: Any, model_input: Tensor, options: Options) -> list[Component]:
    """The encoder and the rest, with real data of one sample.

    Args:
        model: mmdet3d's CenterPoint.
        model_input: (N, columns) float32 points.
        options: see `Options`.

    Raises:
        ExportError: no point of the sample lies in range.
    """
    intermediate = run_parts(model, model_input)
    return [encoder_component(model, intermediate.decorated), head_component(model, intermediate.spatial, options)]


def encoder_component(model: Any, decorated: Tensor) -> Component:
    """``pts_voxel_encoder``, with batch norms folded into its Linears; the model itself stays as it is.

    Args:
        model: mmdet3d's CenterPoint.
        decorated: (V, M, F) float32 of a real sample.
    """
    largest = int(model.data_preprocessor.voxel_layer.max_voxels[1])
    pillars, slots, features = decorated.shape
    channels = int(model.pts_middle_encoder.in_channels)

    def inputs_of(sizes: Sizes) -> tuple[Tensor]:
        rows = torch.arange(sizes["num_voxels"]) % pillars
        return (decorated[rows, : sizes["num_max_points"]].contiguous(),)

    most = min(pillars, _CHECKED_PILLARS)
    half = max(2, slots // 2)
    return Component(
        name=ENCODER,
        module=Encoder(folded(model.pts_voxel_encoder.pfn_layers)).eval(),
        inputs=(TensorSpec(name="input_features", dtype="float32", shape=["num_voxels", "num_max_points", features]),),
        outputs=(TensorSpec(name="pillar_features", dtype="float32", shape=["num_voxels", 1, channels]),),
        inputs_of=inputs_of,
        trace_sizes={"num_voxels": max(2, min(pillars, _TRACED_PILLARS)), "num_max_points": slots},
        check_sizes=(
            {"num_voxels": most, "num_max_points": slots},
            {"num_voxels": max(2, most // 3), "num_max_points": half},
            {"num_voxels": 1, "num_max_points": slots},
        ),
        deployed_sizes={"num_voxels": largest, "num_max_points": slots},
        # A frame can be nearly empty. Lidar frames fill about a quarter of the voxels that a configuration allows for
        # (20,000 of 96,000 in AWML's reference profile); `trt_builder suggest-profiles` gives a data set's own figures.
        varying_axes={"num_voxels": AxisSizes(min=1, opt=max(1, largest // 4), max=largest, counter="voxels")},
    )


def head_component(model: Any, spatial: Tensor, options: Options) -> Component:
    """``pts_backbone_neck_head``.

    Args:
        model: mmdet3d's CenterPoint.
        spatial: (1, C, H, W) float32 of a real sample.
        options: see `Options`.
    """
    _, channels, height, width = spatial.shape
    to_y_axis = options.rot_y_axis_reference and not trained_on_y_axis(model)
    y, x = _densest(spatial)

    def inputs_of(sizes: Sizes) -> tuple[Tensor]:
        # A window around the densest part of the map, so that small sizes hold real data, not empty space.
        rows, columns = sizes["height"], sizes["width"]
        top = min(max(0, y - rows // 2), height - rows)
        left = min(max(0, x - columns // 2), width - columns)
        window = spatial[:, :, top : top + rows, left : left + columns]
        return (window.expand(sizes["batch_size"], -1, -1, -1).contiguous(),)

    tall, wide = _window(height, _LARGEST_CHECK), _window(width, _LARGEST_CHECK)
    return Component(
        name=HEAD,
        module=BackboneNeckHead(model, to_y_axis).eval(),
        inputs=(
            TensorSpec(name="spatial_features", dtype="float32", shape=["batch_size", channels, "height", "width"]),
        ),
        outputs=tuple(
            TensorSpec(name=names[kind], dtype="float32", shape=["batch_size", count, "output_height", "output_width"])
            for names, counts in zip(_output_names(model), _output_channels(model), strict=True)
            for kind, count in counts.items()
        ),
        inputs_of=inputs_of,
        trace_sizes={
            "batch_size": 2,
            "height": _window(height, _LARGEST_TRACE),
            "width": _window(width, _LARGEST_TRACE),
        },
        check_sizes=(
            {"batch_size": 1, "height": tall, "width": wide},
            {"batch_size": 1, "height": _window(height, tall // 2), "width": wide},
            {"batch_size": 3, "height": _window(height, tall // 2), "width": _window(width, wide // 4)},
        ),
        deployed_sizes={
            "batch_size": 1,
            "height": height,
            "width": width,
            **_output_size(model, height, width),
        },
    )


def _output_size(model: Any, height: int, width: int) -> dict[str, int]:
    factor = int(model.pts_bbox_head.bbox_coder.out_size_factor)
    return {"output_height": height // factor, "output_width": width // factor}


def _output_channels(model: Any) -> list[dict[str, int]]:
    """Per task: what an output means to its number of channels."""
    # Not from head.heads: built from a ConfigDict, all tasks share one, which says what the last task has.
    return [
        {kind: int(getattr(head, kind)[-1].out_channels) for kind in _OUTPUT_ORDER if kind in head.heads}
        for head in model.pts_bbox_head.task_heads
    ]


def _window(size: int, at_most: int) -> int:
    """The largest usable size of a window on an axis: the whole axis, or a multiple of the alignment."""
    if size <= at_most or size <= _ALIGNMENT:
        return size
    return max(_ALIGNMENT, at_most // _ALIGNMENT * _ALIGNMENT)


def _densest(spatial: Tensor) -> tuple[int, int]:
    """Row and column about which the map holds most pillars."""
    occupied = (spatial[0] != 0).any(dim=0)
    return int(occupied.sum(dim=1).argmax()), int(occupied.sum(dim=0).argmax())


# -- what the framework answers ---------------------------------------------------------------------------------------


def load_input(sample: Sample, parameters: Mapping[str, Any]) -> Tensor:
    """Points of a sample, loaded as the model wants them: (N, columns) float32.

    Raises:
        InputError: a point file is missing or broken.
    """
    loading = PointLoading(**{**parameters["points"], "use_dim": tuple(parameters["points"]["use_dim"])})
    return torch.from_numpy(load_points(sample, loading))


def answer(model: Any, model_input: Tensor) -> tuple[RawOutputs, Boxes3D, dict[str, int]]:
    """What mmdet3d answers: its own data preprocessor, model and head prediction, nothing of ours between.

    Args:
        model: mmdet3d's CenterPoint.
        model_input: (N, columns) float32 points.

    Returns:
        raw: the head's maps by output name, (1, C, H, W) each, with dim as l, w, h and rot as [sin, cos] whatever the
        components are exported with; boxes: its final boxes, with gravity centers; counters: points and voxels.
    """
    with torch.no_grad(), warnings.catch_warnings(), _recorded(model.pts_bbox_head) as maps:
        # mmdet3d copies a tensor in a way that PyTorch advises against, at every call.
        warnings.simplefilter("ignore", UserWarning)
        data = model.data_preprocessor(
            {"inputs": {"points": [model_input]}, "data_samples": [_data_sample()]}, training=False
        )
        if len(data["inputs"]["voxels"]["voxels"]):
            result = model.predict(data["inputs"], data["data_samples"])[0].pred_instances_3d
        else:
            # mmdet3d takes the batch size from the last voxel and fails without one: an empty frame is an empty map.
            scatter = model.pts_middle_encoder
            empty = model_input.new_zeros(1, scatter.in_channels, scatter.ny, scatter.nx)
            features = model.pts_neck(model.pts_backbone(empty))
            result = model.pts_bbox_head.predict(features, data["data_samples"])[0]
    tasks = [task[0] for task in maps[-1].output]
    names = [name for task in _output_names(model) for name in task.values()]
    # The conversion is its own inverse: this undoes what the network itself was trained to do.
    values = _ordered_outputs(tasks, trained_on_y_axis(model))
    raw = {name: value.cpu().numpy() for name, value in zip(names, values, strict=True)}
    counters = {"points": len(model_input), "voxels": len(data["inputs"]["voxels"]["voxels"])}
    return raw, _boxes(result), counters


def _boxes(result: Any) -> Boxes3D:
    """mmdet3d's boxes (center of the bottom face) as ours (gravity center)."""
    boxes = result.bboxes_3d
    values = boxes.tensor.cpu().numpy()
    return Boxes3D.build(
        centers=boxes.gravity_center.cpu().numpy(),
        sizes=values[:, 3:6],
        yaws=values[:, 6],
        velocities=values[:, 7:9] if values.shape[1] > 8 else None,
        labels=result.labels_3d.cpu().numpy(),
        scores=result.scores_3d.cpu().numpy(),
        num_points=np.zeros(len(values), np.int64),
    )


def _data_sample() -> Any:
    return mmdet3d_structures.Det3DDataSample(metainfo={"box_type_3d": mmdet3d_structures.LiDARInstance3DBoxes})


@dataclass(frozen=True)
class _Call:
    inputs: tuple[Any, ...]
    output: Any


@contextlib.contextmanager
def _recorded(module: nn.Module) -> Iterator[list[_Call]]:
    """Inputs and outputs of a module's calls inside the block."""
    calls: list[_Call] = []
    # Maps are copied: mmdet3d's decoding changes some of them in place.
    hook = module.register_forward_hook(lambda _, inputs, output: calls.append(_Call(inputs, _copied(output))))
    try:
        yield calls
    finally:
        hook.remove()


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {name: _copied(item) for name, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, (list, tuple)) else value


def run_parts(model: Any, points: Tensor) -> Intermediate:
    """Run the framework on a sample and note what its encoder's layers and its backbone are given.

    Raises:
        ExportError: no point of the sample lies in range.
    """
    with (
        torch.no_grad(),
        _recorded(model.pts_voxel_encoder.pfn_layers[0]) as encoder,
        _recorded(model.pts_middle_encoder) as scatter,
    ):
        data = model.data_preprocessor(
            {"inputs": {"points": [points]}, "data_samples": [_data_sample()]}, training=False
        )
        voxels = data["inputs"]["voxels"]
        if not len(voxels["voxels"]):
            raise ExportError(
                "no point of the sample lies in the model's range, so there is nothing to trace with",
                where="data.sample_idx",
                hint="choose another sample",
            )
        features = model.pts_voxel_encoder(voxels["voxels"], voxels["num_points"], voxels["coors"])
        model.pts_middle_encoder(features, voxels["coors"], 1)
    return Intermediate(encoder[-1].inputs[0], scatter[-1].output, voxels["coors"][:, 1:])
