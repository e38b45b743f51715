"""Copies of a workspace with a fault in them, as a wrong export or another version would leave it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from shared.workspace import Workspace


def planted(
    workspace: Workspace,
    folder: Path,
    *,
    parameters: Mapping[str, Any] | None = None,
    component: str | None = None,
    change: Callable[[Any], None] | None = None,
    classes: list[str] | None = None,
) -> Workspace:
    """A copy of an exported workspace, without what was run on it, with a fault.

    Args:
        workspace: the good one.
        folder: where the copy goes.
        parameters: parameters of the model spec that differ.
        component: the component whose ONNX file differs, when one does.
        change: changes that file's model in place.
        classes: the class list, when it differs.
    """
    import onnx

    manifest = workspace.manifest()
    outputs = manifest.stages["export"].outputs
    for relative in [*outputs, "manifest.json"]:
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(workspace.path(relative), folder / relative)
    copy = Workspace.open(folder)
    spec = copy.spec()
    if component is not None and change is not None:
        path = copy.path(spec.component(component).onnx)
        model = onnx.load(path)
        change(model)
        onnx.save(model, path)
    with copy.stage("export", tool="exporter", config={"planted": True}) as stage:
        for relative in outputs:
            stage.add_artifact(relative, manifest.artifacts[relative].kind)
        differs = {"parameters": {**spec.parameters, **(parameters or {})}, "classes": classes or spec.classes}
        stage.spec(spec.model_copy(update=differs))
    return copy


def scale_weights(model: Any, node: str, factor: float) -> None:
    """Multiply the weights (second input) of a node, which nobody else may use, by ``factor``."""
    from onnx import numpy_helper

    name = next(each.input[1] for each in model.graph.node if each.name == node)
    for tensor in model.graph.initializer:
        if tensor.name == name:
            values = numpy_helper.to_array(tensor) * factor
            tensor.CopyFrom(numpy_helper.from_array(values.astype(numpy_helper.to_array(tensor).dtype), name))
            return
    raise KeyError(name)
