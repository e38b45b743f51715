"""The tools feel like one: the same options, one line an error, the right exit code, a quick --help."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from shared.cli import ToolGroup, tool_group
from shared.errors import ConfigError, DeployError, EnvironmentLacks, GateFailed, InferenceError, InputError
from tests.support.command_lines import MODULES
from tests.support.processor_time import fewest_seconds

ROOT = Path(__file__).parents[2]
TOOLS = [name for name in MODULES if name != "demo"]


def _group_that_raises(error: BaseException) -> ToolGroup:
    group = tool_group("tool", "help")

    @group.command()
    @click.option("--debug", is_flag=True)
    def go(debug: bool) -> None:
        raise error

    return group


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("unknown key 'exprot'", where="a.yaml", hint="did you mean 'export'?"), 2),
        (InputError("is empty", where="a.pkl"), 3),
        (EnvironmentLacks("no GPU"), 4),
        (InferenceError("failed"), 5),
        (GateFailed("mAP 0.1 < 0.2"), 6),
        (RuntimeError("surprise"), 1),
        (MemoryError("10 TB"), 4),
        (SystemExit(0), 3),
        (SystemExit(7), 3),
        (KeyboardInterrupt(), 130),
        (click.UsageError("no such option"), 2),
    ],
)
def test_exit_codes(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        _group_that_raises(error).main(["go"])
    assert stop.value.code == code
    output = capsys.readouterr()
    assert output.out == ""
    assert "Traceback" not in output.err
    if isinstance(error, DeployError):
        assert output.err == f"error: {error}\n"


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        _group_that_raises(InputError("x")).main(["--debug", "go"])
    assert stop.value.code == 3
    errors = capsys.readouterr().err
    assert "Traceback" in errors
    assert errors.endswith("error: x\n")


def test_error_text() -> None:
    error = ConfigError("unknown key 'exprot'", where="a.yaml", hint="did you mean 'export'?")
    assert str(error) == "a.yaml: unknown key 'exprot'. did you mean 'export'?"


@pytest.mark.parametrize("name", TOOLS)
def test_help_is_quick(name: str) -> None:
    command = [sys.executable, "-c", f"from {MODULES[name]} import cli; cli.main(['--help'])"]

    def show() -> subprocess.CompletedProcess[str]:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        assert "Usage" in answer.stdout
        return answer

    assert fewest_seconds(show, enough=0.5) < 0.5


@pytest.mark.parametrize("name", TOOLS)
def test_unknown_option_and_command(name: str) -> None:
    for arguments in (["--nonsense"], ["nonsense"]):
        command = [sys.executable, "-c", f"from {MODULES[name]} import cli; cli.main({arguments!r})"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert answer.returncode == 2
        assert "Traceback" not in answer.stderr


def test_a_long_message_does_not_cost_the_command_that_mends_it() -> None:
    hint = "run again: exporter export --config " + "deep/" * 30 + "config.yaml --work work/x"
    (line,) = InputError("x" * 3000, where="a.pkl", hint=hint).lines()
    assert len(line) <= 500 and line.endswith(f". {hint}") and line.startswith("a.pkl: xxx")
    (line,) = InputError("x" * 3000, where="a.pkl", hint="y" * 3000).lines()
    assert len(line) <= 500
