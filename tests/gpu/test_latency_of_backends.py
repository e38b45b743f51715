"""CenterPoint on ONNX Runtime and PyTorch on a GPU: the network and the measuring of `test_runtime_tensorrt`.

FIGURES names a folder that keeps the figures.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pycuda", reason="pycuda is not installed here; the runtime image has it")
pytest.importorskip("torch")

import torch

from benchmarks import gpu_latency
from tests.support.onnx_programs import add_programs
from tests.support.trt_workspaces import full_size_workspace

# torch.compile takes a minute, the measuring run another.
pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ws = full_size_workspace(tmp_path_factory.mktemp("full") / "work")
    add_programs(ws)
    return ws.root


@pytest.fixture(scope="module", params=["onnx", "pytorch", "compiled"])
def figures(request: pytest.FixtureRequest, work: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if request.param == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            pytest.skip("this onnxruntime is a CPU build; install onnxruntime-gpu")
    elif not torch.cuda.is_available():
        pytest.skip("this torch is a CPU build; install a CUDA build")
    kept = os.environ.get("FIGURES")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("figures")
    return gpu_latency.measure(
        work,
        folder / f"{request.param}_latency.json",
        backend_name="onnx" if request.param == "onnx" else "pytorch",
        compiled=request.param == "compiled",
        requests=500,
        soak_requests=int(os.environ.get("SOAK", "1000")),
    )


def test_nothing_is_allocated_after_the_warm_up(figures: dict[str, Any]) -> None:
    assert figures["grown_bytes"] == 0
    assert figures["soak"]["grown_bytes"] == 0


def test_the_boxes_are_those_of_the_numpy_steps(figures: dict[str, Any]) -> None:
    assert figures["against_numpy"]["boxes"] > 50
    assert "different" not in figures["against_numpy"]
    if "other rows" in figures["against_numpy"]:
        assert figures["rows_of_the_encoder"]["different"]


def test_a_second_pass_over_the_frames_gives_the_same_to_the_bit(figures: dict[str, Any]) -> None:
    assert set(figures["against_itself"]) == {"identical"}


def test_it_is_faster_than_arrays_of_the_host(figures: dict[str, Any]) -> None:
    assert figures["times_faster_than_awml_like"]["total"] > 1
    assert figures["boxes_against_awml_like"] in ("identical", "same set")
