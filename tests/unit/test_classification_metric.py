"""Metrics of classification, against scikit-learn and by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator.evaluate import evaluate
from evaluator.metrics import classification as metric
from evaluator.metrics import find_metric
from evaluator.stored import stored_evaluations
from shared.config.check_sections import Evaluation
from shared.data import DataSettings, open_dataset
from shared.errors import InputError
from shared.runs import Run, RunWriter
from shared.tasks.classification import ClassScores
from tests.support.calibration_data import CLASSES, entry, workspace_of, write_pair
from tests.support.run_files import run_header


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = write_pair(tmp_path_factory.mktemp("pairs"), [entry(index) for index in range(30)])
    settings = DataSettings(format="info", root=folder, info_file=Path("infos.json"))
    dataset = open_dataset(settings, task="classification")
    return [dataset.sample(index) for index in range(len(dataset))]


def truth_of(samples) -> metric.Truth:
    truth = metric.ground_truth(samples, CLASSES, CLASSES)
    assert truth is not None
    return truth


def matched(samples, logits, decisions=None) -> metric.Matched:
    logits = np.asarray(logits, float)
    own = logits.argmax(axis=1) if decisions is None else np.asarray(decisions)
    return metric.Matched(truth_of(samples), CLASSES, logits, own)


def some_logits(samples, seed: int = 0, skill: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    labels = np.array([sample.label for sample in samples])
    logits = rng.normal(0, 1, (len(samples), 2))
    logits[np.arange(len(samples)), labels] += skill
    return logits


def write_run(folder: Path, samples, logits, counters=None, labels=None) -> Run:
    header = run_header([sample.token for sample in samples], task="classification", classes=CLASSES)
    writer = RunWriter.open(folder, header)
    for index, row in enumerate(logits):
        scores = ClassScores.build(row, None if labels is None else labels[index])
        writer.commit(index, scores, {"total": 1.0}, counters[index] if counters else None)
    writer.finish()
    return Run.open(folder)


def test_equals_scikit_learn(samples) -> None:
    logits = some_logits(samples)
    result = metric.evaluate(matched(samples, logits))
    labels = np.array([sample.label for sample in samples])
    decided = logits.argmax(axis=1)
    decisions = result["decisions"]
    assert decisions["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(labels, decided))
    assert decisions["balanced_accuracy"] == pytest.approx(sklearn.metrics.balanced_accuracy_score(labels, decided))
    assert decisions["confusion"] == sklearn.metrics.confusion_matrix(labels, decided).tolist()
    rows = sklearn.metrics.precision_recall_fscore_support(labels, decided)
    for index, name in enumerate(CLASSES):
        row = decisions["classes"][name]
        assert [row["precision"], row["recall"], row["f1"], row["support"]] == pytest.approx(
            [values[index] for values in rows]
        )
    assert decisions["macro"]["f1"] == pytest.approx(sklearn.metrics.f1_score(labels, decided, average="macro"))
    score = logits[:, 0] - logits[:, 1]
    assert result["separation"]["roc_auc"] == pytest.approx(sklearn.metrics.roc_auc_score(labels == 0, score))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert result["confidence"]["log_loss"] == pytest.approx(sklearn.metrics.log_loss(labels, probabilities))
    brier = 2 * sklearn.metrics.brier_score_loss(labels, probabilities[:, 1])
    assert result["confidence"]["brier"] == pytest.approx(brier)


def _of_five_classes(count: int = 80, seed: int = 3) -> tuple[metric.Matched, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels, logits = rng.integers(0, 5, count), rng.normal(0, 1, (count, 5))
    logits[np.arange(count), labels] += 0.7
    tokens = [str(index) for index in range(count)]
    samples = [entry_without_camera(token, int(label)) for token, label in zip(tokens, labels, strict=True)]
    truth = metric.Truth(tokens, tokens, samples, labels)
    return metric.Matched(truth, list("abcde"), logits, logits.argmax(axis=1)), labels


def entry_without_camera(token: str, label: int) -> SimpleNamespace:
    return SimpleNamespace(token=token, label=label, channel="", disturbance=None)


def test_mcc_and_top_k_are_scikit_learns(samples) -> None:
    answers, labels = _of_five_classes()
    result = metric.evaluate(answers)
    decisions = result["decisions"]
    assert decisions["mcc"] == pytest.approx(sklearn.metrics.matthews_corrcoef(labels, answers.decisions))
    assert list(decisions["top_k"]) == ["2", "3"], "of five classes the true one is always among the best five"
    for k in (2, 3):
        expected = sklearn.metrics.top_k_accuracy_score(labels, answers.logits, k=k, labels=range(5))
        assert decisions["top_k"][str(k)] == pytest.approx(expected)
        assert metric.headline(result)[f"top-{k} accuracy"] == pytest.approx(expected)
    assert list(metric.headline(result)) == metric.headline_names(list("abcde"))
    text = "\n".join(table.title for table in metric.tables(result))
    assert f"MCC {decisions['mcc']:.4f}" in text and "top-3 accuracy" in text and "multiclass Brier (0 to 2)" in text
    two = metric.evaluate(matched(samples, some_logits(samples)))["decisions"]
    assert two["top_k"] == {} and 0 < two["mcc"] < 1


@pytest.mark.parametrize("count", [500, 20_000])
def test_the_roc_polyline_keeps_its_corners(count: int) -> None:
    """The area under what is drawn is the AUC, for any number of samples; a figure needs no more than 2,002 points."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, count)
    margins = rng.normal(labels, 1.0)
    tokens = [str(index) for index in range(count)]
    answers = [entry_without_camera(token, int(label)) for token, label in zip(tokens, labels, strict=True)]
    truth = metric.Truth(tokens, tokens, answers, labels)
    logits = np.column_stack([np.zeros(count), margins])
    separation = metric.evaluate(metric.Matched(truth, CLASSES, logits, logits.argmax(axis=1)))["separation"]
    alarms, recalls = np.array(separation["roc"]).T
    assert len(alarms) <= 2002
    assert np.trapezoid(recalls, alarms) == pytest.approx(separation["roc_auc"], abs=1e-12 if count < 1000 else 1e-5)


