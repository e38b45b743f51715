"""Compiled kernels: made once, kept, and what is said where that can't be done."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.cuda import nvrtc
from runtime.cuda.compile import cache_folder, compile_kernels, source
from runtime.models.calibration import device as calibration
from runtime.models.centerpoint import device_kernels as centerpoint
from runtime.models.centerpoint.parameters import CenterPointParameters
from runtime.models.frnet import device_memory as frnet
from runtime.models.frnet.parameters import FRNetParameters
from runtime.models.yolox import device as yolox
from runtime.models.yolox_seg import device_mask as masks
from shared.errors import EnvironmentLacks, ModelLoadError
from shared.files import explain_os_errors
from tests.support import frnet_device, tiny_centerpoint

# What nvcc is to do: note its arguments, and write, or fail as the test says.
NVCC = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/calls"
while [ $# -gt 1 ]; do [ "$1" = -o ] && out=$2; shift; done
%s
"""
WRITES = 'cp "$1" "$out"'
SCATTER, VOXELIZE = centerpoint.FILES[2], centerpoint.FILES[0]
FAILS = "echo 'kernels.cu(3): note' >&2; echo 'voxelize.cu(12): error: identifier \"x\" is undefined' >&2; exit 2"


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def install(tools: Path, does: str) -> None:
    (tools / "nvcc").write_text(NVCC % does)
    (tools / "nvcc").chmod(0o755)


def calls(tools: Path) -> list[str]:
    return (tools / "calls").read_text().splitlines()


def test_kernels_are_compiled_once_for_every_model_and_architecture(tools: Path) -> None:
    install(tools, WRITES)
    first = compile_kernels([SCATTER], {"CHANNELS": "32"}, "sm_90")
    assert first.decode() == source([SCATTER])
    assert compile_kernels([SCATTER], {"CHANNELS": "32"}, "sm_90") == first
    assert len(calls(tools)) == 1
    assert "-arch=sm_90" in calls(tools)[0]
    assert "-DCHANNELS=32" in calls(tools)[0]
    # A fused product and sum would be rounded once, unlike NumPy's.
    assert "-fmad=false" in calls(tools)[0]
    compile_kernels([SCATTER], {"CHANNELS": "64"}, "sm_90")
    compile_kernels([SCATTER], {"CHANNELS": "32"}, "sm_87")
    assert len(calls(tools)) == 3
    assert len(list(cache_folder().glob("*.cubin"))) == 3
    assert [entry for entry in cache_folder().iterdir() if entry.suffix != ".cubin"] == []


def test_kept_kernels_need_no_compiler(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tools, WRITES)
    kept = compile_kernels([SCATTER], {}, "sm_90")
    monkeypatch.setattr("shutil.which", lambda name, path=None: None)
    assert compile_kernels([SCATTER], {}, "sm_90") == kept
    monkeypatch.setattr("runtime.cuda.nvrtc.find", lambda: None)
    with pytest.raises(EnvironmentLacks, match=r"neither nvcc nor NVRTC.*--steps numpy"):
        compile_kernels([SCATTER], {}, "sm_75")


def test_kernels_are_compiled_where_nothing_can_be_kept(tools: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In a container without a home, or with a read-only one."""
    install(tools, WRITES)
    cache_folder().parents[1].write_text("no folder")
    assert compile_kernels([SCATTER], {}, "sm_90").decode() == source([SCATTER])
    assert "are not kept" in caplog.text


def test_kernels_are_compiled_where_nobody_may_look(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a home that is hidden from a service; root may look everywhere but where a name is too long."""
    install(tools, WRITES)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tools / ("x" * 300)))
    assert compile_kernels([SCATTER], {}, "sm_90").decode() == source([SCATTER])


