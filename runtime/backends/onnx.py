"""ONNX Runtime backend."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.backends import Tensors, no_target, require_interface
from runtime.backends._messages import first_line
from runtime.cuda.gpu import DeviceArray, Gpu
from runtime.cuda.session import Bound, DeviceSession, Lane, gpu_of_steps
from runtime.devices import Device
from shared.errors import EnvironmentLacks, InferenceError, ModelLoadError
from shared.lazy import lazy_import
from shared.spec import ComponentSpec, ModelSpec
from shared.workspace import Workspace

ort = lazy_import("onnxruntime", install="pip install onnxruntime (GPU: onnxruntime-gpu)")

PACKAGES = ("onnxruntime", "onnxruntime-gpu", "numpy")
KIND = "onnx"

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}
# Where bound tensors lie, in ONNX Runtime's words.
_DEVICE = "cuda"

_IMAGE_AXES = 4

_GPU_HINT = "check nvidia-smi, and pip install 'onnxruntime-gpu[cuda,cudnn]'; or choose --device cpu"

# ONNX Runtime's own levels: 4 is fatal. Its errors come as exceptions too, and ours say the same in one line.
_LOG_FATAL = 4


def artifacts(workspace: Workspace, spec: ModelSpec, target: str | None = None) -> dict[str, str]:  # noqa: ARG001 (other backends look there)
    """The ONNX file of each component."""
    no_target(target, "onnx")
    return {component.name: component.onnx for component in spec.components}


def load(files: Mapping[str, Path], spec: ModelSpec, device: Device, threads: int | None) -> OnnxSession:
    """Load the ONNX files into ONNX Runtime. On a GPU components run on device memory, where pycuda is installed.

    Raises:
        EnvironmentLacks: ONNX Runtime, its CUDA provider or the GPU is missing.
        ModelLoadError: a file is no valid ONNX model, or not the component of the spec.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = _LOG_FATAL
    # Q/DQ as the file has them, which is what the exporter checked: the int8 kernels that ONNX Runtime makes of them
    # round biases too, and are no faster.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    providers = _providers(device)
    gpu = None if device.is_cpu else gpu_of_steps(device, "onnx")
    stream = None if gpu is None else gpu.stream()
    if stream is not None:
        # ONNX Runtime works on our stream: what our kernels put there before and after needs no waiting.
        providers[0][1]["user_compute_stream"] = str(stream.handle)
    sessions = {
        component.name: _load_component(files[component.name], component, options, _for_component(component, providers))
        for component in spec.components
    }
    settings: dict[str, Any] = {"threads": threads or "default", "providers": [name for name, _ in providers]}
    if not device.is_cpu:
        settings["tf32"] = [component.name for component in spec.components if _takes_images(component)]
    if gpu is None:
        return OnnxSession(sessions, settings)
    return OnnxDeviceSession(sessions, {**settings, "gpu": gpu.name}, gpu, stream)


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
            raise _failure(error, component) from error


class OnnxDeviceSession(OnnxSession, DeviceSession):
    """The components on device memory, by I/O binding. ONNX Runtime knows one stream, so there is one lane."""

    def __init__(self, sessions: dict[str, Any], settings: dict[str, Any], gpu: Gpu, stream: Any) -> None:
        super().__init__(sessions, settings)
        self.gpu = gpu
        self._stream = stream
        self._tensors = {
            name: {tensor.name: tensor for tensor in (*session.get_inputs(), *session.get_outputs())}
            for name, session in sessions.items()
        }

    def rows(self, component: str) -> tuple[int, int | None]:  # noqa: ARG002 (an ONNX file takes any number)
        """See `DeviceSession`."""
        return 1, None

    def dtype(self, component: str, tensor: str) -> np.dtype[Any]:
        """See `DeviceSession`."""
        return np.dtype(_DTYPES[self._tensors[component][tensor].type])

    def open_lane(self) -> OnnxLane:
        """See `DeviceSession`.

        Raises:
            InferenceError: there is a lane already.
        """
        if self._stream is None:
            raise InferenceError("ONNX Runtime serves one request at a time", where="onnx", hint="leave --streams at 1")
        lane = OnnxLane(self, self._sessions, self._stream)
        self._stream = None
        return lane


class OnnxLane(Lane):
    """The stream that ONNX Runtime works on."""

    recordable = False

    def __init__(self, session: OnnxDeviceSession, sessions: Mapping[str, Any], stream: Any) -> None:
        self.stream = stream
        self._session = session
        self._sessions = sessions

    def bind(self, component: str, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray]) -> OnnxBound:
        """See `Lane`."""
        return OnnxBound(self._session, component, self._sessions[component], inputs, outputs)