def test_recall_at_false_alarms_by_hand(samples) -> None:
    """Margins: calibrated pairs 0, 1, ... 29; miscalibrated ones half a unit below, except that five lie far above."""
    margins = np.empty(60)
    margins[1::2] = np.arange(30)
    margins[0::2] = np.arange(30) - 0.5
    margins[50::2] = 100
    logits = np.column_stack([np.zeros(60), margins])
    result = metric.evaluate(matched(samples, logits))["separation"]
    at = {row["rate"]: row for row in result["at_false_alarms"]}
    # No calibrated pair may be lost: only the margin -0.5 lies below all of them.
    assert at[0.001]["recall"] == pytest.approx(1 / 30)
    assert at[0.001]["threshold"] == pytest.approx(-0.5)
    # One of 30 is 3.3 %: the pairs below margin 1 are -0.5, 0 and 0.5.
    assert at[0.05]["recall"] == pytest.approx(2 / 30)
    assert at[0.05]["threshold"] == pytest.approx(0.5)


def test_calibration_error_by_hand(samples) -> None:
    """Confidence 0.8 everywhere, right in three of four: the error is 0.05."""
    labels = np.array([sample.label for sample in samples])
    right = np.arange(60) % 4 != 0
    claimed = np.where(right, labels, 1 - labels)
    logits = np.zeros((60, 2))
    logits[np.arange(60), claimed] = np.log(4)
    confidence = metric.evaluate(matched(samples, logits))["confidence"]
    assert confidence["expected_calibration_error"] == pytest.approx(0.05)
    (row,) = confidence["bins"]
    assert (row["count"], row["accuracy"]) == (60, pytest.approx(0.75))
    assert row["low"] < 0.8 <= row["high"]


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), skill=st.floats(-1, 4))
def test_resampling_equals_repeating(samples, seed: int, skill: float) -> None:
    logits = some_logits(samples, seed, skill)
    copies = np.random.default_rng(seed).integers(0, 3, len(samples))
    repeated = np.repeat(np.arange(len(samples)), copies)
    expected = metric.resample(
        metric.Matched(
            metric.Truth([], [], [samples[i] for i in repeated], np.array([samples[i].label for i in repeated])),
            CLASSES,
            logits[repeated],
            logits[repeated].argmax(axis=1),
        ),
        np.ones(len(repeated), np.int64),
    )
    actual = metric.resample(matched(samples, logits), copies)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert actual[name] == pytest.approx(value, abs=1e-12), name


