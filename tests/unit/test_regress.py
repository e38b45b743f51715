"""evaluator baseline and regress: what is kept, what is a change and what is none, and what can't be compared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluator.baseline import export, list_baselines, remove_baseline, set_baseline, show_baseline
from evaluator.evaluate import evaluate
from evaluator.latency_change import latency_change
from evaluator.measured import Machine, Measured, Quantity, Round, json_schema, packed, read_measured, write_measured
from evaluator.measuring import measured
from evaluator.regress import judge, regress
from evaluator.regress_lines import compare
from evaluator.summary import summary as summarized
from shared.answer import Answer
from shared.config.gates_section import Gates
from shared.errors import GateFailed, InputError, UsageError
from shared.latency import TOTAL, WAITED, round_of
from shared.manifest import update_manifest
from shared.tasks.detection3d import Boxes3D
from shared.versions import KeptWorkspace, read_version, versions
from shared.workspace import Workspace
from tests.support.junit_schema import checked, verdicts
from tests.support.workspaces import add_run, good_boxes, make_workspace
from verifier.verify import verify

FRAMES = 40
PROCESSOR = {"processor": "2 x Test CPU", "yardstick_ms": "1.000"}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A run that was evaluated, and is baseline v1. Not to be written to."""
    workspace = make_workspace(tmp_path_factory.mktemp("evaluated"), samples=FRAMES)
    _run(workspace, {index: good_boxes(workspace, index) for index in range(FRAMES)})
    set_baseline(workspace.root, "v1", "the first", move=False, file=workspace.root.parent / "git" / "v1.json")
    return workspace


