"""``--log-format json``: whatever reaches the standard error is a line of docs/log.schema.json; text stays as it is."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from shared import progress
from shared.cli import tool_group
from shared.errors import InputError
from shared.logs import EVENTS, VARIABLE, about, event
from shared.workspace import Workspace
from tests.support import command_lines
from tests.support.command_lines import MODULES, commands

ROOT = Path(__file__).parents[2]
SCHEMA = jsonschema.Draft202012Validator(
    json.loads((ROOT / "docs" / "log.schema.json").read_text()), format_checker=jsonschema.FormatChecker()
)

# Who writes to the standard error: our log, Python, native code, other processes, and what ends the process.
TOOL = """
import ctypes, logging, os, subprocess, sys, threading, time, warnings
import click
from shared.cli import tool_group

cli = tool_group("tool", "help")

@cli.command()
def speak():
    click.echo("the answer")
    print("printed", file=sys.stderr)
    click.echo("echoed\\nin two lines", err=True)
    warnings.warn("deprecated")
    os.write(2, b"native, without a line break at its end")
    os.write(2, b"\\nbytes: \\xff\\x1b[31m red\\n50 %\\r100 %\\n")
    subprocess.run(["sh", "-c", "echo from a child >&2"])
    logging.getLogger("library").warning("a name: \\x1b]0;title\\x07\\u202e\\nsecond line")
    logging.getLogger("library").info("mlflow at https://user:secret@host/path")
    os.write(2, b'{"time": "no line"}\\n[1]\\n' + b"[" * 5000 + b"\\n")
    os.write(2, b'{"time": "a", "level": "INFO", "tool": [], "event": ["x"], "message": ""}\\n')
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    os.write(2, b"last words")

@cli.command()
def crash():
    ctypes.CDLL(None).write(2, b"about to crash\\n", 15)
    ctypes.string_at(0)

@cli.command()
def wait():
    click.echo("begun")
    time.sleep(300)

@cli.command()
def flood():
    ctypes.PyDLL(None).write(2, b"x" * 99 + b"\\n" + b"y" * 200_000 + b"\\n", 200_101)  # holds Python's lock

