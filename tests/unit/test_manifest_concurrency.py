"""Tools that write at the same time lose nothing. Real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from shared.manifest import read_manifest

WRITER = """
import sys
from pathlib import Path
from shared.workspace import Workspace

root, me = Path(sys.argv[1]), sys.argv[2]
ws = Workspace.create(root)
for n in range(15):
    stage = ws.stage(f"run:{me}-{n}", tool="runtime")
    with stage:
        with stage.artifact(f"runs/{me}/{n}.txt", kind="predictions") as path:
            path.write_text(f"{me} {n}")
        stage.result("metrics", f"{me}-{n}", {"value": n})
"""

SAME_STAGE = """
import sys, time
from pathlib import Path
from shared.workspace import Workspace

root, me = Path(sys.argv[1]), sys.argv[2]
with Workspace.create(root).stage("export", tool="exporter") as stage:
    (root / "inside").mkdir()   # fails when another process is in here
    time.sleep(0.2)
    (root / "inside").rmdir()
"""


def _run_together(code: str, root: Path, count: int) -> list[int]:
    processes = [subprocess.Popen([sys.executable, "-c", code, str(root), f"p{n}"]) for n in range(count)]
    return [process.wait(timeout=600) for process in processes]


def test_nothing_is_lost(tmp_path: Path) -> None:
    assert _run_together(WRITER, tmp_path, 4) == [0, 0, 0, 0]
    manifest = read_manifest(tmp_path / "manifest.json")
    assert len(manifest.stages) == len(manifest.artifacts) == len(manifest.results["metrics"]) == 60
    assert all(stage.status == "done" for stage in manifest.stages.values())


def test_one_stage_runs_once_at_a_time(tmp_path: Path) -> None:
    assert _run_together(SAME_STAGE, tmp_path, 3) == [0, 0, 0]
