"""`exporter quantize sensitivity` and `auto` on a small trained model: results, resumption, what they refuse."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("modelopt")

import torch

from exporter.cli import cli
from exporter.models.calibration import adapter as calibration
from tests.support.calibration_data import DEMO_INFO, make_demo

pytestmark = pytest.mark.exporter

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The demo's classifier on one frame of six cameras: some 50 ms a sample."""
    demo = make_demo(tmp_path_factory.mktemp("demo"))
    return [
        "--config", str(ROOT / "configs/calibration.yaml"),
        "--set", f"data.root={demo}",
        "--set", f"data.info_file={demo / DEMO_INFO}",
        "--set", "quantization.calibration.num_batches=2",
        "--num-samples", "3",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def half_done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test leaves a workspace whose search was stopped, in ``work``, and the finished one."""
    return tmp_path_factory.mktemp("search")


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["quantize", *arguments])


def test_killed_it_goes_on_and_both_commands_share_what_was_measured(
    options: list[str], half_done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    answer = calibration.answer

    def counted(model: Any, model_input: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == stop_at:
            raise KeyboardInterrupt
        return answer(model, model_input)

    monkeypatch.setattr(calibration, "answer", counted)
    work = ["--work", str(tmp_path)]
    journal = tmp_path / "quantized/search/journal.jsonl"

    stop_at: int | None = 30
    assert run("sensitivity", *options, *work).exit_code != 0
    kept = journal.read_text().splitlines()[1:]
    assert len(kept) >= 3
    shutil.copytree(tmp_path, half_done / "work")
    stop_at = None
    result = run("sensitivity", *options, *work, "--output", str(tmp_path / "copy.csv"))
    assert result.exit_code == 0, result.output
    lines = journal.read_text().splitlines()[1:]
    assert lines[: len(kept)] == kept  # none of them again
    assert len({json.loads(line)["key"] for line in lines}) == len(lines)

    rows = list(csv.DictReader((tmp_path / "copy.csv").open()))
    assert {"backbone.conv1", "head.fc", "backbone.layer1"} <= {row["name"] for row in rows}
    assert all(0 <= float(row["metric"]) <= 100 for row in rows)
    assert all(float(row["lowest_snr_db"]) > 0 for row in rows if row["kind"] == "layer")
    assert (tmp_path / "quantized/sensitivity/picture.png").stat().st_size > 10_000
    skip = yaml.safe_load((tmp_path / "quantized/sensitivity/skip.yaml").read_text())
    assert set(skip["sensitive_layers"]) <= {row["name"] for row in rows}

    shutil.copytree(tmp_path, half_done / "finished")

    before = asked
    again = run("sensitivity", *options, *work)
    assert "alone in int8" in again.output.lower()
    assert asked - before <= 3  # folding batch norms looks at a sample

    measured = len(lines)
    found = run("auto", *options, *work, "--max-drop", "100", "--skip", "head.fc")
    assert found.exit_code == 0, found.output
    assert "head.fc" in yaml.safe_load((tmp_path / "quantized/auto/skip.yaml").read_text())["sensitive_layers"]
    assert len(journal.read_text().splitlines()) - 1 - measured <= 2
    stopped = run("auto", *options, *work, "--max-drop", "-200")
    assert stopped.exit_code == 6 and "no choice of INT8 blocks" in stopped.output


def test_on_a_cluster_it_goes_on_and_finds_the_same(
    options: list[str], half_done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first test left a search that was stopped, and the result of the one that went on."""
    pytest.importorskip("ray", reason="needs Ray: make setup-cluster")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    work = half_done / "work"
    kept = (work / "quantized/search/journal.jsonl").read_text().splitlines()[1:]
    result = run("sensitivity", *options, "--work", str(work), "--cluster", "local:2")
    assert result.exit_code == 0, result.output
    finished = half_done / "finished"
    for name in ("report.csv", "tables.txt", "skip.yaml"):
        path = f"quantized/sensitivity/{name}"
        assert (work / path).read_bytes() == (finished / path).read_bytes()
    lines = [(root / "quantized/search/journal.jsonl").read_text().splitlines() for root in (work, finished)]
    assert lines[0][1 : len(kept) + 1] == kept  # none of them again
    assert sorted(lines[0]) == sorted(lines[1])

    found = run("auto", *options, "--work", str(work), "--cluster", "local:2", "--max-drop", "-200")
    assert found.exit_code == 6 and "no choice of INT8 blocks" in found.output
    nowhere = run("auto", *options, "--work", str(work), "--cluster", "localhost:1", "--max-drop", "1")
    assert nowhere.exit_code == 4 and "there is no Ray cluster" in nowhere.output


def test_without_labels_it_says_so(tmp_path: Path) -> None:
    np.zeros((500, 5), np.float32).tofile(tmp_path / "0.bin")
    result = run(
        "sensitivity", "--config", str(ROOT / "configs/centerpoint.yaml"), "--work", str(tmp_path / "work"),
        "--set", "data.format=folder", "--set", f"data.root={tmp_path}", "--set", "data.num_features=5",
        "--set", "quantization.fusion.fuse_bn=false",
    )  # fmt: skip
    assert result.exit_code == 3
    assert "the detection3d metric needs them" in result.output
    assert not (tmp_path / "work").exists()


def test_a_model_that_scores_nothing_has_no_ranking(options: list[str], tmp_path: Path) -> None:
    """The only frame's label is what the model does not say: here, because its weights are random."""
    from exporter.training_config import random_weights, read_training_config

    model = calibration.build(
        read_training_config(ROOT / "configs/train/calibration_demo.py"), calibration.read_options({})
    )
    random_weights(model, seed=0)
    model.head.fc.bias.data = torch.tensor([-1e3, 1e3])  # never miscalibrated, which sample 0 is
    torch.save({"state_dict": model.state_dict()}, tmp_path / "random.pth")
    own = [*options[:-1], "1", "--set", f"model.checkpoint={tmp_path / 'random.pth'}"]
    result = run("sensitivity", *own, "--work", str(tmp_path / "work"))
    assert result.exit_code == 3 and "accuracy of the float model is 0" in result.output, result.output


def test_gpu_and_layers_that_are_not_there(options: list[str], tmp_path: Path) -> None:
    work = ["--work", str(tmp_path)]
    result = run("auto", *options, *work, "--max-drop", "1", "--skip", "backbone.layer9")
    assert result.exit_code == 2 and "backbone.layer9" in result.output
    result = run("sensitivity", *options, *work, "--device", "nowhere")
    assert result.exit_code == 2 and "no such device" in result.output
    result = run("sensitivity", *options, *work, "--gpu", "tpu")
    assert result.exit_code == 2 and "h200" in result.output
