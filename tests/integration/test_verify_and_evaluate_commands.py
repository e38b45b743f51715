"""verifier and evaluator as a user calls them: exit codes, one line for a mistake, help at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_lines import MODULES
from tests.support.workspaces import add_run, make_workspace


def _call(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = f"from {MODULES[tool]} import cli; cli()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=600, check=False
    )


def test_agreement_is_0_and_disagreement_is_6(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    add_run(workspace, "framework", samples=2)
    add_run(workspace, "pytorch")
    add_run(workspace, "onnx")
    work = str(workspace.root)
    passed = _call("verifier", "verify", "--work", work)
    assert (passed.returncode, "verification passed" in passed.stdout) == (0, True)
    assert _call("verifier", "check", "--work", work).returncode == 0
    assert _call("evaluator", "evaluate", "--work", work).returncode == 0
    assert "mAP" in _call("evaluator", "summary", "--work", work).stdout

    add_run(workspace, "onnx", noise=1.0)
    failed = _call("verifier", "verify", "--work", work)
    assert failed.returncode == 6
    assert "FAILED" in failed.stdout
    (line,) = [each for each in failed.stderr.splitlines() if "ERROR" in each or each.startswith("error")]
    assert line.startswith("error: verification: ")
    assert "FAILED" in _call("evaluator", "summary", "--work", work).stdout


def test_manifest_show_has_the_verdict_of_verification_and_gates(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    for backend in ("framework", "pytorch", "onnx"):
        add_run(workspace, backend)
    work = str(workspace.root)

    def verdicts() -> dict[str, str]:
        lines = _call("manifest", "show", "--work", work).stdout.splitlines()
        start = lines[1].index("verdict")
        return {line.split()[0]: line[start : lines[1].index("ended")].strip() for line in lines[3:]}

    _call("verifier", "verify", "--work", work)
    _call("evaluator", "evaluate", "--work", work, "--fail-if", "mAP < 0.1")
    assert verdicts()["verify"] == "passed"
    assert verdicts()["evaluate"] == "passed"
    assert verdicts()["run:onnx-cpu"] == ""

    add_run(workspace, "onnx", noise=1.0)
    _call("verifier", "verify", "--work", work)
    _call(
        "evaluator",
        "evaluate",
        "--work",
        work,
        "--fail-if",
        "onnx-cpu: mAP < 1.1",
        "--fail-if",
        "pytorch-cpu: mAP < 0.1",
    )
    assert verdicts()["verify"] == "FAILED"
    assert verdicts()["evaluate"] == "FAILED, 1 of 2"


@pytest.mark.parametrize(
    ("tool", "command", "exit_code"),
    [("verifier", "verify", 6), ("verifier", "check", 3), ("evaluator", "evaluate", 3)],
)
def test_workspace_without_runs(tmp_path: Path, tool: str, command: str, exit_code: int) -> None:
    answer = _call(tool, command, "--work", str(make_workspace(tmp_path).root))
    assert answer.returncode == exit_code
    assert answer.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    ("tool", "command"), [("verifier", "verify"), ("evaluator", "evaluate"), ("evaluator", "summary")]
)
def test_no_workspace(tmp_path: Path, tool: str, command: str) -> None:
    answer = _call(tool, command, "--work", str(tmp_path))
    assert answer.returncode == 3
    assert "no manifest here" in answer.stderr


def test_tolerance_without_number_is_a_usage_error(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    for backend in ("framework", "pytorch", "onnx"):
        add_run(workspace, backend)
    answer = _call("verifier", "verify", "--work", str(workspace.root), "--tolerance", "heatmap")
    assert (answer.returncode, "'heatmap' has no number" in answer.stderr) == (2, True)
