"""`exporter package autoware`: from a workspace to the folder that an Autoware node loads a model from."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from exporter.artifacts.stamp import PRODUCER
from exporter.autoware import Bundle, BundleOptions, bundler
from exporter.autoware.refusals import EXPORT_AGAIN
from exporter.autoware.typed_onnx import TypedGraph, write_typed_onnx
from shared import __version__, onnx_graph
from shared.config.write import to_yaml
from shared.errors import InputError, UsageError
from shared.files import copy, explain_os_errors, sha256_of_file, write_text
from shared.lazy import lazy_import
from shared.manifest import Manifest
from shared.spec import ComponentSpec, ModelSpec
from shared.temporaries import temporary
from shared.work_path import WorkPath
from shared.workspace import Workspace

onnx = lazy_import("onnx")

METADATA = "deploy_metadata.yaml"


def package_autoware(work: Path, out: Path, options: BundleOptions, *, force: bool = False) -> Bundle:
    """Write the bundle of a workspace's model, whole or not at all.

    Args:
        work: the workspace, after an export.
        out: the folder to make.
        options: what the user chose.
        force: replace the folder when it is empty or holds a bundle.

    Returns:
        What was written; its notes also say what became of graphs that were typed.

    Raises:
        InputError: nothing was exported, a file is not what the manifest says, or the node would misread the model.
        UsageError: the folder is there already, or holds something else than a bundle, such as the workspace; or an
            option that the node has no value for.
        ExportError: a graph in FP16 computes something else.
        EnvironmentLacks: the disk is full or read-only.
    """
    _check_replaceable(work, out, force=force)
    workspace = Workspace.open(work)
    spec, manifest = workspace.spec(), workspace.manifest()
    bundle = bundler(spec.model)(spec, workspace.config(), options)
    sources = {name: workspace.onnx(component.onnx) for name, component in bundle.onnx.items()}
    for name, component in bundle.onnx.items():
        check_onnx_is_component(sources[name], component)
    with explain_os_errors(out):
        final = WorkPath.of(out)
        final.parent.make_folder()
        with temporary(final) as scratch:
            scratch.make_folder()
            for name, source in sources.items():
                copy(source, scratch / name)
            typed = {
                name: write_typed_onnx(workspace.onnx(component.onnx), (scratch / name).checked(), workspace, component)
                for name, component in bundle.typed_onnx.items()
            }
            for name, values in bundle.parameters.items():
                write_text(scratch / name, ros_parameters(values))
            for name, text in bundle.texts.items():
                write_text(scratch / name, text)
            hashes = {name: sha256_of_file((scratch / name).checked()) for name in scratch.names()}
            about = _metadata(spec, manifest, bundle, options.autoware, hashes) | _about_typed(typed)
            write_text(scratch / METADATA, to_yaml(about))
            final.remove()
            scratch.take_place_of(final)
    return replace(bundle, notes=(*(f"{name}: {graph}" for name, graph in typed.items()), *bundle.notes))


def _check_replaceable(work: Path, out: Path, *, force: bool) -> None:
    """What is at ``out`` will be removed with all that is in it: raises UsageError unless that can be meant."""
    if not out.exists():
        return
    if work.resolve().is_relative_to(out.resolve()):
        raise UsageError("is the workspace, or holds it", where=str(out), hint="choose another folder as --out")
    if not force:
        raise UsageError("is there already", where=str(out), hint="choose another folder, or --force replaces it")
    if not out.is_dir() or (any(out.iterdir()) and not (out / METADATA).is_file()):
        raise UsageError(
            f"holds no bundle ({METADATA}), and --force replaces nothing else", where=str(out),
            hint="choose another folder as --out",
        )  # fmt: skip


def ros_parameters(values: Mapping[str, Any]) -> str:
    """A ROS 2 parameter file for any node. Whole numbers stay integers and others floats: ROS tells them apart."""
    return to_yaml({"/**": {"ros__parameters": dict(values)}})


def check_onnx_is_component(path: Path, component: ComponentSpec) -> None:
    """Raises InputError unless the file is whole in itself and has the tensors that the model spec says."""
    model = onnx.load(str(path), load_external_data=False)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise InputError(
            "keeps its weights in another file, which a bundle has no place for", where=str(path),
            hint=f"{EXPORT_AGAIN} weights inside",
        )  # fmt: skip
    tensors = [*onnx_graph.inputs(model), *model.graph.output]
    actual = [f"{tensor.name} {onnx_graph.dtype(tensor)}" for tensor in tensors]
    wanted = [f"{tensor.name} {tensor.dtype}" for tensor in (*component.inputs, *component.outputs)]
    if actual != wanted:
        raise InputError(
            f"has the tensors {actual}, the model spec {wanted}", where=str(path), hint=f"{EXPORT_AGAIN} this version"
        )


def _metadata(
    spec: ModelSpec, manifest: Manifest, bundle: Bundle, autoware: str, hashes: Mapping[str, str]
) -> dict[str, Any]:
    stage = manifest.stages["export"]
    return {
        "version": bundle.version,
        "autoware_universe": autoware,
        "node": bundle.node,
        "model": spec.model,
        "task": spec.task,
        "classes": list(spec.classes),
        "packaged": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "packaged_with": f"{PRODUCER} {__version__}",
        "exported": stage.ended,
        "made_from": dict(stage.key.get("inputs", {})),
        "sha256": dict(hashes),
    }


def _about_typed(typed: Mapping[str, TypedGraph]) -> dict[str, Any]:
    """What became of the networks that compute in FP16 by their types, if there are any."""
    return (
        {
            "typed_fp16": {
                name: {
                    "fp16_nodes": graph.fp16_nodes,
                    "fp32_nodes": dict(graph.fp32_nodes),
                    "checked_on": graph.checked_on,
                    "snr_db": round(graph.snr_db, 1) if math.isfinite(graph.snr_db) else None,
                }
                for name, graph in typed.items()
            }
        }
        if typed
        else {}
    )
