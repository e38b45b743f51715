"""The benchmark suite: what a part measures, one file and one page, and two files compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import suite
from benchmarks.regressions import judge
from evaluator.cli import cli
from evaluator.measured import Machine, Measured, Round, read_measured, write_measured
from shared.latency import PROCESSOR, TOTAL, YARDSTICK, round_of


def _measured(*medians: float) -> Measured:
    conditions = {PROCESSOR: "2 x Test CPU", YARDSTICK: "1.0"}
    rounds = [Round.model_validate(round_of({TOTAL: np.full(12, median)}, conditions)) for median in medians]
    return Measured(
        name="bench-suite", created="2026-01-01T00:00:00+00:00", model="bench-suite", machine=Machine(host="vm"),
        versions={"numpy": "2.4.6"}, scores={}, latencies={"voxelization": rounds}, quantities=[],
    )  # fmt: skip


def test_a_step_is_measured_call_by_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "_CALLS", 6)
    found = Round.model_validate(suite.one_process("voxelization"))
    assert found.requests == 6 and found.stages.keys() == {"voxelize", "decorate", TOTAL}
    assert found.stages[TOTAL].fastest > found.stages["voxelize"].fastest > 0
    assert found.conditions.keys() == {PROCESSOR, YARDSTICK}


def test_two_files_compare_with_regress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, now = tmp_path / "a.json", tmp_path / "b.json"
    write_measured(before, _measured(*[10.0] * 10))
    write_measured(now, _measured(*[11.0] * 10))
    for first, second, code in ((before, now, 6), (now, before, 0), (before, before, 0)):
        with pytest.raises(SystemExit) as stop:
            cli.main(["regress", str(second), "--baseline", str(first), "--json"])
        assert stop.value.code == code
        (line,) = json.loads(capsys.readouterr().out)["lines"]
        assert line["verdict"] == ("no difference" if first is second else "worse" if code else "better")


def test_the_page_has_machine_versions_and_every_number(tmp_path: Path) -> None:
    write_measured(tmp_path / "suite.json", _measured(10.0))
    page = suite.page(read_measured(tmp_path / "suite.json"))
    assert "vm" in page and "numpy 2.4.6" in page
    assert "| voxelization | 1 | 12 | - | 10.000 | 10.000 |" in page


def test_false_alarms_are_counted_over_stretches_of_processes() -> None:
    rng = np.random.default_rng(0)
    lines = [
        {"planted": planted, "round": _measured(float(10 * (1 + planted) * np.exp(rng.normal(0, 0.01))))
         .latencies["voxelization"][0].model_dump()}
        for planted in (0.0, 0.1)
        for _ in range(40)
    ]  # fmt: skip
    found = judge(lines, processes=10, trials=100)
    assert found["same"]["any change"] <= 1
    assert found["planted"]["worse"] == found["planted"]["comparable"] == 100
