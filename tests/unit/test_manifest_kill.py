"""SIGKILL at any moment leaves a manifest that loads and artifacts that are whole. Real processes, really killed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from click.testing import CliRunner

from shared.files import sha256_of_file
from shared.manifest import read_manifest
from shared.manifest_cli import cli
from shared.workspace import Workspace

# Writes a stage with two artifacts again and again, each time with other content of 200 kB.
WRITER = """
import sys
from pathlib import Path
from shared.workspace import Workspace

root = Path(sys.argv[1])
ws = Workspace.create(root)
print("begun", flush=True)
for round in range(10**9):
    stage = ws.stage("export", tool="exporter", config={"round": round})
    with stage:
        for name in ("a", "b"):
            with stage.artifact(f"onnx/{name}.onnx", kind="onnx") as path:
                path.write_bytes(f"{round:08d}".encode() * 25_000)
        stage.result("metrics", "x", {"round": round})
"""


def _kill_after(seconds: float, root: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_kill_at_any_moment(tmp_path: Path) -> None:
    random.seed(0)
    finished = attempts = 0
    # More than 25 on a machine that hasn't finished once until then.
    while attempts < 25 or not finished:
        attempts += 1
        _kill_after(random.uniform(0.0, 0.12), tmp_path)
        manifest = read_manifest(tmp_path / "manifest.json")
        for name in ("a", "b"):
            path = tmp_path / f"onnx/{name}.onnx"
            if path.exists():
                content = path.read_bytes()
                assert content == content[:8] * 25_000
        if manifest.stages and manifest.stages["export"].status == "done":
            finished += 1
            for relative, record in manifest.artifacts.items():
                assert sha256_of_file(tmp_path / relative) == record.sha256

    # The next tool works, and clears what the killed ones left behind.
    stage = Workspace.open(tmp_path).stage("export", tool="exporter", config={"round": -1})
    with stage, stage.artifact("onnx/a.onnx", kind="onnx") as path:
        path.write_bytes(b"x")
    assert [path.name for path in (tmp_path / "onnx").iterdir()] == ["a.onnx"]


def test_a_killed_attempt_leaves_the_result_before_it(tmp_path: Path) -> None:
    ws = Workspace.create(tmp_path)
    stage = ws.stage("export", tool="exporter")
    with stage, stage.artifact("onnx/a.onnx", kind="onnx") as path:
        path.write_bytes(b"x")
    half = "import os, sys; from pathlib import Path; from shared.workspace import Workspace\n"
    half += "with Workspace(Path(sys.argv[1])).stage('export', tool='exporter', config={'new': 1}) as stage:\n"
    half += "    stage.bytes_artifact('onnx/a.onnx', 'onnx', b'y')\n"
    half += "    os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", half, str(tmp_path)], check=False)
    assert ws.artifact("onnx/a.onnx").read_bytes() == b"x"
    assert ws.stage("export", tool="exporter").up_to_date()
    shown = CliRunner().invoke(cli, ["show", "--work", str(tmp_path)]).stdout.splitlines()
    assert shown[4].split()[:3] == ["last", "attempt", "killed"]