def test_both_states_of_an_image_are_drawn_together(samples) -> None:
    truth = truth_of(samples)
    assert truth.tokens[0] == truth.tokens[1] != truth.tokens[2]


def test_headline_names(samples) -> None:
    numbers = metric.headline(metric.evaluate(matched(samples, some_logits(samples, skill=50))))
    assert numbers == {
        "accuracy": 1.0,
        "balanced accuracy": 1.0,
        "macro F1": 1.0,
        "MCC": 1.0,
        "recall miscalibrated": 1.0,
        "recall calibrated": 1.0,
        "ROC AUC": 1.0,
        "AP miscalibrated": 1.0,
        "recall miscalibrated at 1% false alarms": 1.0,
        "confidence error": pytest.approx(0, abs=1e-6),
    }
    assert list(numbers) == metric.headline_names(["miscalibrated", "calibrated"])


def test_one_state_only(samples) -> None:
    result = metric.evaluate(matched(samples[1::2], some_logits(samples[1::2], skill=50)))
    assert result["decisions"]["accuracy"] == 1.0
    assert result["decisions"]["classes"]["miscalibrated"]["recall"] is None
    assert result["decisions"]["balanced_accuracy"] is None and result["decisions"]["mcc"] is None
    assert result["separation"]["roc_auc"] is None
    assert metric.headline(result)["recall miscalibrated at 1% false alarms"] is None
    assert metric.tables(result)


def test_every_answer_is_the_same(samples) -> None:
    result = metric.evaluate(matched(samples, np.tile([0.0, 1.0], (60, 1))))
    assert result["decisions"]["classes"]["miscalibrated"]["precision"] is None
    assert result["separation"]["roc_auc"] == pytest.approx(0.5)
    assert [row["recall"] for row in result["separation"]["at_false_alarms"]] == [0.0, 0.0, 0.0]
    assert metric.tables(result)


def test_recall_by_rotation_and_camera(samples) -> None:
    wrong = [sample for sample in samples if sample.disturbance is not None]
    large = np.array([sample.disturbance is None or sample.disturbance.rotation_deg >= 4 for sample in samples])
    logits = np.where(large[:, None], some_logits(samples, skill=50), [[0.0, 1.0]])
    result = metric.evaluate(matched(samples, logits))
    rows = {(row["low"], row["high"]): row for row in result["by_rotation"]}
    assert rows[1.0, 2.0]["recall"] == rows[2.0, 4.0]["recall"] == 0
    assert rows[4.0, 6.0]["recall"] == rows[6.0, 180.0]["recall"] == 1
    assert sum(row["count"] for row in rows.values()) == len(wrong)
    assert result["by_camera"] == [{"camera": "CAM_FRONT", "count": 60, "accuracy": result["decisions"]["accuracy"]}]


def test_disturbances_are_recorded_with_the_answers(samples) -> None:
    stored = metric.evaluate(matched(samples, some_logits(samples)))["samples"]
    assert stored[0]["token"].endswith("/miscalibrated")
    np.testing.assert_allclose(stored[0]["disturbance"]["matrix"], samples[0].disturbance.matrix)
    assert stored[1]["disturbance"] is None


