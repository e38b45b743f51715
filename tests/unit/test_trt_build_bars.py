"""A build on a terminal: a bar for every phase that TensorRT tells of."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

BUILD = """
import sys, time
from trt_builder import progress

phases = progress.Phases()

def build():
    if {tells}:
        phases.start("Building Engine", 4)
        phases.step("Building Engine", 0)
        phases.start("Timing Tactics", 7)
        phases.step("Timing Tactics", 4)
    sys.stdin.read()
    phases.finish("Timing Tactics")
    time.sleep(0.3)
    return 42

assert progress.run(build, "head", phases, can_cancel=True) == 42
"""


@pytest.mark.parametrize("tells", [True, False])
def test_bars_on_a_terminal(tells: bool) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", BUILD.format(tells=tells)], stdin=subprocess.PIPE, stderr=theirs, cwd=ROOT
    ) as process:
        os.close(theirs)
        assert process.stdin is not None
        shown, last = b"", b"5/7" if tells else b"head: building"
        while True:
            try:
                shown += os.read(ours, 1 << 16)
                if last in shown and not process.stdin.closed:
                    process.stdin.close()
            except OSError:  # how Linux says that the other end is closed
                break
    os.close(ours)
    assert process.returncode == 0
    assert b"head: building" in shown
    for words in (b"Building Engine", b"1/4", b"Timing Tactics", b"5/7"):
        assert (words in shown) is tells
