"""Kernel files as functions that can be called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.cuda.compile import compile_kernels
from runtime.cuda.gpu import driver


def load_kernels(
    files: Sequence[Path], signatures: Mapping[str, str], constants: Mapping[str, str], architecture: str
) -> dict[str, Any]:
    """The kernels as prepared functions of pycuda, by name.

    Args:
        files: in the order in which they build on each other.
        signatures: kernel to its arguments: P an address, i an int32, f a float32, d a float64.
        constants: macros.
        architecture: like ``sm_90``.

    Raises:
        EnvironmentLacks: no compiler. ModelLoadError: the kernels don't compile.
    """
    module = driver.module_from_buffer(compile_kernels(files, constants, architecture))
    functions = {}
    for name, signature in signatures.items():
        function = module.get_function(name)
        function.prepare(signature)
        functions[name] = function
    return functions
