"""`runtime messages`: what Autoware's node publishes for the answers of a run, as files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from runtime.cli import cli
from runtime.models.yolox_seg.mask import RUN
from shared.runs import RunWriter
from shared.several_tasks import Answers
from shared.tasks.detection2d import Boxes2D
from shared.tasks.segmentation2d import ClassMask
from shared.workspace import Workspace
from tests.support import tiny_yolox_seg as seg
from tests.support.run_files import run_header


def run_of_masks(folder: Path, model: str = "yolox_seg") -> Path:
    """A workspace with a run of two images of 192 x 96, which the network sees half as large."""
    spec = seg.spec(mask="autoware").model_copy(update={"model": model})
    header = run_header(["first", "second"], model=model, task=spec.task, classes=spec.classes)
    workspace = Workspace.create(folder / "work")
    with workspace.stage("export", tool="shared") as stage:
        stage.spec(spec)
    with workspace.stage("run:onnx-cpu", tool="runtime") as stage:
        writer = RunWriter.open(stage.folder("runs/onnx-cpu"), header)
        for index in range(2):
            labels = np.full((96, 192), index, np.uint8)
            labels[48:] = 3
            answers = {"detection2d": Boxes2D.empty(), "segmentation2d": ClassMask.build(labels)}
            writer.commit(index, Answers(answers), {"total": 1.0})
        for file in writer.finish():
            stage.add_artifact(f"runs/onnx-cpu/{file}", "run")
    return workspace.root


def test_the_messages_of_a_run(tmp_path: Path) -> None:
    work, out = run_of_masks(tmp_path), tmp_path / "out"
    command = ["messages", "--work", str(work), "--run", "onnx-cpu", "--out", str(out)]
    result = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert result.output == f"{out}: 4 messages of 2 samples, messages.json\n"
    index = json.loads((out / "messages.json").read_text())
    assert index[2] == {
        "topic": "mask", "encoding": "mono8", "height": 48, "width": 96, "step": 96,
        "data": "000001.mask.bin", "sample": "second",
    }  # fmt: skip
    assert np.fromfile(out / "000001.mask.bin", RUN).tolist() == [(1, 24 * 96), (3, 24 * 96)]
    assert len((out / "000000.color_mask.bin").read_bytes()) == 48 * index[1]["step"] == 48 * 96 * 3
    assert (
        CliRunner()
        .invoke(cli, [*command, "--num-samples", "1"])
        .output.endswith("2 messages of 1 samples, messages.json\n")
    )


@pytest.mark.parametrize(
    ("model", "run", "said"),
    [
        ("yolox", "onnx-cpu", "no messages are known for models of kind 'yolox'. known: yolox_seg"),
        ("yolox_seg", "onnx-cuda", "runs/onnx-cuda/run.json: no such run; there are: onnx-cpu\n"),
        ("yolox_seg", "../work/runs/onnx-cpu", "runs/../work/runs/onnx-cpu/run.json"),
    ],
)
def test_what_has_no_messages_is_one_line(tmp_path: Path, model: str, run: str, said: str) -> None:
    work = run_of_masks(tmp_path, model)
    result = CliRunner().invoke(cli, ["messages", "--work", str(work), "--run", run, "--out", str(tmp_path / "out")])
    assert result.exit_code in (2, 3)
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
