"""PyTorch backend: torch.export programs, so that it needs torch and nothing of the training framework."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.backends import Compilable, Tensors, no_target
from runtime.backends._messages import first_line
from runtime.cuda.gpu import DeviceArray, Gpu
from runtime.cuda.session import Bound, DeviceSession, Lane, gpu_of_steps
from runtime.devices import Device
from shared.errors import EnvironmentLacks, InferenceError, InputError, ModelLoadError
from shared.lazy import lazy_import
from shared.openmp import wait_briefly
from shared.program_file import read_program
from shared.spec import ComponentSpec, ModelSpec
from shared.workspace import Workspace

torch = lazy_import("torch", install="make setup")
export_passes = lazy_import("torch.export.passes", install="make setup")

PACKAGES = ("torch", "numpy")
KIND = "program"


def artifacts(workspace: Workspace, spec: ModelSpec, target: str | None = None) -> dict[str, str]:
    """The exported program of each component.

    Raises:
        InputError: a component has none.
    """
    no_target(target, "pytorch")
    programs = {}
    for component in spec.components:
        if component.program is None:
            raise InputError(
                f"component '{component.name}' has no PyTorch program",
                where=str(workspace.root),
                hint="export from the PyTorch model (mode onnx or both), or choose another --backend",
            )
        programs[component.name] = component.program
    return programs


def load(files: Mapping[str, Path], spec: ModelSpec, device: Device, threads: int | None) -> PyTorchSession:
    """Load the programs onto the device. On a GPU they run on device memory, where pycuda is installed.

    The number of threads holds for the whole process: PyTorch has one pool.

    Raises:
        EnvironmentLacks: PyTorch or the GPU is missing.
        ModelLoadError: a file is no exported program, or not the component of the spec.
    """
    wait_briefly()
    _check_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    modules = {
        component.name: _load_component(files[component.name], component, device) for component in spec.components
    }
    settings: dict[str, Any] = {"threads": torch.get_num_threads()}
    if not device.is_cpu:
        allowed = {
            "convolutions": torch.backends.cudnn.allow_tf32,
            "matrix products": torch.backends.cuda.matmul.allow_tf32,
        }
        settings["tf32"] = [name for name, is_allowed in allowed.items() if is_allowed]
    gpu = None if device.is_cpu else gpu_of_steps(device, "pytorch")
    if gpu is None:
        return PyTorchSession(modules, spec, device, settings)
    return PyTorchDeviceSession(modules, spec, device, {**settings, "gpu": gpu.name}, gpu)


class PyTorchSession(Compilable):
    """The components as modules of exported programs."""

    def __init__(self, modules: dict[str, Any], spec: ModelSpec, device: Device, settings: dict[str, Any]) -> None:
        self._modules = modules
        self._inputs = {component.name: [tensor.name for tensor in component.inputs] for component in spec.components}
        self._outputs = {component.name: component.output_names() for component in spec.components}
        self._device = str(device)
        self.settings = settings

    def compile(self) -> None:
        """Hand the programs to torch.compile; numbers of rows stay dynamic. Needs a C++ compiler, on a GPU Triton."""
        self._modules = {name: torch.compile(module, dynamic=True) for name, module in self._modules.items()}
        self.settings = {**self.settings, "compile": True}

    def run(self, component: str, inputs: Tensors) -> dict[str, npt.NDArray[Any]]:
        """Run one component; on the CPU PyTorch reads the inputs in place.

        Raises:
            InferenceError: PyTorch failed, or gave another number of outputs than the model spec names.
        """
        names = self._outputs[component]
        arguments = [_copied(inputs[name], self._device) for name in self._inputs[component]]
        try:
            with torch.inference_mode():
                outputs = self._modules[component](*arguments)
        except RuntimeError as error:
            raise InferenceError(f"PyTorch failed: {first_line(error)}", where=component) from error
        tensors = _as_list(outputs)
        if len(tensors) != len(names):
            raise InferenceError(f"gave {len(tensors)} outputs, the model spec names {len(names)}", where=component)
        return {name: tensor.contiguous().cpu().numpy() for name, tensor in zip(names, tensors, strict=True)}


class PyTorchDeviceSession(PyTorchSession, DeviceSession):
    """The components on device memory."""

    def __init__(
        self, modules: dict[str, Any], spec: ModelSpec, device: Device, settings: dict[str, Any], gpu: Gpu
    ) -> None:
        super().__init__(modules, spec, device, settings)
        self.gpu = gpu
        self._dtypes = {
            (component.name, tensor.name): np.dtype(tensor.dtype)
            for component in spec.components
            for tensor in (*component.inputs, *component.outputs)
        }

    def rows(self, component: str) -> tuple[int, int | None]:  # noqa: ARG002 (the same for all)
        """See `DeviceSession`. torch.export takes an axis of length 1 for a constant: programs want two rows."""
        return 2, None

    def dtype(self, component: str, tensor: str) -> np.dtype[Any]:
        """See `DeviceSession`."""
        return self._dtypes[component, tensor]

    def open_lane(self) -> PyTorchLane:
        """See `DeviceSession`."""
        return PyTorchLane(self)

    def bind(
        self, component: str, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray], stream: Any
    ) -> PyTorchBound:
        """A component with its tensors, see `Lane.bind`.

        Raises:
            InferenceError: PyTorch failed.
        """
        names = self._outputs[component]
        try:
            arguments = [_tensor(inputs[name], self._device) for name in self._inputs[component]]
            with _on_stream(stream, self._device), torch.inference_mode():
                answers = _as_list(self._modules[component](*arguments))
        except RuntimeError as error:
            raise InferenceError(f"PyTorch failed: {first_line(error)}", where=component) from error
        arrays = {
            name: outputs[name]
            if name in outputs
            else self.gpu.allocate(tuple(answer.shape), self.dtype(component, name))
            for name, answer in zip(names, answers, strict=True)
        }
        return PyTorchBound(component, self._modules[component], arguments, arrays, stream, self._device)


class PyTorchLane(Lane):
    """A stream that PyTorch works on while a component runs."""

    recordable = False

    def __init__(self, session: PyTorchDeviceSession) -> None:
        self.stream = session.gpu.stream()
        self._session = session

    def bind(
        self, component: str, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray]
    ) -> PyTorchBound:
        """See `Lane`."""
        return self._session.bind(component, inputs, outputs, self.stream)


class PyTorchBound(Bound):
    """A program, its input tensors on our memory, and where its outputs are kept: PyTorch's own change every run."""

    def __init__(
        self,
        component: str,
        module: Any,
        arguments: list[Any],
        outputs: dict[str, DeviceArray],
        stream: Any,
        device: str,
    ) -> None:
        self._component, self._module, self._arguments = component, module, arguments
        self._stream, self._device = stream, device
        self.outputs = outputs
        self._kept = [_tensor(array, device) for array in outputs.values()]

    def enqueue(self) -> None:
        """See `Bound`."""
        try:
            with _on_stream(self._stream, self._device), torch.inference_mode():
                for kept, answer in zip(self._kept, _as_list(self._module(*self._arguments)), strict=True):
                    kept.copy_(answer)
        except RuntimeError as error:
            raise InferenceError(f"PyTorch failed: {first_line(error)}", where=self._component) from error


