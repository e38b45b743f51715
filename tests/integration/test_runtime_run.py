"""`runtime run` and `runtime bench` on a workspace: both backends, what is recorded, resuming, and bad input."""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from runtime import run as runtime_run
from runtime.backends import tensorrt
from runtime.bench import bench
from runtime.cli import cli
from runtime.run import run
from shared import cuda
from shared.errors import EnvironmentLacks, InferenceError, InputError, ManifestError, ModelLoadError, UsageError
from shared.runs import Run
from shared.workspace import Workspace
from tests.support import tiny_centerpoint as tiny
from tests.support.killed_at import killed_at
from tests.support.processor_time import best_of

COUNTS = [500, 0, 1, 900, 300]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    frames = tiny.write_frames(root / "frames", COUNTS)
    tiny.make_workspace(root / "work", frames, max_voxels=250)
    return root


@pytest.fixture
def work(exported, tmp_path):
    return Path(shutil.copytree(exported / "work", tmp_path / "work"))


def same_boxes(one: Run, other: Run) -> bool:
    return len(one) == len(other) and all(
        getattr(one.boxes(index), name).tobytes() == getattr(other.boxes(index), name).tobytes()
        for index in range(len(one))
        for name in ("centers", "sizes", "yaws", "velocities", "labels", "scores")
    )


def test_both_backends_give_the_same_and_record_it(work, caplog):
    caplog.set_level(logging.WARNING)
    for backend in ("onnx", "pytorch"):
        assert f"run:{backend}-cpu: done, 5 samples" in run(work, backend, "cpu")
    onnx, pytorch = (Run.open(work / "runs" / f"{backend}-cpu") for backend in ("onnx", "pytorch"))
    assert onnx.header.backend == "onnx"
    assert onnx.header.device == "cpu"
    assert onnx.header.tokens == [f"{number:03d}.bin" for number in range(5)]
    assert onnx.header.raw_samples == [0, 1]
    boxes = 0
    for index in range(5):
        one, other = onnx.boxes(index), pytorch.boxes(index)
        np.testing.assert_allclose(one.centers, other.centers, atol=1e-4)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
        boxes += len(one)
    assert boxes > 0
    for name, value in onnx.raw(0).items():
        np.testing.assert_allclose(value, pytorch.raw(0)[name], atol=1e-5)
    assert [sample["read"] for sample in onnx.counters] == COUNTS
    assert all(sample["total"] > 0 for sample in onnx.latencies)
    manifest = Workspace.open(work).manifest()
    result = manifest.results["runs"]["onnx-cpu"]
    assert result["samples"] == 5
    assert result["counters"]["voxels_dropped"] > 0
    assert "voxels did not fit" in result["alerts"][0]
    assert "run:onnx-cpu" in caplog.text
    assert "voxels did not fit" in caplog.text
    assert manifest.artifacts["runs/onnx-cpu/predictions.npz"].stage == "run:onnx-cpu"


def test_the_report_counts_what_there_was_in_all_and_a_sample(work):
    answer = run(work, "onnx", "cpu")
    rows = {tuple(line.split()) for line in answer.splitlines()}
    assert answer.data["counters"]["read"] == sum(COUNTS)
    total = answer.data["latency"]["total"]["median"]
    assert ("total", f"{total:.2f}") in {row[:2] for row in rows}
    again = run(work, "onnx", "cpu")
    assert (again.data, again == answer) == (answer.data, False)
    assert ("read", str(sum(COUNTS)), f"{sum(COUNTS) / 5:.1f}") in rows
    counters = Run.open(work / "runs/onnx-cpu").counters
    assert not any(sample["points_nan"] for sample in counters)
    assert not [row for row in rows if row[:2] == ("points", "nan")]


