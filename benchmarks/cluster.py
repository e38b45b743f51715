"""How much faster are several GPUs of a machine? `runtime run` and `trt_builder build` with ``--cluster local:N``.

    python benchmarks/cluster.py --work work/centerpoint --folder work/cluster --gpus 1 2
    python benchmarks/cluster.py --work work/centerpoint --folder work/cluster --gpus 1 2 4 8 --frames 100000
    python benchmarks/cluster.py --work work/centerpoint --folder work/cluster --gpus 1 2 --backend onnx --device cpu \
        --frames 200 --points 5000 --parts overhead run

The engines of the workspace must have been built. Each command has a process of its own, as a user's has, and a copy of
the workspace. What is compared is the command from its start to its end, and, for a run, the samples a second while
workers answer, with the resource that bounds them; ``overhead`` is what a cluster of one adds to a run of a few frames.
The builds are those of all components and policies: eight of a CenterPoint.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.data_set import make_frames, with_sweeps
from runtime.pace import COMMIT, INFERENCE, READ, UPLOAD
from shared import cuda
from shared.files import sha256_of_file
from shared.manifest import MANIFEST_NAME, Manifest, update_manifest
from shared.provenance import gpu
from shared.table import Table, number
from shared.workspace import Workspace

FEW = 64
POLICIES = ("fp32_tf32", "fp16", "fp32", "strongly_typed")
PROCESSORS = len(os.sched_getaffinity(0))
# A resource is full when so much of it is used; a run of frames in the page cache reads less than this from a disk.
ALL = 0.9
MB_OF_A_DISK = 500


@contextmanager
def copy_of(work: Path, place: Path) -> Iterator[Path]:
    """A copy of a workspace, for the time of the block."""
    shutil.copytree(work, place)
    try:
        yield place
    finally:
        shutil.rmtree(place)


def seconds_of(tool: str, words: list[str]) -> float:
    """Run a command of a tool to its end; returns how long it took."""
    started = time.perf_counter()
    answer = subprocess.run([sys.executable, "-c", f"from {tool}.cli import cli; cli()", *words], check=False)
    if answer.returncode:
        sys.exit(f"{tool} {' '.join(words)} ended with {answer.returncode}")
    return time.perf_counter() - started


def read_from_disk() -> float:
    """MB that this machine has read from its disks: none of them where files are in the page cache."""
    counters = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    return int(counters["pgpgin"]) / 1e3


def run_on(options: argparse.Namespace, frames: int, cluster: str | None) -> dict[str, Any]:
    """A run of so many frames."""
    words = ["--backend", options.backend, "--device", options.device, "--num-samples", str(frames)]
    with copy_of(options.folder / "source", options.folder / "work") as work:
        spread = [] if cluster is None else ["--cluster", cluster]
        before = read_from_disk()
        seconds = seconds_of("runtime", ["run", "--work", str(work), *words, *spread, "--force"])
        (folder,) = (path.parent for path in work.glob(f"runs/{options.backend}-{options.device}*/run.json"))
        pace = Workspace.open(work).manifest().results["runs"][folder.name]["pace"]
        return {
            "cluster": cluster,
            "command": seconds,
            "pace": pace,
            "from_disk": read_from_disk() - before,
            "predictions": sha256_of_file(folder / "predictions.npz"),
        }


def measure_runs(options: argparse.Namespace) -> dict[str, Any]:
    """A run on each number of GPUs; all of them must give the same predictions."""
    runs = [{"gpus": count, **run_on(options, options.frames, f"local:{count}")} for count in options.gpus]
    if len({run.pop("predictions") for run in runs}) != 1:
        sys.exit("the predictions differ")
    gpus = 0 if options.device == "cpu" else len(cuda.find_gpus())
    for run in runs:
        # A worker has those of its place: on a machine of eight GPUs an eighth of all.
        has = PROCESSORS * run["gpus"] / (gpus or run["gpus"])
        run["processors"] = run["pace"]["per_second"] * run["pace"]["processor_seconds"] / has
        run["full"] = full(run)
    return {"frames": options.frames, "runs": runs}


def full(run: dict[str, Any]) -> str:
    """The resource that keeps a run from being faster: one that all workers share, else what each waits for."""
    pace = run["pace"]
    if pace["taking_in"] > ALL:
        return "the command, which takes answers in"
    if run["processors"] > ALL:
        return "processors"
    if pace["at_work"] < ALL * run["gpus"]:
        return "nothing: workers waited for a range"
    bound: str = max(pace["parts"], key=pace["parts"].get)
    if bound == READ:
        return "the disk" if run["from_disk"] > MB_OF_A_DISK else "readers"
    return {UPLOAD: "upload", INFERENCE: "GPUs", COMMIT: "commit"}[bound]


def measure_overhead(options: argparse.Namespace) -> dict[str, Any]:
    """What a cluster of one adds."""
    for cluster in (None, "local:1"):  # the first of each reads files of frames and packages from the disk
        run_on(options, FEW, cluster)
    alone, one = run_on(options, FEW, None), run_on(options, FEW, "local:1")
    if alone.pop("predictions") != one.pop("predictions"):
        sys.exit("the predictions differ")
    return {"frames": FEW, "alone": alone, "one": one, "seconds": one["command"] - alone["command"]}


def measure_builds(options: argparse.Namespace) -> dict[str, Any]:
    """Engines of all policies on each number of GPUs."""
    policies = [word for policy in options.policies for word in ("--policy", policy)]
    settings = [word for setting in options.settings for word in ("--set", setting)]
    builds: list[dict[str, Any]] = []
    for count in options.gpus:
        with copy_of(options.work, options.folder / "work") as work:
            shutil.rmtree(work / "tensorrt", ignore_errors=True)
            words = ["build", "--work", str(work), "--force", *policies, *settings, "--cluster", f"local:{count}"]
            seconds = seconds_of("trt_builder", words)
            engines = sum(1 for _ in (work / "tensorrt").rglob("*.engine"))
            builds.append({"gpus": count, "command": seconds, "engines": engines})
    return {"policies": list(options.policies), "builds": builds}


def tables(measured: dict[str, Any]) -> str:
    """What was measured, as text."""
    parts = []
    if "overhead" in measured:
        few = measured["overhead"]
        parts.append(
            f"a cluster of one adds {few['seconds']:.1f} s to {few['alone']['command']:.1f} s ({few['frames']} frames)"
        )
    if "run" in measured:
        runs = measured["run"]["runs"]
        first = min(runs, key=itemgetter("gpus"))
        rows = [
            [
                f"local:{run['gpus']}",
                number(run["command"], 1),
                number(first["command"] / run["command"], 2),
                number(run["pace"]["per_second"], 1),
                *_times(run["pace"]["per_second"] / first["pace"]["per_second"], run["gpus"] / first["gpus"]),
                number(run["pace"]["at_work"], 1),
                *(_percent(run["pace"]["parts"][part]) for part in (READ, UPLOAD, INFERENCE, COMMIT)),
                _percent(run["pace"]["taking_in"]),
                _percent(run["processors"]),
                number(run["from_disk"], 0),
                run["full"],
            ]
            for run in runs
        ]
        columns = ["run", "command [s]", "times", "samples a second", "times", "of linear", "at work",
                   "read", "upload", "GPU", "commit", "taking in", "processors", "disk [MB]", "full"]  # fmt: skip
        parts.append(Table(f"{measured['run']['frames']} frames", columns, rows).text())
    if "build" in measured:
        builds = measured["build"]["builds"]
        first = min(builds, key=itemgetter("gpus"))
        rows = [
            [
                f"local:{build['gpus']}",
                number(build["command"], 1),
                *_times(first["command"] / build["command"], build["gpus"] / first["gpus"]),
            ]
            for build in builds
        ]
        title = f"{first['engines']} engines: {', '.join(measured['build']['policies'])}"
        parts.append(Table(title, ["build", "command [s]", "times", "of linear"], rows).text())
    return "\n".join(parts)


def _times(times: float, linear: float) -> tuple[str, str]:
    return number(times, 2), _percent(times / linear)


def _percent(part: float) -> str:
    return f"{part:.0%}"


def prepare(options: argparse.Namespace) -> None:
    """The workspace with frames that are made, under ``folder``."""
    shutil.copytree(options.work, options.folder / "source")
    section = make_frames((options.folder / "frames").resolve(), options.frames, options.points, sweeps=0)

    def change(manifest: Manifest) -> None:
        assert manifest.spec is not None
        manifest.config = {**(manifest.config or {}), "data": section}
        manifest.spec = with_sweeps(manifest.spec, 0)

    update_manifest(options.folder / "source" / MANIFEST_NAME, change)


PARTS = {"overhead": measure_overhead, "run": measure_runs, "build": measure_builds}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="for copies and frames; must not exist, is removed")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 2], help="workers, one of them a GPU each")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--frames", type=int, default=30_000)
    parser.add_argument("--points", type=int, default=67_000)
    parser.add_argument("--backend", default="tensorrt")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--policies", nargs="+", default=POLICIES)
    parser.add_argument("--set", dest="settings", action="append", default=[], help="for trt_builder build")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    results: dict[str, Any] = {"gpu": gpu(), "processors": PROCESSORS, "load": os.getloadavg()[0]}
    try:
        prepare(given)
        for part in given.parts:
            results[part] = PARTS[part](given)
            print(tables({part: results[part]}), flush=True)
            if given.out is not None:
                given.out.write_text(json.dumps(results, indent=1))
    finally:
        shutil.rmtree(given.folder)
