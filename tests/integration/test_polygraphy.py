"""Polygraphy's command line takes what `verifier export` writes, and `verifier compare` takes what it saves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("polygraphy", reason="Polygraphy is not installed here; run: make setup-dev")

import onnx

from runtime.trace import trace
from shared.errors import InputError, VerificationFailed
from shared.onnx_windows import Graph
from shared.polygraphy_json import read_results, write_results
from shared.workspace import Workspace
from tests.support import tiny_centerpoint as tiny
from tests.support.planted import scale_weights
from verifier import polygraphy

HEAD = "pts_backbone_neck_head"
ENCODER = "pts_voxel_encoder"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("polygraphy")
    workspace = tiny.make_workspace(root / "work", tiny.write_frames(root / "frames", [300, 0, 500]))
    trace(workspace.root, "onnx", "cpu", num_samples=3)
    return workspace.root


@pytest.fixture(scope="module")
def exported(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "polygraphy"
    text = polygraphy.export(work, folder)
    lines = text.splitlines()
    assert [line.partition(",")[0] for line in lines if not line.startswith("  ")] == [ENCODER, HEAD]
    # The two frames with points have other numbers of pillars.
    sizes = next(line for line in lines if "--trt" in line).split("input_features:[")[1:]
    smallest, typical, largest = (int(words.partition(",")[0]) for words in sizes)
    assert smallest < typical == largest
    return folder


def run_polygraphy(folder: Path, model: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`polygraphy run` with ONNX Runtime, as a user types it."""
    start = "import sys; from polygraphy.tools import main; sys.exit(main())"
    command = [sys.executable, "-c", start, "run", str(model), "--onnxrt", *map(str, arguments)]
    environment = {**os.environ, "POLYGRAPHY_AUTOINSTALL_DEPS": "0"}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)


def wrong_head(work: Path, path: Path) -> Path:
    """The head with a weight that is a fifth too large."""
    model = onnx.load(work / "onnx" / f"{HEAD}.onnx")
    scale_weights(model, next(node.name for node in Graph(model).nodes if node.op_type == "Conv"), 1.2)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("component", [ENCODER, HEAD])
def test_polygraphy_agrees_with_the_outputs_that_we_wrote(work: Path, exported: Path, component: str) -> None:
    answer = run_polygraphy(
        exported, work / "onnx" / f"{component}.onnx",
        "--load-inputs", f"{component}.inputs.json", "--load-outputs", f"{component}.outputs.json",
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-2000:]
    # The frame without points has no pillars, so nothing goes into a component there.
    assert "awml-deploy onnx-cpu" in answer.stdout and "Pass Rate: 100.00%" in answer.stdout


def test_polygraphy_sees_a_fault_in_the_model(work: Path, exported: Path, tmp_path: Path) -> None:
    answer = run_polygraphy(
        exported, wrong_head(work, tmp_path / "wrong.onnx"),
        "--load-inputs", f"{HEAD}.inputs.json", "--load-outputs", f"{HEAD}.outputs.json",
    )  # fmt: skip
    assert answer.returncode == 1
    # One of three passes: on a canvas without pillars all values are zeros.
    assert "Passed: 1/3 iterations" in answer.stdout


def test_we_take_what_polygraphy_saved(work: Path, exported: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved.json"
    answer = run_polygraphy(
        exported, work / "onnx" / f"{HEAD}.onnx", "--load-inputs", f"{HEAD}.inputs.json", "--save-outputs", saved
    )
    assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-2000:]
    text = polygraphy.compare(work, saved, 50.0)
    assert text.startswith(f"{HEAD}: onnxrt-runner") and "heatmap" in text

    answer = run_polygraphy(
        exported, wrong_head(work, tmp_path / "wrong.onnx"),
        "--load-inputs", f"{HEAD}.inputs.json", "--save-outputs", saved,
    )  # fmt: skip
    assert answer.returncode == 0
    with pytest.raises(VerificationFailed, match=r"onnxrt-runner.*SNR") as failed:
        polygraphy.compare(work, saved, 50.0)
    assert failed.value.answer is not None
    ((runner, compared),) = failed.value.answer.data["runners"].items()
    assert runner.startswith("onnxrt-runner") and "heatmap" in compared["outputs"]
    json.loads(failed.value.answer.json())


def verifier(*arguments: object) -> int:
    """The command line, in this process; returns its exit code."""
    from verifier.cli import cli

    with pytest.raises(SystemExit) as stopped:
        cli.main(list(map(str, arguments)))
    return int(stopped.value.code or 0)


def test_as_a_command(work: Path, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = exported / f"{ENCODER}.outputs.json"
    assert verifier("compare", results, "--work", work, "--component", ENCODER) == 0
    assert "exact" in capsys.readouterr().out
    assert verifier("compare", results, "--work", work, "--component", HEAD) == 3
    assert "holds outputs pillar_features" in capsys.readouterr().err
    (samples,) = read_results(results).values()
    write_results(tmp_path / "off.json", "off", [{name: 1.1 * array for name, array in samples[0].items()}])
    assert verifier("compare", tmp_path / "off.json", "--work", work, "--precision", "fp32") == 6
    assert verifier("compare", tmp_path / "off.json", "--work", work, "--snr-db", 10) == 0
    assert verifier("compare", tmp_path / "off.json", "--work", work, "--precision", "fp33") == 2
    assert verifier("compare", tmp_path / "off.json", "--work", work, "--precision", "fp33", "--snr-db", 10) == 2


def test_a_missing_output_and_another_shape_are_said(work: Path, exported: Path, tmp_path: Path) -> None:
    (samples,) = read_results(exported / f"{HEAD}.outputs.json").values()
    changed = [{**sample, "reg": sample["reg"][..., :-1]} for sample in samples]
    for sample in changed:
        del sample["vel"]
    write_results(tmp_path / "changed.json", "another", changed)
    with pytest.raises(VerificationFailed, match=r"shape .* \(2 in all\)"):
        polygraphy.compare(work, tmp_path / "changed.json", 50.0)


def test_more_iterations_than_samples_are_refused(work: Path, exported: Path, tmp_path: Path) -> None:
    (samples,) = read_results(exported / f"{ENCODER}.outputs.json").values()
    write_results(tmp_path / "more.json", "more", [*samples, samples[0]])
    with pytest.raises(InputError, match=r"answered 3 times, the trace has 2 samples"):
        polygraphy.compare(work, tmp_path / "more.json", 50.0)


def test_without_a_trace_it_says_how_to_make_one(tmp_path: Path) -> None:
    workspace = tiny.make_workspace(tmp_path / "work", tiny.write_frames(tmp_path / "frames", [300]))
    with pytest.raises(InputError, match="runtime trace"):
        polygraphy.export(workspace.root, tmp_path / "out")
    assert isinstance(workspace, Workspace) and not (tmp_path / "out").exists()
