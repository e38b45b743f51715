"""evaluator score for COCO files and CSV: what other libraries say of the same files; bad files give one line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import accuracy_score, average_precision_score, log_loss, recall_score, roc_auc_score

from evaluator.cli import cli
from evaluator.score import Results, score_files
from shared.errors import InputError, UsageError

faster_coco_eval = pytest.importorskip("faster_coco_eval")

CATEGORIES = {3: "car", 1: "person", 7: "tram"}

# -- COCO -------------------------------------------------------------------------------------------------------------


def _coco(seed: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Annotations of 15 images (ids from 100 on, one without boxes) and results that hit some of them."""
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image in range(100, 115):
        for _ in range(0 if image == 107 else 8):
            box = [*rng.uniform(0, 500, 2), *rng.uniform(5, 150, 2)]
            category = int(rng.choice(list(CATEGORIES)))
            crowd = int(rng.random() < 0.1)
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": category, "bbox": box}
                | {"area": box[2] * box[3] * 0.8, "iscrowd": crowd}
            )
            if rng.random() < 0.8:
                moved = (np.array(box) + rng.normal(0, 4, 4)).clip(1)
                results.append(
                    {"image_id": image, "category_id": category, "bbox": moved.tolist(), "score": rng.random()}
                )
        results.append(
            {"image_id": image, "category_id": 1, "bbox": [*rng.uniform(0, 500, 2), 20, 20], "score": rng.random()}
        )
    truth = {
        "images": [{"id": image} for image in range(100, 115)],
        "categories": [{"id": number, "name": name} for number, name in CATEGORIES.items()],
        "annotations": annotations,
    }
    return truth, results


def _write(folder: Path, truth: Any, results: Any) -> tuple[Path, Path]:
    folder.mkdir(exist_ok=True)
    files = folder / "truth.json", folder / "results.json"
    for path, content in zip(files, (truth, results), strict=True):
        path.write_text(json.dumps(content))
    return files


def _score_coco(files: tuple[Path, Path], *classes: str) -> dict[str, Any]:
    output = files[0].parent / "out" / "score.json"
    score_files("detection2d", Results(files[1], files[0], classes), output)
    return dict(json.loads(output.read_text()))


def test_coco_numbers_are_those_of_the_files_themselves(tmp_path: Path) -> None:
    files = _write(tmp_path, *_coco())
    result = _score_coco(files)
    truth = faster_coco_eval.COCO(str(files[0]))
    evaluation = faster_coco_eval.COCOeval_faster(truth, truth.loadRes(str(files[1])), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    # Our boxes are float32, as models give them.
    assert list(result["coco"]["summary"].values()) == pytest.approx(evaluation.stats[:12].tolist(), abs=1e-5)
    assert result["classes"] == ["person", "car", "tram"] and result["frames"] == 15
    assert 0.2 < result["coco"]["summary"]["AP"] < result["voc"]["mAP"] < 1


def test_ground_truth_as_predictions_gives_one(tmp_path: Path) -> None:
    truth, _ = _coco()
    truth["annotations"] = [row for row in truth["annotations"] if not row["iscrowd"]]
    perfect = [{**row, "score": 0.9} for row in truth["annotations"]]
    result = _score_coco(_write(tmp_path, truth, perfect))
    assert result["voc"]["mAP"] == pytest.approx(1) and result["coco"]["summary"]["AP"] == pytest.approx(1)
    swapped = [{**row, "bbox": [row["bbox"][1], row["bbox"][0], *row["bbox"][2:]]} for row in perfect]
    assert _score_coco(_write(tmp_path, truth, swapped))["voc"]["mAP"] < 0.2


def test_coco_classes_choose_what_counts(tmp_path: Path) -> None:
    truth, results = _coco()
    files = _write(tmp_path, truth, results)
    everything, cars = _score_coco(files), _score_coco(files, "car")
    assert cars["classes"] == ["car"]
    assert cars["voc"]["mAP"] == pytest.approx(everything["voc"]["classes"]["car"]["AP"])
    with pytest.raises(UsageError, match=r"no category 'bus'.*person, car, tram"):
        _score_coco(files, "bus")
    with pytest.raises(UsageError, match="repeat"):
        _score_coco(files, "car", "car")


def test_no_results_and_no_annotations_are_scored(tmp_path: Path) -> None:
    truth, results = _coco()
    nothing = _score_coco(_write(tmp_path, truth, []))
    assert nothing["voc"]["mAP"] == 0 and nothing["coco"]["summary"]["AP"] == 0
    empty = _score_coco(_write(tmp_path, {**truth, "annotations": []}, results))
    assert empty["voc"]["mAP"] is None and empty["coco"]["summary"]["AP"] is None


Break = Callable[[dict[str, Any], list[dict[str, Any]]], Any]
BROKEN_COCO: dict[str, tuple[Break, str]] = {
    "other image": (lambda t, r: r[0].update(image_id=5), r"results\.json\[0\]: image 5 is not among"),
    "other category": (lambda t, r: r[1].update(category_id=9), r"results\.json\[1\]: category 9 is not among"),
    "NaN score": (lambda t, r: r[0].update(score=float("nan")), "score nan, which is not a finite number"),
    "no score": (lambda t, r: r[0].pop("score"), "score None, which is not a finite number"),
    "NaN box": (lambda t, r: r[0].update(bbox=[0, 0, float("nan"), 1]), "a box is NaN"),
    "three numbers": (lambda t, r: r[0].update(bbox=[0, 0, 1]), "not left, top, width, height"),
    "zero size": (lambda t, r: r[0].update(bbox=[0, 0, 0, 10]), "a box of 0 x 10 pixels has no size"),
    "zero size truth": (lambda t, r: t["annotations"][2].update(bbox=[0, 0, 5, 0]), r"annotations\[2\].*has no size"),
    "no image id": (lambda t, r: t["images"][0].pop("id"), r"images\[0\]: id is None"),
    "no images": (lambda t, r: t.update(images=[]), "lists no images"),
    "no categories": (lambda t, r: t.pop("categories"), "is not a COCO annotation file"),
    "category twice": (lambda t, r: t["categories"].append({"id": 1, "name": "x"}), "an id that repeats"),
}


@pytest.mark.parametrize("name", BROKEN_COCO)
def test_broken_coco_files_say_where(tmp_path: Path, name: str) -> None:
    truth, results = _coco()
    change, words = BROKEN_COCO[name]
    change(truth, results)
    with pytest.raises(InputError, match=words):
        _score_coco(_write(tmp_path, truth, results))


def test_files_that_are_no_coco_are_refused(tmp_path: Path) -> None:
    truth, results = _coco()
    with pytest.raises(InputError, match="is not a COCO results file"):
        _score_coco(_write(tmp_path, truth, truth))
    with pytest.raises(InputError, match="is not a COCO annotation file"):
        _score_coco(_write(tmp_path, results, results))
    files = _write(tmp_path, truth, results)
    files[1].write_text(files[1].read_text()[:-20])
    with pytest.raises(InputError, match="can't be read as JSON"):
        _score_coco(files)


# -- CSV --------------------------------------------------------------------------------------------------------------

STATES = ["miscalibrated", "calibrated"]


def _scores(classes: list[str], count: int = 60, seed: int = 1) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(classes), count)
    logits = rng.normal(0, 1, (count, len(classes)))
    logits[np.arange(count), labels] += 1
    return [classes[label] for label in labels], logits