@pytest.fixture(scope="module")
def lost(evaluated: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The same, whose run then lost half a point: it is less sure of one in six boxes. Not to be written to."""
    workspace = _copy(evaluated, tmp_path_factory.mktemp("lost"))
    boxes = {}
    for index in range(FRAMES):
        found = good_boxes(workspace, index)
        unsure = np.random.default_rng(index).random(len(found)) < 0.16
        boxes[index] = replace(found, scores=np.maximum(found.scores - 0.3 * unsure, 0.1).astype(np.float32))
    _run(workspace, boxes)
    return workspace


def _copy(workspace: Workspace, folder: Path) -> Workspace:
    shutil.copytree(workspace.root, folder / "work")
    return Workspace.open(folder / "work")


def _run(workspace: Workspace, boxes: dict[int, Boxes3D]) -> None:
    add_run(workspace, "onnx", samples=FRAMES, boxes=boxes)
    evaluate(workspace.root, None, False)


def _rounds(medians: Sequence[float], requests: int = 100, **changes: Any) -> list[Round]:
    """Processes whose requests take about so long, half of it in a stage."""
    rounds = []
    for seed, median in enumerate(medians):
        total = np.random.default_rng(seed).normal(median, median / 100, requests)
        rounds.append(Round.model_validate({**round_of({TOTAL: total, "head": total / 2}, PROCESSOR), **changes}))
    return rounds


def _measured(rounds: list[Round], quantities: Sequence[Quantity] = ()) -> Measured:
    return Measured(
        name="v1", created="2026-01-01T00:00:00+00:00", model="m", machine=Machine(host="vm"), versions={},
        scores={}, latencies={"onnx-cpu": rounds} if rounds else {}, quantities=list(quantities),
    )  # fmt: skip


def _verdicts(before: Measured, now: Measured) -> dict[str, str]:
    return {line.name: line.verdict for line in compare(before, now, Gates())}


# -- baselines --------------------------------------------------------------------------------------------------------


def test_a_baseline_is_a_marked_version_and_a_file(evaluated: Workspace, tmp_path: Path) -> None:
    file = evaluated.root.parent / "git" / "v1.json"
    assert [(version.name, version.baseline) for version in versions(evaluated.root)] == [("v1", True)]
    assert "the first" in list_baselines(evaluated.root)
    assert "T4 mAPH" in show_baseline(evaluated.root, "v1")
    export(evaluated.root, "v1", tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == file.read_bytes()
    workspace = _copy(evaluated, tmp_path)
    remove_baseline(workspace.root, "v1")
    assert list_baselines(workspace.root).startswith("no baseline yet")


def test_a_file_holds_draws_and_nothing_that_grows_with_the_samples(evaluated: Workspace) -> None:
    file = evaluated.root.parent / "git" / "v1.json"
    scores = read_measured(file).scores["onnx-cpu"]
    assert {len(values) for values in scores.drawn().values()} == {400}
    assert set(scores.lower_is_better) == {"ATE", "ASE", "AOE", "AVE", "AAE"}
    assert file.stat().st_size < 40_000


def test_what_is_no_baseline_is_refused(evaluated: Workspace, tmp_path: Path) -> None:
    workspace = _copy(evaluated, tmp_path)
    remove_baseline(workspace.root, "v1")
    with pytest.raises(UsageError, match="there is no baseline"):
        regress(workspace.root, None, None)
    with pytest.raises(UsageError, match="there is no version 'v2'"):
        regress(workspace.root, None, "v2")
    for missing in ("nofile/foo.json", "nofile/foo", "foo.json"):
        with pytest.raises(InputError, match=rf"{missing}: can.t be read .No such file"):
            regress(workspace.root, None, missing)
    other = tmp_path / "other.json"
    other.write_text("{}")
    with pytest.raises(InputError, match="is no baseline"):
        regress(workspace.root, None, str(other))
    other.write_text("[]")
    with pytest.raises(InputError, match=r"is no baseline, which is an object\."):
        regress(workspace.root, None, str(other))
    content = json.loads((evaluated.root.parent / "git" / "v1.json").read_text())
    for part, value in (
        ("replicates", {"mAP": "no base64"}),
        ("replicates", {"mAP": "AAAA"}),
        ("values", {"mAP": "x"}),
    ):
        scores = {**content["scores"]["onnx-cpu"], part: value}
        other.write_text(json.dumps({**content, "scores": {"onnx-cpu": scores}}))
        with pytest.raises(InputError, match=f"is no baseline .scores.onnx-cpu.{part}.mAP"):
            regress(workspace.root, None, str(other))
    with pytest.raises(InputError, match="nothing is measured"):
        set_baseline(make_workspace(tmp_path / "empty").root, "v1", "", move=False, file=None)


def test_the_schema_describes_a_file(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    file = tmp_path / "v1.json"
    write_measured(file, _measured(_rounds([10.0]), [_quantity(1.0)]))
    jsonschema.validate(json.loads(file.read_text()), json_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**json.loads(file.read_text()), "format": 2}, json_schema())


# -- metrics ----------------------------------------------------------------------------------------------------------


def test_the_same_model_again_is_no_difference(evaluated: Workspace, tmp_path: Path) -> None:
    answer = regress(_copy(evaluated, tmp_path).root, None, None)
    assert {line["verdict"] for line in answer.data["lines"] if line["kind"] == "metric"} == {"no difference"}
    assert "0 worse" in answer


def test_half_a_point_lost_is_found_and_fails(lost: Workspace, tmp_path: Path) -> None:
    workspace = _copy(lost, tmp_path)
    export(workspace.root, "v1", tmp_path / "v1.json")
    with pytest.raises(GateFailed, match="onnx-cpu: mAP is worse by") as failed:
        regress(workspace.root, None, str(tmp_path / "v1.json"), tmp_path / "regress.xml")
    answer = failed.value.answer
    assert answer is not None and "WORSE" in answer
    found = {line["name"]: line for line in answer.data["lines"] if line["kind"] == "metric"}
    assert found["mAP"]["change"] == pytest.approx(-0.005, abs=0.0015)
    assert found["mAP"]["verdict"] == "worse" and found["mAP"]["regression"]
    summary = workspace.manifest().results["regress"]["summary"]
    assert summary["passed"] is False and "onnx-cpu: mAP" in summary["regressions"]
    ends = verdicts(checked(tmp_path / "regress.xml"))
    assert ends["onnx-cpu", "metric mAP"][0] == "failure"
    assert ends["onnx-cpu", "metric mAP"][1].startswith("onnx-cpu: mAP is worse by 0.00")
    assert len(ends) == len(answer.data["lines"])
    page = summarized(workspace.root, markdown=True)
    assert "### Against v1 of " in page and "| onnx-cpu | mAP |" in page and "WORSE" in page


def test_where_nothing_was_compared_no_verdict_is_recorded(evaluated: Workspace, tmp_path: Path) -> None:
    workspace = _copy(evaluated, tmp_path)
    write_measured(tmp_path / "other.json", _measured([], [_quantity(1.0)]))
    with pytest.raises(InputError, match="nothing can be compared"):
        regress(workspace.root, None, str(tmp_path / "other.json"))
    summary = workspace.manifest().results["regress"]["summary"]
    assert "passed" not in summary and summary["not comparable"] > 0


def test_gates_say_how_much_may_be_lost(lost: Workspace) -> None:
    before = measured(KeptWorkspace(lost.root, read_version(lost.root, "v1")))
    for points, fails in ((0.2, True), (2.0, False), (None, False)):
        lines = compare(before, measured(lost), Gates(metric=points))
        assert any(line.verdict == "worse" for line in lines)
        assert any(line.regression for line in lines if line.name == "mAP") is fails


def test_other_frames_are_compared_without_pairs_and_said_so(lost: Workspace) -> None:
    before = measured(KeptWorkspace(lost.root, read_version(lost.root, "v1")))
    other = before.scores["onnx-cpu"].model_copy(update={"frames": "of another data set"})
    lines = compare(before.model_copy(update={"scores": {"onnx-cpu": other}}), measured(lost), Gates())
    found = next(line for line in lines if line.name == "mAP")
    assert (found.low, found.high) == (None, None)
    assert found.why.startswith("other frames")


def test_metrics_computed_with_other_settings_are_not_compared(evaluated: Workspace, tmp_path: Path) -> None:
    workspace = _copy(evaluated, tmp_path)
    evaluate(workspace.root, None, False, t4={"compat": "awml", "min_points": "100"})
    before = measured(KeptWorkspace(workspace.root, read_version(workspace.root, "v1")))
    metrics = {line.name: line for line in compare(before, measured(workspace), Gates()) if line.kind == "metric"}
    t4 = [metrics.pop(name) for name in ("T4 mAP", "T4 mAPH")]
    assert {line.verdict for line in t4} == {"not comparable"}
    for line in t4:
        assert line.why.startswith("computed with other settings: compat awml")
        assert line.why.endswith("the baseline with the usual settings")
    # nuScenes' numbers have no part in it.
    assert {line.verdict for line in metrics.values()} == {"no difference"}
    assert {(metrics[name].low, metrics[name].high) for name in ("mAP", "NDS")} == {(0.0, 0.0)}
    # The same settings on both sides are compared again.
    set_baseline(workspace.root, "v2", "", move=False, file=None)
    answer = regress(workspace.root, None, "v2")
    assert {line["verdict"] for line in answer.data["lines"] if line["kind"] == "metric"} == {"no difference"}


def test_a_file_of_before_settings_were_recorded_by_metric_has_them_for_all(
    evaluated: Workspace, tmp_path: Path
) -> None:
    content = json.loads((evaluated.root.parent / "git" / "v1.json").read_text())
    for scores in content["scores"].values():
        scores["computed_with"] = "compat awml"
    (tmp_path / "v1.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="nothing can be compared: computed with other settings") as error:
        regress(_copy(evaluated, tmp_path).root, None, str(tmp_path / "v1.json"))
    assert error.value.message.endswith("the usual settings, the baseline with compat awml")


def test_a_file_of_before_settings_were_recorded_is_compared(evaluated: Workspace, tmp_path: Path) -> None:
    content = json.loads((evaluated.root.parent / "git" / "v1.json").read_text())
    for scores in content["scores"].values():
        del scores["computed_with"]
    (tmp_path / "v1.json").write_text(json.dumps(content))
    answer = regress(_copy(evaluated, tmp_path).root, None, str(tmp_path / "v1.json"))
    assert {line["verdict"] for line in answer.data["lines"] if line["kind"] == "metric"} == {"no difference"}


def test_an_evaluation_of_earlier_runs_is_refused(evaluated: Workspace, tmp_path: Path) -> None:
    workspace = _copy(evaluated, tmp_path)
    add_run(workspace, "onnx", samples=FRAMES, boxes={0: Boxes3D.empty()})
    for call in (
        lambda: regress(workspace.root, None, None),
        lambda: set_baseline(workspace.root, "v2", "", move=False, file=None),
    ):
        with pytest.raises(InputError, match=r"the evaluation is of another version of runs/onnx-cpu") as error:
            call()
        assert (error.value.hint or "").startswith("evaluate again: ")
    assert [version.name for version in versions(workspace.root)] == ["v1"]
    assert "v1" in list_baselines(workspace.root)


def test_a_verification_of_earlier_runs_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    workspace = make_workspace(tmp_path)
    for backend in ("framework", "pytorch", "onnx"):
        add_run(workspace, backend)
    verify(workspace.root)
    evaluate(workspace.root)
    assert any(each.kind == "verification" for each in measured(workspace).quantities)
    add_run(workspace, "onnx", noise=1e-3)
    evaluate(workspace.root)
    assert not measured(workspace).quantities
    assert "the verification is of another version of runs/onnx-cpu" in caplog.text


def test_a_metric_that_neither_side_knows_is_said_to_be_unknown(evaluated: Workspace) -> None:
    before = measured(evaluated)
    scores = before.scores["onnx-cpu"]
    unknown = scores.model_copy(update={"values": {**scores.values, "mAP": None}})
    without = before.model_copy(update={"scores": {"onnx-cpu": unknown}})
    (line,) = [line for line in compare(without, without, Gates()) if line.name == "mAP"]
    assert (line.verdict, line.why) == ("not comparable", "not known on either side")


def test_errors_get_worse_when_they_rise(evaluated: Workspace) -> None:
    before = measured(evaluated)
    scores = before.scores["onnx-cpu"]
    raised = scores.model_copy(
        update={
            "values": {**scores.values, "ATE": float(scores.values["ATE"] or 0) + 0.1},
            "replicates": packed({name: values + 0.1 * (name == "ATE") for name, values in scores.drawn().items()}),
        }
    )
    lines = compare(before, before.model_copy(update={"scores": {"onnx-cpu": raised}}), Gates())
    found = {line.name: line.verdict for line in lines if line.kind == "metric" and line.verdict != "no difference"}
    assert found == {"ATE": "worse"}


# -- latency ----------------------------------------------------------------------------------------------------------


def test_five_percent_is_found_between_twenty_processes_of_a_quiet_machine() -> None:
    before, now = (
        _measured(_rounds([10.0, 10.1, 9.9, 10.05, 9.95] * 4)),
        _measured(_rounds([10.5, 10.6, 10.4, 10.55, 10.45] * 4)),
    )
    # Single stages differ by more from process to process than the request does.
    assert _verdicts(before, now) == {TOTAL: "worse", "head": "no difference"}
    assert _verdicts(now, before) == {TOTAL: "better", "head": "no difference"}


def test_what_processes_differ_by_is_no_change() -> None:
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(200):
        sides = [_measured(_rounds(10 * np.exp(rng.normal(0, 0.015, 5)), requests=20)) for _ in range(2)]
        alarms += _verdicts(*sides)[TOTAL] != "no difference"
    assert alarms <= 2


def test_one_process_shows_coarse_changes_only() -> None:
    assert _verdicts(_measured(_rounds([10.0])), _measured(_rounds([10.5])))[TOTAL] == "no difference"
    assert _verdicts(_measured(_rounds([10.0])), _measured(_rounds([13.0])))[TOTAL] == "worse"


def test_more_processes_find_less() -> None:
    reach = [latency_change(TOTAL, *[_rounds([10.0] * count)] * 2, 0.01).high for count in (1, 3, 10)]
    assert reach == sorted(reach, reverse=True)


def test_noise_in_the_medians_alone_is_no_change_and_said() -> None:
    quiet, noisy = ({TOTAL: np.concatenate([np.full(20, 10.0), np.full(80, median)])} for median in (10.0, 14.0))
    sides = [_measured([Round.model_validate(round_of(times, PROCESSOR))] * 5) for times in (quiet, noisy)]
    (line,) = compare(*sides, Gates())
    assert (line.verdict, line.change) == ("no difference", pytest.approx(0.0))
    assert line.why.startswith("medians alone changed, by +40.0%")


def test_a_stage_that_hardly_counts_is_no_change() -> None:
    def measured(stage: float) -> Measured:
        times = {TOTAL: np.full(20, 10.0), "decide": np.full(20, stage)}
        return _measured([Round.model_validate(round_of(times, PROCESSOR))] * 5)

    assert _verdicts(measured(0.02), measured(0.06))["decide"] == "no difference"
    assert _verdicts(measured(1.0), measured(3.0))["decide"] == "worse"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"conditions": {**PROCESSOR, "processor": "4 x Other CPU"}}, "measured on 4 x Other CPU, the baseline on"),
        ({"conditions": {**PROCESSOR, "yardstick_ms": "1.100"}}, "the machine runs at another speed: yardstick_ms 1.1"),
        ({"conditions": {}}, "now: it was not recorded what was measured on"),
        ({"conditions": {**PROCESSOR, "threads": "2"}}, "threads 2, the baseline's"),
        ({"disturbed": 80}, "now: other programs disturbed 80 of 100 requests"),
        ({"requests": 3}, "now: 3 requests in a process"),
        (
            {"conditions": {"card": "H200", "sm_clock_mhz": "1200", "memory_clock_mhz": "3201"}},
            "measured on H200, the baseline on 2 x Test CPU",
        ),
    ],
)
def test_latencies_of_other_conditions_are_not_compared(changes: dict[str, Any], why: str) -> None:
    before, now = _measured(_rounds([10.0])), _measured(_rounds([20.0], **changes))
    lines = compare(before, now, Gates())
    assert {line.verdict for line in lines} == {"not comparable"}
    assert all(line.why.startswith(why) for line in lines)
    with pytest.raises(InputError, match="nothing can be compared"):
        judge(lines, Answer(""))


def test_latencies_are_told_in_units_of_the_yardstick() -> None:
    slower = {**PROCESSOR, "yardstick_ms": "1.009"}
    before, now = _measured(_rounds([10.0] * 20)), _measured(_rounds([10.09] * 20, conditions=slower))
    change = next(line.change for line in compare(before, now, Gates()) if line.name == TOTAL)
    assert change == pytest.approx(0.0, abs=1e-9)


def test_a_card_is_compared_at_the_same_clocks_only() -> None:
    def on_card(clock: str | None, median: float) -> Measured:
        clocks = {} if clock is None else {"sm_clock_mhz": clock, "memory_clock_mhz": "3201"}
        return _measured(_rounds([median] * 5, conditions={"card": "H200", **clocks}))

    assert _verdicts(on_card("1980", 10.0), on_card("1980", 11.0))[TOTAL] == "worse"
    assert _verdicts(on_card("1980", 10.0), on_card("1200", 11.0))[TOTAL] == "not comparable"
    assert _verdicts(on_card("1980", 10.0), on_card(None, 11.0))[TOTAL] == "not comparable"


def test_disturbed_requests_are_left_out_where_they_are_few() -> None:
    total, waited = np.full(100, 10.0), np.zeros(100)
    total[:30], waited[:30] = 50.0, 40.0
    found = round_of({TOTAL: total, WAITED: waited}, PROCESSOR)
    assert (found["disturbed"], found["stages"]) == (30, {TOTAL: {"fastest": 10.0, "median": 10.0}})


# -- other numbers ----------------------------------------------------------------------------------------------------


def _quantity(value: float, kind: str = "size", **changes: Any) -> Quantity:
    given = {"kind": kind, "subject": "fp16/head", "name": "engine", "unit": "bytes", "better": "lower", "value": value}
    return Quantity.model_validate(given | changes)


@pytest.mark.parametrize(
    ("before", "now", "verdict", "regression"),
    [
        (_quantity(1e6), _quantity(1.005e6), "no difference", False),
        (_quantity(1e6), _quantity(1.2e6), "worse", True),
        (_quantity(1e6), _quantity(0.8e6), "better", False),
        (_quantity(40.0, "build time", unit="s"), _quantity(50.0, "build time", unit="s"), "no difference", False),
        # The gates let builds take longer unless they are told otherwise.
        (_quantity(40.0, "build time", unit="s"), _quantity(90.0, "build time", unit="s"), "worse", False),
        (_quantity(0, "precision", unit=""), _quantity(1, "precision", unit=""), "worse", True),
        (_quantity(60.0, "verification", unit="dB", better="higher"),
         _quantity(40.0, "verification", unit="dB", better="higher"), "worse", True),
        (_quantity(1e6, made_on="a"), _quantity(2e6, made_on="b"), "not comparable", False),
    ],
)  # fmt: skip
def test_numbers_without_an_interval(before: Quantity, now: Quantity, verdict: str, regression: bool) -> None:
    (line,) = compare(_measured([], [before]), _measured([], [now]), Gates())
    assert (line.verdict, line.regression) == (verdict, regression)


def test_what_one_side_lacks_is_said() -> None:
    size, other = _quantity(1.0), _quantity(1.0, subject="fp16/encoder")
    lines = compare(_measured([], [size]), _measured([], [other]), Gates())
    assert {(line.subject, line.why) for line in lines} == {
        ("fp16/head", "not measured now"),
        ("fp16/encoder", "not in the baseline"),
    }


def test_engines_and_verification_of_a_workspace(evaluated: Workspace, tmp_path: Path) -> None:
    workspace = _copy(evaluated, tmp_path)
    engine = {
        "bytes": 1000, "gpu": {"name": "H200"}, "architecture": "sm90", "engine_memory": 5000, "build_seconds": 12.0,
        "achieved": {"not_as_asked": {}, "share_of_matrix_layers": {"fp16": 0.75, "fp32": 0.25}},
    }  # fmt: skip

    def change(manifest: Any) -> None:
        manifest.stages["build:fp16"] = manifest.stages["evaluate"].model_copy(
            update={"results": ["engines/fp16/head"], "outputs": []}
        )
        manifest.results["engines"] = {"fp16/head": engine}

    update_manifest(workspace.root / "manifest.json", change)
    set_baseline(workspace.root, "v1", "", move=True, file=None)
    engine |= {
        "bytes": 2000,
        "engine_memory": 4000,
        "achieved": {"not_as_asked": {"a": "fp32"}, "share_of_matrix_layers": {"fp16": 0.5}},
    }
    update_manifest(workspace.root / "manifest.json", change)
    lines = compare(
        measured(KeptWorkspace(workspace.root, read_version(workspace.root, "v1"))), measured(workspace), Gates()
    )
    assert {line.name: line.verdict for line in lines if line.subject == "fp16/head"} == {
        "engine": "worse", "on the GPU": "better", "build": "no difference", "layers not as asked": "worse",
        "matrix layers in fp16": "worse",
    }  # fmt: skip
