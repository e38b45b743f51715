"""Optimization profiles: the sizes of each input that an engine is built for.

They come from the config (``components.<id>.tensorrt_profile``); inputs that it does not name get theirs from the
model spec, whose parameters give the sizes that the named axes can have. Either way they are checked against the
inputs of the ONNX file before anything is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from shared.errors import ConfigError
from shared.spec import ModelSpec
from trt_builder.onnx_graph import GraphInput

Shape = tuple[int, ...]


class Sizes(NamedTuple):
    """Smallest, tuned-for and largest size of an axis, or shape of an input."""

    min: Any
    opt: Any
    max: Any


# A profile: input name -> shapes. Inputs without dynamic axes are left out.
Profile = dict[str, Sizes]


def _one(_: Mapping[str, Any]) -> Sizes:
    return Sizes(1, 1, 1)


def _voxels(parameters: Mapping[str, Any]) -> Sizes:
    # A frame can be nearly empty. Lidar frames fill about a quarter of the voxels that a configuration allows for
    # (20,000 of 96,000 in AWML's reference profile); suggest-profiles gives the figures of a data set.
    largest = int(parameters["max_voxels"])
    return Sizes(1, max(1, largest // 4), largest)


def _parameter(name: str, index: int | None = None) -> Callable[[Mapping[str, Any]], Sizes]:
    def sizes(parameters: Mapping[str, Any]) -> Sizes:
        value = parameters[name] if index is None else parameters[name][index]
        return Sizes(int(value), int(value), int(value))

    return sizes


# What the axis names of the model spec mean, in terms of its parameters.
_AXES: dict[str, Callable[[Mapping[str, Any]], Sizes]] = {
    "batch_size": _one,
    "num_voxels": _voxels,
    "num_max_points": _parameter("max_points_per_voxel"),
    "width": _parameter("grid_size", 0),
    "height": _parameter("grid_size", 1),
}


def resolve(
    inputs: Sequence[GraphInput],
    configured: Sequence[Mapping[str, Sizes]],
    spec: ModelSpec,
    *,
    fixed: bool,
    where: str,
) -> list[Profile]:
    """The profiles to build with, complete and checked.

    Args:
        inputs: inputs of the ONNX file.
        configured: profiles of the config, first the main one; the main one may leave inputs out.
        spec: the model spec, for inputs that are left out.
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
                complete[graph_input.name] = _from_spec(graph_input, spec, where=place)
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


def sizes_of_axes(shape: Sequence[int | str], spec: ModelSpec) -> list[Sizes]:
    """Sizes of every axis of a shape, from the parameters of the model spec.

    Raises:
        KeyError: the spec says nothing about an axis.
    """
    axes = []
    for size in shape:
        if isinstance(size, int):
            axes.append(Sizes(size, size, size))
            continue
        try:
            axes.append(_AXES[size](spec.parameters))
        except (KeyError, IndexError) as error:
            raise KeyError(size) from error
    return axes


def _from_spec(graph_input: GraphInput, spec: ModelSpec, *, where: str) -> Sizes:
    try:
        axes = sizes_of_axes(graph_input.shape, spec)
    except KeyError as error:
        raise ConfigError(
            f"no sizes for input {describe(graph_input)}: the model spec says nothing about its axis '{error.args[0]}'",
            where=where,
            hint=f"give min_shape, opt_shape and max_shape for '{graph_input.name}'",
        ) from error
    return Sizes(*(tuple(axis[kind] for axis in axes) for kind in range(3)))


def as_json(profiles: Sequence[Profile]) -> list[dict[str, dict[str, list[int]]]]:
    """Profiles as JSON, for the stage's key and the engine's record."""
    return [
        {name: {kind: list(shape) for kind, shape in shapes._asdict().items()} for name, shapes in profile.items()}
        for profile in profiles
    ]
