"""Is a data set run at the speed of its engines? `runtime bench --streams` and `runtime run` on the same frames.

Frames of lidar are made where no data set is given; that many points a sample, over the key frame and its sweeps. The
workspace is copied, so that its own results stay; its engines must have been built.

    python benchmarks/data_set.py --work work/centerpoint --folder work/data-set --points 67000
    python benchmarks/data_set.py --work work/centerpoint-121m --folder work/data-set --points 200000 --sweeps 10
    python benchmarks/data_set.py --work work/yolox --folder work/data-set --data work/demo --repeat 10 --frames 2400
    python benchmarks/data_set.py --work work/centerpoint --folder work/data-set --backend onnx --device cpu --frames 64

Each command has a process of its own, as a user's has. ``--full-size`` makes the workspace of a network of the 121 m
model's size, with random weights. Where no GPU takes several requests at a time, what counts is how much of the run's
time its requests have.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu_latency import choice, frame
from runtime.devices import parse_device
from shared.config.model_sections import Data
from shared.geometry import invert_pose, pose, rotation_z
from shared.manifest import MANIFEST_NAME, Manifest, update_manifest
from shared.spec import ModelSpec
from shared.table import Table, number
from shared.workspace import Workspace

# Key frames that differ; the data set repeats them.
DISTINCT = 40
COLUMNS = 5
METERS_BETWEEN_SWEEPS = 1.2


def make_frames(root: Path, count: int, points: int, sweeps: int) -> dict[str, Any]:
    """A data set of lidar frames, each with earlier ones; returns the config's section for it."""
    root.mkdir(parents=True)
    each = points // (sweeps + 1)
    entries = []
    for number_of_frame in range(min(count, DISTINCT)):
        parts: list[dict[str, Any]] = []
        for step in range(sweeps + 1):
            name = f"{number_of_frame:04d}_{step:02d}.bin"
            frame(each, COLUMNS, seed=number_of_frame * (sweeps + 1) + step).tofile(root / name)
            moved = pose([-METERS_BETWEEN_SWEEPS * step, 0.0, 0.0], rotation_z(-0.01 * step))
            lidar = {"lidar_path": name, "num_pts_feats": COLUMNS, "lidar2sensor": invert_pose(moved).tolist()}
            parts.append({"timestamp": 1_700_000_000.0 - 0.1 * step, "lidar_points": lidar})
        entries.append((parts[0]["lidar_points"]["lidar_path"], parts[1:]))
    infos = []
    for index in range(count):
        path, earlier = entries[index % len(entries)]
        infos.append(
            {
                "sample_idx": index,
                "token": f"frame{index}",
                "timestamp": 1_700_000_000.0,
                "ego2global": np.eye(4).tolist(),
                "lidar_points": {"lidar_path": path, "num_pts_feats": COLUMNS, "lidar2ego": np.eye(4).tolist()},
                "lidar_sweeps": earlier,
                "instances": [],
            }
        )
    metainfo = {"classes": ["car"]}
    (root / "frames.json").write_text(json.dumps({"metainfo": metainfo, "data_list": infos}))
    data = Data(format="info", root=root, info_file=Path("frames.json"), classes=("car",))
    return data.model_dump(mode="json")


def with_sweeps(spec: ModelSpec, sweeps: int) -> ModelSpec:
    """The model takes so many sweeps, and all of their points."""
    points = {**spec.parameters["points"], "merge_sweeps": True, "sweeps_num": sweeps, "remove_close": False}
    return spec.model_copy(update={"parameters": {**spec.parameters, "points": points}})


