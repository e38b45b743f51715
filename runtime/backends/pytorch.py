"""PyTorch backend: torch.export programs, so that it needs torch and nothing of the training framework."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from runtime.backends import Tensors, no_target
from runtime.backends._messages import first_line
from runtime.devices import Device
from shared.errors import EnvironmentLacks, InferenceError, InputError, ModelLoadError
from shared.lazy import lazy_import
from shared.spec import ComponentSpec, ModelSpec
from shared.workspace import Workspace

torch = lazy_import("torch", install="make setup")
export_passes = lazy_import("torch.export.passes", install="make setup")

PACKAGES = ("torch", "numpy")


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
    """Load the programs onto the device.

    The number of threads holds for the whole process: PyTorch has one pool.

    Raises:
        EnvironmentLacks: PyTorch or the GPU is missing.
        ModelLoadError: a file is no exported program, or not the component of the spec.
    """
    _check_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    modules = {
        component.name: _load_component(files[component.name], component, device) for component in spec.components
    }
    return PyTorchSession(modules, spec, device, {"threads": torch.get_num_threads()})


class PyTorchSession:
    """The components as modules of exported programs."""

    def __init__(self, modules: dict[str, Any], spec: ModelSpec, device: Device, settings: dict[str, Any]) -> None:
        self._modules = modules
        self._inputs = {component.name: [tensor.name for tensor in component.inputs] for component in spec.components}
        self._outputs = {component.name: component.output_names() for component in spec.components}
        self._device = str(device)
        self.settings = settings

    def run(self, component: str, inputs: Tensors) -> dict[str, npt.NDArray[Any]]:
        """Run one component; on the CPU PyTorch reads the inputs in place.

        Raises:
            InferenceError: PyTorch failed, or gave another number of outputs than the model spec names.
        """
        names = self._outputs[component]
        arguments = [torch.from_numpy(inputs[name]).to(self._device) for name in self._inputs[component]]
        try:
            with torch.inference_mode():
                outputs = self._modules[component](*arguments)
        except RuntimeError as error:
            raise InferenceError(f"PyTorch failed: {first_line(error)}", where=component) from error
        tensors = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
        if len(tensors) != len(names):
            raise InferenceError(f"gave {len(tensors)} outputs, the model spec names {len(names)}", where=component)
        return {name: tensor.cpu().numpy() for name, tensor in zip(names, tensors, strict=True)}


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


def _load_component(path: Path, component: ComponentSpec, device: Device) -> Any:
    """One component as a callable on the device."""
    try:
        program = torch.export.load(path)
    except (RuntimeError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ModelLoadError(
            f"PyTorch can't load it: {first_line(error)}", where=str(path), hint="export it again"
        ) from error
    if not device.is_cpu:
        program = export_passes.move_to_device_pass(program, str(device))
    inputs = len(program.graph_signature.user_inputs)
    outputs = len(program.graph_signature.user_outputs)
    if (inputs, outputs) != (len(component.inputs), len(component.outputs)):
        raise ModelLoadError(
            f"has {inputs} inputs and {outputs} outputs, the model spec names {len(component.inputs)} and "
            f"{len(component.outputs)}",
            where=str(path),
            hint="export the model again",
        )
    return program.module()
