"""Checks of what was exported, before anyone else sees it: valid, the right tensors, and the same results."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from exporter.artifacts.listed import in_order_of
from exporter.component import Component, Sizes, as_tuple
from shared import onnx_graph
from shared.errors import ExportError
from shared.lazy import lazy_import
from shared.spec import TensorSpec

torch = lazy_import("torch")
onnx = lazy_import("onnx")
onnxruntime = lazy_import("onnxruntime")

# Largest difference allowed between two float32 computations of the same network, relative to the largest value of the
# output: kernels sum in other orders and fold batch norms into convolutions, and some forty layers add that up. Wrong
# graphs (a forgotten layer, a swapped channel) are off by whole percents.
TOLERANCE = 1e-4
# Where the network itself amplifies rounding (float32 PyTorch against float64 PyTorch), that much more is allowed.
# Four: two kernels that are each as far from the exact value as PyTorch's may lie on opposite sides, and vary by two.
ROUNDING_MARGIN = 4.0
# Of a quantized network, in which a single value that falls to the other step is seen in the result.
_ROUNDINGS = 4
# The same kernels in the same order, only captured: anything above rounding of a single operation is a mistake.
PROGRAM_TOLERANCE = 1e-5

_log = logging.getLogger("exporter")

Runner = Callable[[tuple[Any, ...]], Sequence[npt.NDArray[Any]]]
# How far values are from a reference; NaN where a value is.
Measure = Callable[[npt.NDArray[Any], npt.NDArray[Any]], float]


class Disagrees(ExportError):
    """An exported file is valid and has the right tensors, and computes something else than the module."""


@dataclass(frozen=True)
class Agreement:
    """How well an exported file computes what the module computes, at one choice of sizes.

    Attributes:
        sizes: of the dynamic axes.
        largest_difference: over all outputs, absolute.
        largest_relative: over all outputs, relative to the largest value of the output (quantized: root mean square,
            relative to the output's standard deviation).
    """

    sizes: Sizes
    largest_difference: float
    largest_relative: float


def relative(values: npt.NDArray[Any], reference: npt.NDArray[Any]) -> float:
    """Largest difference, relative to the largest value of the reference."""
    scale = max(float(np.abs(reference).max(initial=0.0)), 1e-6)
    return float(np.abs(values - reference).max(initial=0.0)) / scale


def root_mean_square(values: npt.NDArray[Any], reference: npt.NDArray[Any]) -> float:
    """Root mean square of the difference, relative to the reference's standard deviation."""
    if not reference.size:
        return 0.0
    scale = max(float(np.std(reference, dtype=np.float64)), 1e-6)
    return float(np.sqrt(np.mean(np.square(values - reference, dtype=np.float64)))) / scale


def check_onnx(path: Path, component: Component, opset_version: int, *, measure: Measure = relative) -> list[Agreement]:
    """Check an ONNX file: validity, header, tensors, and ONNX Runtime against PyTorch at three sizes.

    Args:
        path: the file.
        component: what it should be.
        opset_version: opset it should have.
        measure: of the difference between both.

    Returns:
        The agreement at each size.

    Raises:
        ExportError: it is not what it should be.
    """
    # By path, not by content: a model in memory can't be checked when it is large or has weights beside it.
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"not a valid ONNX file ({str(error).splitlines()[0]})", where=component.name) from error
    model = onnx.load(str(path), load_external_data=False)
    opset = onnx_graph.opset(model)
    if opset != opset_version:
        raise ExportError(f"has opset {opset} instead of {opset_version}", where=component.name)
    _check_tensors("input", onnx_graph.inputs(model), component.inputs, component.name)
    _check_tensors("output", model.graph.output, component.outputs, component.name)

    return compare_onnx(path, component, measure)


def compare_onnx(path: Path, component: Component, measure: Measure = relative) -> list[Agreement]:
    """Compare what ONNX Runtime makes of a file with PyTorch, at three sizes.

    Args:
        path: the file.
        component: what it should compute.
        measure: of the difference between both.

    Raises:
        ExportError: it does not load, or computes something else.
    """
    source: Path | bytes = path
    if component.before_plugin is not None:
        source, component = _before_plugin(path, component)
    session = open_session(source, component.name)

    def run(inputs: tuple[Any, ...]) -> Sequence[npt.NDArray[Any]]:
        feed = {name: value.numpy() for name, value in zip(component.input_names(), inputs, strict=True)}
        return list(session.run(component.output_names(), feed))

    return compare(component, run, TOLERANCE, "ONNX Runtime", rounding_margin=ROUNDING_MARGIN, measure=measure)


