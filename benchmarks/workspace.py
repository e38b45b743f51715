"""What 8,000 artifacts in a manifest cost the commands that ask it most: `runtime swap` and `trt_builder build`.

The same questions and stages, in the same order as in those commands, without the work between them, on a workspace
with that many artifacts more and on one without; the difference is what the artifacts cost.

    .venv/tools/bin/python -m benchmarks.workspace --folder work/benchmark

The folder must not exist; it is removed at the end.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from shared.manifest import MANIFEST_NAME, Artifact, Manifest, update_manifest
from shared.traces import step_path
from shared.workspace import Workspace

STEPS, COMPONENTS = 8, ("encoder", "head")
_CONTENT = b"0123"
_SHA256 = "1be2e452b46d7a0d9656bbb1f768e8248eba1b75baed65f5d99eafa948899a6a"


def make(root: Path, artifacts: int) -> None:
    """A workspace with two components and ``artifacts`` recorded states of a trace."""
    workspace = Workspace.create(root)
    with workspace.stage("export", tool="shared") as stage:
        for component in COMPONENTS:
            with stage.artifact(f"onnx/{component}.onnx", "onnx") as path:
                path.write_bytes(_CONTENT)

    def change(manifest: Manifest) -> None:
        for relative in states(artifacts):
            path = workspace.path(relative)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_CONTENT)
            manifest.artifacts[relative] = Artifact(
                sha256=_SHA256, bytes=len(_CONTENT), kind="trace", stage="trace:onnx-cpu"
            )
        trace = manifest.stages["export"].model_copy(update={"outputs": states(artifacts)})
        manifest.stages["trace:onnx-cpu"] = trace

    update_manifest(root / MANIFEST_NAME, change)


def states(count: int) -> list[str]:
    """Paths of the recorded states."""
    return [f"traces/onnx-cpu/{step_path(number // STEPS, f'step{number % STEPS}')}" for number in range(count)]


def as_swap(root: Path, asked: int) -> None:
    """Check ``asked`` states of the trace, one after another, and record a run of two files."""
    workspace = Workspace.open(root)
    stage = workspace.stage("swap:onnx-cpu", tool="shared", inputs={"trace": "of another workspace"})
    assert not stage.up_to_date()
    with stage:
        for relative in states(asked):
            workspace.artifact(relative)
        for name in ("run.json", "predictions.npz"):
            stage.json_artifact(f"swaps/onnx-cpu/{name}", "swap", {})


def as_build(root: Path) -> None:
    """Check each component four times, as settings, checks, hashes and refits do, and record its engine."""
    workspace = Workspace.open(root)
    for component in COMPONENTS:
        relative = f"onnx/{component}.onnx"
        for _ in range(4):
            workspace.artifact(relative)
        inputs = {relative: workspace.input_hash(relative)}
        stage = workspace.stage(f"build:{component}", tool="shared", inputs=inputs)
        assert not stage.up_to_date()
        with stage:
            stage.json_artifact(f"tensorrt/{component}.engine", "engine", {})
            stage.json_artifact(f"tensorrt/{component}.engine.json", "engine-record", {})


def seconds(folder: Path, artifacts: int, command: str, repeats: int) -> float:
    """Median of a command's time with its workspace, in processes of their own: what is remembered ends with one."""
    times = []
    for _ in range(repeats):
        make(folder, artifacts)
        time.sleep(0.1)
        call = [sys.executable, "-m", "benchmarks.workspace", "--folder", str(folder), "--command", command]
        answer = subprocess.run([*call, "--artifacts", str(artifacts)], check=True, capture_output=True, text=True)
        times.append(float(answer.stdout))
        shutil.rmtree(folder)
    return statistics.median(times)


def measure(folder: Path, artifacts: int, repeats: int) -> dict[str, dict[str, float]]:
    """Seconds by command: with the artifacts, without, and the difference."""
    found = {}
    for command in ("swap", "build"):
        many, none = (seconds(folder, count, command, repeats) for count in (artifacts, 0))
        found[command] = {"with": round(many, 3), "without": round(none, 3), "artifacts_cost": round(many - none, 3)}
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What artifacts in a manifest cost")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--artifacts", type=int, default=8000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--command", choices=("swap", "build"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.command is None:
        print(json.dumps(measure(given.folder, given.artifacts, given.repeats), indent=1))
    else:
        started = time.perf_counter()
        as_swap(given.folder, given.artifacts) if given.command == "swap" else as_build(given.folder)
        print(time.perf_counter() - started)
