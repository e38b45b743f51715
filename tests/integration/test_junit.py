"""``--junit`` of verification and gates: every check a case, as CI services read it; and the summary as Markdown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from evaluator.cli import cli as evaluator
from evaluator.summary import summary
from shared.cli import ToolGroup
from shared.junit import Case, write_junit
from shared.table import Table
from shared.workspace import Workspace
from tests.support.junit_schema import checked, verdicts
from tests.support.workspaces import add_run, make_workspace, raw_outputs
from verifier.cli import cli as verifier


def _call(tool: ToolGroup, *arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        tool.main([str(argument) for argument in arguments])
    assert isinstance(end.value.code, int)
    return end.value.code


def _workspace(folder: Path, **sections: object) -> Workspace:
    workspace = make_workspace(folder, **sections)
    for backend in ("framework", "pytorch", "onnx"):
        add_run(workspace, backend)
    return workspace


def test_every_check_of_a_verification_is_a_case(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path)
    path = tmp_path / "results" / "verify.xml"
    assert _call(verifier, "verify", "--work", workspace.root, "--junit", path) == 0
    suite = checked(path)
    assert suite.attrib["name"] == "verifier verify"
    ends = verdicts(suite)
    assert set(ends.values()) == {("passed", "")}
    assert {group for group, _ in ends} == {
        "reference -> pytorch-cpu", "reference -> onnx-cpu", "pytorch-cpu -> onnx-cpu",
    }  # fmt: skip
    names = {name for group, name in ends if group == "reference -> onnx-cpu"}
    assert {
        "samples", "heatmap compared and finite", "heatmap max |difference|", "heatmap SNR [dB]", "heatmap cosine",
        "reg cosine", "results finite", "results center", "results yaw", "results score", "results unmatched, share",
    } <= names  # fmt: skip


def test_a_check_that_fails_says_in_its_line_what_is_wrong(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path)
    wrong = raw_outputs(0)
    wrong["heatmap"] = wrong["heatmap"] + 1.0
    wrong["reg"][0, 0, 0, 0] = float("nan")
    add_run(workspace, "onnx", raw={0: wrong})
    path = tmp_path / "verify.xml"
    assert _call(verifier, "verify", "--work", workspace.root, "--junit", path) == 6
    ends = verdicts(checked(path))
    kind, line = ends["reference -> onnx-cpu", "heatmap max |difference|"]
    assert (kind, line) == ("failure", "heatmap max |difference|: 1, the limit is 0.1")
    assert ends["reference -> onnx-cpu", "reg compared and finite"] == ("failure", "reg: 1 NaN in the test")
    assert ends["reference -> pytorch-cpu", "heatmap max |difference|"][0] == "passed"
    # Judged again with other limits, and written again although nothing is compared.
    assert _call(verifier, "check", "--work", workspace.root, "--tolerance", "heatmap=2", "--junit", path) == 6
    assert verdicts(checked(path))["reference -> onnx-cpu", "heatmap max |difference|"][0] == "passed"


def test_scenarios_without_a_run_are_skipped_or_fail(tmp_path: Path) -> None:
    cpu = {"ref_backend": "pytorch", "ref_device": "cpu", "test_device": "cuda"}
    scenarios = {
        "onnx": [{**cpu, "test_backend": "onnx"}, {**cpu, "test_backend": "tensorrt", "optional": True}],
    }
    workspace = _workspace(tmp_path, verification={"num_verify_samples": 2, "scenarios": scenarios})
    path = tmp_path / "verify.xml"
    assert _call(verifier, "verify", "--work", workspace.root, "--junit", path) == 6
    found = [end for (group, _), end in verdicts(checked(path)).items() if group == "scenarios"]
    assert found == [
        ("skipped", "scenario pytorch on cpu against tensorrt on cuda: no finished run of tensorrt on cuda; "
         "the scenario is optional"),
        ("failure", "scenario pytorch on cpu against onnx on cuda: no finished run of onnx on cuda"),
    ]  # fmt: skip


def test_what_the_config_turns_off_is_skipped_with_the_reason(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path, verification={"enabled": False}, evaluation={"enabled": False})
    verified, gates = tmp_path / "verify.xml", tmp_path / "gates.xml"
    assert _call(verifier, "verify", "--work", workspace.root, "--junit", verified) == 0
    assert verdicts(checked(verified)) == {("verify", "verification"): ("skipped", "verification.enabled is false")}
    assert _call(evaluator, "evaluate", "--work", workspace.root, "--fail-if", "mAP < 0.5", "--junit", gates) == 0
    assert verdicts(checked(gates)) == {("evaluate", "mAP < 0.5"): ("skipped", "evaluation.enabled is false")}


def test_every_gate_is_a_case_of_its_run(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path)
    path = tmp_path / "gates.xml"
    gates = ("--fail-if", "mAP < 0.1", "--fail-if", "onnx-cpu: latency mean > 1")
    assert _call(evaluator, "evaluate", "--work", workspace.root, *gates, "--junit", path) == 6
    ends = verdicts(checked(path))
    assert ends["onnx-cpu", "mAP < 0.1"] == ends["pytorch-cpu", "mAP < 0.1"] == ("passed", "")
    assert ends["onnx-cpu", "onnx-cpu: latency mean > 1"] == (
        "failure", "onnx-cpu: onnx-cpu: latency mean > 1, the value is 12.5000",
    )  # fmt: skip
    before = path.read_bytes()
    path.unlink()
    # Up to date: judged and written all the same.
    assert _call(evaluator, "evaluate", "--work", workspace.root, *gates, "--junit", path) == 6
    assert path.read_bytes() == before


def test_names_of_strangers_stay_text(tmp_path: Path) -> None:
    with Workspace.create(tmp_path / "w").stage("verify", tool="verifier"):
        pass
    stage = Workspace.open(tmp_path / "w").manifest().stages["verify"]
    path = tmp_path / "cases.xml"
    write_junit(path, "s", [Case('<a href="x">', "out\x1b[31m\n]]>&", failure="\ud800 <b>")], stage)
    assert verdicts(checked(path)) == {('<a href="x">', r"out\x1b[31m\n]]>&"): ("failure", r"\ud800 <b>")}


def test_the_summary_as_markdown_has_the_numbers_of_the_text(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path)
    _call(verifier, "verify", "--work", workspace.root)
    assert _call(evaluator, "evaluate", "--work", workspace.root, "--fail-if", "mAP < 1.1") == 6
    text, page = summary(workspace.root), summary(workspace.root, markdown=True)
    titles = ["Stages of centerpoint", "Verification", "Runs side by side (95% intervals)", "Gates: a run fails if"]
    assert re.findall(r"^### (.*)$", page, re.MULTILINE) == [title.replace("<", r"\<") for title in titles]
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert all(line.count("|") == rows[0].count("|") for line in rows[:3])
    shown = page.replace("\\", "")
    assert all(title in text for title in titles)
    for value in re.findall(r"\d\.\d{3,}", text):
        assert value in shown
    assert "| mAP < 1.1 | onnx-cpu |" in shown and "FAILED" in shown


def test_markdown_shows_text_as_it_is() -> None:
    table = Table("a|b", ["name", "n"], [["<img src=x>", "1"], ["[a](b) `c` *d*", "2"]])
    assert table.markdown().splitlines() == [
        r"### a\|b", "", "| name | n |", "| --- | --: |", r"| \<img src=x> | 1 |", r"| \[a\](b) \`c\` \*d\* | 2 |",
    ]  # fmt: skip