def command(tool_arguments: list[str]) -> str:
    """Run a command of the runtime, in a process of its own; returns what it printed."""
    program = "from runtime.cli import cli; cli()"
    answer = subprocess.run(
        [sys.executable, "-c", program, *tool_arguments], check=False, stdout=subprocess.PIPE, text=True
    )
    if answer.returncode:
        sys.exit(f"runtime {' '.join(tool_arguments)} ended with {answer.returncode}")
    return answer.stdout


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Both commands on a copy of the workspace."""
    work = options.folder / "work"
    shutil.copytree(options.work if options.choice is None else choice(options.work, options.choice), work)
    data = options.data or (options.folder / "frames").resolve()
    made = make_frames(data, options.frames, options.points, options.sweeps) if options.data is None else None

    def change(manifest: Manifest) -> None:
        assert manifest.spec is not None and manifest.config is not None
        if made is None:
            section = {**manifest.config["data"], "root": None}
            repeated = Data(format="concat", sources=tuple(Data(**section) for _ in range(options.repeat)))
            manifest.config = {**manifest.config, "data": repeated.model_dump(mode="json")}
        else:
            manifest.config = {**manifest.config, "data": made}
            manifest.spec = with_sweeps(manifest.spec, options.sweeps)

    update_manifest(work / MANIFEST_NAME, change)
    common = ["--work", str(work), "--backend", options.backend, "--device", options.device, "--data", str(data)]
    engines = None if options.policy is None else target(Workspace.open(work), options.policy)
    common += [] if engines is None else ["--target", engines]
    streams = [] if options.device == "cpu" else ["--streams", str(options.streams)]
    if options.backend == "tensorrt":
        streams += ["--like", "trtexec-11"]
    command(["bench", *common, "--seconds", str(options.seconds), "--warm-up", "10", *streams])
    started = time.perf_counter()
    said = command(["run", *common, "--num-samples", str(options.frames), "--force"])
    wall = time.perf_counter() - started
    results = Workspace.open(work).manifest().results
    name = "-".join(filter(None, [options.backend, str(parse_device(options.device, {})).replace(":", ""), engines]))
    bench, run = results["bench"][name], results["runs"][name]
    requests = bench["streams"]["per_second"] if streams else bench["stages"]["total"]["throughput"]
    return {
        "work": str(options.work),
        "samples": run["pace"]["samples"],
        "bench per second": requests,
        "bench one at a time": bench["stages"]["total"]["throughput"],
        "run per second": run["pace"]["per_second"],
        "ratio": run["pace"]["per_second"] / requests,
        "run": run["pace"],
        "command seconds": wall,
        "said": said.splitlines()[-1],
        "bench": bench,
        "load": os.getloadavg()[0],
    }


def target(workspace: Workspace, policy: str) -> str:
    """The set of engines that was built with a precision policy."""
    targets = {key.split("/", 1)[0] for key in workspace.manifest().results.get("engines", {})}
    found = [name for name in sorted(targets) if name.endswith(f"-{policy}")]
    if not found:
        sys.exit(f"{workspace.root}: no engines of the policy {policy}, but {', '.join(sorted(targets)) or 'none'}")
    return found[0]


def table(measured: dict[str, Any]) -> str:
    """What was measured, as a table."""
    row = [
        Path(measured["work"]).name,
        str(measured["samples"]),
        number(measured["bench per second"], 1),
        number(measured["run per second"], 1),
        number(measured["ratio"], 3),
        number(measured["run"]["processor_seconds"] * 1e3, 1),
        number(measured["command seconds"], 1),
    ]
    columns = ["model", "samples", "bench a second", "run a second", "ratio", "processors a sample [ms]", "command [s]"]
    return f"{Table('', columns, [row]).text()}\n{measured['said']}"


def full_size(root: Path) -> None:
    """A workspace of the 121 m model's size, without engines."""
    from tests.support.trt_workspaces import full_size_workspace

    full_size_workspace(root)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--full-size", action="store_true", help="make the workspace, and nothing else")
    parser.add_argument("--folder", type=Path, help="for the copy and the frames; it must not exist, and is removed")
    parser.add_argument("--data", type=Path, help="root of a data set, in place of frames that are made")
    parser.add_argument("--repeat", type=int, default=1, help="go through that data set so many times")
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--points", type=int, default=67_000)
    parser.add_argument("--sweeps", type=int, default=1)
    parser.add_argument("--backend", default="tensorrt")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--choice", help="name of one of the choices that `trt_builder sweep` or `tune` measured there")
    parser.add_argument("--policy", help="precision policy of the engines, where there are several")
    parser.add_argument("--streams", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.full_size:
        full_size(given.work)
        sys.exit()
    given.folder.mkdir(parents=True)
    try:
        measured = measure(given)
    finally:
        shutil.rmtree(given.folder)
    print(table(measured))
    if given.out is not None:
        given.out.write_text(json.dumps(measured, indent=1))
