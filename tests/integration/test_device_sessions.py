"""ONNX Runtime and PyTorch between CenterPoint's CUDA kernels: the same boxes as with the steps in NumPy.

The kernels run on the CPU (`tests.support.cuda_on_cpu`), the backends on the host memory that stands for the device's.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("torch")

import torch

from runtime.backends import onnx, pytorch
from runtime.run import run
from shared.errors import EnvironmentLacks, InferenceError, UsageError
from shared.runs import Run
from shared.spec import ComponentSpec, ModelSpec, TensorSpec
from shared.workspace import Workspace
from tests.support import backends_on_cpu, cuda_on_cpu
from tests.support import tiny_centerpoint as tiny

pytestmark = pytest.mark.skipif(cuda_on_cpu.compiler() is None, reason="no C++ compiler here")

FRAMES = [300, 0, 1, 600]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny")
    work = tiny.make_workspace(root / "work", tiny.write_frames(root / "frames", FRAMES)).root
    run(work, "onnx", "cpu")
    return work


@pytest.fixture
def work(exported: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    backends_on_cpu.use(monkeypatch, cuda_on_cpu.KEPT)
    return exported


@pytest.mark.parametrize("backend", ["onnx", "pytorch"])
def test_the_boxes_are_those_of_the_numpy_steps(work: Path, backend: str) -> None:
    run(work, backend, "cuda")
    on_device, in_numpy = (Run.open(work / f"runs/{name}") for name in (f"{backend}-cuda0", "onnx-cpu"))
    assert on_device.header.details["gpu"] == "CPU"
    assert "upload" in on_device.latencies[0]
    tiny.assert_same_boxes(on_device, in_numpy)


def test_onnx_runtime_has_one_lane(work: Path) -> None:
    ws = Workspace.open(work)
    files = {name: ws.artifact(path) for name, path in onnx.artifacts(ws, ws.spec()).items()}
    session = onnx.load(files, ws.spec(), onnx.Device("cuda"), None)
    assert isinstance(session, onnx.OnnxDeviceSession)
    session.open_lane()
    with pytest.raises(InferenceError, match=r"one request at a time.*--streams"):
        session.open_lane()


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_does_not_start_is_one_error_with_the_library_that_is_missing(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    missing = "libcublasLt.so.13: cannot open shared object file: No such file or directory"
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: sys.stdout.write(f"Failed to load {missing}\n..."))
    with pytest.raises(EnvironmentLacks, match=f"CUDAExecutionProvider was asked for and did not start: {missing}"):
        run(exported, "onnx", "cuda", force=True)
    assert "Failed to load" not in "".join(capfd.readouterr())


def test_a_gpu_that_onnx_runtime_can_not_use_is_no_fault_of_the_file(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    def refuse(*arguments: Any, enable_fallback: int, **options: Any) -> None:
        assert not enable_fallback
        raise RuntimeError("CUDA failure 101: invalid device ordinal ; GPU=-1\nmore")

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(EnvironmentLacks, match="did not start: CUDA failure 101: invalid device ordinal"):
        run(exported, "onnx", "cuda:3", force=True)


def test_memory_that_is_not_there_is_an_error_in_one_line(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nmore")

    monkeypatch.setattr(pytorch, "_tensor", refuse)
    with pytest.raises(InferenceError, match=r"PyTorch failed: CUDA out of memory\. Tried to allocate 9 GiB"):
        run(work, "pytorch", "cuda", force=True)
    monkeypatch.setattr(pytorch.export_passes, "move_to_device_pass", refuse)
    with pytest.raises(EnvironmentLacks, match="PyTorch can't use the GPU: CUDA out of memory"):
        run(work, "pytorch", "cuda", force=True)


def test_convolutions_alone_are_computed_in_tf32_and_it_is_on_record(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    asked = {}
    session = onnxruntime.InferenceSession

    def note(path: str, options: Any, *, providers: Any, **others: Any) -> Any:
        asked[Path(path).stem] = providers[0][1]["use_tf32"]
        return session(path, options, providers=providers, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", note)
    for backend, kinds in (("onnx", ["pts_backbone_neck_head"]), ("pytorch", ["convolutions"])):
        run(work, backend, "cuda", force=True)
        assert Run.open(work / f"runs/{backend}-cuda0").header.details["tf32"] == kinds
    assert asked == {"pts_voxel_encoder": "0", "pts_backbone_neck_head": "1"}


def test_a_batch_norm_that_cudnn_refuses_is_an_error_with_its_remedy(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = "Status Message: CUDNN failure 3000: CUDNN_STATUS_NOT_SUPPORTED ; GPU=0 ; hostname=vm"
    norm = "Non-zero status code returned while running BatchNormalization node. Name:'/pfn/norm/BatchNormalization' "
    other = "Non-zero status code returned while running Conv node. Name:'/conv' "
    for words, told in (
        (norm + status, r"head: the graph has a BatchNormalization, .*65,535 rows.*export it again"),
        (other + status, "head: ONNX Runtime failed: .*running Conv node.*NOT_SUPPORTED"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(onnx.ort.InferenceSession, "run_with_iobinding", _refusing(words))
            with pytest.raises(InferenceError, match=told):
                run(work, "onnx", "cuda", force=True)


def _refusing(words: str) -> Any:
    def refuse(*arguments: Any) -> None:
        raise onnx.ort.capi.onnxruntime_pybind11_state.Fail(words)

    return refuse


class _Viewed(torch.nn.Module):
    """A convolution, behind which a view wants the channels first."""

    def __init__(self, views: bool) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self._views = views

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.conv(images)
        return answer.view(1, -1) if self._views else answer


@pytest.mark.parametrize("views", [False, True])
def test_on_a_gpu_weights_have_their_channels_last_unless_the_program_asks_for_another_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, views: bool
) -> None:
    example = torch.arange(300.0).reshape(1, 3, 10, 10)
    module = _Viewed(views).eval()
    torch.export.save(torch.export.export(module, (example,)), tmp_path / "conv.pt2")
    component = ComponentSpec(
        name="conv",
        inputs=[TensorSpec(name="images", dtype="float32", shape=[1, 3, 10, 10])],
        outputs=[TensorSpec(name="answer", dtype="float32", shape=[1, "size"] if views else [1, 4, 8, 8])],
        onnx="onnx/conv.onnx",
    )
    spec = ModelSpec(model="any", task="classification", classes=["a"], components=[component], parameters={})
    backends_on_cpu.use(monkeypatch, cuda_on_cpu.KEPT)
    session = pytorch.load({"conv": tmp_path / "conv.pt2"}, spec, pytorch.Device("cuda"), None)
    answer = session.run("conv", {"images": example.numpy()})["answer"]
    assert answer.flags["C_CONTIGUOUS"]
    np.testing.assert_allclose(answer, module(example).detach().numpy(), rtol=1e-5, atol=1e-4)
    (weight,) = (value for value in session._modules["conv"].parameters() if value.dim() == 4)
    assert weight.is_contiguous(memory_format=torch.channels_last) is not views


def test_without_pycuda_it_is_said_that_tensors_pass_through_the_host(caplog: pytest.LogCaptureFixture) -> None:
    from runtime.cuda.session import gpu_of_steps

    assert gpu_of_steps(onnx.Device("cuda"), "onnx") is None
    assert "onnx on cuda:0: pycuda is not installed" in caplog.text


def test_compiled_programs_answer_the_same(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def compile_nothing(module: Any, *, dynamic: bool) -> Any:
        asked.append(dynamic)
        return module

    monkeypatch.setattr(torch, "compile", compile_nothing)
    run(exported, "pytorch", "cpu", compiled=True)
    compiled = Run.open(exported / "runs/pytorch-cpu")
    centers = compiled.boxes(0).centers
    assert compiled.header.details["compile"] is True
    assert asked == [True, True]
    run(exported, "pytorch", "cpu")
    plain = Run.open(exported / "runs/pytorch-cpu")
    assert "compile" not in plain.header.details
    np.testing.assert_array_equal(plain.boxes(0).centers, centers)


def test_a_backend_that_does_not_compile_says_so(exported: Path) -> None:
    with pytest.raises(UsageError, match=r"onnx does not compile; --backend pytorch does"):
        run(exported, "onnx", "cpu", compiled=True)