def _as_list(outputs: Any) -> list[Any]:
    return [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)


def _copied(array: npt.NDArray[np.generic], device: str) -> Any:
    """A tensor with the host's values; on the CPU on the same memory."""
    return torch.from_numpy(array).to(device)


def _tensor(array: DeviceArray, device: str) -> Any:
    """A tensor on the same memory."""
    return torch.as_tensor(array, device=device)


def _on_stream(stream: Any, device: str) -> Any:
    """PyTorch works on a stream of pycuda inside of this context."""
    return torch.cuda.stream(torch.cuda.ExternalStream(stream.handle, device=device))


def _check_device(device: Device) -> None:
    if device.is_cpu:
        return
    count = torch.cuda.device_count()
    if device.index >= count:
        raise EnvironmentLacks(
            f"PyTorch sees {count} GPUs",
            where=f"pytorch on {device}",
            hint="install a CUDA build of torch and check nvidia-smi, or choose --device cpu",
        )


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """PyTorch logs the traceback of an error in a program, and then raises another."""
    logger = logging.getLogger("torch.export")
    disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = disabled


def _check_shapes(program: Any, component: ComponentSpec, path: Path) -> None:
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    for wanted, name in zip(component.outputs, program.graph_signature.user_outputs, strict=True):
        if not isinstance(values.get(name), torch.Tensor):
            continue
        shape = [size if isinstance(size, int) else str(size) for size in values[name].shape]
        if not wanted.accepts(shape):
            raise ModelLoadError(
                f"gives '{wanted.name}' of shape {shape}, the model spec says {wanted.shape}",
                where=str(path),
                hint="export the model again",
            )


def _load_component(path: Path, component: ComponentSpec, device: Device) -> Any:
    """One component as a callable on the device."""
    content = read_program(path)
    try:
        with _silent():
            program = torch.export.load(content)
    # PyTorch asserts its way through a program: a damaged one may raise anything.
    except Exception as error:
        raise ModelLoadError(
            f"PyTorch can't load it: {first_line(error)}", where=str(path), hint="export it again"
        ) from error
    if not device.is_cpu:
        try:
            program = export_passes.move_to_device_pass(program, str(device))
        except RuntimeError as error:
            raise EnvironmentLacks(
                f"PyTorch can't use the GPU: {first_line(error)}",
                where=f"pytorch on {device}",
                hint="check nvidia-smi, for free memory too, or choose --device cpu",
            ) from error
    inputs = len(program.graph_signature.user_inputs)
    outputs = len(program.graph_signature.user_outputs)
    if (inputs, outputs) != (len(component.inputs), len(component.outputs)):
        raise ModelLoadError(
            f"has {inputs} inputs and {outputs} outputs, the model spec names {len(component.inputs)} and "
            f"{len(component.outputs)}",
            where=str(path),
            hint="export the model again",
        )
    _check_shapes(program, component, path)
    module = program.module()
    # Tensor cores want channels last. A convolution takes the layout from its weights and hands it on to what follows,
    # where only a view would refuse it.
    has_views = any(node.target is torch.ops.aten.view.default for node in module.graph.nodes)
    return module if device.is_cpu or has_views else module.to(memory_format=torch.channels_last)