def _csv(path: Path, columns: dict[str, list[Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def _columns(classes: list[str], labels: list[str], values: np.ndarray) -> dict[str, list[Any]]:
    scores = {f"score_{name}": values[:, index].tolist() for index, name in enumerate(classes)}
    return {"sample": [f"s{row}" for row in range(len(labels))], "label": labels, **scores}


def _score_csv(truth: Path | None, predictions: Path, *classes: str) -> dict[str, Any]:
    output = predictions.parent / "out" / "score.json"
    score_files("classification", Results(predictions, truth, classes), output)
    return dict(json.loads(output.read_text()))


def test_csv_numbers_are_scikit_learns(tmp_path: Path) -> None:
    labels, logits = _scores(STATES)
    result = _score_csv(None, _csv(tmp_path / "p.csv", _columns(STATES, labels, logits)))
    truth = np.array([STATES.index(label) for label in labels])
    decisions, score = logits.argmax(axis=1), logits[:, 0] - logits[:, 1]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert result["decisions"]["accuracy"] == pytest.approx(accuracy_score(truth, decisions))
    assert result["decisions"]["macro"]["recall"] == pytest.approx(recall_score(truth, decisions, average="macro"))
    assert result["separation"]["roc_auc"] == pytest.approx(roc_auc_score(truth == 0, score))
    assert result["separation"]["average_precision"] == pytest.approx(average_precision_score(truth == 0, score))
    assert result["confidence"]["log_loss"] == pytest.approx(log_loss(truth, probabilities))
    assert result["scores"] == "logits" and result["by_camera"] == result["by_rotation"] == []


def test_probabilities_are_logits_after_the_softmax(tmp_path: Path) -> None:
    classes = ["a", "b", "c"]
    labels, logits = _scores(classes)
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).round(12)
    ours = _score_csv(None, _csv(tmp_path / "l.csv", _columns(classes, labels, logits)))
    same = _score_csv(None, _csv(tmp_path / "p.csv", _columns(classes, labels, probabilities)))
    assert same["scores"] == "probabilities" and ours["scores"] == "logits"
    assert same["decisions"] == ours["decisions"] and ours["separation"] is None
    assert same["confidence"]["brier"] == pytest.approx(ours["confidence"]["brier"])
    certain = np.eye(3)[[classes.index(label) for label in labels]]
    assert _score_csv(None, _csv(tmp_path / "c.csv", _columns(classes, labels, certain)))["decisions"]["accuracy"] == 1


def test_labels_may_stand_in_a_file_of_their_own(tmp_path: Path) -> None:
    labels, logits = _scores(STATES)
    columns = _columns(STATES, labels, logits)
    both = _csv(tmp_path / "both.csv", columns)
    expected = _score_csv(None, both)
    truth = _csv(tmp_path / "truth.csv", {name: columns[name][::-1] for name in ("sample", "label")})
    assert _score_csv(truth, both) == expected
    scores = _csv(tmp_path / "scores.csv", {name: values for name, values in columns.items() if name != "label"})
    assert _score_csv(truth, scores) == expected
    with pytest.raises(InputError, match=r"scores\.csv: has no column 'label'.*--ground-truth"):
        _score_csv(None, scores)
    # The first class is the one to be found; --classes says which.
    turned = _score_csv(truth, scores, *STATES[::-1])
    assert turned["separation"]["roc_auc"] == pytest.approx(expected["separation"]["roc_auc"])
    assert turned["classes"] == STATES[::-1]


def _line(text: str, number: int, new: str) -> str:
    lines = text.splitlines()
    lines[number] = new
    return "\n".join(lines) + "\n"


BROKEN_CSV: dict[str, tuple[Callable[[str], str], str]] = {
    "NaN": (lambda text: _line(text, 2, "s1,calibrated,nan,0"), r"sample s1: a score is NaN"),
    "text": (lambda text: _line(text, 2, "s1,calibrated,high,0"), r"s1, score_miscalibrated: 'high' is not a number"),
    "label": (lambda text: _line(text, 2, "s1,broken,1,0"), "label 'broken' is outside the list of classes"),
    "no label": (lambda text: _line(text, 2, "s1,,1,0"), "sample s1 has no label"),
    "twice": (
        lambda text: _line(text, 2, "s0,calibrated,1,0"),
        "sample s0 appears twice, the second time in line 3",
    ),
    "short line": (lambda text: _line(text, 2, "s1,calibrated,1"), "line 3 does not have the 4 columns"),
    "long line": (lambda text: _line(text, 2, "s1,calibrated,1,2,3"), "line 3 does not have the 4 columns"),
    "empty": (lambda text: "", "has no column 'sample'"),
    "header only": (lambda text: text.splitlines()[0], "holds no samples"),
    "one class": (lambda text: "sample,label,score_a\ns0,a,1\n", "has fewer than two columns"),
}


@pytest.mark.parametrize("name", BROKEN_CSV)
def test_broken_csv_files_say_where(tmp_path: Path, name: str) -> None:
    labels, logits = _scores(STATES, 5)
    path = _csv(tmp_path / "p.csv", _columns(STATES, labels, logits))
    change, words = BROKEN_CSV[name]
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=words):
        _score_csv(None, path)


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    labels, logits = _scores(STATES, 5)
    columns = _columns(STATES, labels, logits)
    predictions = _csv(tmp_path / "p.csv", columns)
    fewer = _csv(tmp_path / "fewer.csv", {name: columns[name][:4] for name in ("sample", "label")})
    with pytest.raises(InputError, match="1 differ, for example s4"):
        _score_csv(fewer, predictions)
    other = [STATES[1 - STATES.index(labels[0])], *labels[1:]]
    contrary = _csv(tmp_path / "contrary.csv", {"sample": columns["sample"], "label": other})
    with pytest.raises(InputError, match="sample s0 is"):
        _score_csv(contrary, predictions)
    with pytest.raises(UsageError, match="are not the classes"):
        _score_csv(None, predictions, "calibrated", "broken")
    with pytest.raises(InputError, match="can't be read"):
        _score_csv(None, tmp_path / "none.csv")


def test_commands(tmp_path: Path) -> None:
    def call(*words: str) -> tuple[int, str]:
        answer = CliRunner().invoke(cli, ["score", *words])
        return answer.exit_code, answer.output

    truth, results = (str(path) for path in _write(tmp_path, *_coco()))
    code, text = call("--task", "detection2d", "--ground-truth", truth, "--predictions", results)
    assert code == 0 and "COCO AP" in text and "tram" in text
    labels, logits = _scores(STATES)
    table = str(_csv(tmp_path / "p.csv", _columns(STATES, labels, logits)))
    code, text = call("--task", "classification", "--predictions", table)
    assert code == 0 and "ROC AUC" in text
    assert call("--task", "detection2d", "--predictions", results)[0] == UsageError.exit_code
    assert call("--task", "detection3d", "--ground-truth", truth, "--predictions", results)[0] == UsageError.exit_code
    assert call("--task", "detection2d", "--ground-truth", table, "--predictions", results)[0] == InputError.exit_code
