"""The Makefile's pipeline with stand-ins for the tools: what runs after a stage that did not pass, and how it ends."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")


def _pipeline(**tools: str) -> subprocess.CompletedProcess[str]:
    variables = {
        "WORK": "w", "RUN": "local", "SETUP": "", "EXPORTER_TOOL": "true", "BUILDER_TOOL": "true",
        "RUNTIME_TOOL": "true", "VERIFIER_TOOL": "true", "EVALUATOR_TOOL": "echo",
    }  # fmt: skip
    arguments = [f"{name}={value}" for name, value in (variables | tools).items()]
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(
        ["make", "pipeline", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def _dry_make(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(
        ["make", "-n", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )


def test_the_report_comes_before_the_summary() -> None:
    answer = _pipeline()
    assert answer.returncode == 0
    assert [line.split()[0] for line in answer.stdout.splitlines()] == ["evaluate", "report", "summary"]


def test_a_verification_that_fails_is_reported_and_fails_the_job() -> None:
    answer = _pipeline(VERIFIER_TOOL="false")
    assert answer.returncode != 0
    assert [line.split()[0] for line in answer.stdout.splitlines()] == ["evaluate", "report", "summary"]


@pytest.mark.parametrize("tool", ["EXPORTER_TOOL", "RUNTIME_TOOL"])
def test_nothing_is_judged_without_a_run(tool: str) -> None:
    answer = _pipeline(**{tool: "false"})
    assert answer.returncode != 0
    assert "report" not in answer.stdout


def test_yolox_nano_heeds_overrides_and_writes_a_report() -> None:
    arguments = ["ONNX=nano.onnx", "REAL_DATA=real", "SET=evaluation.num_samples=3 data.format=folder"]
    answer = _dry_make("yolox-nano", *arguments)
    assert f"--set export.onnx_path={ROOT / 'nano.onnx'}" in answer.stdout
    assert "--set evaluation.num_samples=3 --set data.format=folder" in answer.stdout
    assert "for command in evaluate report summary" in answer.stdout


def test_migrate_check_writes_in_a_temporary_folder_only() -> None:
    """Every output is below the folder that a trap removes, whatever the user names."""
    for checkpoint in ([], ["CHECKPOINT=epoch.pth"]):
        recipe = _dry_make("migrate-check", "DEPLOY=deploy_config.py", "MODEL_CONFIG=config.py", *checkpoint).stdout
        assert "trap 'rm -rf \"$work\"' EXIT" in recipe
        written = re.findall(r"--(?:out|work) (\S+)", recipe[recipe.index("mktemp") : recipe.index("exported, and")])
        assert len(written) == (3 if checkpoint else 4)
        assert all(path.startswith(('"$work/', "$weights")) for path in written)
        assert ("weights=epoch.pth" in recipe) == bool(checkpoint)
