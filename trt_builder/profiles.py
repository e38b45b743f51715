"""Optimization profiles: the sizes of each input that an engine is built for.

They come from the config (``components.<id>.tensorrt_profile``); inputs that it does not name get theirs from the
model spec, in which the exporter wrote the sizes of the named axes. Either way they are checked against the inputs of
the ONNX file before anything is built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from shared.errors import ConfigError
from shared.onnx_graph import GraphInput
from shared.spec import AxisSizes, ComponentSpec, ModelSpec

Shape = tuple[int, ...]


class Sizes(NamedTuple):
    """Smallest, tuned-for and largest shape of an input."""

    min: Shape
    opt: Shape
    max: Shape


# A profile: input name -> shapes. Inputs without dynamic axes are left out.
Profile = dict[str, Sizes]


def axes_of(component: ComponentSpec, spec: ModelSpec) -> dict[str, AxisSizes]:
    """The sizes of a component's named axes.

    Specs written before axes had sizes are CenterPoint's where they leave a choice: there, the parameters give them.
    """
    former = {"batch_size": AxisSizes.fixed(1)}
    parameters = spec.parameters
    if {"max_voxels", "max_points_per_voxel", "grid_size"} <= parameters.keys():
        voxels, (width, height) = int(parameters["max_voxels"]), parameters["grid_size"][:2]
        former |= {
            "num_voxels": AxisSizes(min=1, opt=max(1, voxels // 4), max=voxels, counter="voxels"),
            "num_max_points": AxisSizes.fixed(int(parameters["max_points_per_voxel"])),
            "width": AxisSizes.fixed(int(width)),
            "height": AxisSizes.fixed(int(height)),
        }
    return component.axes or former


def resolve(
    inputs: Sequence[GraphInput],
    configured: Sequence[Mapping[str, Sizes]],
    axes: Mapping[str, AxisSizes],
    *,
    fixed: bool,
    where: str,
) -> list[Profile]:
    """The profiles to build with, complete and checked.

    Args:
        inputs: inputs of the ONNX file.
        configured: profiles of the config, first the main one; the main one may leave inputs out.
        axes: sizes of the named axes, for inputs that are left out.
        fixed: make every profile one size, its largest.
        where: the component's place in the config, for errors.

    Returns:
        No profile when no input has a dynamic axis; else one per configured profile, at least one.

    Raises:
        ConfigError: an unknown or missing input, a rank or fixed axis that differs, or sizes out of order.
    """
    dynamic = [graph_input for graph_input in inputs if graph_input.dynamic]
    by_name = {graph_input.name: graph_input for graph_input in inputs}
    profiles = []
    for index, profile in enumerate(configured or [{}]):
        place = f"{where}.tensorrt_profile" if index == 0 else f"{where}.extra_tensorrt_profiles[{index - 1}]"
        for name in profile:
            if name not in by_name:
                raise ConfigError(
                    f"names input '{name}', which the ONNX file does not have", where=place,
                    hint=f"its inputs are {', '.join(by_name)}",
                )  # fmt: skip
        complete: Profile = {}
        for graph_input in inputs:
            if graph_input.name in profile:
                check(graph_input, profile[graph_input.name], where=f"{place}.{graph_input.name}")
                complete[graph_input.name] = profile[graph_input.name]
            elif graph_input in dynamic:
                complete[graph_input.name] = _from_axes(graph_input, axes, where=place)
        profiles.append(
            {
                name: Sizes(*(Sizes(shapes.max, shapes.max, shapes.max) if fixed else shapes))
                for name, shapes in complete.items()
                if by_name[name].dynamic
            }
        )
    return profiles if dynamic else []


def check(graph_input: GraphInput, shapes: Sizes, *, where: str) -> None:
    """Whether the shapes fit the input.

    Raises:
        ConfigError: they don't; says which axis, and what would be right.
    """
    for kind, shape in zip(shapes._fields, shapes, strict=True):
        if len(shape) != len(graph_input.shape):
            raise ConfigError(
                f"{kind}_shape {list(shape)} has {len(shape)} axes, the ONNX input {describe(graph_input)} has "
                f"{len(graph_input.shape)}",
                where=where,
            )
        for axis, (size, allowed) in enumerate(zip(shape, graph_input.shape, strict=True)):
            if isinstance(allowed, int) and size != allowed:
                raise ConfigError(
                    f"{kind}_shape {list(shape)}: axis {axis} is {size}, but the ONNX input {describe(graph_input)} "
                    f"fixes it at {allowed}",
                    where=where,
                )
    for axis, (low, middle, high) in enumerate(zip(*shapes, strict=True)):
        if not 1 <= low <= middle <= high:
            raise ConfigError(
                f"axis {axis} has min {low}, opt {middle}, max {high}; it must be 1 <= min <= opt <= max", where=where
            )


def describe(graph_input: GraphInput) -> str:
    """An input as users know it: ``input_features [num_voxels, num_max_points, 11]``."""
    return f"{graph_input.name} [{', '.join(str(size) or '?' for size in graph_input.shape)}]"


def shapes_of(shape: Sequence[int | str], axes: Mapping[str, AxisSizes]) -> Sizes:
    """Smallest, tuned-for and largest shape of an input.

    Args:
        shape: sizes, and names of dynamic axes.
        axes: what the named ones can be.

    Raises:
        KeyError: an axis without sizes.
    """
    sizes = [AxisSizes.fixed(size) if isinstance(size, int) else axes[size] for size in shape]
    return Sizes(tuple(one.min for one in sizes), tuple(one.opt for one in sizes), tuple(one.max for one in sizes))


def _from_axes(graph_input: GraphInput, axes: Mapping[str, AxisSizes], *, where: str) -> Sizes:
    try:
        return shapes_of(graph_input.shape, axes)
    except KeyError as error:
        raise ConfigError(
            f"no sizes for input {describe(graph_input)}: the model spec says nothing about its axis '{error.args[0]}'",
            where=where,
            hint=f"give min_shape, opt_shape and max_shape for '{graph_input.name}'",
        ) from error


def as_json(profiles: Sequence[Profile]) -> list[dict[str, dict[str, list[int]]]]:
    """Profiles as JSON, for the stage's key and the engine's record."""
    return [
        {name: {kind: list(shape) for kind, shape in shapes._asdict().items()} for name, shapes in profile.items()}
        for profile in profiles
    ]