def open_session(source: Path | bytes, where: str) -> Any:
    """An ONNX Runtime session on the CPU, of a file or its content.

    Raises:
        ExportError: it does not load.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; warnings about unused initializers are no concern of a user
    # Q/DQ as the file has them: kernels that ONNX Runtime makes of them round the bias to int32 steps, too.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    given = source if isinstance(source, bytes) else str(source)
    try:
        return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    # ONNX Runtime's exceptions have no public base class but RuntimeError's sibling Exception.
    except Exception as error:
        raise ExportError(f"ONNX Runtime can't load it ({error})", where=where) from error


def _before_plugin(path: Path, component: Component) -> tuple[bytes, Component]:
    """The part of an ONNX file before the plugin that it ends in, and the component that it is.

    Raises:
        ExportError: it does not end in a plugin.
    """
    model = onnx.load(str(path))
    names = component.output_names()
    plugin = next((node for node in model.graph.node if list(node.output) == names), None)
    if plugin is None:
        raise ExportError(
            "does not end in the plugin", where=component.name, hint="use export.exporter torchscript, without simplify"
        )
    _log.info("%s: ONNX Runtime has no %s; what it is fed is checked, it itself is not", component.name, plugin.op_type)
    fed = tuple(TensorSpec(name=name, dtype="float32", shape=[]) for name in plugin.input)
    model.graph.node.remove(plugin)
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(t.name, onnx.TensorProto.FLOAT, None) for t in fed)
    return model.SerializeToString(), replace(component, module=component.before_plugin, outputs=fed)


def _check_tensors(kind: str, actual: Sequence[Any], expected: Sequence[TensorSpec], where: str) -> None:
    names = [value.name for value in actual]
    if names != [tensor.name for tensor in expected]:
        raise ExportError(f"has the {kind}s {names} instead of {[tensor.name for tensor in expected]}", where=where)
    for value, tensor in zip(actual, expected, strict=True):
        dtype = onnx_graph.dtype(value)
        if dtype != tensor.dtype:
            raise ExportError(f"{kind} '{tensor.name}' is {dtype} instead of {tensor.dtype}", where=where)
        shape = [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        if shape != list(tensor.shape):
            raise ExportError(f"{kind} '{tensor.name}' has the shape {shape} instead of {tensor.shape}", where=where)


def compare(
    component: Component,
    run: Runner,
    tolerance: float,
    runner_name: str,
    *,
    rounding_margin: float = 0.0,
    measure: Measure = relative,
) -> list[Agreement]:
    """Run an exported file and the module on the same inputs, at every size to check.

    Args:
        component: the module and its inputs.
        run: runs the exported file.
        tolerance: largest difference, relative to the largest value of the output.
        runner_name: for messages.
        rounding_margin: the tolerance of an output is at least this many times the module's own rounding error, the
            difference between its float32 and its float64 results.
        measure: of the difference between both.

    Raises:
        ExportError: it fails, or its outputs have other shapes, are not finite, or differ by more than allowed.
    """
    agreements = []
    for sizes in component.check_sizes:
        where = f"{component.name} at {', '.join(f'{axis} {size}' for axis, size in sizes.items())}"
        inputs = component.inputs_of(sizes)
        with torch.no_grad():
            expected = [value.numpy() for value in as_tuple(component.module(*inputs))]
        try:
            actual = run(inputs)
        # Whatever a runtime raises on inputs that the module takes is a mistake in the exported file.
        except Exception as error:
            raise ExportError(f"{runner_name} fails ({str(error).splitlines()[0]})", where=where) from error
        actual = _in_order(component, expected, actual)
        allowed = [tolerance] * len(expected)
        # Float64 takes several times as long: only where the plain tolerance does not do.
        if rounding_margin and not _within(tolerance, expected, actual, measure):
            rounding = _rounding_errors(component, inputs, expected, measure)
            allowed = [max(tolerance, rounding_margin * error) for error in rounding]
        agreements.append(_agreement(component, sizes, expected, actual, allowed, where, runner_name, measure))
    return agreements


def _in_order(
    component: Component, expected: Sequence[npt.NDArray[Any]], actual: Sequence[npt.NDArray[Any]]
) -> Sequence[npt.NDArray[Any]]:
    """The results, in the order of the module's where the order of a list is all that may differ."""
    axis = component.listed_along
    fits = all(a.shape == b.shape and np.isfinite(a).all() for a, b in zip(actual, expected, strict=True))
    return actual if axis is None or not fits else in_order_of(expected, actual, axis)


