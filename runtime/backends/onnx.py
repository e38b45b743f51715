"""ONNX Runtime backend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from runtime.backends import Tensors, no_target
from runtime.backends._messages import first_line
from runtime.devices import Device
from shared.errors import EnvironmentLacks, InferenceError, ModelLoadError
from shared.lazy import lazy_import
from shared.spec import ComponentSpec, ModelSpec
from shared.workspace import Workspace

ort = lazy_import("onnxruntime", install="pip install onnxruntime (GPU: onnxruntime-gpu)")

PACKAGES = ("onnxruntime", "onnxruntime-gpu", "numpy")

# ONNX Runtime's own levels: 4 is fatal. Its errors come as exceptions too, and ours say the same in one line.
_LOG_FATAL = 4


def artifacts(workspace: Workspace, spec: ModelSpec, target: str | None = None) -> dict[str, str]:  # noqa: ARG001 (other backends look there)
    """The ONNX file of each component."""
    no_target(target, "onnx")
    return {component.name: component.onnx for component in spec.components}


def load(files: Mapping[str, Path], spec: ModelSpec, device: Device, threads: int | None) -> OnnxSession:
    """Load the ONNX files into ONNX Runtime.

    Raises:
        EnvironmentLacks: ONNX Runtime, its CUDA provider or the GPU is missing.
        ModelLoadError: a file is no valid ONNX model, or not the component of the spec.
    """
    providers = _providers(device)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = _LOG_FATAL
    sessions = {
        component.name: _load_component(files[component.name], component, options, providers)
        for component in spec.components
    }
    return OnnxSession(sessions, {"threads": threads or "default", "providers": [name for name, _ in providers]})


class OnnxSession:
    """The components as sessions of ONNX Runtime."""

    def __init__(self, sessions: dict[str, Any], settings: dict[str, Any]) -> None:
        self._sessions = sessions
        self._outputs = {name: [output.name for output in session.get_outputs()] for name, session in sessions.items()}
        self._errors = _errors()
        self.settings = settings

    def run(self, component: str, inputs: Tensors) -> dict[str, npt.NDArray[Any]]:
        """Run one component; ONNX Runtime reads the inputs in place and allocates the outputs.

        Raises:
            InferenceError: ONNX Runtime failed.
        """
        names = self._outputs[component]
        try:
            return dict(zip(names, self._sessions[component].run(names, inputs), strict=True))
        except self._errors as error:
            raise InferenceError(f"ONNX Runtime failed: {first_line(error)}", where=component) from error


def _providers(device: Device) -> list[tuple[str, dict[str, Any]]]:
    """The execution provider of a device, and its options; the CPU's stands behind CUDA's, for shape arithmetic."""
    cpu: tuple[str, dict[str, Any]] = ("CPUExecutionProvider", {})
    if device.is_cpu:
        return [cpu]
    available = ort.get_available_providers()
    if "CUDAExecutionProvider" not in available:
        raise EnvironmentLacks(
            f"CUDAExecutionProvider was asked for, available are {', '.join(available)}",
            where=f"onnx on {device}",
            hint="install onnxruntime-gpu in place of onnxruntime, or choose --device cpu",
        )
    return [("CUDAExecutionProvider", {"device_id": device.index}), cpu]


def _load_component(
    path: Path, component: ComponentSpec, options: Any, providers: list[tuple[str, dict[str, Any]]]
) -> Any:
    """One component as a session whose provider is the one asked for."""
    wanted = providers[0][0]
    try:
        session = ort.InferenceSession(str(path), options, providers=providers)
    except _errors() as error:
        raise ModelLoadError(
            f"ONNX Runtime can't load it: {first_line(error)}", where=str(path), hint="export it again"
        ) from error
    # ONNX Runtime goes on without a provider that fails to start (missing library, no such GPU), with a log line.
    if wanted not in session.get_providers():
        raise EnvironmentLacks(
            f"{wanted} was asked for and did not start, in force are {', '.join(session.get_providers())}",
            where=component.name,
            hint="check that the GPU exists and that its CUDA and cuDNN libraries fit this onnxruntime-gpu",
        )
    for kind, expected, actual in (
        ("inputs", component.inputs, session.get_inputs()),
        ("outputs", component.outputs, session.get_outputs()),
    ):
        names = [tensor.name for tensor in actual]
        if names != [tensor.name for tensor in expected]:
            raise ModelLoadError(
                f"has the {kind} {names}, the model spec says {[tensor.name for tensor in expected]}",
                where=str(path),
                hint="export the model again",
            )
    return session


def _errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: each status code is a class of its own, without a common base."""
    state = ort.capi.onnxruntime_pybind11_state
    return (
        state.Fail, state.InvalidArgument, state.NoSuchFile, state.NoModel, state.EngineError, state.RuntimeException,
        state.InvalidProtobuf, state.NotImplemented, state.InvalidGraph, state.EPFail, ValueError, RuntimeError,
    )  # fmt: skip
