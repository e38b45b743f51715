"""Standard streams and log files that can't be written, interrupts, and text that a terminal must not get."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import click
import pytest

from shared.cli import COUNT, SECONDS, SEED, THREADS, Number, tool_group
from shared.errors import ConfigError, EnvironmentLacks, InputError
from shared.files import explain_os_errors
from shared.lazy import lazy_import
from shared.terminal import OutputStream
from shared.text import LONGEST_LINE, one_line, printable
from tests.support.processor_time import best_of

ROOT = Path(__file__).parents[2]

# A command that says much, and whose work, a file, comes last.
TOOL = """
import logging, sys, time, ctypes
import click
from pathlib import Path
from shared.cli import tool_group

cli = tool_group("tool", "help")

@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
def work(file):
    click.echo("x" * 100_000)
    logging.getLogger("tool").warning("y" * 100)
    click.echo("x" * 100_000)
    file.write_text("done")

@cli.command()
def native():
    print("begun", flush=True)
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):  # the second waits for the first, and no signal wakes it
        ctypes.CDLL(None).pthread_mutex_lock(mutex)

@cli.command()
def sleep():
    print("begun", flush=True)
    time.sleep(300)

@cli.command()
def cluster():
    from shared.cluster.connection import connect
    with connect("local:1"):
        print("begun", flush=True)
        time.sleep(300)