def test_the_second_call_does_nothing_and_a_change_does_it_again(work):
    run(work, "onnx", "cpu", num_samples=2)
    before = (work / "runs/onnx-cpu/predictions.npz").stat().st_mtime_ns
    assert "up to date" in run(work, "onnx", "cpu", num_samples=2)
    assert (work / "runs/onnx-cpu/predictions.npz").stat().st_mtime_ns == before
    assert "done, 2 samples" in run(work, "onnx", "cpu", num_samples=2, force=True)
    assert "done, 3 samples" in run(work, "onnx", "cpu", num_samples=3)
    assert "done, 3 samples" in run(work, "onnx", "cpu", num_samples=3, threads=1)
    assert Run.open(work / "runs/onnx-cpu").header.details["threads"] == 1


@pytest.mark.parametrize("force", [False, True])
def test_a_run_that_waited_for_the_same_one_has_nothing_to_do(work, monkeypatch, caplog, force):
    caplog.set_level(logging.INFO)
    recorded, begun, go_on = [], threading.Event(), threading.Event()
    original = runtime_run.record

    def held(model, loaded, writer, *rest):
        recorded.extend(writer.missing())
        begun.set()
        assert go_on.wait(60)
        return original(model, loaded, writer, *rest)

    monkeypatch.setattr(runtime_run, "record", held)
    with ThreadPoolExecutor(2) as threads:
        try:
            first = threads.submit(run, work, "onnx", "cpu", num_samples=2, readers=0)
            assert begun.wait(60)
            second = threads.submit(run, work, "onnx", "cpu", num_samples=2, readers=0, force=force)
            deadline = time.monotonic() + 60
            while "another process is running it" not in caplog.text and time.monotonic() < deadline:
                time.sleep(0.005)
        finally:
            go_on.set()
    assert "waiting for it to end" in caplog.text
    assert "run:onnx-cpu: done, 2 samples" in first.result()
    assert f"run:onnx-cpu: {'done' if force else 'up to date'}, 2 samples" in second.result()
    assert recorded == ([0, 1, 0, 1] if force else [0, 1])


def test_more_samples_than_there_are_is_all_of_them_and_said(work, caplog):
    caplog.set_level(logging.WARNING)
    run(work, "onnx", "cpu", num_samples=99)
    assert len(Run.open(work / "runs/onnx-cpu")) == 5
    assert "99 samples were asked for, the data set has 5" in caplog.text


def test_if_available_makes_no_run_of_what_is_not_there(work, monkeypatch):
    def answer(backend: str, device: str) -> str:
        return run(work, backend, device, num_samples=1, if_available=True)

    monkeypatch.setattr(cuda, "find_gpus", list)
    assert answer("tensorrt", "cuda") == "run:tensorrt-cuda0: skipped: there is no GPU 'cuda:0' here"
    monkeypatch.setattr(cuda, "find_gpus", lambda: [None])
    monkeypatch.setattr(tensorrt, "PACKAGES", ("no-such-package", "numpy"))
    assert answer("tensorrt", "cuda").endswith("skipped: Python package 'no-such-package' is missing")
    monkeypatch.setattr(tensorrt, "PACKAGES", ("numpy",))
    assert answer("tensorrt", "cuda").endswith("skipped: no engines were built")
    assert not (work / "runs").exists()
    assert "done, 1 samples" in answer("onnx", "cpu")


def _journal(work: Path) -> Path | None:
    """Of the attempt at a run of ONNX Runtime."""
    return next(work.glob("runs/.onnx-cpu.attempt-*/journal.jsonl"), None)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_a_killed_run_goes_on_and_gives_what_an_uninterrupted_one_gives(exported, tmp_path):
    frames = tiny.write_frames(tmp_path / "frames", [60 + index for index in range(40)])
    interrupted, whole = (Path(shutil.copytree(exported / "work", tmp_path / name)) for name in ("a", "b"))
    options = ("--work", interrupted, "--backend", "onnx", "--data", frames)
    killed_at("shared.sample_journal:SampleJournal.add", 11, "runtime", "run", *options)
    journal = _journal(interrupted)
    assert journal is not None
    done = journal.read_bytes().count(b"\n")
    assert done == 10
    assert Workspace.open(interrupted).manifest().stages["run:onnx-cpu"].status == "running"
    survivors = [json.loads(line)["latency_ms"] for line in journal.read_text().splitlines()]

    run(interrupted, "onnx", "cpu", data_root=frames)
    run(whole, "onnx", "cpu", data_root=frames)
    resumed, reference = Run.open(interrupted / "runs/onnx-cpu"), Run.open(whole / "runs/onnx-cpu")
    assert resumed.latencies[:done] == survivors, "finished samples were run again"
    assert same_boxes(resumed, reference)
    assert resumed.counters == reference.counters
    for index in (0, 1):
        for name, value in reference.raw(index).items():
            assert resumed.raw(index)[name].tobytes() == value.tobytes()


