"""A component: a part of a model that is exported to a file of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from shared.errors import ConfigError
from shared.spec import AxisSizes, ComponentSpec, TensorSpec

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Component:
    """A part of a model, with real data to trace and check it with.

    Attributes:
        name: name of the component and, by default, of its files.
        module: torch.nn.Module in evaluation mode; takes the inputs as positional tensors, gives a tensor or a tuple.
        inputs: names, types and shapes; dynamic axes by name.
        outputs: the same, in the order of the module's results.
        inputs_of: real inputs (from a sample of the data set), cut or repeated to given sizes of the dynamic axes.
        trace_sizes: sizes to trace the module with; none may be 1, which tracers take for a constant.
        check_sizes: sizes at which every exported file is compared with the module.
        deployed_sizes: sizes that the pipeline uses at most: what an axis becomes when the config fixes it.
        varying_axes: those of the dynamic axes whose size differs from request to request; the others always have
            their deployed size. Both go into the model spec, from which engines get their profiles.
        before_plugin: where the ONNX file ends in a TensorRT plugin: the module up to there, whose results are the
            plugin's inputs. ONNX Runtime can't run the plugin, so this is what of the file is compared with PyTorch.
        keep_fp32: regular expressions on names of ONNX nodes that an engine in FP16, BF16 or INT8 computes in FP32:
            coordinates, for example.
        listed_along: where the network lists what it found best first, the axis of that list, the same of every
            output. Entries that are nearly equal may change places by rounding: the exported files may list neighbors
            in another order than the module.
    """

    name: str
    module: Any
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    inputs_of: Callable[[Sizes], tuple[Any, ...]]
    trace_sizes: Sizes
    check_sizes: tuple[Sizes, ...]
    deployed_sizes: Sizes
    before_plugin: Any = None
    varying_axes: Mapping[str, AxisSizes] = field(default_factory=dict)
    keep_fp32: tuple[str, ...] = ()
    listed_along: int | None = None

    def trace_inputs(self) -> tuple[Any, ...]:
        """Inputs to trace the module with."""
        return self.inputs_of(self.trace_sizes)

    def input_names(self) -> list[str]:
        """Names of the inputs, in order."""
        return [tensor.name for tensor in self.inputs]

    def output_names(self) -> list[str]:
        """Names of the outputs, in order."""
        return [tensor.name for tensor in self.outputs]

    def dynamic_axes(self) -> dict[str, dict[int, str]]:
        """Tensor name to axis to axis name, for the axes that are not fixed."""
        return {
            tensor.name: {axis: size for axis, size in enumerate(tensor.shape) if isinstance(size, str)}
            for tensor in (*self.inputs, *self.outputs)
        }

    def spec(self, onnx: str, program: str | None) -> ComponentSpec:
        """The component as the model spec describes it."""
        sizes = {name: AxisSizes.fixed(size) for name, size in self.deployed_sizes.items()} | dict(self.varying_axes)
        named = {size for tensor in self.inputs for size in tensor.shape if isinstance(size, str)}
        return ComponentSpec(
            name=self.name,
            inputs=list(self.inputs),
            outputs=list(self.outputs),
            onnx=onnx,
            program=program,
            axes={name: size for name, size in sizes.items() if name in named},
            keep_fp32=list(self.keep_fp32),
        )

    def with_dynamic_axes(self, axes: Mapping[str, Mapping[int, str]]) -> Component:
        """This component with other dynamic axes: those in ``axes``, by the names there; all others are fixed.

        Args:
            axes: tensor name to axis to axis name.

        Raises:
            ConfigError: an axis that the model can't vary, or a tensor that it does not have.
        """
        own = self.dynamic_axes()
        where = f"components.{self.name}.io.dynamic_axes"
        renamed: dict[str, str] = {}
        for tensor, names in axes.items():
            for axis, name in names.items():
                if axis not in own.get(tensor, {}):
                    raise ConfigError(
                        f"axis {axis} of '{tensor}' can't be dynamic", where=where, hint=f"those that can: {own}"
                    )
                renamed[own[tensor][axis]] = name
        kept = {own[tensor.name][axis] for tensor in self.inputs for axis in axes.get(tensor.name, {})}
        fixed = {name: size for name, size in self.deployed_sizes.items() if name not in kept}

        def sizes(given: Sizes) -> dict[str, int]:
            return {**given, **fixed}

        def shape_of(tensor: TensorSpec) -> TensorSpec:
            shape = [
                fixed.get(size, renamed.get(size, size)) if isinstance(size, str) else size for size in tensor.shape
            ]
            return TensorSpec(name=tensor.name, dtype=tensor.dtype, shape=shape)

        return replace(
            self,
            inputs=tuple(shape_of(tensor) for tensor in self.inputs),
            outputs=tuple(shape_of(tensor) for tensor in self.outputs),
            trace_sizes=sizes(self.trace_sizes),
            check_sizes=_distinct([sizes(given) for given in self.check_sizes]),
            deployed_sizes={renamed.get(name, name): size for name, size in self.deployed_sizes.items()},
            varying_axes={renamed.get(name, name): size for name, size in self.varying_axes.items()},
        )


def _distinct(sizes: Sequence[dict[str, int]]) -> tuple[dict[str, int], ...]:
    return tuple(given for i, given in enumerate(sizes) if given not in sizes[:i])


def as_tuple(result: Any) -> tuple[Any, ...]:
    """A module's result as a tuple of tensors."""
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)
