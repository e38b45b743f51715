"""The standard set of benchmarks, as one file that `evaluator regress` compares with another, and one page.

    make bench-suite                                     all parts, into work/bench-suite
    make bench-suite PARTS="voxelization metrics"        some of them
    evaluator regress work/bench-suite/suite.json --baseline earlier.json

Parts: the demo's models (exported, run over some of its samples, evaluated, their latency measured), the network of the
121 m size with random weights (on a real frame where REAL_DATA names any, else on one of the demo's), YOLOX and
CenterPoint on real frames where there are any, and the steps that cost most: voxelization, projection, metrics. What is
timed is timed in several processes, one after another (`evaluator.latency_change`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from evaluator.baseline import tables
from evaluator.measured import Machine, Measured, Quantity, Round, Scores, write_measured
from evaluator.measuring import measured
from runtime.conditions import conditions
from runtime.devices import Device
from runtime.waiting import waited_ms
from shared import __version__
from shared.files import write_text
from shared.latency import MIN_SAMPLES, TOTAL, WAITED, round_of
from shared.provenance import host, package_versions, processor
from shared.workspace import Workspace

DEMO_MODELS = ("centerpoint", "yolox", "calibration")
STEPS = ("voxelization", "projection", "metrics")
SIZE_121M = "centerpoint-121m"
PARTS = (*DEMO_MODELS, SIZE_121M, "real", *STEPS)

_PACKAGES = ("numpy", "onnxruntime", "opencv-python-headless", "faster-coco-eval", "scikit-learn")
_SAMPLES = 12
_CALLS = 12


@dataclass
class Found:
    """What the parts measured so far."""

    scores: dict[str, Scores] = field(default_factory=dict)
    latencies: dict[str, list[Round]] = field(default_factory=dict)
    quantities: list[Quantity] = field(default_factory=list)

    def add(self, part: str, other: Measured) -> None:
        """Take what was measured of a workspace, under the name of its part."""
        self.scores |= {f"{part}: {name}": scores for name, scores in other.scores.items()}
        self.latencies |= {f"{part}: {name}": rounds for name, rounds in other.latencies.items()}
        self.quantities += [each.model_copy(update={"subject": f"{part}: {each.subject}"}) for each in other.quantities]


@dataclass(frozen=True)
class Places:
    """Where things are, and how much is measured.

    Attributes:
        out: folder of the suite; workspaces are kept in it.
        exporter: Python of the exporter's environment.
        demo: the demo's data.
        real: folder of real frames; None: there is none.
        processes: how many measure each latency.
        seconds: how long each of them measures.
    """

    out: Path
    exporter: str
    demo: Path
    real: Path | None
    processes: int
    seconds: float


def run(*command: object) -> None:
    """Run a command; what it prints goes to the standard error."""
    subprocess.run([str(word) for word in command], check=True, stdout=sys.stderr)


def model(places: Places, part: str, config: str, samples: int, overrides: Sequence[str]) -> Workspace:
    """Export a model, and run and evaluate it in ONNX Runtime."""
    work = places.out / part
    settings = [word for override in overrides for word in ("--set", override)]
    run(places.exporter, "-m", "exporter", "export", "--config", config, "--work", work, *settings)
    run(sys.executable, "-m", "runtime", "run", "--work", work, "--backend", "onnx", "--num-samples", samples)
    run(sys.executable, "-m", "evaluator", "evaluate", "--work", work)
    return Workspace.open(work)


def demo_model(places: Places, part: str) -> Measured:
    """One of the demo's models on its own data, and its latency on one sample."""
    workspace = model(places, part, f"configs/{part}.yaml", _SAMPLES, [f"data.root={places.demo}"])
    run(
        *(sys.executable, "-m", "runtime", "bench", "--work", workspace.root, "--backend", "onnx", "--warm-up", 10),
        *("--processes", places.processes, "--seconds", places.seconds),
    )
    return measured(workspace)


def size_121m(places: Places, part: str) -> Measured:
    """The network of the 121 m size with random weights, on as few samples as have a median: one takes seconds."""
    weights, training = places.out / f"{SIZE_121M}.pth", "configs/train/centerpoint_121m.py"
    if not weights.is_file():
        run(places.exporter, "-m", "exporter.random_checkpoint", "write", "--config", training, "--out", weights)
    scene = next(places.demo.glob("db_demo_v1/*/0"))
    data = ["data.format=t4", f"data.root={scene}"] if places.real is None else [f"data.root={places.real}"]
    settings = [f"model.checkpoint={weights}", "export.mode=onnx", *data]
    return measured(model(places, part, "configs/centerpoint_121m.yaml", MIN_SAMPLES, settings))