def _children(pid: int) -> list[int]:
    """Processes that one started, and those that they started."""
    mine = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return mine + [each for child in mine for each in _children(child)]


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="readers need Linux")
def test_read_ahead_or_not_a_run_is_the_same_to_the_bit(work, tmp_path):
    other = Path(shutil.copytree(work, tmp_path / "other"))
    run(work, "onnx", "cpu", readers=0)
    run(other, "onnx", "cpu", readers=2)
    for name in ("predictions.npz", "raw/000000.npz", "raw/000001.npz"):
        assert (work / "runs/onnx-cpu" / name).read_bytes() == (other / "runs/onnx-cpu" / name).read_bytes()
    assert Run.open(work / "runs/onnx-cpu").counters == Run.open(other / "runs/onnx-cpu").counters
    pace = Workspace.open(other).manifest().results["runs"]["onnx-cpu"]["pace"]
    assert pace["samples"] == 5
    assert sum(pace["parts"].values()) == pytest.approx(1)


@pytest.mark.skipif(sys.platform != "linux", reason="readers need Linux")
@pytest.mark.parametrize(
    ("number", "word", "code"), [(signal.SIGINT, "interrupted", 130), (signal.SIGTERM, "terminated", 143)]
)
def test_an_interrupt_ends_a_run_and_its_readers_in_two_seconds(exported, tmp_path, number, word, code):
    frames = tiny.write_frames(tmp_path / "frames", [60 + index % 40 for index in range(2000)])
    tries = itertools.count()

    def seconds_to_end() -> float:
        work = Path(shutil.copytree(exported / "work", tmp_path / f"work{next(tries)}"))
        options = ("--backend", "onnx", "--data", str(frames), "--num-samples", "2000", "--readers", "2")
        process = subprocess.Popen(
            [sys.executable, "-m", "runtime.cli", "run", "--work", str(work), *options],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        deadline = time.monotonic() + 300
        while not ((journal := _journal(work)) and journal.read_bytes().count(b"\n") >= 10):
            assert process.poll() is None, "the run ended before it could be interrupted"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        readers = _children(process.pid)
        assert len(readers) == 3
        # As the terminal and Slurm do: to all of them.
        started = time.monotonic()
        os.killpg(process.pid, number)
        said = process.communicate(timeout=60)[1]
        took = time.monotonic() - started
        assert process.returncode == code
        assert said.splitlines()[-1] == f"{word}; finished work is kept, run the command again to continue"
        assert "Traceback" not in said
        assert not any(map(_is_alive, readers))
        return took

    assert best_of(seconds_to_end, enough=2.0) < 2.0


def test_bench_records_statistics_and_every_latency(work):
    answer = bench(work, "onnx", "cpu", sample_index=3, min_requests=25, min_seconds=0.0, threads=1)
    assert "pts_voxel_encoder" in answer
    manifest = Workspace.open(work).manifest()
    latency = manifest.results["bench"]["onnx-cpu"]
    assert answer.data == {"run": "onnx-cpu", "requests": 25, **latency}
    assert latency["stages"]["total"]["samples"] == 25
    assert "p50" in latency["stages"]["total"]
    assert "p99" not in latency["stages"]["total"]
    assert latency["sample"] == "003.bin"
    assert latency["backend"]["threads"] == 1
    raw = json.loads((work / "bench/onnx-cpu.json").read_text())
    assert len(raw["requests_ms"]) == 25
    with pytest.raises(UsageError, match="choose 0 to 4"):
        bench(work, "onnx", "cpu", sample_index=5)


def test_a_changed_file_is_refused_before_it_is_loaded(work):
    path = work / "onnx/pts_voxel_encoder.onnx"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ManifestError, match="differs from its hash"):
        run(work, "onnx", "cpu")


