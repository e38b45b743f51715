"""verifier verify and check on workspaces with recorded runs: scenarios mean what they say, nothing passes unseen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared import formats
from shared.errors import ConfigError, InputError, ManifestError, UsageError, VerificationFailed
from shared.manifest import Manifest, update_manifest
from shared.tasks import find
from shared.tasks.detection3d import Boxes3D
from shared.workspace import Workspace
from tests.support.workspaces import RAW_SAMPLES, SAMPLES, add_run, good_boxes, join, make_workspace, raw_outputs
from verifier.overrides import apply_overrides
from verifier.tolerances import judge, tolerance_from_json
from verifier.verify import check, verify


def _scenario(reference: str, test: str, **more: Any) -> dict[str, Any]:
    return {"ref_backend": reference, "test_backend": test, **more}


def _workspace(folder: Path, scenarios: list[dict[str, Any]] | None = None, **verification: Any) -> Workspace:
    if scenarios is not None:
        verification["scenarios"] = {"onnx": scenarios}
    return make_workspace(folder, verification={"num_verify_samples": len(RAW_SAMPLES)} | verification)


def _three_runs(workspace: Workspace, **onnx: Any) -> None:
    add_run(workspace, "framework", samples=len(RAW_SAMPLES))
    add_run(workspace, "pytorch", noise=1e-6)
    add_run(workspace, "onnx", **({"noise": 1e-6} | onnx))


def _fails(workspace: Workspace, words: str) -> None:
    with pytest.raises(VerificationFailed) as caught:
        verify(workspace.root, (), False)
    assert caught.value.exit_code == 6
    assert words in f"{caught.value.answer}\n{caught.value}"
    summary = workspace.manifest().results["verification"]["summary"]
    assert summary["passed"] is False
    # The second call finds the stage up to date, and must say the same.
    with pytest.raises(VerificationFailed) as again:
        verify(workspace.root, (), False)
    assert (again.value.answer, str(again.value)) == (caught.value.answer, str(caught.value))


def test_runs_that_agree_pass(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path)
    _three_runs(workspace)
    text = verify(workspace.root, (), False)
    assert "verification passed: 3 comparisons" in text
    summary = workspace.manifest().results["verification"]["summary"]
    assert summary["passed"] is True
    assert set(summary["comparisons"]) == {"pytorch-cpu__onnx-cpu", "reference__pytorch-cpu", "reference__onnx-cpu"}
    stored = json.loads(workspace.artifact("verification/pytorch-cpu__onnx-cpu.json").read_text())
    assert stored["samples"] == [f"token{index}" for index in RAW_SAMPLES]
    assert stored["results"]["samples"] == SAMPLES
    assert 0 < stored["outputs"]["heatmap"]["max_abs"] < 1e-4
    assert (
        json.loads(workspace.artifact("verification/reference__onnx-cpu.json").read_text())["results"]["samples"] == 2
    )


def test_second_call_is_up_to_date(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    workspace = _workspace(tmp_path)
    _three_runs(workspace)
    first = verify(workspace.root, (), False)
    with caplog.at_level("INFO"):
        assert verify(workspace.root, (), False) == first
    assert "verify: up to date" in caplog.text
    before = workspace.manifest().stages["verify"]
    verify(workspace.root, ("0.2",), False)
    assert workspace.manifest().stages["verify"].fingerprint != before.fingerprint


def test_raw_outputs_that_differ_fail(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path)
    _three_runs(workspace, noise=0.01)
    _fails(workspace, "heatmap SNR [dB]")


def test_one_element_that_differs_fails(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path)
    outputs = raw_outputs(1)
    outputs["reg"][0, 1, 15, 15] += 0.5
    _three_runs(workspace, noise=0.0, raw={1: outputs})
    _fails(workspace, "reg max |difference|: 0.5, the limit is 0.1")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite_output_fails_in_the_test_and_in_the_reference(tmp_path: Path, value: float) -> None:
    outputs = raw_outputs(0)
    outputs["heatmap"][0, 0, 0, 0] = value
    kind = "NaN" if np.isnan(value) else "Inf"
    workspace = _workspace(tmp_path / "test")
    _three_runs(workspace, noise=0.0, raw={0: outputs})
    _fails(workspace, f"heatmap: 1 {kind} in the test")
    both = _workspace(tmp_path / "both")
    add_run(both, "framework", samples=2, raw={0: outputs})
    add_run(both, "pytorch", raw={0: outputs})
    add_run(both, "onnx", raw={0: outputs})
    _fails(both, f"heatmap: 1 {kind} in the reference")


def test_missing_output_fails(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path)
    only_heatmap = {index: {"heatmap": raw_outputs(index)["heatmap"]} for index in RAW_SAMPLES}
    _three_runs(workspace, noise=0.0, raw=only_heatmap)
    _fails(workspace, "output 'reg' is missing")


def test_other_shape_fails(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path)
    outputs = raw_outputs(0)
    outputs["heatmap"] = outputs["heatmap"][:, :, :8]
    _three_runs(workspace, noise=0.0, raw={0: outputs})
    _fails(workspace, "shape (1, 2, 8, 16), the reference has (1, 2, 16, 16)")


def test_no_raw_outputs_fail(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path)
    for backend in ("framework", "pytorch", "onnx"):
        add_run(workspace, backend, raw_samples=[], raw={index: {} for index in RAW_SAMPLES})
    _fails(workspace, "no raw output was compared")


def test_boxes_that_differ_fail(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path)
    boxes = good_boxes(workspace, 4)
    turned = replace(boxes, yaws=-boxes.yaws)
    _three_runs(workspace, boxes={4: turned})
    _fails(workspace, "results yaw")


def test_lost_boxes_fail_unless_they_are_at_the_score_threshold(tmp_path: Path) -> None:
    for name, score in (("kept", np.float32(0.5)), ("at threshold", np.float32(0.1004))):
        workspace = _workspace(tmp_path / name)
        boxes = good_boxes(workspace, 2)
        scores = boxes.scores.copy()
        scores[0] = score
        changed = replace(boxes, scores=scores)
        add_run(workspace, "framework", samples=2)
        add_run(workspace, "pytorch", boxes={2: changed})
        add_run(workspace, "onnx", boxes={2: changed.select(np.arange(1, len(boxes)))})
        if name == "kept":
            _fails(workspace, "results unmatched, share")
        else:
            verify(workspace.root, (), False)


def _tied_boxes(first: float) -> Boxes3D:
    """Three boxes with one score, in a row that begins at ``first`` [m]."""
    centers = [[first + 3.0 * index, 150.0, 0.0] for index in range(3)]
    return Boxes3D.build(centers, np.ones((3, 3)), np.zeros(3), np.zeros((3, 2)), labels=[0, 0, 0], scores=[0.45] * 3)


def test_ties_are_said_and_do_not_fail(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path)
    boxes = good_boxes(workspace, 1)
    for backend, first in (("framework", 0.0), ("pytorch", 0.0), ("onnx", 1.5)):
        samples = 2 if backend == "framework" else SAMPLES
        add_run(workspace, backend, samples=samples, boxes={1: join(boxes, _tied_boxes(first))})
    text = verify(workspace.root, (), False)
    assert text.count("3 tied") == 2
    summary = workspace.manifest().results["verification"]["summary"]
    tied = {name: result["results"]["tied"] for name, result in summary["comparisons"].items()}
    assert tied == {"pytorch-cpu__onnx-cpu": 3, "reference__pytorch-cpu": 0, "reference__onnx-cpu": 3}


def test_ties_alone_verify_nothing(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path)
    for backend, first in (("framework", 0.0), ("pytorch", 0.0), ("onnx", 1.5)):
        samples = 2 if backend == "framework" else SAMPLES
        add_run(workspace, backend, samples=samples, boxes=dict.fromkeys(range(samples), _tied_boxes(first)))
    _fails(workspace, "results: all 6 pairs are ties")


def test_missing_run_of_a_scenario_fails_unless_optional(tmp_path: Path) -> None:
    tensorrt = _scenario("onnx", "tensorrt", test_device="cuda")
    required = _workspace(tmp_path / "required", [_scenario("pytorch", "onnx"), tensorrt])
    _three_runs(required)
    _fails(required, "scenario onnx on cpu against tensorrt on cuda: no finished run of tensorrt on cuda")
    optional = _workspace(tmp_path / "optional", [_scenario("pytorch", "onnx"), tensorrt | {"optional": True}])
    _three_runs(optional)
    assert "skipped (optional): scenario onnx on cpu against tensorrt on cuda" in verify(optional.root, (), False)


def test_missing_reference_fails(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path, [_scenario("pytorch", "onnx")])
    add_run(workspace, "pytorch")
    add_run(workspace, "onnx")
    _fails(workspace, "the framework reference is missing")


def test_no_runs_at_all_fail(tmp_path: Path) -> None:
    _fails(_workspace(tmp_path), "nothing was compared")


def test_half_a_run_is_no_run(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path)
    add_run(workspace, "framework", samples=2)
    add_run(workspace, "pytorch")
    with pytest.raises(InputError):
        add_run(workspace, "onnx", finish=False)
    _fails(workspace, "no finished run of onnx on cpu")


def test_device_aliases_mean_their_device(tmp_path: Path) -> None:
    scenario = _scenario("pytorch", "onnx", test_device="second")
    workspace = make_workspace(
        tmp_path,
        devices={"cpu": "cpu", "second": "cuda:1"},
        verification={"scenarios": {"onnx": [scenario]}, "num_verify_samples": 2},
    )
    add_run(workspace, "framework", samples=2)
    add_run(workspace, "pytorch")
    add_run(workspace, "onnx", "cuda:0")
    _fails(workspace, "no finished run of onnx on second")
    add_run(workspace, "onnx", "cuda:1")
    assert "pytorch-cpu -> onnx-cuda1: passed" in verify(workspace.root, (), False)


def test_devices_decide_the_default_limits(tmp_path: Path) -> None:
    scenarios = [_scenario("pytorch", "onnx", test_device="cuda")]
    workspace = _workspace(tmp_path, scenarios)
    add_run(workspace, "framework", samples=2)
    add_run(workspace, "pytorch")
    # 42 dB: TF32 explains it, FP32 doesn't.
    noise = 2 * 10 ** (-42 / 20)
    add_run(workspace, "onnx", "cuda:0", noise=noise)
    verify(workspace.root, (), False)
    add_run(workspace, "onnx", "cuda:0", noise=noise, details={"precision": "fp32"})
    _fails(workspace, "SNR")


def test_runs_of_other_samples_or_models_are_refused(tmp_path: Path) -> None:
    for header, words in (
        ({"dataset": "another"}, "differ in their dataset"),
        ({"classes": ["car", "bus"]}, "differ in their classes"),
        ({"model": "pointpillars"}, "differ in their model"),
        ({"tokens": [f"other{index}" for index in range(SAMPLES)]}, "no sample in common"),
    ):
        workspace = _workspace(tmp_path / words)
        _three_runs(workspace, **header)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=words):
            verify(workspace.root, (), False)


def test_run_on_fewer_samples_than_were_recorded_fails(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path)
    _three_runs(workspace, samples=1)
    _fails(workspace, "not in onnx-cpu; run it on more samples")


def test_changed_raw_outputs_are_refused(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path)
    _three_runs(workspace)
    path = workspace.path("runs/onnx-cpu/raw/000001.npz")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ManifestError, match="differs from its hash"):
        verify(workspace.root, (), False)


def test_tolerances_of_config_and_command_line(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path, tolerance=1.0, output_tolerances={"reg": 0.4})
    outputs = raw_outputs(1)
    outputs["reg"][0, 1, 15, 15] += 0.5
    _three_runs(workspace, noise=0.0, raw={1: outputs})
    loose = ("snr_db=20", "cosine=0.99")
    with pytest.raises(VerificationFailed, match="reg max"):
        verify(workspace.root, loose, False)
    for enough in ("0.6", "reg=0.6"):
        verify(workspace.root, (*loose, enough), False)


def test_the_largest_difference_is_judged_in_fp32_or_where_the_config_says(tmp_path: Path) -> None:
    outputs = raw_outputs(1)
    outputs["reg"][0, 1, 15, 15] += 0.2
    for number, (precision, settings, fails) in enumerate(
        [("fp32", {}, True), ("fp16", {}, False), ("fp16", {"tolerance": 0.1}, True)]
    ):
        workspace = _workspace(tmp_path / str(number), [_scenario("pytorch", "onnx")], **settings)
        _three_runs(workspace, noise=0.0, raw={1: outputs}, details={"precision": precision})
        loose = ("snr_db=10", "cosine=0.9")
        if fails:
            with pytest.raises(VerificationFailed, match="reg max"):
                verify(workspace.root, loose, False)
        else:
            verify(workspace.root, loose, False)


def test_scenario_has_its_own_tolerance(tmp_path: Path) -> None:
    outputs = raw_outputs(1)
    outputs["reg"][0, 1, 15, 15] += 0.001
    workspace = _workspace(tmp_path, [_scenario("pytorch", "onnx", tolerance=1e-4)])
    _three_runs(workspace, noise=0.0, raw={1: outputs})
    with pytest.raises(VerificationFailed, match="pytorch-cpu__onnx-cpu: reg max"):
        verify(workspace.root, (), False)


def test_check_judges_again_without_comparing(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path)
    with pytest.raises(InputError, match="nothing was verified here yet"):
        check(workspace.root, ())
    _three_runs(workspace)
    verify(workspace.root, (), False)
    manifest = (workspace.root / "manifest.json").read_bytes()
    assert "passed" in check(workspace.root, ())
    for strict in ("1e-9", "heatmap=1e-9", "snr_db=150", "cosine=1.1"):
        with pytest.raises(VerificationFailed):
            check(workspace.root, (strict,))
    assert (workspace.root / "manifest.json").read_bytes() == manifest
    # The runs themselves are not needed for it.
    for path in workspace.path("runs").rglob("*.npz"):
        path.unlink()
    assert "passed" in check(workspace.root, ())


def test_a_verification_of_earlier_runs_is_not_judged_again(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path)
    _three_runs(workspace)
    verify(workspace.root)
    assert "verification passed" in check(workspace.root, ())
    add_run(workspace, "onnx", noise=1e-3)
    with pytest.raises(InputError, match=r"the verification is of another version of runs/onnx-cpu") as error:
        check(workspace.root, ())
    assert (error.value.hint or "").startswith("verify again: ")


@pytest.mark.parametrize("missing", ["verification", "summary", "skipped", "unable"])
def test_a_manifest_without_the_result_is_one_line(tmp_path: Path, missing: str) -> None:
    workspace = _workspace(tmp_path)
    _three_runs(workspace)
    verify(workspace.root)

    def change(manifest: Manifest) -> None:
        summary = manifest.results["verification"]["summary"]
        for place in (manifest.results, manifest.results["verification"], summary):
            place.pop(missing, None)

    update_manifest(workspace.root / "manifest.json", change)
    with pytest.raises(ManifestError, match=r"results\.verification\.summary\.\w+ is missing"):
        check(workspace.root, ())
    if missing in ("verification", "summary"):
        assert "verification passed" in verify(workspace.root), "a result that is gone is made again"
    else:
        with pytest.raises(ManifestError, match=r"results\.verification\.summary\.\w+ is missing"):
            verify(workspace.root)


def test_an_output_has_limits_of_its_own(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path, tolerance=10.0)
    outputs = raw_outputs(1)
    outputs["reg"] *= 1.01  # 40 dB
    _three_runs(workspace, noise=0.0, raw={1: outputs})
    with pytest.raises(VerificationFailed, match="reg SNR"):
        verify(workspace.root, (), False)
    assert "passed" in check(workspace.root, ("reg.snr_db=30",))
    with pytest.raises(VerificationFailed, match="heatmap cosine"):
        check(workspace.root, ("reg.snr_db=30", "heatmap.cosine=1.1"))
    # Later words count: a limit for every output is one for this output too.
    with pytest.raises(VerificationFailed, match="reg SNR"):
        check(workspace.root, ("reg.snr_db=30", "snr_db=60"))


def test_the_metric_is_stored_and_can_be_judged(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path)
    boxes = good_boxes(workspace, 3)
    lost = boxes.select(np.arange(len(boxes) - 6))
    loose = ("results.unmatched=1",)
    _three_runs(workspace, boxes={3: lost})
    text = verify(workspace.root, loose, False)
    assert "against the reference mAP 0.9" in text
    comparison = workspace.manifest().results["verification"]["summary"]["comparisons"]["pytorch-cpu__onnx-cpu"]
    assert 0.8 < comparison["agreement"]["mAP"] < 1.0
    assert "passed" in check(workspace.root, ("metric=0.8",))
    with pytest.raises(VerificationFailed, match=r"results mAP: 0\.9"):
        check(workspace.root, ("metric=0.999",))


def test_nested_outputs_are_compared_by_their_place(tmp_path: Path) -> None:
    def nested(shift: float) -> dict[str, Any]:
        first, second = np.arange(6.0), np.ones((2, 2))
        return {"levels": [{"boxes": first, "scores": second}, (first, second + shift)], "heatmap": first}

    workspace = _workspace(tmp_path)
    for backend, shift in (("framework", 0.0), ("pytorch", 0.0), ("onnx", 0.5)):
        add_run(workspace, backend, raw={index: nested(shift) for index in RAW_SAMPLES})
    with pytest.raises(VerificationFailed, match=r"levels\.1\.1 max"):
        verify(workspace.root, (), False)
    stored = json.loads(workspace.artifact("verification/pytorch-cpu__onnx-cpu.json").read_text())
    assert set(stored["outputs"]) == {"levels.0.boxes", "levels.0.scores", "levels.1.0", "levels.1.1", "heatmap"}
    assert stored["outputs"]["levels.1.1"]["worst"]["index"] == [0, 0]
    assert "passed" in check(workspace.root, ("levels.1.1=1", "levels.1.1.snr_db=0", "levels.1.1.cosine=0.5"))


def test_traces_and_swapped_runs_are_not_verified(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path)
    _three_runs(workspace)
    with workspace.stage("trace:onnx-cpu", tool="shared") as stage:
        target = workspace.path("traces/onnx-cpu")
        target.mkdir(parents=True)
        for name in ("run.json", "predictions.npz", "samples.jsonl"):
            (target / name).write_bytes(workspace.path(f"runs/onnx-cpu/{name}").read_bytes())
            stage.add_artifact(f"traces/onnx-cpu/{name}", "trace")
    assert "verification passed: 3 comparisons" in verify(workspace.root, (), False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loose", "'loose' has no number"),
        ("heatmap=", "'heatmap=' has no number"),
        ("heatmp=9", "there is no limit 'heatmp'.*did you mean 'heatmap'"),
        ("heatmp.snr_db=9", "there is no limit 'heatmp.snr_db'.*did you mean 'heatmap.snr_db'"),
        ("boxes.center=0.05", "there is no limit 'boxes.center'.*did you mean 'results.center'"),
        ("results.corner=1", "there is no limit 'results.corner'"),  # an error of another task
        ("inf", "'inf' is no limit"),
        ("results.center=inf", "'results.center=inf' is no limit"),
        ("snr_db=-inf", "'snr_db=-inf' is no limit"),
        ("heatmap=nan", "'heatmap=nan' is no limit"),
        ("1e400", "'1e400' is no limit"),
    ],
)
def test_a_tolerance_that_limits_nothing_is_refused(tmp_path: Path, text: str, message: str) -> None:
    workspace = _workspace(tmp_path)
    _three_runs(workspace)
    with pytest.raises(UsageError, match=message):
        verify(workspace.root, (text,), False)
    assert "verify" not in workspace.manifest().stages, "nothing was compared, no attempt is recorded"
    verify(workspace.root, (), False)
    with pytest.raises(UsageError, match=message):
        check(workspace.root, (text,))


def test_a_limit_of_the_config_on_no_output_is_refused(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path, output_tolerances={"rge": 0.4})
    _three_runs(workspace)
    with pytest.raises(ConfigError, match=r"there is no output 'rge'.*did you mean 'reg'"):
        verify(workspace.root, (), False)


def test_limits_that_earlier_versions_stored_are_read(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path)
    _three_runs(workspace)
    verify(workspace.root, (), False)
    stored = json.loads(next(workspace.path("verification").iterdir()).read_text())
    stored["tolerance"]["results"]["errors"] |= {"corner": 0.1, "probability": 0.001}
    limits = tolerance_from_json(stored["tolerance"], find("detection3d"))
    assert judge(stored, limits) == []
    with pytest.raises(UsageError, match=r"no limit 'results.corner'"):
        apply_overrides(limits, ["results.corner=1"], list(stored["outputs"]))


def test_disabled_verification_is_recorded_as_skipped(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path, enabled=False)
    assert "skipped" in verify(workspace.root, (), False)
    assert workspace.manifest().stages["verify"].status == "skipped"


def test_statistics_of_another_version_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = _workspace(tmp_path)
    _three_runs(workspace)
    verify(workspace.root, (), False)
    monkeypatch.setattr(formats, "VERIFICATION", -1)
    with pytest.raises(InputError, match="another version of the verifier"):
        check(workspace.root, ())