def real_frames(places: Places, part: str) -> Measured:
    """The demo's CenterPoint on real frames."""
    return measured(model(places, part, "configs/centerpoint_real.yaml", _SAMPLES, [f"data.root={places.real}"]))


# -- steps ------------------------------------------------------------------------------------------------------------


def step_calls(name: str) -> dict[str, Callable[[], Any]]:
    """The calls of a step, by what they are."""
    if name == "voxelization":
        from benchmarks.voxelization import frame, own_steps

        return dict(zip(("voxelize", "decorate"), own_steps(frame(200_000)), strict=True))
    if name == "projection":
        from benchmarks.projection import frame as image_and_points
        from benchmarks.projection import own_steps as painting

        height, width = 1860, 2880
        return painting(*image_and_points(200_000, height, width), np.zeros((5, height, width), np.float32))
    from benchmarks.evaluation import time_nuscenes, time_t4

    return {"nuscenes": partial(time_nuscenes, 100), "t4": partial(time_t4, 100)}


def one_process(name: str) -> dict[str, Any]:
    """What this process measures of a step."""
    calls = step_calls(name)
    times: dict[str, list[float]] = {each: [] for each in (*calls, TOTAL, WAITED)}
    for turn in range(_CALLS + 2):
        waited, spent = waited_ms(), 0.0
        for each, call in calls.items():
            started = time.perf_counter()
            call()
            elapsed = (time.perf_counter() - started) * 1e3
            spent += elapsed
            if turn >= 2:
                times[each].append(elapsed)
        # The first two turns are warm-up.
        if turn >= 2:
            times[TOTAL].append(spent)
            times[WAITED].append(max(0.0, waited_ms() - waited))
    return round_of(times, conditions(Device("cpu")))


def step(name: str, processes: int) -> list[Round]:
    """What processes of their own measure of a step."""
    rounds = []
    for _ in range(processes):
        command = [sys.executable, "-m", "benchmarks.suite", "--process", name]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rounds.append(Round.model_validate(json.loads(answer.stdout)))
    return rounds


# -- all of it --------------------------------------------------------------------------------------------------------


def suite(places: Places, parts: Sequence[str]) -> Measured:
    """Measure ``parts``."""
    found = Found()
    for part in parts:
        started = time.perf_counter()
        if part in STEPS:
            found.latencies[part] = step(part, places.processes)
        elif part in DEMO_MODELS:
            found.add(part, demo_model(places, part))
        elif part == SIZE_121M:
            found.add(part, size_121m(places, part))
        elif places.real is not None:
            found.add(part, real_frames(places, part))
        print(f"{part}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return Measured(
        name="bench-suite",
        created=time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        model="bench-suite",
        machine=Machine(host=host(), processor=processor()),
        versions={"awml-deploy": __version__, **package_versions(_PACKAGES)},
        scores=found.scores,
        latencies=found.latencies,
        quantities=found.quantities,
    )


def page(result: Measured) -> str:
    """The result as Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    parts = [
        f"# Benchmark suite, {result.created[:16]}",
        f"{result.machine.host}, {result.machine.processor}; {versions}",
    ]
    for table in tables(result):
        rows = [table.columns, ["---"] * len(table.columns), *table.rows]
        parts += [f"## {table.title}", "\n".join(f"| {' | '.join(row)} |" for row in rows)]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Measure, and write the file and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("work/bench-suite"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--exporter", default=".venv/exporter/bin/python", help="Python of the exporter's environment")
    parser.add_argument("--demo", type=Path, default=Path("work/demo"), help="the demo's data")
    parser.add_argument("--processes", type=int, default=3, help="how many measure each latency")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each measures")
    parser.add_argument("--process", choices=STEPS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.process is not None:
        print(json.dumps(one_process(given.process)))
        return
    real = os.environ.get("REAL_DATA")
    places = Places(
        given.out.absolute(), given.exporter, given.demo.absolute(), Path(real).absolute() if real else None,
        given.processes, given.seconds,
    )  # fmt: skip
    places.out.mkdir(parents=True, exist_ok=True)
    result = suite(places, given.parts)
    write_measured(places.out / "suite.json", result)
    write_text(places.out / "suite.md", page(result))
    print(f"{places.out / 'suite.json'}, {places.out / 'suite.md'}")


if __name__ == "__main__":
    main()