def _within(
    tolerance: float, expected: Sequence[npt.NDArray[Any]], actual: Sequence[npt.NDArray[Any]], measure: Measure
) -> bool:
    return all(a.shape == b.shape and measure(a, b) <= tolerance for a, b in zip(actual, expected, strict=True))


def _rounding_errors(
    component: Component, inputs: tuple[Any, ...], expected: Sequence[npt.NDArray[Any]], measure: Measure
) -> list[float]:
    """How far the module's own results are from those that it gives in float64, relative, per output.

    Of a quantized module, also from those with other roundings: which values float64 rounds to another step is chance.
    """
    module = copy.deepcopy(component.module).double()
    with torch.no_grad():
        exact = as_tuple(module(*(value.double() if value.is_floating_point() else value for value in inputs)))
    listed = _in_order(component, expected, [value.numpy() for value in exact])
    errors = [measure(rounded, value) for rounded, value in zip(expected, listed, strict=True)]
    for seed in range(_ROUNDINGS if measure is root_mean_square else 0):
        moved = _in_order(component, expected, _with_other_rounding(component, inputs, seed))
        errors = [
            max(error, measure(*pair)) for error, pair in zip(errors, zip(moved, expected, strict=True), strict=True)
        ]
    return errors


def _with_other_rounding(component: Component, inputs: tuple[Any, ...], seed: int) -> Sequence[npt.NDArray[Any]]:
    """The module's results with every result of a layer moved up or down by one rounding error."""
    generator = torch.Generator().manual_seed(seed)

    def move(_module: Any, _inputs: Any, output: Any) -> Any:
        signs = torch.randint(0, 2, output.shape, generator=generator) * 2 - 1
        return output * (1 + signs * torch.finfo(output.dtype).eps)

    layers = (torch.nn.Conv2d, torch.nn.ConvTranspose2d, torch.nn.Linear)
    hooks = [m.register_forward_hook(move) for m in component.module.modules() if isinstance(m, layers)]
    try:
        with torch.no_grad():
            return [value.numpy() for value in as_tuple(component.module(*inputs))]
    finally:
        for hook in hooks:
            hook.remove()


def _agreement(
    component: Component,
    sizes: Sizes,
    expected: Sequence[npt.NDArray[Any]],
    actual: Sequence[npt.NDArray[Any]],
    allowed: Sequence[float],
    where: str,
    runner_name: str,
    measure: Measure,
) -> Agreement:
    largest = worst = 0.0
    for name, wanted, got, tolerance in zip(component.output_names(), expected, actual, allowed, strict=True):
        if wanted.shape != got.shape:
            raise ExportError(
                f"{runner_name} gives '{name}' the shape {got.shape}, PyTorch {wanted.shape}", where=where
            )
        if not np.isfinite(wanted).all():
            raise ExportError(f"the model itself gives NaN or infinity in '{name}'", where=where)
        difference = float(np.abs(wanted - got).max(initial=0.0))
        share = measure(got, wanted)
        # Written so that NaN fails.
        if not share <= tolerance:
            raise Disagrees(
                f"{runner_name} and PyTorch differ in '{name}' by {difference:.3g}, "
                f"{share:.3g} of its {_SCALES[measure]}; {tolerance:.3g} is allowed",
                where=where,
            )
        largest, worst = max(largest, difference), max(worst, share)
    if math.isnan(largest):
        raise ExportError(f"{runner_name} gives NaN", where=where)
    return Agreement(dict(sizes), largest, worst)


_SCALES: dict[Measure, str] = {relative: "largest value", root_mean_square: "standard deviation in root mean square"}