class OnnxBound(Bound):
    """A component's I/O binding."""

    def __init__(
        self,
        session: OnnxDeviceSession,
        component: str,
        model: Any,
        inputs: Mapping[str, DeviceArray],
        outputs: Mapping[str, DeviceArray],
    ) -> None:
        self._component = component
        self._model = model
        self._index = session.gpu.index
        self._errors = _errors()
        self._binding = model.io_binding()
        self._inputs = dict(inputs)
        for name, array in inputs.items():
            self._binding.bind_input(name, _DEVICE, self._index, array.dtype.type, array.shape, array.address)
        self._options = ort.RunOptions()
        # The stream is ours: who needs the outputs on the host waits for it.
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        names = [tensor.name for tensor in model.get_outputs()]
        self.outputs = dict(outputs) if set(outputs) == set(names) else self._allocate(session, names, outputs)
        for name, array in self.outputs.items():
            self._binding.bind_output(name, _DEVICE, self._index, array.dtype.type, array.shape, array.address)

    def _allocate(
        self, session: OnnxDeviceSession, names: list[str], given: Mapping[str, DeviceArray]
    ) -> dict[str, DeviceArray]:
        """Memory for the outputs: the shapes are known after a run that ONNX Runtime allocates for."""
        for name in names:
            self._binding.bind_output(name, _DEVICE, self._index)
        self.enqueue()
        shapes = {name: tuple(value.shape()) for name, value in zip(names, self._binding.get_outputs(), strict=True)}
        self._binding.clear_binding_outputs()
        return {
            name: given[name]
            if name in given
            else session.gpu.allocate(shapes[name], session.dtype(self._component, name))
            for name in names
        }

    def enqueue(self) -> None:
        """See `Bound`."""
        try:
            self._model.run_with_iobinding(self._binding, self._options)
        except self._errors as error:
            raise _failure(error, self._component) from error


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
    # Why a provider does not start goes to this log, in several lines; `_load_component` says it in one.
    ort.set_default_logger_severity(_LOG_FATAL)
    _missing_library()
    # Convolutions by cuDNN's rules: its search, the default, takes the fastest of a trial, which is not the same in
    # every process, and so are the last bits.
    return [("CUDAExecutionProvider", {"device_id": device.index, "cudnn_conv_algo_search": "HEURISTIC"}), cpu]


def _for_component(
    component: ComponentSpec, providers: list[tuple[str, dict[str, Any]]]
) -> list[tuple[str, dict[str, Any]]]:
    """The providers, with TF32 for a component of convolutions alone.

    Elsewhere it gains nothing, and a matrix product of rows should not depend on how many there are, which is what the
    frame before decides: cuBLAS has kernels of TF32 and of FP32 to choose from then.
    """
    (name, options), *others = providers
    return [(name, {**options, "use_tf32": str(int(_takes_images(component)))}), *others]


def _takes_images(component: ComponentSpec) -> bool:
    """Whether a component takes (N, C, H, W), and so is made of convolutions."""
    return len(component.inputs[0].shape) == _IMAGE_AXES


def _missing_library() -> str | None:
    """Load CUDA's libraries, those of NVIDIA's Python packages first; the first that is not found, and why."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        ort.preload_dlls()
    match = re.search(r"^Failed to load (.+)$", output.getvalue(), re.MULTILINE)
    return match[1] if match else None


def _load_component(
    path: Path, component: ComponentSpec, options: Any, providers: list[tuple[str, dict[str, Any]]]
) -> Any:
    """One component as a session whose provider is the one asked for."""
    wanted = providers[0][0]
    try:
        # Its own way out of an error is to go on with the CPU.
        session = ort.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
    except _errors() as error:
        reason = first_line(error)
        if re.search(r"\b(CUDA|CUDNN|CUBLAS) failure", reason):
            raise EnvironmentLacks(
                f"{wanted} was asked for and did not start: {reason}", where=component.name, hint=_GPU_HINT
            ) from error
        plugin = "is not a registered function/op" in reason
        hint = "it is made for TensorRT: run it with --backend tensorrt" if plugin else "export it again"
        raise ModelLoadError(f"ONNX Runtime can't load it: {reason}", where=str(path), hint=hint) from error
    # ONNX Runtime goes on without a provider that fails to start (missing library, no such GPU), with a log line.
    in_force = session.get_providers()
    if wanted not in in_force:
        reason = _missing_library() or f"in force are {', '.join(in_force)}"
        raise EnvironmentLacks(
            f"{wanted} was asked for and did not start: {reason}", where=component.name, hint=_GPU_HINT
        )
    inputs, outputs = (
        {tensor.name: tensor.shape for tensor in tensors} for tensors in (session.get_inputs(), session.get_outputs())
    )
    require_interface(component, inputs, outputs, where=str(path), hint="export the model again")
    return session


def _failure(error: Exception, component: str) -> InferenceError:
    """What became of a run, in one line."""
    reason = first_line(error)
    # cuDNN 9 takes 65,535 rows at most (PyTorch leaves it at that number too), a frame has more pillars.
    if re.search(r"running BatchNormalization node.*CUDNN_STATUS_NOT_SUPPORTED", reason):
        return InferenceError(
            "the graph has a BatchNormalization, of which cuDNN takes 65,535 rows at most",
            where=component,
            hint="export it again: the exporter folds it into the layer before it now; or choose --device cpu",
        )
    return InferenceError(f"ONNX Runtime failed: {reason}", where=component)


def _errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: each status code is a class of its own, without a common base."""
    state = ort.capi.onnxruntime_pybind11_state
    return (
        state.Fail, state.InvalidArgument, state.NoSuchFile, state.NoModel, state.EngineError, state.RuntimeException,
        state.InvalidProtobuf, state.NotImplemented, state.InvalidGraph, state.EPFail, ValueError, RuntimeError,
    )  # fmt: skip
