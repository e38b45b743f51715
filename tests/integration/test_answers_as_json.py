"""``--json``: one document on the standard output, of what the tables are made from; also where a judgment is bad."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from evaluator.cli import cli as evaluator
from shared.manifest_cli import cli as manifest
from shared.workspace import Workspace
from tests.support.workspaces import add_run, make_workspace
from verifier.cli import cli as verifier


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = make_workspace(tmp_path_factory.mktemp("work"))
    add_run(made, "framework", samples=2)
    add_run(made, "pytorch")
    add_run(made, "onnx")
    return made


def call(capsys: pytest.CaptureFixture[str], cli: click.Group, *words: str, code: int = 0) -> Any:
    """The document that a command prints."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.main(list(words))
    printed = capsys.readouterr()
    assert stop.value.code == code, printed.err
    return json.loads(printed.out)


def text(capsys: pytest.CaptureFixture[str], cli: click.Group, *words: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main(list(words))
    return capsys.readouterr().out


def test_verification_and_metrics(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    work = ("--work", str(workspace.root))
    verified = call(capsys, verifier, "verify", *work, "--json")
    assert verified["passed"] and not verified["failures"]
    assert verified["comparisons"].keys() == {path.stem for path in workspace.path("verification").glob("*.json")}
    failed = call(capsys, verifier, "check", *work, "--tolerance", "metric=2", "--json", code=6)
    assert not failed["passed"] and failed["failures"]

    gates = ("--fail-if", "onnx-cpu: mAP < 1.1")
    evaluated = call(capsys, evaluator, "evaluate", *work, *gates, "--json", code=6)
    assert [gate["passed"] for gate in evaluated["gates"]] == [False]
    assert call(capsys, evaluator, "evaluate", *work, "--json")["gates"] == []
    headline = evaluated["evaluations"]["onnx-cpu"]["headline"]
    assert headline == json.loads(workspace.path("evaluation/onnx-cpu.json").read_text())["headline"]

    summary = call(capsys, evaluator, "summary", *work, "--json")
    assert summary["evaluations"]["onnx-cpu"]["headline"] == headline
    assert summary["stages"]["evaluate"]["status"] == "done"
    assert f"{headline['mAP']:.4f}" in text(capsys, evaluator, "summary", *work)

    compared = call(capsys, evaluator, "compare", *work, "--json")
    assert [subject["run"] for subject in compared["subjects"]] == ["onnx-cpu", "pytorch-cpu"]
    assert compared["subjects"][0]["metrics"] == headline
    assert call(capsys, evaluator, "history", *work, "--json")["history"][0]["metrics"] == headline


def test_what_is_in_a_workspace(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    work = ("--work", str(workspace.root))
    shown = call(capsys, manifest, "show", *work, "--json")
    assert shown == json.loads(workspace.manifest().model_dump_json())
    assert call(capsys, manifest, "tags", *work, "--json") == {"versions": []}
    text(capsys, manifest, "tag", *work, "v1", "--note", "a\x1b note")
    (version,) = call(capsys, manifest, "tags", *work, "--json")["versions"]
    assert (version["name"], version["note"]) == ("v1", "a\x1b note")
    assert isinstance(version["bytes"], int)


def test_nothing_else_comes_to_the_standard_output(workspace: Workspace) -> None:
    words = ["--log-format", "json", "verify", "--work", str(workspace.root), "--force", "--json"]
    command = [sys.executable, "-c", "from verifier.cli import cli; cli()", *words]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout)["passed"]
    assert {json.loads(line)["event"] for line in answer.stderr.splitlines()} >= {"stage_done", "command_done"}


def test_a_score_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions, file = tmp_path / "scores.csv", tmp_path / "out.json"
    predictions.write_text("sample,label,score_ok,score_bad\na,ok,0.9,0.1\nb,bad,0.3,0.7\nc,ok,0.4,0.6\n")
    words = ("score", "--task", "classification", "--predictions", str(predictions), "--output", str(file))
    scored = call(capsys, evaluator, *words, "--json")
    assert scored == json.loads(file.read_text())