cli()
"""


def _shell(tmp_path: Path, redirection: str, options: str = "") -> subprocess.CompletedProcess[str]:
    tool = tmp_path / "tool.py"
    tool.write_text(TOOL)
    line = f"set -o pipefail; {sys.executable} {tool} {options} work {tmp_path}/made {redirection}"
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=ROOT, timeout=600, check=False)


@pytest.mark.parametrize(
    ("redirection", "options", "code", "words"),
    [
        ("| true", "", 0, ""),
        ("2>&1 | true", "", 0, ""),
        ("> /dev/full", "", 4, "error: the standard output can't be written (No space left on device)"),
        ("2> /dev/full", "", 0, ""),
        ("2>&-", "", 0, ""),
        (">&- 2>&-", "", 4, ""),
        (">&-", "", 4, "error: the standard output can't be written (Bad file descriptor)"),
        ("<&-", "", 0, ""),
        ("", "--log-file /dev/full", 4, "error: the log file /dev/full is not whole (No space left on device)"),
    ],
)
def test_work_is_done_whatever_becomes_of_its_output(
    tmp_path: Path, redirection: str, options: str, code: int, words: str
) -> None:
    answer = _shell(tmp_path, redirection, options)
    assert (tmp_path / "made").read_text() == "done"
    assert answer.returncode == code, answer.stderr
    assert words in answer.stderr
    assert "Traceback" not in answer.stderr
    assert "Exception ignored" not in answer.stderr


@pytest.mark.parametrize("kind", ["folder", "missing", "pipe"])
def test_a_log_file_that_can_not_be_opened_is_one_line(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "log"
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file = tmp_path / "nowhere" / "log"
    answer = _shell(tmp_path, "", f"--log-file {file}")
    assert answer.returncode in (2, 4)
    assert len(answer.stderr.strip().splitlines()[-1:]) == 1
    assert "bug" not in answer.stderr
    assert not (tmp_path / "made").exists(), "noticed before any work"


@pytest.mark.parametrize(
    ("number", "word", "code"), [(signal.SIGINT, "interrupted", 130), (signal.SIGTERM, "terminated", 143)]
)
@pytest.mark.parametrize("command", ["native", "sleep", "cluster"])
def test_an_interrupt_ends_the_tool_within_two_seconds(
    tmp_path: Path, command: str, number: signal.Signals, word: str, code: int
) -> None:
    if command == "cluster":
        pytest.importorskip("ray")
    tool = tmp_path / "tool.py"
    tool.write_text(TOOL)

    def seconds_to_end() -> float:
        with subprocess.Popen(
            [sys.executable, tool, command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            started = time.monotonic()
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
            took = time.monotonic() - started
        assert process.returncode == code
        assert errors.lstrip() == f"{word}; finished work is kept, run the command again to continue\n"
        return took

    assert best_of(seconds_to_end, enough=5.0) < 5.0, "2 s, and what a machine under load takes"


def test_control_characters_are_escaped() -> None:
    assert one_line("a\x1b[2J\nb\x00\x9b\u202e\ud800") == r"a\x1b[2J\nb\x00\x9b\u202e\ud800"
    assert printable("a\tb\nc\x07") == "a\tb\nc\\x07"


def test_long_lines_lose_their_middle() -> None:
    line = one_line("begin " + "x" * 10_000_000 + " end")
    assert len(line) <= LONGEST_LINE
    assert line.startswith("begin ")
    assert line.endswith(" end")


def test_errors_and_output_are_fit_for_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    group = tool_group("tool", "help")

    @group.command()
    def go() -> None:
        click.echo("name \x1b]0;gone\x07")
        raise InputError("is broken\nerror: all is well\x1b[2A", where="a\x1b[31m.pkl")

    with pytest.raises(SystemExit):
        group.main(["go"])
    output = capsys.readouterr()
    assert output.out == "name \\x1b]0;gone\\x07\n"
    assert output.err == "error: a\\x1b[31m.pkl: is broken\\nerror: all is well\\x1b[2A\n"


def test_a_bug_with_a_long_message_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    group = tool_group("tool", "help")

    @group.command()
    def go() -> None:
        raise RuntimeError("x\n" * 100_000)

    with pytest.raises(SystemExit):
        group.main(["go"])
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert len(errors) <= LONGEST_LINE + 1 + len("error: ")
    assert errors.endswith("--debug shows where\n")


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e400", "-1", "1e12", "NaN", "1_0_x", ""])
def test_numbers_are_finite_and_within_bounds(text: str) -> None:
    with pytest.raises(click.BadParameter):
        SECONDS.convert(text, None, None)
    with pytest.raises(click.BadParameter):
        Number(0, 1).convert(text, None, None)


@pytest.mark.parametrize("kind", [COUNT, THREADS, SEED])
@pytest.mark.parametrize("text", ["-1", "1000000000000", "1.5", "nan", "9" * 5000, "\u0663\u0663x"])
def test_counts_are_within_bounds(kind: click.IntRange, text: str) -> None:
    with pytest.raises(click.BadParameter):
        kind.convert(text, None, None)


def test_every_problem_of_a_config_has_its_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from shared.config import load_config

    file = tmp_path / "a.yaml"
    file.write_text("nope: 1\nno\\pe: 2\nexport: {mode: 1}\n")
    with pytest.raises(ConfigError) as error:
        load_config(file)
    assert len(error.value.lines()) == str(error.value).count("\n") + 1 > 2


def test_a_stream_that_is_closed_is_no_terminal() -> None:
    stream = io.StringIO()
    stream.close()
    assert not OutputStream(stream, escape=True).isatty()


def test_what_libraries_will_change_is_not_for_users() -> None:
    tool = tool_group("tool", "A tool.")

    @tool.command("work")
    def work() -> None:
        warnings.warn("it will be renamed", FutureWarning, stacklevel=1)
        warnings.warn("it is wrong", UserWarning, stacklevel=1)

    for arguments, told in ([["work"], ["it is wrong"]], [["--debug", "work"], ["it will be renamed", "it is wrong"]]):
        with pytest.raises(SystemExit) as end, warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            tool.main(arguments)
        assert end.value.code == 0
        assert [str(warning.message) for warning in heard] == told


def test_in_an_image_a_missing_package_and_permission_lead_out_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWML_DEPLOY_IMAGE", "awml-deploy/runtime-onnx:cpu")
    with pytest.raises(EnvironmentLacks) as lacking:
        _ = lazy_import("no_such_package", install="pip install it, or use the runtime image").Session
    assert "take the one of another tool or backend" in str(lacking.value)
    assert "use the runtime image" not in str(lacking.value)
    with pytest.raises(EnvironmentLacks, match=rf"AWML_UID={os.getuid()}") as refused, explain_os_errors(Path("w")):
        raise PermissionError(errno.EACCES, "no")
    assert "WORK names the folder" in str(refused.value)
