"""Which weights a workspace's model has: the float checkpoint's, or those that `exporter quantize` made of them."""

from __future__ import annotations

import logging
import re
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from exporter.artifacts.checks import (
    PROGRAM_TOLERANCE,
    ROUNDING_MARGIN,
    Agreement,
    check_onnx,
    compare,
    compare_onnx,
    root_mean_square,
)
from exporter.artifacts.onnx_export import save
from exporter.artifacts.programs import run_program
from exporter.checkpoints import checkpoint_digest, load_weights
from exporter.component import Component
from exporter.training_config import checkpoint_of
from shared.errors import InputError
from shared.lazy import lazy_import
from shared.workspace import Workspace

if TYPE_CHECKING:
    from shared.config.schema import DeployConfig

onnx = lazy_import("onnx")
torch = lazy_import("torch")
_log = logging.getLogger("exporter")


def quantized_checkpoint(config: DeployConfig, workspace: Workspace, arguments: str) -> str | None:
    """The quantized checkpoint that a config asks for, relative to the workspace; None: it asks for none.

    Args:
        config: the deploy config.
        workspace: where it is looked for.
        arguments: of the command that would make it, for the error.

    Raises:
        InputError: it is not there.
    """
    if not config.quantization.enabled:
        return None
    relative = f"quantized/{config.quantization.mode}.pth"
    if relative not in workspace.manifest().artifacts:
        raise InputError(
            f"is true, and the workspace has no {relative}",
            where="quantization.enabled",
            hint=f"make it first: exporter quantize {config.quantization.mode} {arguments}",
        )
    return relative


def quantized_input(config: DeployConfig, workspace: Workspace, arguments: str) -> dict[str, str]:
    """sha256 of the quantized checkpoint that a config asks for, as a stage's input; nothing where it asks for none.

    Raises:
        InputError: as `quantized_checkpoint`.
    """
    relative = quantized_checkpoint(config, workspace, arguments)
    return {} if relative is None else {"quantized": workspace.input_hash(relative)}


def load_model(model: Any, config: DeployConfig, workspace: Workspace) -> dict[str, npt.NDArray[np.float32]]:
    """Load the weights that a config asks for, in float or quantized, strictly and in place.

    Returns:
        Of a quantized model the weights before they were rounded to int8's steps, by layer.

    Raises:
        InputError: the quantized checkpoint is missing, or was made of other weights than ``model.checkpoint``.
        ModelLoadError: a checkpoint does not fit.
    """
    checkpoint = checkpoint_of(config)
    quantized = quantized_checkpoint(config, workspace, f"--config … --work {workspace.root}")
    if quantized is None:
        load_weights(model, checkpoint)
        return {}
    from exporter.quantize.before_rounding import weights_before_rounding
    from exporter.quantize.checkpoint import load_ptq_model
    from exporter.quantize.frozen import put_weights_on_grid

    record = load_ptq_model(model, workspace.artifact(quantized))
    weights = weights_before_rounding(model)
    put_weights_on_grid(model)
    if record.get("checkpoint", digest := checkpoint_digest(checkpoint)) != digest:
        raise InputError(
            "was made of another checkpoint than model.checkpoint",
            where=f"{workspace.root}/{quantized}",
            hint=f"quantize again: exporter quantize {config.quantization.mode}",
        )
    return weights


def check_quantized_onnx(path: Path, component: Component, opset_version: int) -> list[Agreement]:
    """Check a quantized component's ONNX file.

    Values that lie half-way between two steps of int8 fall to either side in different computations, and what follows
    them does too: two correct ones differ by whole steps here and there, so the largest difference says little.
    Therefore: Q/DQ nodes are at the quantized layers and nowhere else; without their rounding, the file computes what
    the module computes without its quantizers, as closely as any export; and with it, the root mean square of the
    differences is like that between the module's own float32 and float64 results, or those with other roundings.

    Raises:
        ExportError: it is not what it should be.
    """
    from exporter.quantize.frozen import quantized_layers
    from exporter.quantize.layers import quantizable
    from exporter.quantize.switches import disable_quantization
    from shared.int8_passes import find_passes
    from shared.qdq_lint import check, float_sums, sum_advice

    quantized = quantized_layers(component.module)
    check(path, [f"^{re.escape(name)}$" for name in quantizable(component.module) if name not in quantized])
    graph = onnx.load(str(path))
    if sums := float_sums(graph):
        what = f"TensorRT 8.6.0 has no kernel for {len(sums)} sums: {sum_advice(sums[0])}"
        _log.warning("%s: %s", component.name, what)
    if (advice := find_passes(graph, component.deployed_sizes).advice()) is not None:
        _log.warning("%s: %s", component.name, advice)
    agreements = check_onnx(path, component, opset_version, measure=root_mean_square)
    with disable_quantization(component.module), tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / path.name
        save(_without_rounding(onnx.load(str(path))), plain)
        compare_onnx(plain, component)
    return agreements


def check_quantized_program(program: Any, component: Component) -> list[Agreement]:
    """Check a quantized component's program, as `check_quantized_onnx` does its ONNX file: with the rounding by root
    mean square, and without it as closely as any program.

    Args:
        program: as PyTorch loaded it; it rounds nothing afterwards.
        component: what it should be.

    Raises:
        ExportError: it is not what it should be.
    """
    from exporter.quantize.switches import disable_quantization

    run = partial(run_program, program)
    agreements = compare(
        component,
        run,
        PROGRAM_TOLERANCE,
        "the program",
        rounding_margin=ROUNDING_MARGIN,
        measure=root_mean_square,
    )
    _stop_rounding(program.graph)
    program.recompile()
    with disable_quantization(component.module):
        compare(component, run, PROGRAM_TOLERANCE, "the program without its rounding", rounding_margin=ROUNDING_MARGIN)
    return agreements


def _stop_rounding(graph: Any) -> None:
    """Let quantizers, each a division by the scale, ``round``, ``clamp`` and a product, pass values on as they are."""
    from exporter.quantize.frozen import QMAX, QMIN

    operators = torch.ops.aten
    for clamp in list(graph.nodes):
        if clamp.target is operators.clamp.default and clamp.args[1:] == (QMIN, QMAX):
            rounded = clamp.args[0]
            if rounded.target is operators.round.default:
                clamp.replace_all_uses_with(rounded.args[0])
                graph.erase_node(clamp)


def _without_rounding(model: Any) -> Any:
    """The model with its QuantizeLinear-DequantizeLinear pairs cut out; changed in place."""
    nodes = model.graph.node
    source = {node.output[0]: node.input[0] for node in nodes if node.op_type == "QuantizeLinear"}
    value = {
        node.output[0]: source[node.input[0]]
        for node in nodes
        if node.op_type == "DequantizeLinear" and node.input[0] in source
    }
    kept = [node for node in nodes if node.output[0] not in source and node.output[0] not in value]
    for node in kept:
        for position, name in enumerate(node.input):
            node.input[position] = value.get(name, name)
    del nodes[:]
    nodes.extend(kept)
    return model
