"""The TensorRT backend and CenterPoint's CUDA pipeline, from the command line, on doubles of TensorRT and CUDA.

The engines of the double are the ONNX files, so that the answers must be those of the ONNX backend.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from click.testing import CliRunner

from runtime.backends import tensorrt as backend
from runtime.bench import bench
from runtime.cli import cli
from runtime.devices import Device
from runtime.model import HostOnly
from runtime.models.centerpoint.pipeline import build
from runtime.run import run
from shared import cuda
from shared.errors import EnvironmentLacks, InferenceError, InputError, ModelLoadError
from shared.runs import Run
from shared.workspace import Workspace
from tests.support import cuda_on_cpu, engines_on_cpu
from tests.support import tiny_centerpoint as tiny
from tests.support.tensorrt_double import plans

pytestmark = pytest.mark.skipif(cuda_on_cpu.compiler() is None, reason="no C++ compiler here")

FRAMES = [300, 0, 1, 600, 40]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    root = tmp_path_factory.mktemp("tiny")
    ws = tiny.make_workspace(root / "work", tiny.write_frames(root / "frames", FRAMES))
    engines_on_cpu.add_engines(ws)
    return ws


@pytest.fixture(scope="module")
def kernels() -> Path:
    return cuda_on_cpu.KEPT


@pytest.fixture
def work(exported: Workspace, kernels: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    engines_on_cpu.use(monkeypatch, kernels)
    yield exported.root


def load(ws: Workspace, target: str | None = None, device: str = "cuda") -> backend.TensorRTSession:
    spec = ws.spec()
    files = {name: ws.artifact(path) for name, path in backend.artifacts(ws, spec, target).items()}
    return backend.load(files, spec, Device(device), None)


def test_the_boxes_are_those_of_the_onnx_backend(work: Path) -> None:
    run(work, "onnx", "cpu")
    run(work, "tensorrt", "cuda")
    tiny.assert_same_boxes(Run.open(work / "runs/tensorrt-cuda0"), Run.open(work / "runs/onnx-cpu"))
    assert Run.open(work / "runs/tensorrt-cuda0").header.details["gpu"] == "CPU"
    stages = list(Run.open(work / "runs/tensorrt-cuda0").latencies[0])
    assert stages[:2] == ["upload", "voxelize"]
    assert stages[-4:] == ["download", "enqueue", "total", "waited"]


@pytest.fixture
def fetched(work: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of what the device fetched from page-locked memory by itself, in bytes."""
    library: Any = cuda.library()
    sizes: list[int] = []
    copy = cuda_on_cpu.HostGpu.to_device

    def fetch(gpu: Any, array: np.ndarray, address: int, stream: Any) -> None:
        start = array.ctypes.data
        if any(low <= start and start + array.nbytes <= low + size for low, size in library.page_locked.items()):
            sizes.append(array.nbytes)
        copy(gpu, array, address, stream)

    monkeypatch.setattr(cuda_on_cpu.HostGpu, "to_device", fetch)
    return sizes


