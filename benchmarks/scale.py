"""How cost grows with the frames of a data set: time, memory and disk of each step, with made-up boxes.

Shards of a run are written, merged, and compared with a run that one process wrote; the run is evaluated, reported and
tagged. Every step is a process of its own, so that its peak of memory is its own. Nothing infers: what a model takes
comes on top.

    .venv/tools/bin/python -m benchmarks.scale --folder work/scale --samples 10000
    .venv/tools/bin/python -m benchmarks.scale --folder work/scale --samples 10000 100000 1000000

The folder must not exist, and is removed at the end. A million samples of 20 boxes need 8 GB there.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

import shared.data
from shared.config import DeployConfig, resolved
from shared.data.types import Dataset, PointFile, Sample
from shared.files import sha256_of_json
from shared.manifest import MANIFEST_NAME, update_manifest
from shared.metrics.box_table import BoxTable
from shared.pieces import Origin, PieceHeader, PieceWriter
from shared.runs import Run, RunHeader, RunWriter, kind_of
from shared.shards import Shard, commit_shards, plan_shards
from shared.spec import ComponentSpec, ModelSpec, TensorSpec
from shared.stages import StageRun
from shared.tasks.detection3d import Boxes3D
from shared.versions import tag
from shared.workspace import Workspace
from tests.support.scenes import CLASSES, random_tables

SHARDS, BLOCK, TRUTHS, BOXES = 8, 500, 8, 20
FRAMES_A_SCENE = 400
_STAGES = ("voxelize", "decorate", "encoder", "scatter", "head", "decode", "nms", "total")
_LATENCIES = dict.fromkeys(_STAGES, 1.234567)
_COUNTERS = {"read": 200_000, "voxels": 40_000, "voxels_dropped": 0, "boxes": BOXES}


class MadeUp:
    """Frames of labels and answers: as many different ones as `BLOCK`, over and over, each with scores of its own."""

    def __init__(self) -> None:
        predictions, truths = random_tables(20261129, BLOCK, TRUTHS, BOXES)
        self._answers, self._labels = list(_by_frame(predictions)), list(_by_frame(truths))

    def answer(self, index: int) -> Boxes3D:
        """What the model says of a sample."""
        boxes = self._answers[index % BLOCK]
        return replace(boxes, scores=boxes.scores * np.float32(1 - 1e-3 * (index * 0.618 % 1)))

    def sample(self, index: int) -> Sample:
        """A sample of the data set."""
        return Sample(
            index=index, token=_token(index), timestamp=index / 10, scene=f"scene-{index // FRAMES_A_SCENE}",
            lidar=PointFile(Path("/none.bin"), Path("/"), 5), ground_truth=self._labels[index % BLOCK],
        )  # fmt: skip

    def dataset(self, samples: int) -> Dataset[Sample]:
        """All of them."""
        return Dataset("made-up", tuple(CLASSES), samples, self.sample, lambda: [samples])


def _by_frame(table: BoxTable) -> Iterator[Boxes3D]:
    for frame in range(BLOCK):
        own = table.select(table.frames == frame)
        yield Boxes3D.build(
            own.centers, own.sizes, own.yaws, own.velocities, labels=own.labels, scores=own.scores,
            num_points=own.num_points,
        )  # fmt: skip


def _token(index: int) -> str:
    return f"{index:032x}"


# -- steps ------------------------------------------------------------------------------------------------------------


def make(work: Path) -> None:
    """A workspace after an export."""
    config = DeployConfig.model_validate(
        {
            "model": {"type": "centerpoint", "config": "model.py", "checkpoint": "weights.pth"},
            "data": {"format": "info", "root": str(work), "info_file": "infos.json"},
            "export": {"mode": "onnx"},
            "evaluation": {
                "enabled": True,
                "num_samples": -1,
                "backends": {"pytorch": {"enabled": False}, "tensorrt": {"enabled": False}},
            },
        }
    )
    tensor = TensorSpec(name="x", dtype="float32", shape=[1, 8, 16, 16])
    component = ComponentSpec(name="head", inputs=[tensor], outputs=[tensor], onnx="onnx/head.onnx")
    with Workspace.create(work).stage("export", tool="shared") as stage:
        stage.spec(ModelSpec(model="centerpoint", task="detection3d", classes=CLASSES, components=[component]))
        stage.config(resolved(config))


def _stage(work: Path, run: str, samples: int) -> StageRun:
    spec = sha256_of_json(Workspace.open(work).spec().model_dump(mode="json"))
    return Workspace.open(work).stage(f"run:{run}", tool="shared", config={"samples": samples}, inputs={"spec": spec})


def _header(backend: str, stage: StageRun, samples: int) -> RunHeader:
    return RunHeader(
        backend=backend, device="cpu", model="centerpoint", task="detection3d", classes=CLASSES,
        dataset=MadeUp().dataset(samples).digest(), tokens=[_token(index) for index in range(samples)],
        raw_samples=[], fingerprint=stage.fingerprint,
    )  # fmt: skip


def write_shards(work: Path, samples: int) -> None:
    """The shards of a run, as many at a time as there are processors."""
    shards = [(work, samples, number) for number in range(1, SHARDS + 1)]
    with multiprocessing.get_context("spawn").Pool(min(SHARDS, os.cpu_count() or 1)) as pool:
        pool.starmap(_write_shard, shards)


def _write_shard(work: Path, samples: int, number: int) -> None:
    stage, made_up = _stage(work, "onnx-cpu", samples), MadeUp()
    shard = Shard(number, SHARDS)
    header = PieceHeader.of(_header("onnx", stage, samples), shard.samples(samples))
    writer = PieceWriter.open(stage.pieces_folder("runs/onnx-cpu") / shard.folder, header)
    for index in header.samples:
        writer.commit(index, made_up.answer(index), _LATENCIES, _COUNTERS)
    writer.finish(Origin(stage=stage.record(), shards=SHARDS, alerts=[]))


def merge_shards(work: Path, samples: int) -> None:
    """`manifest merge`."""
    (run,) = plan_shards(work, [])
    commit_shards(work, run)
    assert len(Run.open(work / "runs/onnx-cpu")) == samples


def write_run(work: Path, samples: int) -> None:
    """A run by one process, nearly the same as that of the shards."""
    made_up = MadeUp()
    with _stage(work, "pytorch-cpu", samples) as stage:
        writer = RunWriter.open(stage.folder("runs/pytorch-cpu"), _header("pytorch", stage, samples))
        for index in range(samples):
            boxes = made_up.answer(index)
            writer.commit(index, replace(boxes, yaws=boxes.yaws + np.float32(1e-5)), _LATENCIES, _COUNTERS)
        for name in writer.finish():
            stage.add_artifact(f"runs/pytorch-cpu/{name}", kind_of(name))


def read(work: Path, samples: int) -> None:
    """Open a run and read every sample."""
    run = Run.open(work / "runs/onnx-cpu")
    assert sum(map(len, run.predictions_at(range(samples), Boxes3D))) == samples * BOXES


def compare(work: Path, samples: int) -> None:
    """`verifier verify`, of the predictions."""
    from verifier.compare import compare_runs

    reference, test = (Run.open(work / f"runs/{name}") for name in ("pytorch-cpu", "onnx-cpu"))
    assert compare_runs(reference, test, score_threshold=0.1)["results"]["matched"] == samples * BOXES


def evaluate(work: Path, samples: int) -> None:
    """`evaluator evaluate`."""
    _use_made_up_data(samples)
    from evaluator.evaluate import evaluate as evaluate_command

    evaluate_command(work, None, force=True)


def write_report(work: Path, samples: int) -> None:
    """`evaluator report`."""
    _use_made_up_data(samples)
    from evaluator.report.report import report

    report(work, None, force=True)


def keep_version(work: Path, _: int) -> None:
    """`manifest tag` and `evaluator history`."""
    from evaluator.history import history

    tag(work, "v1")
    history(work, (), None)


def write_manifest(work: Path, _: int) -> None:
    """One write of the manifest."""
    update_manifest(work / MANIFEST_NAME, lambda manifest: None)


def _use_made_up_data(samples: int) -> None:
    """Let commands open the made-up data set in place of an info file, which is the user's and not measured."""
    dataset = MadeUp().dataset(samples)
    shared.data.open_dataset = lambda *_, **__: dataset


