"""torch.export programs of the components: what the PyTorch backend runs, with torch alone."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt

from exporter.artifacts.checks import PROGRAM_TOLERANCE, Agreement, compare
from exporter.component import Component, as_tuple
from exporter.quiet import quiet
from shared.errors import ExportError, ModelLoadError
from shared.files import write_bytes
from shared.lazy import lazy_import
from shared.program_file import read_program

torch = lazy_import("torch")

# Compares a program, as PyTorch loads it, with the component that it should be.
ProgramCheck = Callable[[Any, Component], list[Agreement]]


def check_program(program: Any, component: Component) -> list[Agreement]:
    """Compare a loaded program with the module, at the component's sizes.

    Raises:
        ExportError: it fails, or computes something else.
    """
    return compare(component, partial(run_program, program), PROGRAM_TOLERANCE, "the program")


def run_program(program: Any, inputs: tuple[Any, ...]) -> Sequence[npt.NDArray[Any]]:
    """What a loaded program answers to tensors."""
    with torch.no_grad():
        return [value.numpy() for value in as_tuple(program(*inputs))]


def export_program(component: Component, path: Path, check: ProgramCheck = check_program) -> list[Agreement]:
    """Write a component as a ``.pt2`` program with its dynamic axes, and check what can be loaded again.

    Args:
        component: what to export.
        path: the file to write.
        check: of what was loaded.

    Returns:
        The agreement with the module at each size.

    Raises:
        ExportError: torch.export can't capture the module, fixes an axis that must be dynamic, or computes otherwise;
            or the program holds more than tensors, sizes and ATen operators.
    """
    axes = component.dynamic_axes()
    # DYNAMIC: the sizes may be related (a stride divides them); the tracer finds out how, and refuses to fix one.
    shapes = tuple(dict.fromkeys(axes[tensor.name], torch.export.Dim.DYNAMIC) or None for tensor in component.inputs)
    try:
        with quiet(), torch.no_grad(), _without_cuda_autocast():
            program = torch.export.export(
                _plainly_named(component.module), component.trace_inputs(), dynamic_shapes=shapes, strict=False
            )
            # Through memory: on a full disk, PyTorch's own writer reports something else.
            content = io.BytesIO()
            torch.export.save(program, content)
    # torch.export raises what the module's code and its own passes raise; all of it means one thing.
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise ExportError(
            f"torch.export failed ({type(error).__name__}: {lines[0] if lines else ''})",
            where=component.name,
            hint="--debug shows where",
        ) from error
    write_bytes(path, content.getbuffer())
    try:
        content = read_program(path)
    except ModelLoadError as error:
        raise ExportError(
            f"the PyTorch backend does not read this program: {error.message}",
            where=component.name,
            hint="it takes tensors, sizes and ATen operators; write the module with these",
        ) from error
    return check(torch.export.load(content).module(), component)


@contextlib.contextmanager
def _without_cuda_autocast() -> Iterator[None]:
    """Make CUDA's autocast in modules (mmdet's CSPDarknet turns it off) nothing at all.

    That is what it is on a CPU, but a program would hold the part within as an object.
    """
    amp = torch.cuda.amp
    before = amp.autocast
    amp.autocast = lambda *_, **__: contextlib.nullcontext()
    try:
        yield
    finally:
        amp.autocast = before


def _plainly_named(module: Any) -> Any:
    """The module with names that a program may hold; VoVNet's have slashes. Layers and weights are shared."""
    if all("/" not in name for name, _ in module.named_modules()):
        return module
    renamed = copy.copy(module)
    renamed._modules = {
        name.replace("/", "_"): child if child is None else _plainly_named(child)
        for name, child in module._modules.items()
    }
    return renamed