@pytest.mark.skipif(sys.platform != "linux", reason="buffers need Linux")
def test_bench_holds_inputs_of_any_size_where_the_device_fetches_them(
    work: Path, fetched: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.bench._STAGED_REQUESTS", 1)
    answer = bench(work, "tensorrt", "cuda", page_locked=True, min_requests=1, min_seconds=0.0, max_warm_up_seconds=0.0)
    assert answer.data["counters"]["points"] * 4 * 4 in fetched
    library: Any = cuda.library()
    assert not library.page_locked


@pytest.mark.skipif(sys.platform != "linux", reason="readers need Linux")
def test_requests_in_flight_from_page_locked_memory_give_the_same_to_the_bit(work: Path, fetched: list[int]) -> None:
    run(work, "tensorrt", "cuda", in_flight=1, readers=0)
    alone = Run.open(work / "runs/tensorrt-cuda0")
    predictions = (work / "runs/tensorrt-cuda0/predictions.npz").read_bytes()
    raw = [alone.raw(index) for index in alone.header.raw_samples]
    run(work, "tensorrt", "cuda", in_flight=3, readers=2)
    together = Run.open(work / "runs/tensorrt-cuda0")
    assert (work / "runs/tensorrt-cuda0/predictions.npz").read_bytes() == predictions
    assert together.counters == alone.counters
    for index, outputs in zip(together.header.raw_samples, raw, strict=True):
        assert {name: value.tobytes() for name, value in together.raw(index).items()} == {
            name: value.tobytes() for name, value in outputs.items()
        }
    bytes_of_frames = {sample["points"] * 4 * 4 for sample in together.counters} - {0}
    assert bytes_of_frames <= set(fetched)
    library: Any = cuda.library()
    assert not library.page_locked
    assert together.header.details["in_flight"] == 3
    assert together.timed().tolist() == [True] + [False] * (len(FRAMES) - 1)
    assert set(together.timed_latencies()) == set(alone.timed_latencies())


def test_steps_in_numpy_give_the_same(work: Path) -> None:
    run(work, "tensorrt", "cuda")
    on_device = [Run.open(work / "runs/tensorrt-cuda0").boxes(index) for index in range(len(FRAMES))]
    run(work, "tensorrt", "cuda", steps="numpy")
    in_numpy = Run.open(work / "runs/tensorrt-cuda0")
    assert in_numpy.header.details["steps"] == "numpy"
    for index, boxes in enumerate(on_device):
        assert len(boxes) == len(in_numpy.boxes(index))
        np.testing.assert_allclose(boxes.centers, in_numpy.boxes(index).centers, atol=1e-5)


@pytest.fixture
def own(exported: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the workspace, for a test that adds other engines."""
    return Workspace.open(Path(shutil.copytree(exported.root, tmp_path / "own")))


@pytest.mark.parametrize("layout", ["LINEAR", "HWC8"])
def test_inputs_in_fp16_and_the_encoder_in_one_kernel(
    own: Workspace, kernels: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    engines_on_cpu.use(monkeypatch, kernels)
    target = f"trt8.6.0-sm90-{layout.lower()}"
    engines_on_cpu.add_engines(own, target=target, canvas=("HALF", layout), policy="fp16")
    session = load(own, target)
    assert session.origin("pts_voxel_encoder") is not None
    assert session.channels_last("pts_backbone_neck_head", "spatial_features") == (layout == "HWC8")
    rng = np.random.default_rng(0)
    points = rng.normal(0, 6, (500, 4)).astype(np.float32)
    device = build(own.spec(), session)
    assert "decorate" not in device.stages
    ours, theirs = device.infer(points), build(own.spec(), HostOnly(session)).infer(points)
    assert ours.counters == theirs.counters
    # The double's encoder computes in FP32, the kernel with FP16's eleven bits.
    for name, value in theirs.outputs.items():
        np.testing.assert_allclose(ours.outputs[name], value, atol=0.02)


def test_an_onnx_file_of_another_export_is_not_taken_for_the_engine_s(
    own: Workspace, kernels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines_on_cpu.use(monkeypatch, kernels)
    target = "trt8.6.0-sm90-other"
    engines_on_cpu.add_engines(own, target=target, policy="fp16", built_from="0" * 64)
    assert load(own, target).origin("pts_voxel_encoder") is None
    engines_on_cpu.add_engines(own, target=target, policy="bf16")
    assert load(own, target).origin("pts_voxel_encoder") is None
    engines_on_cpu.add_engines(own, target=target, policy="fp16")
    assert load(own, target).origin("pts_voxel_encoder") is not None
    own.path("onnx/pts_voxel_encoder.onnx").unlink()
    assert load(own, target).origin("pts_voxel_encoder") is None, "an edge device gets engines alone"


def test_a_layout_that_the_runtime_does_not_write_is_refused(
    own: Workspace, kernels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines_on_cpu.use(monkeypatch, kernels)
    engines_on_cpu.add_engines(own, target="trt8.6.0-sm90-chw2", canvas=("HALF", "CHW2"))
    with pytest.raises(ModelLoadError, match=r"'spatial_features' lies in memory as CHW2"):
        load(own, "trt8.6.0-sm90-chw2")


def test_a_named_set_of_engines_gets_a_run_of_its_own(work: Path) -> None:
    target = "trt8.6.0-sm90-fp16"
    invoke("run", "--work", str(work), "--backend", "tensorrt", "--device", "cuda", "--target", target)
    assert (work / f"runs/tensorrt-cuda0-{target}/predictions.npz").is_file()


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(cli, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_bench_shows_stages_engines_streams_and_layers(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.engine_times.measure.__defaults__", ("trtexec-11", 0.1))
    monkeypatch.setattr("runtime.bench._STAGED_REQUESTS", 3)
    monkeypatch.setattr("runtime.warm_up._WINDOW", 1)
    options = ["--backend", "tensorrt", "--device", "cuda", "--requests", "4", "--seconds", "0.1", "--warm-up", "0"]
    options += ["--sample", "4"]
    output = invoke(
        "bench", "--work", str(work), *options, "--streams", "2", "--like", "trtexec-10", "--profile", "--trace"
    )  # fmt: skip
    for text in ("bottleneck: ", "2 streams: ", "bare engines as trtexec-10", "times, ", "1 layers", "trace.json"):
        assert text in output
    written = json.loads((work / "bench/tensorrt-cuda0.json").read_text())
    assert len(written["requests_ms"]) >= 4
    assert set(written["staged_ms"][0]) > {"upload", "voxelize", "circle_nms", "download"}
    assert "voxelize" not in written["requests_ms"][0]
    assert written["engines"]["pts_voxel_encoder"]["shapes"]["input_features"][1:] == [8, 10]
    events = json.loads((work / "bench/tensorrt-cuda0.trace.json").read_text())["traceEvents"]
    assert {event["ph"] for event in events} == {"X"}
    again = invoke("bench", "--work", str(work), *options, "--against", "tensorrt-cuda0", "--page-locked")
    assert "against tensorrt-cuda0" in again


def test_options_that_a_backend_lacks_are_refused(work: Path) -> None:
    for arguments, message in (
        (["bench", "--backend", "onnx", "--streams", "2"], "pipeline on a GPU"),
        (["bench", "--backend", "onnx", "--page-locked"], "pipeline on a GPU"),
        (["bench", "--backend", "onnx", "--batch", "6"], "pipeline on a GPU"),
        (["bench", "--backend", "tensorrt", "--device", "cuda", "--batch", "6"], "'centerpoint' is one input"),
        (["bench", "--backend", "onnx", "--steps", "engines"], "only on a GPU"),
        (["bench", "--backend", "onnx", "--like", "trtexec-10"], "--backend tensorrt"),
        (["bench", "--backend", "onnx", "--against", "caffe-cpu"], "no bench result"),
        (["run", "--backend", "onnx", "--target", "trt8.6.0-sm90-fp16"], "onnx has no targets"),
    ):
        result = CliRunner().invoke(cli, [arguments[0], "--work", str(work), *arguments[1:]])
        assert result.exit_code == 2, result.output
        assert message in result.output


def test_what_cannot_be_recorded_is_launched_call_by_call(
    work: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(gpu: Any, stream: Any, enqueue: Any) -> None:
        raise InferenceError("not in a graph")

    monkeypatch.setattr(cuda_on_cpu.HostGpu, "graph", refuse)
    ws = Workspace.open(work)
    boxes = build(ws.spec(), load(ws)).infer(np.zeros((5, 4), np.float32)).predictions
    assert len(boxes) > 0
    assert caplog.text.count("can't be recorded as CUDA graphs (not in a graph)") == 1


def test_rows_are_filled_up_to_the_profile(work: Path) -> None:
    session = load(Workspace.open(work))
    features = np.random.default_rng(0).normal(0, 1, (3, 8, 10)).astype(np.float32)
    answer = session.run("pts_voxel_encoder", {"input_features": features})["pillar_features"]
    more = session.run("pts_voxel_encoder", {"input_features": np.concatenate([features] * 10)})["pillar_features"]
    assert answer.shape == (3, 1, tiny.CHANNELS)
    np.testing.assert_allclose(answer, more[:3], rtol=1e-5)


def test_rows_that_are_filled_up_overwrite_nothing(work: Path, tmp_path: Path) -> None:
    """A map that rows are written into, the first of them at its first cell."""
    graph = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        scatter (float[rows, 1] cells, float[rows] features) => (float[6] canvas) <int64[1] size = {6}> {
            empty = ConstantOfShape (size)
            places = Cast <to = 7> (cells)
            canvas = ScatterND (empty, places, features)
        }"""
    )
    path = tmp_path / "scatter.engine"
    profile = {"cells": [[5, 1], [5, 1], [6, 1]], "features": [[5], [5], [6]]}
    path.write_bytes(plans.write(plans.Plan(graph.SerializeToString(), profile)))
    plan = backend.Plan(backend.trt.Runtime(None), path, version_compatible=False)
    session = backend.TensorRTSession(load(Workspace.open(work)).gpu, {"scatter": plan}, {}, {}, {})
    inputs = {"cells": np.array([[0], [4]], np.float32), "features": np.array([2, 3], np.float32)}
    assert session.run("scatter", inputs)["canvas"].tolist() == [2, 0, 0, 0, 3, 0]


@pytest.mark.parametrize("version", ["8.6.1", "10.0.1", "10.9.0", "11.1.0"])
def test_every_release_loads_binds_and_runs(
    exported: Workspace, kernels: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """Contexts in our own scratch memory: how they are made, and given it, changed with 10.0, 10.9 and 11."""
    engines_on_cpu.use(monkeypatch, kernels, version=version)
    target = f"trt{version}-sm90-auto"
    engines_on_cpu.add_engines(exported, target=target, version=version)
    session = load(exported, target)
    features = np.random.default_rng(0).normal(0, 1, (30, 8, 10)).astype(np.float32)
    answer = session.run("pts_voxel_encoder", {"input_features": features})["pillar_features"]
    bound = session.open_lane().bind("pts_voxel_encoder", {"input_features": session.gpu.upload(features)}, {})
    bound.enqueue()
    np.testing.assert_array_equal(bound.outputs["pillar_features"].get(), answer)


def test_a_shape_outside_the_profile_is_named(work: Path) -> None:
    session = load(Workspace.open(work))
    with pytest.raises(InferenceError, match=r"'input_features' has shape \[401, 8, 10\].*\[20, 8, 10\] to \[400"):
        session.run("pts_voxel_encoder", {"input_features": np.zeros((401, 8, 10), np.float32)})


def test_an_engine_of_another_shape_is_refused_when_it_is_loaded(work: Path) -> None:
    ws = Workspace.open(work)
    spec = ws.spec()
    encoder = spec.component("pts_voxel_encoder")
    output = encoder.outputs[0]
    turned = output.model_copy(update={"shape": [output.shape[0], output.shape[2], output.shape[1]]})
    other = encoder.model_copy(update={"outputs": [turned]})
    components = [other if component.name == encoder.name else component for component in spec.components]
    files = {name: ws.artifact(path) for name, path in backend.artifacts(ws, spec).items()}
    with pytest.raises(
        ModelLoadError, match=rf"has 'pillar_features' of shape .*, the model spec says \['?\w+'?, {tiny.CHANNELS}, 1\]"
    ):
        backend.load(files, spec.model_copy(update={"components": components}), Device("cuda"), None)


def test_what_tensorrt_says_is_in_the_error(work: Path) -> None:
    session = load(Workspace.open(work))
    lane = session.open_lane()
    gpu: Any = session.gpu
    bound = lane.bind("pts_voxel_encoder", {"input_features": gpu.allocate((30, 8, 10), np.float32)}, {})
    bound.context.device_memory = 0
    with pytest.raises(InferenceError, match=r"not everything is bound$"):
        bound.enqueue()


def test_engines_are_chosen_by_version_policy_and_name(
    tmp_path: Path, kernels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines_on_cpu.use(monkeypatch, kernels)
    ws = tiny.make_workspace(tmp_path / "work", tiny.write_frames(tmp_path / "frames", [10]))
    spec = ws.spec()
    with pytest.raises(InputError, match=r"no engines were built.*trt_builder build"):
        backend.artifacts(ws, spec)
    engines_on_cpu.add_engines(ws, target="trt10.9.0-sm90-auto", version="10.9.0")
    with pytest.raises(InputError, match=r"for TensorRT 10\.9\.0, installed is 8\.6\.0"):
        backend.artifacts(ws, spec)
    engines_on_cpu.add_engines(ws, target="trt8.6.0-sm90-fp16")
    assert backend.artifacts(ws, spec)["pts_voxel_encoder"].startswith("tensorrt/trt8.6.0-sm90-fp16/")
    engines_on_cpu.add_engines(ws, target="trt8.6.0-sm90-int8")
    with pytest.raises(InputError, match=r"several sets.*--target trt8.6.0-sm90-fp16 | trt8.6.0-sm90-int8"):
        backend.artifacts(ws, spec)
    # The config's policy decides, where it names one.
    engines_on_cpu.add_engines(ws, target="trt8.6.0-sm90-auto")
    assert backend.artifacts(ws, spec)["pts_voxel_encoder"].startswith("tensorrt/trt8.6.0-sm90-auto/")
    with pytest.raises(InputError, match=r"no engines 'trt9'.*there are: trt10.9.0-sm90-auto, trt8"):
        backend.artifacts(ws, spec, "trt9")


@pytest.mark.parametrize(
    ("engines", "error", "message"),
    [
        (
            {"version": "8.6.1"},
            ModelLoadError,
            r"built with 8\.6\.1, and 8\.6\.0 is .*trt_builder build",
        ),
        ({"magic": b"vtrt"}, ModelLoadError, "TensorRT for RTX"),
        ({"magic": b"\x08onx"}, InputError, "ONNX file, not an engine"),
        ({"architecture": "sm86"}, ModelLoadError, "built for sm86, this CPU is sm90"),
    ],
)
def test_engines_that_do_not_fit_are_refused_in_one_line(
    exported: Workspace, kernels: Path, monkeypatch: pytest.MonkeyPatch, engines: Any, error: Any, message: str
) -> None:
    engines_on_cpu.use(monkeypatch, kernels)
    engines_on_cpu.add_engines(exported, target="trt8.6.0-sm90-other", **engines)
    with pytest.raises(error, match=message) as caught:
        load(exported, "trt8.6.0-sm90-other")
    assert "\n" not in str(caught.value)


def test_version_compatible_engines_load_on_the_word_of_the_manifest_alone(
    exported: Workspace, kernels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines_on_cpu.use(monkeypatch, kernels)
    target = "trt8.6.0-sm90-compatible"
    engines_on_cpu.add_engines(exported, target=target, version_compatible=True)
    load(exported, target)
    # A file beside the engine decides nothing: whoever can write it would have code run on the host.
    engines_on_cpu.add_engines(exported, target=target, version_compatible=True, recorded_as_compatible=False)
    for path in exported.path(f"tensorrt/{target}").glob("*.engine.json"):
        path.write_text('{"version_compatible": true}')
    with pytest.raises(ModelLoadError, match="engine_host_code_allowed"):
        load(exported, target)


def test_a_newer_minor_version_loads_version_compatible_engines(
    exported: Workspace, kernels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines_on_cpu.use(monkeypatch, kernels, version="8.6.2")
    target = "trt8.6.0-sm90-compatible"
    engines_on_cpu.add_engines(exported, target=target, version_compatible=True)
    assert target in backend.artifacts(exported, exported.spec())["pts_voxel_encoder"]
    load(exported)
    engines_on_cpu.use(monkeypatch, kernels, version="8.5.3")
    with pytest.raises(ModelLoadError, match=r"8\.5\.3 is older than 8\.6\.0"):
        load(exported, target)


def test_a_wrong_version_is_said_before_cuda_starts(
    exported: Workspace, kernels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines_on_cpu.use(monkeypatch, kernels, version="8.6.1")

    def no_gpu(device: Device) -> Any:
        raise AssertionError("CUDA was started")

    monkeypatch.setattr(backend, "open_gpu", no_gpu)
    with pytest.raises(ModelLoadError, match=r"built with 8.6.0"):
        load(exported, "trt8.6.0-sm90-fp16")


def test_a_broken_engine_is_named(work: Path) -> None:
    ws = Workspace.open(work)
    files = {name: ws.artifact(path) for name, path in backend.artifacts(ws, ws.spec(), "trt8.6.0-sm90-fp16").items()}
    broken = work / "broken.engine"
    broken.write_bytes(next(iter(files.values())).read_bytes()[:64] + bytes(4))
    with pytest.raises(ModelLoadError, match=r"broken\.engine: TensorRT can't load it: magic tag does not match"):
        backend.load({**files, "pts_voxel_encoder": broken}, ws.spec(), Device("cuda"), None)


def test_engines_do_not_run_on_a_cpu(exported: Workspace) -> None:
    with pytest.raises(EnvironmentLacks, match="TensorRT runs on GPUs"):
        load(exported, "trt8.6.0-sm90-fp16", "cpu")


def test_without_pycuda_the_error_says_what_to_install(work: Path) -> None:
    from runtime.cuda.gpu import open_gpu

    with pytest.raises(EnvironmentLacks, match="'pycuda' is missing"):
        open_gpu(Device("cuda"))