STEPS: dict[str, Callable[[Path, int], None]] = {
    "write 8 shards": write_shards,
    "merge the shards": merge_shards,
    "write the run in one process": write_run,
    "read every sample": read,
    "compare the two runs": compare,
    "evaluate, with intervals": evaluate,
    "report": write_report,
    "tag, history": keep_version,
    "write the manifest": write_manifest,
}


# -- measuring --------------------------------------------------------------------------------------------------------


def _run_step(name: str, work: Path, samples: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.scale", "--folder", str(work), "--samples", str(samples)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    answer = subprocess.run([*command, "--step", name], check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return {**json.loads(answer.stdout.splitlines()[-1]), "disk_mb": _disk_mb(work)}


def _disk_mb(folder: Path) -> float:
    files = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return round(sum({status.st_ino: status.st_size for status in files}.values()) / 1e6, 1)  # a version has hard links


def _step(name: str, work: Path, samples: int) -> dict[str, float]:
    before, started = _usage(), time.perf_counter()
    STEPS[name](work, samples)
    cpu, peak_mb = _usage()
    return {
        "seconds": round(time.perf_counter() - started, 2),
        "cpu_seconds": round(cpu - before[0], 2),
        "peak_mb": round(peak_mb - before[1], 1),
    }


def _usage() -> tuple[float, float]:
    """Seconds of CPU so far, and the highest memory [MB] of a process: of this one and its children."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in both), max(each.ru_maxrss for each in both) / 1024


def measure(folder: Path, samples: int, steps: list[str]) -> dict[str, dict[str, float]]:
    """Every step on a new workspace in ``folder``, which is removed."""
    folder.mkdir(parents=True)
    try:
        work = folder / "work"
        make(work)
        found = {}
        for name in steps:
            found[name] = _run_step(name, work, samples)
            sys.stderr.write(f"{samples} samples, {name}: {found[name]}\n")
        return found
    finally:
        shutil.rmtree(folder)


def table(results: dict[int, dict[str, dict[str, float]]]) -> str:
    """Markdown: per step, seconds of CPU and MB beside what Python and its packages take, by number of samples."""
    heads = [f"{samples:,}" for samples in results]
    columns = ["step", *(f"{head}: CPU [s]" for head in heads), *(f"{head}: memory [MB]" for head in heads)]
    rows = ["| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
    for name in STEPS:
        cells = [str(found[name][key]) if name in found else "" for key in ("cpu_seconds", "peak_mb")
                 for found in results.values()]  # fmt: skip
        rows.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(rows)


def main() -> None:
    """Measure, print JSON and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--samples", type=int, nargs="+", default=[10_000])
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--step", choices=list(STEPS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        print(json.dumps(_step(given.step, given.folder, given.samples[0])))
        return
    results = {samples: measure(given.folder, samples, given.steps) for samples in given.samples}
    print(json.dumps(results, indent=1))
    print(table(results))


if __name__ == "__main__":
    main()