def replace_artifact(workspace: Workspace, artifact: str, content: bytes) -> None:
    """Another content under the same name, known to the manifest."""
    with workspace.stage("export", tool="exporter") as stage:
        for path in workspace.manifest().stages["export"].outputs:
            if path != artifact:
                stage.add_artifact(path, kind="model")
        with stage.artifact(artifact, kind="model") as path:
            path.write_bytes(content)


@pytest.mark.parametrize(
    ("backend", "artifact"),
    [("onnx", "onnx/pts_backbone_neck_head.onnx"), ("pytorch", "pytorch/pts_voxel_encoder.pt2")],
)
@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_a_file_that_is_no_model_is_one_clear_line(work, backend, artifact, damage):
    workspace = Workspace.open(work)
    whole = (work / artifact).read_bytes()
    content = {"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"not a model\n" * 50}[damage]
    replace_artifact(workspace, artifact, content)
    with pytest.raises(ModelLoadError, match="export it again") as caught:
        run(work, backend, "cpu")
    assert "\n" not in str(caught.value)
    assert workspace.manifest().stages[f"run:{backend}-cpu"].status == "failed"


def onnx_encoder(domain: str = "", operator: str = "Relu", weights: str | None = None) -> bytes:
    """An encoder of one node, whose weights may lie in another file, and a reshape to what an encoder gives."""
    from onnx import TensorProto, helper

    tensors = []
    if weights is not None:
        tensor = TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=[10])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=weights)
        tensors.append(tensor)
    names = ["input_features", *(tensor.name for tensor in tensors)]
    tensors.append(helper.make_tensor("shape", TensorProto.INT64, [3], [-1, 1, 8]))
    graph = helper.make_graph(
        [
            helper.make_node(operator, names, ["values"], domain=domain),
            helper.make_node("Reshape", ["values", "shape"], ["pillar_features"]),
        ],
        "encoder",
        [helper.make_tensor_value_info("input_features", TensorProto.FLOAT, ["voxels", "points", 10])],
        [helper.make_tensor_value_info("pillar_features", TensorProto.FLOAT, None)],
        tensors,
    )
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    return model


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"operator": "Add", "weights": "../manifest.json"}, ModelLoadError, "which is not in the manifest"),
        ({"operator": "Add", "weights": "/etc/hostname"}, ModelLoadError, "which is not in the manifest"),
        ({"operator": "Evil", "domain": "some.where"}, ModelLoadError, "can't load it"),
        ({"operator": "Det"}, InferenceError, "pts_voxel_encoder: ONNX Runtime failed"),
    ],
    ids=["reads outside", "reads absolute", "unknown operator", "fails at run time"],
)
def test_a_model_that_must_not_or_can_not_run_is_one_clear_line(work, capfd, options, error, message):
    replace_artifact(Workspace.open(work), "onnx/pts_voxel_encoder.onnx", onnx_encoder(**options))
    with pytest.raises(error, match=message) as caught:
        run(work, "onnx", "cpu")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_component_with_other_tensors_is_refused(work):
    workspace = Workspace.open(work)
    spec = workspace.spec()
    encoder = spec.components[0]
    renamed = encoder.model_copy(update={"inputs": [encoder.inputs[0].model_copy(update={"name": "voxels"})]})
    with workspace.stage("export", tool="exporter") as stage:
        for path in workspace.manifest().stages["export"].outputs:
            stage.add_artifact(path, kind="model")
        stage.spec(spec.model_copy(update={"components": [renamed, spec.components[1]]}))
    with pytest.raises(ModelLoadError, match=r"inputs \['input_features'\], the model spec says \['voxels'\]"):
        run(work, "onnx", "cpu")


