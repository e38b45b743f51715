"""The one component of an FRNet, in either of two forms (`exporter.models.frnet.frustums`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from exporter.component import Component, Sizes
from exporter.models.frnet.framework import grouped, prepared
from exporter.models.frnet.frustums import Frustums, PaddedFrustums, ScatteredFrustums, pixels_at
from exporter.models.frnet.options import Options
from shared.errors import ExportError
from shared.spec import AxisSizes, TensorSpec

COMPONENT = "frnet"
_POINTS, _FRUSTUMS = "num_points", {"padded": "num_frustums", "scatter": "num_unique_coors"}
# The runtime gives no less, see `runtime.models.frnet.steps`.
_LEAST = 2


class ScatterForm(nn.Module):
    """AWML's form: ``points`` (N, 4), ``coors`` (N, 3), ``voxel_coors`` (M, 3), ``inverse_map`` (N,) to (N, C)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, points: Tensor, coors: Tensor, voxel_coors: Tensor, inverse_map: Tensor) -> Tensor:
        """Probabilities of the classes."""
        frustums = ScatteredFrustums(self.model.backbone.size, coors, voxel_coors, inverse_map)
        return _probabilities(self.model, points, frustums)


class PaddedForm(nn.Module):
    """Ours: ``points`` (N, 4), ``coors`` (N, 2), ``inverse_map`` (N,), ``frustum_points`` (M, K) and
    ``pixel_frustums`` (P,) to (N, C).
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.strides = strides(model)

    def forward(
        self, points: Tensor, coors: Tensor, inverse_map: Tensor, frustum_points: Tensor, pixel_frustums: Tensor
    ) -> Tensor:
        """Probabilities of the classes."""
        size = self.model.backbone.size
        frustums = PaddedFrustums(size, self.strides, coors, inverse_map, frustum_points, pixel_frustums)
        return _probabilities(self.model, points, frustums)


def _probabilities(model: Any, points: Tensor, frustums: Frustums) -> Tensor:
    return torch.softmax(model(points, frustums), dim=1)


def strides(model: Any) -> tuple[int, ...]:
    """Of the network's maps, ascending."""
    return tuple(sorted({1, *model.backbone.strides}))


def components(model: Any, model_input: Tensor, options: Options) -> list[Component]:
    """The network, with the points of one sample.

    Raises:
        ExportError: the sample has no points, or all of them in one direction.
    """
    frame, _ = prepared(model, model_input.numpy())
    inputs = grouped(model, frame) if len(frame) else {"voxel_coors": torch.zeros(0)}
    if len(inputs["voxel_coors"]) < _LEAST:
        raise ExportError(
            "the sample's points are too few to trace with", where="data.sample_idx", hint="choose another sample"
        )
    return [network(model, inputs, options)]


def network(model: Any, inputs: Mapping[str, Tensor], options: Options) -> Component:
    """The one component.

    Args:
        model: the FRNet.
        inputs: by name, in AWML's form; to trace and check with.
        options: see `Options`.
    """
    axis = _FRUSTUMS[options.form]
    classes, (height, width) = model.decode_head.num_classes, model.backbone.size
    dynamic: dict[str, tuple[str, list[int | str]]] = {"points": ("float32", [_POINTS, 4])}
    if options.form == "scatter":
        dynamic |= {"coors": ("int64", [_POINTS, 3]), "voxel_coors": ("int64", [axis, 3])}
        dynamic |= {"inverse_map": ("int64", [_POINTS])}
    else:
        dynamic |= {"coors": ("int32", [_POINTS, 2]), "inverse_map": ("int32", [_POINTS])}
        dynamic |= {"frustum_points": ("int32", [axis, options.points_per_frustum])}
        pixels = sum(pixels_at((height, width), stride) for stride in strides(model))
        dynamic |= {"pixel_frustums": ("int32", [pixels])}
    module = ScatterForm(model) if options.form == "scatter" else PaddedForm(model)

    def inputs_of(sizes: Sizes) -> tuple[Tensor, ...]:
        cut = _first_frustums(inputs, sizes.get(axis))
        return tuple(cut.values()) if options.form == "scatter" else padded(cut, model, options.points_per_frustum)

    count = len(inputs["voxel_coors"])
    typical, most = options.num_points
    frustums = tuple(min(size, height * width) for size in options.num_frustums)
    return Component(
        name=COMPONENT,
        module=module.eval(),
        inputs=tuple(TensorSpec(name=name, dtype=dtype, shape=shape) for name, (dtype, shape) in dynamic.items()),
        outputs=(TensorSpec(name=options.output, dtype="float32", shape=[_POINTS, classes]),),
        inputs_of=inputs_of,
        trace_sizes={axis: max(_LEAST, count // 2)},
        check_sizes=({axis: count}, {axis: max(_LEAST, count // 3)}, {axis: _LEAST}),
        deployed_sizes={_POINTS: most, axis: frustums[1]},
        varying_axes={
            _POINTS: AxisSizes(min=_LEAST, opt=typical, max=most, counter="num_points"),
            axis: AxisSizes(min=_LEAST, opt=frustums[0], max=frustums[1], counter="num_frustums"),
        },
    )


def _first_frustums(inputs: Mapping[str, Tensor], count: int | None) -> dict[str, Tensor]:
    """The first so many frustums and their points."""
    if count is None:
        return dict(inputs)
    kept = inputs["inverse_map"] < count
    cut = {name: tensor[kept] for name, tensor in inputs.items() if name != "voxel_coors"}
    return {name: inputs[name][:count] if name == "voxel_coors" else cut[name] for name in inputs}


def padded(inputs: Mapping[str, Tensor], model: Any, slots: int) -> tuple[Tensor, ...]:
    """AWML's form as the padded one."""
    inverse, voxels = inputs["inverse_map"], inputs["voxel_coors"]
    by_frustum = torch.argsort(inverse, stable=True)
    counts = torch.bincount(inverse, minlength=len(voxels))
    first = counts.cumsum(0) - counts
    slot = torch.arange(slots)[None, :].minimum((counts - 1)[:, None])
    # Beyond a frustum's last point comes its first.
    slot = torch.where(torch.arange(slots)[None, :] < counts[:, None], slot, 0)
    index = by_frustum[first[:, None] + slot]
    height, width = model.backbone.size
    maps = []
    for stride in strides(model):
        shown = torch.zeros((height // stride) * (width // stride), dtype=torch.int32)
        place = (voxels[:, 1] // stride) * (width // stride) + voxels[:, 2] // stride
        maps.append(shown.scatter_reduce(0, place, torch.arange(1, len(voxels) + 1, dtype=torch.int32), "amax"))
    return (
        inputs["points"], inputs["coors"][:, 1:].int(), inverse.int(), index.int(), torch.cat(maps),
    )  # fmt: skip