def test_the_runs_own_decision_counts(samples, tmp_path: Path) -> None:
    """A run that decided by a threshold other than zero is judged by what it decided, not by its largest logit.

    Earlier versions recorded that in the counters alone.
    """
    logits = some_logits(samples, skill=50)
    counters = [{"miscalibrated": 1, "calibrated": 0} for _ in samples]
    run = write_run(tmp_path / "run", samples, logits, counters)
    result = metric.evaluate(metric.match(run, truth_of(samples), CLASSES, Evaluation()))
    assert result["decisions"]["accuracy"] == 0.5
    assert result["separation"]["roc_auc"] == 1.0
    decided = write_run(tmp_path / "decided", samples, logits, labels=np.zeros(len(samples)))
    assert metric.evaluate(metric.match(decided, truth_of(samples), CLASSES, Evaluation())) == result
    plain = write_run(tmp_path / "plain", samples, logits)
    assert (
        metric.evaluate(metric.match(plain, truth_of(samples), CLASSES, Evaluation()))["decisions"]["accuracy"] == 1.0
    )


@pytest.mark.filterwarnings("error")
def test_the_bound_of_logits_is_told_without_a_warning(samples, tmp_path: Path) -> None:
    """Stored logits are float32, in which the bound is infinite; NumPy 2 warns of that on the terminal."""
    logits = some_logits(samples)
    logits[0, 0] = 3e38
    run = write_run(tmp_path / "run", samples, logits)
    assert len(metric.match(run, truth_of(samples), CLASSES, Evaluation()).logits) == len(samples)


def test_answers_that_no_metric_can_be_computed_from(samples, tmp_path: Path) -> None:
    truth = truth_of(samples)
    short = write_run(tmp_path / "short", samples[:4], some_logits(samples[:4]))
    with pytest.raises(InputError, match="holds 4 samples, the ground truth 60"):
        metric.match(short, truth, CLASSES, Evaluation())
    broken = some_logits(samples)
    broken[3, 1] = np.nan
    with pytest.raises(InputError, match="logit that is NaN"):
        metric.match(write_run(tmp_path / "nan", samples, broken), truth, CLASSES, Evaluation())
    wide = np.zeros((60, 3))
    with pytest.raises(InputError, match=r"shape \(1, 3\)"):
        metric.match(write_run(tmp_path / "wide", samples, wide), truth, CLASSES, Evaluation())
    with pytest.raises(InputError, match="class 'unknown'"):
        metric.ground_truth(samples, ["unknown", "calibrated"], CLASSES)


def test_no_samples() -> None:
    assert metric.ground_truth([], CLASSES, CLASSES) is None


def test_evaluator_finds_the_task_and_stores_its_results(samples, tmp_path: Path) -> None:
    assert find_metric("classification").evaluate is metric.evaluate
    folder = write_pair(tmp_path / "data", [entry(index) for index in range(30)])
    workspace = workspace_of(tmp_path / "work", folder)
    settings = DataSettings(format="info", root=folder, info_file=Path("infos.json"))
    dataset = open_dataset(settings, task="classification")
    tokens = [dataset.sample(index).token for index in range(len(dataset))]
    of_classes = {"model": "calibration", "task": "classification", "classes": CLASSES}
    header = run_header(tokens, dataset=dataset.digest(), **of_classes)
    with workspace.stage("run:onnx-cpu", tool="shared") as stage:
        writer = RunWriter.open(workspace.path("runs/onnx-cpu"), header)
        for index, row in enumerate(some_logits(samples, skill=2)):
            writer.commit(index, ClassScores.build(row), {"total": 1.0})
        for name in writer.finish():
            stage.add_artifact(f"runs/onnx-cpu/{name}", "run")
    printed = evaluate(workspace.root, None, False)
    assert "miscalibrated" in printed
    stored = stored_evaluations(workspace)["onnx-cpu"]
    assert 0.5 < stored["headline"]["accuracy"] < 1
    interval = stored["intervals"]["accuracy"]
    assert interval["low"] < stored["headline"]["accuracy"] < interval["high"]