def test_what_is_not_kept_is_no_matter_of_the_workspace(
    tools: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(tools, WRITES)

    def refused(path: Path, content: bytes) -> None:
        with explain_os_errors(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("runtime.cuda.compile.write_bytes", refused)
    compile_kernels([SCATTER], {}, "sm_90")
    assert "XDG_CACHE_HOME" in caplog.text and "Permission denied" in caplog.text
    assert "--work" not in caplog.text


class FakeNvrtc:
    """The calls of NVRTC; compiles by copying the source, or fails with a log."""

    def __init__(self, log: bytes = b"") -> None:
        self.log, self.text, self.options, self.destroyed = log, b"", [], 0

    def nvrtcCreateProgram(self, program: Any, text: bytes, *rest: Any) -> int:  # noqa: N802
        self.text = text
        return 0

    def nvrtcCompileProgram(self, program: Any, count: int, options: Any) -> int:  # noqa: N802
        self.options = [option.decode() for option in options]
        return 6 if self.log else 0

    def nvrtcDestroyProgram(self, program: Any) -> int:  # noqa: N802
        self.destroyed += 1
        return 0

    def __getattr__(self, name: str) -> Any:
        content = self.log if "Log" in name else self.text

        def answer(program: Any, target: Any) -> int:
            if name.endswith("Size"):
                target._obj.value = len(content)
            else:
                target.raw = content
            return 0

        return answer


def test_without_nvcc_nvrtc_compiles(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeNvrtc()
    monkeypatch.setattr("shutil.which", lambda name, path=None: None)
    monkeypatch.setattr("runtime.cuda.nvrtc.find", lambda: library)
    assert compile_kernels([SCATTER], {"CHANNELS": "32"}, "sm_90").decode() == source([SCATTER])
    assert {"--gpu-architecture=sm_90", "-fmad=false", "-DCHANNELS=32"} <= set(library.options)
    assert library.destroyed == 1
    failing = FakeNvrtc(b'note\nvoxelize.cu(3): error: expected a ";"\n')
    monkeypatch.setattr("runtime.cuda.nvrtc.find", lambda: failing)
    with pytest.raises(
        ModelLoadError, match=r'NVRTC can.t compile the kernels: voxelize\.cu\(3\): error: expected a ";"$'
    ):
        compile_kernels([SCATTER], {"CHANNELS": "64"}, "sm_90")
    assert failing.destroyed == 1


def test_the_compilers_error_is_shown_and_nothing_kept(tools: Path) -> None:
    install(tools, FAILS)
    with pytest.raises(ModelLoadError, match=r'voxelize\.cu\(12\): error: identifier "x" is undefined$'):
        compile_kernels([VOXELIZE], {}, "sm_90")
    assert not cache_folder().exists()


def test_every_file_keeps_its_own_lines_in_messages() -> None:
    text = source(centerpoint.FILES[:2])
    assert [line for line in text.splitlines() if line.startswith("#line")] == [
        '#line 1 "common.cu"',
        '#line 1 "voxelize.cu"',
        '#line 1 "decorate.cu"',
    ]


def test_the_compilers_of_this_machine_take_every_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [nvcc for nvcc in (shutil.which("nvcc"),) if nvcc] + [library for library in (nvrtc.find(),) if library]
    if not found:
        pytest.skip("neither nvcc nor NVRTC on this machine")
    float32 = np.dtype(np.float32)
    parameters = CenterPointParameters.model_validate(tiny_centerpoint.parameters())
    constants = centerpoint.kernel_constants(
        parameters,
        feature_type=float32,
        pillar_type=float32,
        canvas_type=np.dtype(np.float16),
        output_type=float32,
        channels_last=True,
    )
    encode = {**constants, "HIDDEN": "16", "HALF": "1", "ENCODE_WARPS": "8", "ENCODE_BLOCKS": "2"}
    types = {"INPUT_T": "unsigned short", "OUTPUT_T": "float", "MOST": "4096"}
    points = FRNetParameters.model_validate(frnet_device.spec().parameters)
    for number, compiler in enumerate(found):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / str(number)))
        if not isinstance(compiler, str):
            monkeypatch.setattr("shutil.which", lambda name, path=None: None)
        for files, macros in (
            (centerpoint.FILES, constants),
            ((*centerpoint.FILES, centerpoint.ENCODE_FILE), encode),
            (yolox.FILES, types),
            (calibration.FILES, types),
            (frnet.FILES, frnet.kernel_constants(points, float32)),
            (masks.FILES, masks.kernel_constants(float32, classes=4)),
        ):
            assert compile_kernels(files, macros, "sm_90").startswith(b"\x7fELF")
