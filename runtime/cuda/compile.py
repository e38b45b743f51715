"""Kernels: compiled once, for one GPU architecture and one model's sizes, and kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from runtime.cuda import nvrtc
from shared.errors import EnvironmentLacks, ModelLoadError
from shared.files import write_bytes

_log = logging.getLogger("runtime")

# What every kernel file builds on.
_COMMON = Path(__file__).with_name("common.cu")
# -fmad=false: products and sums are rounded one by one, as NumPy rounds them.
FLAGS = ("-std=c++17", "-fmad=false", "-lineinfo")


def cache_folder() -> Path:
    """Where compiled kernels are kept: under XDG_CACHE_HOME or ~/.cache."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "awml-deploy" / "kernels"


def source(files: Sequence[Path]) -> str:
    """``common.cu``, then ``files``, as one text; compiler messages keep file and line."""
    return "".join(f'#line 1 "{file.name}"\n{file.read_text(encoding="utf-8")}' for file in (_COMMON, *files))


def compile_kernels(files: Sequence[Path], constants: Mapping[str, str], architecture: str) -> bytes:
    """Machine code (cubin) of kernel files, by nvcc or, where that is missing, NVRTC.

    Args:
        files: in the order in which they build on each other.
        constants: macros.
        architecture: ``sm_90`` and the like.

    Raises:
        EnvironmentLacks: they are not in the cache, and there is no compiler.
        ModelLoadError: the compiler refuses them.
    """
    text = source(files)
    key = hashlib.sha256(json.dumps([text, sorted(constants.items()), architecture, FLAGS]).encode("utf-8")).hexdigest()
    cached = cache_folder() / f"{key}.cubin"
    # Whatever the reason, what can't be read is made anew.
    with contextlib.suppress(OSError):
        return cached.read_bytes()
    macros = [f"-D{name}={value}" for name, value in sorted(constants.items())]
    code = _compiled(text, macros, architecture)
    try:
        write_bytes(cached, code)
    except (OSError, EnvironmentLacks) as error:
        # Hints of such errors are about workspaces.
        reason = error.__cause__ or error
        _log.warning("compiled kernels are not kept (XDG_CACHE_HOME says where), and will be made anew: %s", reason)
    return code


def _compiled(text: str, macros: Sequence[str], architecture: str) -> bytes:
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if nvcc is not None:
        return _by_nvcc(nvcc, text, [f"-arch={architecture}", *FLAGS, *macros])
    library = nvrtc.find()
    if library is None:
        raise EnvironmentLacks(
            "the CUDA kernels are not compiled yet, and there is neither nvcc nor NVRTC",
            hint="pip install nvidia-cuda-nvrtc, or choose --steps numpy",
        )
    return nvrtc.compile_to_cubin(library, text, [f"--gpu-architecture={architecture}", *FLAGS, *macros])


def _by_nvcc(nvcc: str, text: str, options: Sequence[str]) -> bytes:
    with tempfile.TemporaryDirectory(prefix="kernels-") as scratch:
        file, result = Path(scratch) / "kernels.cu", Path(scratch) / "kernels.cubin"
        file.write_text(text, encoding="utf-8")
        command = [nvcc, "--cubin", *options, "-o", str(result), str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            errors = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
            raise ModelLoadError(f"nvcc can't compile the kernels: {errors[0] if errors else 'no message'}")
        return result.read_bytes()