@pytest.mark.parametrize("backend", ["onnx", "pytorch"])
def test_a_component_whose_output_is_transposed_is_refused(work, backend):
    workspace = Workspace.open(work)
    spec = workspace.spec()
    encoder = spec.components[0]
    output = encoder.outputs[0]
    turned = output.model_copy(update={"shape": output.shape[::-1]})
    with workspace.stage("export", tool="exporter") as stage:
        for path in workspace.manifest().stages["export"].outputs:
            stage.add_artifact(path, kind="model")
        changed = encoder.model_copy(update={"outputs": [turned]})
        stage.spec(spec.model_copy(update={"components": [changed, spec.components[1]]}))
    with pytest.raises(ModelLoadError, match="the model spec says"):
        run(work, backend, "cpu")


@pytest.mark.parametrize("backend", ["onnx", "pytorch"])
def test_a_device_that_is_not_there_is_an_error_not_the_cpu(work, backend):
    import torch

    if torch.cuda.device_count() > 7:
        pytest.skip("this machine has more than 7 GPUs")
    with pytest.raises(EnvironmentLacks):
        run(work, backend, "cuda:7")
    assert not (work / "runs").exists()


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(list(arguments))
    return int(caught.value.code or 0)


def test_exit_codes(work, tmp_path, capsys):
    def one_line() -> str:
        error = capsys.readouterr().err
        assert error.count("error:") == 1
        assert "Traceback" not in error
        return error

    assert exit_code("run", "--work", str(work), "--backend", "onnx", "--num-samples", "1") == 0
    assert "run:onnx-cpu: done, 1 samples" in capsys.readouterr().out
    assert exit_code("run", "--work", str(work), "--backend", "caffe") == 2
    assert "there are: onnx, pytorch, tensorrt" in one_line()
    assert exit_code("run", "--work", str(work), "--backend", "onnx", "--device", "tpu") == 2
    assert "no device is called 'tpu'" in one_line()
    assert exit_code("run", "--work", str(work), "--backend", "onnx", "--num-samples", "0") == 2
    assert "at least 1, or -1" in one_line()
    assert exit_code("run", "--work", str(tmp_path / "nothing"), "--backend", "onnx") == 3
    assert "no manifest here" in one_line()
    assert exit_code("run", "--work", str(work), "--backend", "onnx", "--data", str(tmp_path / "gone")) == 3
    one_line()
    assert exit_code("backends") == 0
    assert "centerpoint" in capsys.readouterr().out


def test_a_broken_point_file_stops_at_its_sample_and_keeps_the_others(exported, work, tmp_path):
    frames = Path(shutil.copytree(exported / "frames", tmp_path / "frames"))
    broken = frames / "003.bin"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-3])
    with pytest.raises(InputError, match=r"003\.bin"):
        run(work, "onnx", "cpu", data_root=frames)
    journal = _journal(work)
    assert journal is not None and journal.read_bytes().count(b"\n") == 3
    assert Workspace.open(work).manifest().stages["run:onnx-cpu"].status == "failed"
    broken.write_bytes(whole)
    assert "done, 5 samples" in run(work, "onnx", "cpu", data_root=frames)


def test_several_requests_in_flight_need_a_backend_that_takes_them(work):
    with pytest.raises(UsageError, match=r"--in-flight 2.*--backend tensorrt"):
        run(work, "onnx", "cpu", in_flight=2)
    assert "done, 5 samples" in run(work, "onnx", "cpu")
    assert "done, 5 samples" in run(work, "onnx", "cpu", in_flight=1), "another stage than the default's"
    assert "up to date" in run(work, "onnx", "cpu", in_flight=1)
