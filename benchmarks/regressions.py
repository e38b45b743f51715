"""How often `evaluator regress` finds a change of latency where there is none, and whether it finds a planted one.

`measure` runs the same model in processes of their own, in groups with a pause between them, each of which appends a
line to a file; in some groups every request really takes longer. `judge` compares pairs of stretches of such processes,
drawn from all that do not overlap, as `evaluator regress` compares a baseline with what is there now.

    python -m benchmarks.regressions measure --work work/calibration --out work/regressions.jsonl --groups 50
    python -m benchmarks.regressions judge work/regressions.jsonl
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from evaluator.measured import Machine, Measured, Round
from evaluator.regress_lines import BETTER, NOT_COMPARABLE, WORSE, compare
from runtime.bench import by_stage, measure, settle
from runtime.conditions import conditions
from runtime.model import open_model
from runtime.pipeline import Inference, Pipeline
from shared.config.gates_section import Gates
from shared.latency import TOTAL, round_of

#: So much longer a planted request takes.
PLANTED = 0.05
_PROCESSES_OF_A_GROUP = 10


@dataclass(frozen=True)
class Slower:
    """A pipeline whose requests take a share longer: a loop that keeps the processor busy after the last step."""

    pipeline: Pipeline
    share: float

    def infer(self, data: Any) -> Inference:
        """See `runtime.pipeline.Pipeline`."""
        answer = self.pipeline.infer(data)
        added = self.share * answer.latency_ms[TOTAL]
        until = time.perf_counter() + added / 1e3
        while time.perf_counter() < until:
            pass
        return replace(answer, latency_ms={**answer.latency_ms, TOTAL: answer.latency_ms[TOTAL] + added})


def one_process(work: Path, threads: int, seconds: float, share: float) -> dict[str, Any]:
    """What this process measures: a line of the file."""
    model = open_model(work, "onnx", "cpu", threads=threads)
    _, found = model.load()
    data = found.read(model.dataset.sample(model.config.data.sample_idx)).data
    pipeline: Any = Slower(found, share) if share else found
    settle(pipeline, data, 10.0)
    totals, staged, _ = measure(pipeline, data, 20, seconds)
    made = round_of(by_stage(totals, staged), conditions(model.device))
    return {"time": time.time(), "load": os.getloadavg()[0], "planted": share, "round": made}


def measure_groups(work: Path, out: Path, groups: int, pause: float, seconds: float) -> None:
    """Append the lines of ``groups`` groups of processes; every fifth group is planted."""
    for group in range(groups):
        share = PLANTED if group % 5 == 4 else 0.0
        options = ["--work", str(work), "--seconds", str(seconds), "--share", str(share)]
        for _ in range(_PROCESSES_OF_A_GROUP):
            command = [sys.executable, "-m", "benchmarks.regressions", "process", *options]
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            with out.open("a", encoding="utf-8") as file:
                file.write(answer.stdout)
        time.sleep(pause)


def judge(lines: Sequence[dict[str, Any]], processes: int, trials: int, seed: int = 0) -> dict[str, Any]:
    """Verdicts on ``trials`` pairs of stretches of ``processes`` processes: same and same, planted and same."""
    same = [Round.model_validate(line["round"]) for line in lines if not line["planted"]]
    planted = [Round.model_validate(line["round"]) for line in lines if line["planted"]]
    rng = np.random.default_rng(seed)
    found: dict[str, Any] = {}
    for name, others in (("same", same), ("planted", planted)):
        totals: Counter[str] = Counter()
        alarms = 0
        for _ in range(trials if len(others) >= processes else 0):
            first, second = int(rng.integers(len(same) - processes + 1)), int(rng.integers(len(others) - processes + 1))
            while others is same and abs(first - second) < processes:
                second = int(rng.integers(len(others) - processes + 1))
            sides = (same[first : first + processes], others[second : second + processes])
            compared = compare(*(_document(side) for side in sides), Gates())
            totals.update(line.verdict for line in compared if line.name == TOTAL)
            alarms += any(line.verdict in (BETTER, WORSE) for line in compared)
        comparable = totals.total() - totals[NOT_COMPARABLE]
        found[name] = {"trials": totals.total(), "comparable": comparable, "worse": totals[WORSE], "any change": alarms}
    return found


def _document(rounds: list[Round]) -> Measured:
    return Measured(
        name="", created="", model="", machine=Machine(host=""), versions={}, scores={}, quantities=[],
        latencies={"onnx-cpu": rounds},
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="False alarms and found changes of evaluator regress")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("measure", "process"):
        command = commands.add_parser(name)
        command.add_argument("--work", type=Path, required=True)
        command.add_argument("--seconds", type=float, default=1.0)
        command.add_argument("--share", type=float, default=0.0)
        command.add_argument("--out", type=Path, default=Path("work/regressions.jsonl"))
        command.add_argument("--groups", type=int, default=50)
        command.add_argument("--pause", type=float, default=30.0)
    command = commands.add_parser("judge")
    command.add_argument("file", type=Path)
    command.add_argument("--trials", type=int, default=500)
    given = parser.parse_args()
    if given.command == "process":
        print(json.dumps(one_process(given.work, 1, given.seconds, given.share)))
    elif given.command == "measure":
        measure_groups(given.work, given.out, given.groups, given.pause, given.seconds)
    else:
        recorded = [json.loads(line) for line in given.file.read_text(encoding="utf-8").splitlines()]
        loads = [line["load"] for line in recorded]
        result = {str(count): judge(recorded, count, given.trials) for count in (1, 5, 10, 20)}
        print(
            json.dumps({"processes": len(recorded), "load": [min(loads), max(loads)], "by processes": result}, indent=1)
        )
