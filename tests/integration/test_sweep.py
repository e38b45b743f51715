"""Choices of precisions measured by the real commands, with ONNX Runtime in the engines' place."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from shared.config import load_config
from shared.json_reader import read_json
from shared.workspace import Workspace
from tests.support.choosing import runnable_workspace
from tests.support.killed_at import killed_at
from trt_builder.cli import cli

FRAMES = 12
COMMON = ("--backend", "onnx", "--device", "cpu", "--seconds", "0.05")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return runnable_workspace(tmp_path, FRAMES).root


def words(name: str, work: Path, *arguments: str) -> list[str]:
    return ["trt_builder", name, "--work", str(work), *COMMON, *arguments]


def call(name: str, work: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *words(name, work, *arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def found(work: Path) -> dict[str, Any]:
    return {each["label"]: each for each in read_json(work / "choices/pareto.json")["runs"]["onnx-cpu"]}


def times_of(work: Path) -> dict[str, str | None]:
    """When each choice was timed."""
    folders = [path.parent for path in (work / "choices").glob("*/manifest.json")]
    stages = {folder.name: Workspace.open(folder).manifest().stages.get("time:onnx-cpu") for folder in folders}
    return {name: stage.ended for name, stage in stages.items() if stage is not None and stage.status == "done"}


def test_a_sweep_that_is_killed_goes_on_and_measures_nothing_twice(work: Path) -> None:
    policies = ("--policy", "fp32", "--policy", "fp16", "--policy", "int8")
    killed_at("trt_builder.choices.measure:Bench._score", 2, *words("sweep", work, *policies))
    before = times_of(work)
    assert 0 < len(before) < 3
    answer = call("sweep", work, *policies)
    assert answer.returncode == 0, answer.stderr
    choices = found(work)
    assert set(choices) == {"fp32", "fp16", "int8"}
    assert choices["fp32"]["reference"]
    assert all(each["frames"] == FRAMES and each["metric_name"] == "mAP" for each in choices.values())
    assert choices["fp16"]["lowest_snr_db"] > choices["int8"]["lowest_snr_db"] + 10
    assert choices["int8"]["drop_interval"] is not None
    assert before.items() <= times_of(work).items()
    with (work / "choices/pareto.csv").open(encoding="utf-8", newline="") as file:
        assert {row["label"] for row in csv.DictReader(file)} == set(choices)
    again = times_of(work)
    assert call("sweep", work, *policies).stdout == answer.stdout
    assert times_of(work) == again


def test_tune_writes_a_config_that_loads_and_keeps_to_the_limit(work: Path) -> None:
    answer = call("tune", work, "--min-snr", "25", "--num-samples", "2", "--tries", "2")
    assert answer.returncode == 0, answer.stderr
    assert "Found: " in answer.stdout
    again = call("tune", work, "--min-snr", "25", "--num-samples", "2", "--tries", "2", "--json")
    told = json.loads(again.stdout)["found"]
    assert f"Found: {told['label']}, {len(told['int8'])} layers in INT8" in answer.stdout
    config = load_config(work / "choices/tuned.yaml")
    best = next(label for label in found(work) if f"Found: {label}, " in answer.stdout)
    chosen = found(work)[best]
    assert chosen["reference"] or chosen["lowest_snr_db"] >= 25
    assert config.quantization.enabled == bool(chosen["int8"])
    layers = json.loads((work / "quantized/layers.json").read_text())["pts_backbone_neck_head"]
    assert set(config.quantization.sensitive_layers) == set(layers) - set(chosen["int8"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["tune"], 2, "nothing says what may be lost"),
        (["tune", "--min-snr", "20", "--sure"], 2, "--sure is about --max-drop"),
        (["tune", "--max-drop", "1", "--keep-float", "."], 2, "leaves no layer in INT8"),
        (["sweep", "--policy", "int4"], 2, "no policy 'int4'"),
        (["sweep", "--set", "tensorrt.nothing=1"], 2, "nothing"),
        (["sweep", "--data", "/nowhere"], 3, "/nowhere"),
    ],
)
def test_what_can_not_be_measured_is_one_line(work: Path, arguments: list[str], code: int, message: str) -> None:
    answer = CliRunner().invoke(cli, [arguments[0], "--work", str(work), *COMMON, *arguments[1:]])
    assert answer.exit_code == code, answer.stderr
    errors = [line for line in answer.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]


def test_without_tensorrt_the_default_backend_says_what_is_missing(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    answer = CliRunner().invoke(cli, ["sweep", "--work", str(work), "--policy", "fp16"])
    assert answer.exit_code == 4
    assert "Python package 'tensorrt' can't be imported" in answer.stderr
