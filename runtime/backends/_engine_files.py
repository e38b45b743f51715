"""Engines in a workspace, before TensorRT sees them: which of them to load, and whether they can be here."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.cuda.gpu import Gpu
from runtime.cuda.session import Origin
from shared.errors import InputError, ManifestError, ModelLoadError
from shared.plan import read_header, version_mismatch
from shared.provenance import package_versions
from shared.spec import ComponentSpec, ModelSpec
from shared.workspace import Workspace

_log = logging.getLogger("tensorrt")

# Whether matrix products are asked for in FP16, by policy; others ask for what kernels of ours don't compute in.
_HALF_OF_POLICY = {
    "auto": False,
    "fp32": False,
    "fp32_tf32": False,
    "strongly_typed": False,
    "fp16": True,
    "int8": True,
    "explicit_int8": True,
}


def engines_of(workspace: Workspace, spec: ModelSpec, target: str | None) -> dict[str, str]:
    """The engine of each component.

    Args:
        workspace: where they are.
        spec: the model.
        target: name of a folder under ``tensorrt/``; None: the one of the installed TensorRT and, where there are
            several, of the config's precision policy.

    Raises:
        InputError: there is none, none for the installed TensorRT, or no telling which.
    """
    engines = workspace.manifest().results.get("engines", {})
    names = [component.name for component in spec.components]
    targets = sorted({key.split("/", 1)[0] for key in engines})
    complete = [name for name in targets if all(f"{name}/{component}" in engines for component in names)]
    where = str(workspace.root)
    if target is not None and target not in complete:
        there = ", ".join(complete) or "none"
        raise InputError(f"there are no engines '{target}'", where=where, hint=f"there are: {there}")
    if not complete:
        raise InputError("no engines were built", where=where, hint=f"trt_builder build --work {where}")
    chosen = target or _choose(complete, engines, names[0], workspace)
    return {component: engines[f"{chosen}/{component}"]["engine"] for component in names}


def _choose(targets: list[str], engines: Mapping[str, Any], component: str, workspace: Workspace) -> str:
    installed = package_versions(("tensorrt",)).get("tensorrt")
    where = str(workspace.root)

    def version(target: str) -> str:
        return _three(engines[f"{target}/{component}"]["tensorrt"]["version"])

    def loads(target: str) -> bool:
        compatible = engines[f"{target}/{component}"].get("version_compatible", False)
        return installed is None or not version_mismatch(version(target), installed, version_compatible=compatible)

    fitting = [target for target in targets if installed is None or version(target) == _three(installed)]
    fitting = fitting or [target for target in targets if loads(target)]
    if not fitting:
        raise InputError(
            f"the engines are for TensorRT {', '.join(sorted({version(target) for target in targets}))}, installed is "
            f"{installed}",
            where=where,
            hint=f"trt_builder build --work {where}, with the TensorRT that runs them",
        )
    if len(fitting) == 1:
        return fitting[0]
    policy = workspace.config().get("tensorrt", {}).get("precision_policy")
    named = [target for target in fitting if target.endswith(f"-{policy}")]
    if len(named) == 1:
        return named[0]
    raise InputError("there are several sets of engines", where=where, hint=f"--target {' | '.join(fitting)}")


def records(files: Mapping[str, Path]) -> dict[str, Mapping[str, Any]]:
    """What the manifest of the workspace that an engine lies in says of it, by component; empty where it says nothing.

    The manifest, and not the record beside the engine: its hash of the engine was checked, so that what it says is of
    this very file.
    """
    engines: dict[Path, Mapping[str, Any]] = {}
    for root in dict.fromkeys(root for root in map(Workspace.root_of, files.values()) if root is not None):
        results = Workspace.open(root).manifest().results.get("engines", {})
        engines.update({(root / result["engine"]).resolve(): result for result in results.values()})
    return {name: engines.get(path.resolve(), {}) for name, path in files.items()}


def check_header(path: Path, record: Mapping[str, Any], installed: str) -> None:
    """Whether a plan is one of the installed TensorRT, by its version.

    Raises:
        ModelLoadError: it is not; says what to do.
    """
    header = read_header(path)
    if header.flavor != "tensorrt":
        raise ModelLoadError("an engine of TensorRT for RTX", where=str(path), hint="build with --target tensorrt")
    compatible = record.get("version_compatible", False)
    reason = version_mismatch(header.version_text, _three(installed), version_compatible=compatible)
    if reason is None:
        return
    raise ModelLoadError(
        f"an engine of another TensorRT: {reason}",
        where=str(path),
        hint="build the engines here (trt_builder build), or use the image with that version",
    )


def check_architecture(path: Path, record: Mapping[str, Any], gpu: Gpu) -> None:
    """Whether a plan is one for this GPU.

    Raises:
        ModelLoadError: it is not; says what to do.
    """
    built = record.get("architecture")
    if built is None or built == gpu.architecture.replace("_", ""):
        return
    if record.get("hardware_compatibility", "none") == "none":
        raise ModelLoadError(
            f"built for {built}, this {gpu.name} is {gpu.architecture.replace('_', '')}",
            where=str(path),
            hint="build the engines on this machine (trt_builder build)",
        )


def origin_of(engine: Path, record: Mapping[str, Any], component: ComponentSpec) -> Origin | None:
    """The ONNX file of an engine, where the workspace still has the one that it was built from."""
    policy, root = record.get("precision_policy"), Workspace.root_of(engine)
    if root is None or policy not in _HALF_OF_POLICY:
        return None
    ws = Workspace.open(root)
    try:
        path, digest = ws.onnx(component.onnx), ws.onnx_hash(component.onnx)
    except (ManifestError, ModelLoadError) as missing:
        # Edge devices get engines alone.
        _log.info("%s runs as an engine, no kernel takes its place: %s", component.name, missing)
        return None
    if digest != record["onnx_sha256"]:
        return None
    return Origin(path, half=_HALF_OF_POLICY[policy] and not record["kept_in_fp32"])


def _three(version: str) -> str:
    return ".".join(version.split(".")[:3])