cli()
"""


def lines(text: str) -> list[dict[str, Any]]:
    """The lines of a log, all of them valid."""
    found = [json.loads(line) for line in text.splitlines()]
    for line in found:
        SCHEMA.validate(line)
        assert not any(character in line["message"] for character in "\x1b\x07\r\u202e")
    return found


def ended(lines_of_command: list[dict[str, Any]], code: int) -> bool:
    """Whether the log ends as that of a command with this exit code does."""
    last = lines_of_command[-1]
    return last["event"] == "command_done" and last["numbers"]["exit_code"] == code


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tool") / "tool.py"
    path.write_text(TOOL)
    return path


def start(tool: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, tool, *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, VARIABLE: "json"},
    )  # fmt: skip


def test_whoever_writes_a_line_it_is_an_object(tool: Path) -> None:
    with start(tool, "speak") as process:
        output, errors = process.communicate(timeout=600)
    assert output == "the answer\n"
    found = lines(errors)
    assert ended(found, 0)
    said = [(line["event"], line["message"]) for line in found]
    for message in (
        "printed", "echoed", "in two lines", "native, without a line break at its end", r"bytes: \xff\x1b[31m red",
        "50 %", "100 %", "from a child", "[1]", "last words",
    ):  # fmt: skip
        assert ("output", message) in said
    assert ("warning", "a name: \\x1b]0;title\\x07\\u202e\nsecond line") in said
    assert ("message", "mlflow at https://user:***@host/path") in said
    assert any(name == "warning" and "deprecated" in message for name, message in said)
    assert any("ZeroDivisionError" in message for _, message in said)
    order = [message for _, message in said]
    assert order.index("printed") < order.index("from a child") < order.index("last words")


def test_last_words_of_a_crash_are_kept(tool: Path) -> None:
    with start(tool, "crash") as process:
        _, errors = process.communicate(timeout=600)
    assert process.returncode == -signal.SIGSEGV
    assert "about to crash" in [line["message"] for line in lines(errors)]


def test_native_code_that_holds_pythons_lock_may_write_more_than_a_pipe_holds(tool: Path) -> None:
    with start(tool, "flood") as process:
        _, errors = process.communicate(timeout=600)
    assert ended(lines(errors), 0)


def test_an_interrupt_is_an_error_with_its_exit_code(tool: Path) -> None:
    with start(tool, "wait") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=600)
    *_, error, _ = found = lines(errors)
    assert ended(found, 130)
    assert (error["event"], error["error"]["exit_code"]) == ("error", 130)


def test_nobody_reads_the_log(tool: Path) -> None:
    line = f"{VARIABLE}=json {sys.executable} {tool} speak 2>&1 >/dev/null | true; exit ${{PIPESTATUS[0]}}"
    assert subprocess.run(["bash", "-c", line], cwd=ROOT, timeout=600, check=False).returncode == 0


# -- in this process ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_a_slip_in_any_command_is_an_object(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    group = command_lines.tool(name)
    for words, _ in commands(group, ()):
        with pytest.raises(SystemExit) as stop:
            group.main(["--log-format", "json", *words, "--nonsense"], prog_name=name)
        error, _ = found = lines(capsys.readouterr().err)
        assert stop.value.code == 2 and ended(found, 2)
        assert error["tool"] == name
        assert "--nonsense" in error["message"]
        assert error["error"] == {
            "type": "NoSuchOption", "message": error["message"], "exit_code": 2,
            "hint": f"Try '{' '.join([name, *words])} --help' for help.",
        }  # fmt: skip


def _log_of(
    work: Any, capsys: pytest.CaptureFixture[str], code: int, *options: str, form: str = "json"
) -> list[dict[str, Any]]:
    group = tool_group("tool", "help")
    group.command(name="go")(work)
    with pytest.raises(SystemExit) as stop:
        group.main([*options, "--log-format", form, "go"])
    assert stop.value.code == code
    if form == "text":
        return [{"message": line} for line in capsys.readouterr().err.splitlines()]
    found = lines(capsys.readouterr().err)
    assert ended(found, code)
    return found[:-1]


def test_an_error_says_where_it_happened_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with about(stage="run:onnx", sample="token7"):
            raise InputError("is\nempty", where="a\x1b.pcd", hint="write it again")

    (line,) = _log_of(fail, capsys, 3)
    assert (line["event"], line["level"], line["stage"], line["sample"]) == ("error", "ERROR", "run:onnx", "token7")
    assert line["error"] == {
        "type": "InputError", "message": "is\nempty", "where": "a\\x1b.pcd", "hint": "write it again", "exit_code": 3,
    }  # fmt: skip
    (line,) = _log_of(fail, capsys, 3, "--debug")
    assert line["error"]["traceback"][0] == "Traceback (most recent call last):"


def test_a_bug_is_an_object_too(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise RuntimeError("surprise\x07")

    (line,) = _log_of(fail, capsys, 1)
    assert line["error"]["type"] == "RuntimeError" and line["error"]["exit_code"] == 1


def test_stages_say_when_they_begin_and_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = Workspace.create(tmp_path)

    def run() -> None:
        for _ in range(2):
            stage = work.stage("export", tool="exporter")
            if not stage.up_to_date():
                with stage:
                    logging.getLogger("anything").info("within")
                    stage.text_artifact("a.txt", "test", "four")
        work.stage("build", tool="trt_builder").skip("no GPU")
        with work.stage("verify", tool="verifier"):
            raise InputError("no run")

    found = _log_of(run, capsys, 3)
    assert [(line["event"], line.get("stage")) for line in found] == [
        ("stage_started", "export"), ("message", "export"), ("stage_done", "export"), ("up_to_date", "export"),
        ("stage_skipped", "build"), ("stage_started", "verify"), ("stage_failed", "verify"), ("error", "verify"),
    ]  # fmt: skip
    done = found[2]["numbers"]
    assert (done["files"], done["bytes"]) == (1, 4) and done["seconds"] > 0


def test_text_is_what_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = Workspace.create(tmp_path)

    def run() -> None:
        with work.stage("export", tool="exporter") as stage:
            logging.getLogger("x").info("within", extra=event("progress", sample="a", done=1))
        stage.up_to_date()
        raise InputError("no run", hint="run it")

    messages = [line["message"] for line in _log_of(run, capsys, 3, form="text")]
    assert [message.split(" ", 1)[-1] for message in messages[:2]] == ["INFO    within", "INFO    export: up to date"]
    assert messages[2:] == ["error: no run. run it"]


def test_progress_and_numbers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)

    def run() -> None:
        for _ in progress.track("abc", "samples", 3):
            pass
        logging.getLogger("x").info("loss", extra=event(loss=float("nan"), step=2))

    *steps, loss = _log_of(run, capsys, 0)
    assert [(line["event"], line["numbers"]["done"], line["numbers"]["total"]) for line in steps] == [
        ("progress", 1, 3),
        ("progress", 2, 3),
    ]
    assert loss["numbers"] == {"loss": None, "step": 2}


def test_a_log_file_holds_the_same_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> None:
        logging.getLogger("x").warning("mind this")

    file = tmp_path / "log"
    found = _log_of(run, capsys, 0, "--log-file", str(file))
    assert lines(file.read_text()) == found


def test_the_page_lists_all_events() -> None:
    page = (ROOT / "docs" / "logs.md").read_text()
    assert [name for name in EVENTS if f"`{name}`" not in page] == []
