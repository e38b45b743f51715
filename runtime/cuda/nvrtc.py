"""NVRTC, CUDA's compiler as a library: it is in CUDA's runtime images, which have no nvcc."""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from shared.errors import ModelLoadError

_VERSIONS = (13, 12, 11)


def find() -> Any | None:
    """The library: of the system, or of the Python package nvidia-cuda-nvrtc; None where there is none."""
    for name in _names():
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _names() -> Iterator[str]:
    for version in _VERSIONS:
        yield f"libnvrtc.so.{version}"
    package = importlib.util.find_spec("nvidia")
    for folder in (package.submodule_search_locations or []) if package else []:
        yield from (str(path) for path in sorted(Path(folder).glob("*/lib/libnvrtc.so.*"), reverse=True))


def compile_to_cubin(library: Any, text: str, options: Sequence[str]) -> bytes:
    """Machine code of a source text.

    Args:
        library: from `find`.
        text: the source.
        options: of the compiler, ``--gpu-architecture=sm_90`` among them.

    Raises:
        ModelLoadError: the compiler refuses it; its first error.
    """
    program = ctypes.c_void_p()
    _call(library, "nvrtcCreateProgram", ctypes.byref(program), text.encode("utf-8"), b"kernels.cu", 0, None, None)
    try:
        encoded = [option.encode("utf-8") for option in options]
        array = (ctypes.c_char_p * len(encoded))(*encoded)
        if library.nvrtcCompileProgram(program, len(encoded), array) != 0:
            log = _get(library, "ProgramLog", program).decode("utf-8", errors="replace").splitlines()
            errors = [line for line in log if "error" in line] or log
            raise ModelLoadError(f"NVRTC can't compile the kernels: {errors[0].strip() if errors else 'no message'}")
        return _get(library, "CUBIN", program)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _get(library: Any, what: str, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    _call(library, f"nvrtcGet{what}Size", program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    _call(library, f"nvrtcGet{what}", program, buffer)
    return buffer.raw


def _call(library: Any, name: str, *arguments: Any) -> None:
    code = getattr(library, name)(*arguments)
    if code != 0:
        raise ModelLoadError(f"{name} failed ({code})", hint="check the CUDA installation")
