"""Latency against metric: which choices are on the front, drops and their intervals, ties."""

from __future__ import annotations

import csv
import io
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.pareto import Measured, as_csv, described, measured_choices, pareto_front, table
from evaluator.report import precisions
from evaluator.report.material import Material
from evaluator.report.pareto_chart import pareto_chart
from evaluator.report.svg import standalone
from shared.errors import InputError, UsageError
from shared.workspace import Workspace
from tests.support.workspaces import make_workspace


def entry(latency: float, metric: float | None, snr: float | None = None, *, reference: bool = False) -> dict[str, Any]:
    return {"latency_ms": latency, "metric": metric, "lowest_snr_db": snr, "reference": reference}


values = st.integers(0, 5).map(float)


@given(st.lists(st.tuples(values, values), min_size=1, max_size=12))
def test_a_choice_is_on_the_front_iff_no_other_beats_it(points: list[tuple[float, float]]) -> None:
    found = [entry(*point) for point in points]
    front = {(each["latency_ms"], each["metric"]) for each in pareto_front(found)}
    for latency, metric in points:
        beaten = any((other[0] <= latency and other[1] >= metric) and other != (latency, metric) for other in points)
        assert ((latency, metric) in front) == (not beaten)


def test_of_two_that_are_equal_one_is_on_the_front() -> None:
    assert len(pareto_front([entry(1.0, 90.0), entry(1.0, 90.0)])) == 1


def test_without_metrics_the_signal_to_noise_ratio_takes_their_place() -> None:
    reference, fast, worse = entry(3.0, None, reference=True), entry(1.0, None, 20.0), entry(2.0, None, 10.0)
    assert pareto_front([reference, fast, worse]) == [fast, reference]


def test_a_choice_that_was_only_timed_is_not_on_the_front() -> None:
    assert pareto_front([entry(2.0, 90.0), entry(1.0, None)]) == [entry(2.0, 90.0)]


def measured(key: str, policy: str, latency: float, scores: list[float], frames: str = "same") -> Measured:
    replicates = np.array(scores)
    return Measured(
        key=key,
        record={"label": policy, "policies": {"head": policy}, "int8": [], "fp32": []},
        latency={"latency_ms": latency, "components_ms": {"head": latency}, "total": {"median": latency + 1}},
        evaluation={
            "headline": {"mAP": float(replicates.mean())},
            "intervals": {"mAP": {"low": float(replicates.min()), "high": float(replicates.max())}},
            "frames": frames,
            "run": {"samples": 12},
        },
        replicates={"mAP": replicates},
        run=None,
    )


def test_drops_are_paired_and_in_points() -> None:
    scores = np.linspace(0.5, 0.9, 50)
    found = described(
        [measured("b", "fp16", 1.0, list(scores - 0.002)), measured("a", "fp32", 2.0, list(scores))], None
    )
    assert [each["label"] for each in found] == ["fp16", "fp32"]
    assert [each["reference"] for each in found] == [False, True]
    assert found[0]["drop"] == pytest.approx(0.2)
    assert found[0]["drop_interval"] == pytest.approx({"low": 0.2, "high": 0.2})
    assert found[0]["interval"]["high"] - found[0]["interval"]["low"] > 30


def test_other_frames_give_no_interval() -> None:
    scores = [0.5, 0.6, 0.7]
    found = described([measured("a", "fp32", 2.0, scores), measured("b", "fp16", 1.0, scores, "others")], None)
    assert found[0]["drop_interval"] is None


def test_a_reference_that_was_not_measured_is_refused() -> None:
    with pytest.raises(UsageError, match="no choice 'x'"):
        described([measured("a", "fp32", 2.0, [0.5])], "x")


def test_table_csv_and_picture_show_the_same() -> None:
    scores = list(np.linspace(0.5, 0.9, 50))
    content = {"onnx-cpu": described([measured("a", "fp32", 2.0, scores), measured("b", "fp16", 1.0, scores)], "a")}
    assert "fp16" in table("onnx-cpu", content["onnx-cpu"]).text()
    rows = list(csv.DictReader(io.StringIO(as_csv(content))))
    assert [(row["label"], float(row["latency_ms"]), float(row["drop"])) for row in rows] == [
        ("fp16", 1.0, 0.0),
        ("fp32", 2.0, 0.0),
    ]
    assert float(rows[0]["drop_low"]) == 0.0
    picture = xml.etree.ElementTree.fromstring(standalone([pareto_chart("onnx-cpu", content["onnx-cpu"]).svg]))
    assert sum(element.tag.endswith("circle") for element in picture.iter()) == 2


@pytest.mark.parametrize("change", [{"inputs": 1}, {"policies": []}, {"int8": None}, {"key": ...}])
def test_a_strange_record_of_a_choice_is_an_input_error(tmp_path: Path, change: dict[str, Any]) -> None:
    base = make_workspace(tmp_path)
    folder = base.place("choices/a")
    folder.make_folder()
    record = {"key": "a", "label": "x", "policies": {}, "int8": [], "fp32": [], "inputs": {}, **change}
    value = {name: each for name, each in record.items() if each is not ...}
    choice = Workspace.create(folder.checked())
    with choice.stage("choice", tool="trt_builder") as stage:
        stage.json_artifact("choice.json", "choice", value)
    with pytest.raises(InputError, match="is no record of a choice"):
        measured_choices(base)


def test_choices_of_an_earlier_export_are_left_out(tmp_path: Path) -> None:
    base = make_workspace(tmp_path)
    folder = base.place("choices/a")
    folder.make_folder()
    choice = Workspace.create(folder.checked())
    times = {"latency_ms": 1.0, "components_ms": {"head": 1.0}, "total": {"median": 2.0}}
    with choice.stage("time:onnx-cpu", tool="trt_builder") as stage:
        stage.result("choice", "onnx-cpu", times)
    record = {"key": "a", "label": "x", "policies": {}, "int8": [], "fp32": [], "inputs": {"onnx/a.onnx": "0"}}
    with choice.stage("choice", tool="trt_builder") as stage:
        stage.json_artifact("choice.json", "choice", record)
    assert measured_choices(base) == {}
    with choice.stage("choice", tool="trt_builder") as stage:
        stage.json_artifact("choice.json", "choice", {**record, "inputs": {}})
    assert [each.key for each in measured_choices(base)["onnx-cpu"]] == ["a"]


def test_the_report_has_a_section_where_choices_were_measured(tmp_path: Path) -> None:
    base = make_workspace(tmp_path)

    def material() -> Material:
        return Material(base, base.manifest(), base.spec(), {}, {}, None, "")

    assert precisions.section(material(), None) is None
    scores = list(np.linspace(0.5, 0.9, 50))
    found = described([measured("a", "fp32", 2.0, scores), measured("b", "fp16", 1.0, scores)], "a")
    with base.stage("pareto", tool="evaluator") as stage:
        stage.json_artifact("choices/pareto.json", "pareto", {"format": 1, "runs": {"onnx-cpu": found}})
    section = precisions.section(material(), None)
    assert section is not None
    assert [block.kind for block in section.blocks] == ["charts", "grid"]
