"""The workspace of a choice: the model's graphs with its layers in INT8, and the config that asks for its precisions.

It lies in the workspace of the model, under ``choices/<key>``, and is one like any other: `trt_builder build`,
`runtime` and `evaluator` take it as it is, and their stages say what was measured already.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shared import cast_graph, onnx_graph
from shared.config import from_resolved, resolved
from shared.errors import ConfigError
from shared.files import sha256_of_file
from shared.fp16_range import KIND as RANGES
from shared.fp16_range import beyond_fp16, largest_values
from shared.lazy import lazy_import
from shared.manifest import MANIFEST_NAME
from shared.qdq_cut import cut_out
from shared.workspace import Workspace
from trt_builder.build_plan import read_config
from trt_builder.choices.choice import Choice
from trt_builder.choices.source import Source
from trt_builder.policies import POLICIES

if TYPE_CHECKING:
    from shared.config import DeployConfig

onnx = lazy_import("onnx")

FOLDER, RECORD, STAGE = "choices", "choice.json", "choice"
TOOL = "trt_builder"


def prepare(source: Source, choice: Choice, *, backend: str, overrides: Sequence[str] = ()) -> Workspace:
    """Make the workspace of a choice, or take it as it is where nothing has changed.

    Args:
        source: the model.
        choice: its precisions.
        backend: what it is measured on. Where that is not TensorRT, it stands for the engine: a graph in FP16 is one
            with casts, and TF32 is FP32.
        overrides: ``key=value`` for the config.

    Raises:
        ConfigError: an override is wrong, or the choice asks for layers in INT8 that the export did not quantize.
    """
    _check(source, choice)
    inputs = source.inputs()
    key = choice.key(inputs, backend)
    place = source.workspace.place(f"{FOLDER}/{key}")
    place.make_folder()
    workspace = Workspace.create(place.checked())
    config = resolved(config_of(source, choice, overrides))
    # Recording a config says that it was made here; what it names as code to run stays with the model's workspace.
    config["model"] |= {"config": None, "checkpoint": None}
    stage = workspace.stage(
        STAGE, tool=TOOL, config={**choice.as_json(), "backend": backend, "config": config}, inputs=inputs
    )
    if not stage.up_to_date(say=False):
        spec = source.workspace.spec()
        with stage:
            weights = source.weights() if source.layers else {}
            for component in spec.components:
                with stage.artifact(component.onnx, kind="onnx") as path:
                    onnx.save(graph_of(source, component.name, choice, weights, backend), str(path))
                    digest = sha256_of_file(path)
                # Tensors keep their names, so what `runtime ranges` recorded of the model holds for the choice.
                if largest := largest_values(source.workspace, component):
                    record = {"onnx_sha256": digest, "largest": largest}
                    stage.json_artifact(f"ranges/{component.name}.json", RANGES, record)
            stage.json_artifact(
                RECORD, "choice", {"format": 1, "key": key, **choice.as_json(), "inputs": inputs, "label": choice.label}
            )
            stage.spec(spec)
            stage.config(config)
    return workspace


def _check(source: Source, choice: Choice) -> None:
    if unknown := sorted((choice.int8 | choice.fp32) - set(source.layers)):
        raise ConfigError(
            f"'{unknown[0]}' is no layer that the export quantized",
            where=choice.label,
            hint="export the model with these layers in INT8 first: exporter quantize ptq",
        )


def graph_of(source: Source, component: str, choice: Choice, weights: Mapping[str, Any], backend: str) -> Any:
    """The ONNX graph of a component: other layers than those of the choice have left INT8.

    Args:
        source: the model.
        component: name of the component.
        choice: its precisions.
        weights: what `Source.weights` gave.
        backend: what it is measured on.
    """
    workspace = source.workspace
    spec = workspace.spec().component(component)
    model = onnx_graph.load(workspace.onnx(spec.onnx))
    inside = {name: layer for name, layer in source.layers.items() if layer.component == component}
    if leaving := [layer.node for name, layer in inside.items() if name not in choice.int8]:
        exact = {layer.weight: weights[f"{component}/{layer.weight}"] for layer in inside.values()}
        model = cut_out(model, leaving, exact)
    low = POLICIES[choice.policies[component]].low
    if backend != "tensorrt" and low is not None:
        kept = {inside[name].node: "kept" for name in choice.fp32 if name in inside}
        model, _ = cast_graph.lower(model, low, keep={**beyond_fp16(model, largest_values(workspace, spec)), **kept})
    return model


def config_of(source: Source, choice: Choice, overrides: Sequence[str] = ()) -> DeployConfig:
    """The deploy config of a choice: that of the model, with its precisions.

    Raises:
        ConfigError: an override is wrong.
        ManifestError: the config names plugin libraries, and is not of this machine.
    """
    where = source.workspace.root / MANIFEST_NAME
    value = resolved(read_config(source.workspace, overrides))
    quantized = {source.layers[name].component for name in choice.int8}
    value["tensorrt"]["precision_policy"] = "int8" if quantized else _main_policy(choice)
    for component in source.components:
        section = value["components"].setdefault(component, {})
        section["precision_policy"] = "int8" if component in quantized else choice.policies[component]
        section["keep_fp32"] = [
            f"{re.escape(layer.node)}$"
            for name, layer in source.layers.items()
            if layer.component == component and name in choice.fp32 - choice.int8
        ]
    value["quantization"]["enabled"] = bool(quantized)
    value["quantization"]["sensitive_layers"] = _sensitive(source, value, choice)
    return from_resolved(value, str(where))


def _main_policy(choice: Choice) -> str:
    """What most components have."""
    names = list(choice.policies.values())
    return max(names, key=names.count)


def _sensitive(source: Source, value: Mapping[str, Any], choice: Choice) -> list[str]:
    """What the model's config leaves out of INT8, and besides it the layers that the choice does."""
    before = list(value["quantization"]["sensitive_layers"])
    return before + [name for name in source.layers if name not in choice.int8]
