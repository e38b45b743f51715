"""One process asks which commands of a pipeline have something to do, and does nothing itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared import unchanged
from tests.support.workspaces import add_run, make_workspace


@pytest.fixture
def commands(tmp_path: Path) -> list[str]:
    workspace = make_workspace(tmp_path)
    for backend in ("framework", "pytorch", "onnx"):
        add_run(workspace, backend)
    return [
        f"bin/{tool} --work {workspace.root}" for tool in ("verifier verify", "evaluator evaluate", "evaluator summary")
    ]


def _do(command: str) -> int:
    program, *arguments = command.split()
    group = unchanged.tool(Path(program).name)
    assert group is not None
    with pytest.raises(SystemExit) as end:
        group.main(arguments)
    return int(end.value.code or 0)


def test_what_is_left_is_counted_from_the_first_that_has_something_to_do(
    commands: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = next(tmp_path.rglob("manifest.json"))
    before = manifest.read_bytes()
    assert unchanged.left(commands) == 3
    assert (manifest.read_bytes(), capsys.readouterr().out) == (before, "")

    assert _do(commands[0]) == 0
    capsys.readouterr()
    assert unchanged.left(commands) == 2
    assert "verification passed" in capsys.readouterr().out

    assert _do(commands[1]) == 0
    before = manifest.read_bytes()
    capsys.readouterr()
    assert unchanged.left(commands) == 0
    told = capsys.readouterr()
    assert "verification passed" in told.out and "Runs side by side" in told.out
    assert "evaluate: up to date" in told.err
    assert manifest.read_bytes() == before


def test_what_fails_is_left_to_the_tool(commands: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert _do(commands[0]) == 0
    capsys.readouterr()
    for command in ("verifier verify --work nowhere", "echo hello", "runtime --no-such-option", "verifier --help"):
        assert unchanged.left([commands[0], command]) == 1, command
        assert "Error" not in capsys.readouterr().err
