"""A model of two tasks, boxes and a mask of each image: stored, verified, evaluated, gated, compared and reported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluator.compare import compare_subjects
from evaluator.evaluate import evaluate
from evaluator.report.report import report
from evaluator.stored import computed_with, settings_by_number
from evaluator.summary import summary
from shared import tasks
from shared.config import DeployConfig, resolved
from shared.data import open_dataset
from shared.errors import GateFailed, InputError, VerificationFailed
from shared.runs import Run, RunWriter
from shared.several_tasks import Answers
from shared.spec import ComponentSpec, ModelSpec, TensorSpec
from shared.tasks.detection2d import Boxes2D
from shared.tasks.segmentation2d import ClassMask
from shared.workspace import Workspace
from tests.support.run_files import run_header
from verifier.results import ResultStatistics
from verifier.verify import verify

TASK = "detection2d+segmentation2d"
NAMES = ["car", "road", "tree"]
CLASSES = ["detection2d/car", "segmentation2d/road", "segmentation2d/car"]
COUNT = 12
Change = Callable[[int, Boxes2D, ClassMask], tuple[Boxes2D, ClassMask]]


def _write_images(folder: Path) -> None:
    """Each with a car, which its mask shows on a road below trees; the last has no mask, the one before no boxes."""
    entries: list[dict[str, Any]] = []
    folder.mkdir(parents=True)
    for index in range(COUNT):
        left = 4 + index
        mask = np.full((32, 48), 1, np.uint8)
        mask[:10] = 2
        mask[10:26, left : left + 16] = 0
        Image.fromarray(mask).save(folder / f"{index}.png")
        Image.fromarray(np.full((32, 48, 3), 90, np.uint8)).save(folder / f"{index}.jpg")
        entry: dict[str, Any] = {"img_path": f"{index}.jpg", "img_id": f"s{index}", "width": 48, "height": 32}
        if index < COUNT - 1:
            entry["seg_map_path"] = f"{index}.png"
        if index != COUNT - 2:
            entry["instances"] = [{"bbox": [left, 10, left + 16, 26], "bbox_label": 0}]
        entries.append(entry)
    content = {"metainfo": {"classes": ["car"], "segments": NAMES}, "data_list": entries}
    (folder / "infos.json").write_text(json.dumps(content))


def _config(folder: Path) -> DeployConfig:
    return DeployConfig.model_validate(
        {
            "model": {"type": "net", "config": "model.py", "checkpoint": "weights.pth"},
            "task_type": TASK,
            "data": {"format": "info", "root": str(folder), "info_file": "infos.json", "classes": NAMES},
            "verification": {"num_verify_samples": 2},
            "evaluation": {"enabled": True, "num_samples": -1},
        }
    )


def _right(index: int) -> tuple[Boxes2D, ClassMask]:
    """The answer to an image: trees are no class of this model, and found to be road."""
    left = 4 + index
    mask = np.zeros((32, 48), np.uint8)
    mask[10:26, left : left + 16] = 1
    return Boxes2D.build([[left, 10, left + 16, 26]], [0], [0.9]), ClassMask.build(mask)


def _unchanged(_: int, boxes: Boxes2D, mask: ClassMask) -> tuple[Boxes2D, ClassMask]:
    return boxes, mask


def _shifted_box(_: int, boxes: Boxes2D, mask: ClassMask) -> tuple[Boxes2D, ClassMask]:
    return Boxes2D.build(boxes.corners + 2, boxes.labels, boxes.scores), mask


def _shifted_mask(_: int, boxes: Boxes2D, mask: ClassMask) -> tuple[Boxes2D, ClassMask]:
    return boxes, ClassMask(np.roll(mask.labels, 4, axis=1), mask.margins)


def _workspace(folder: Path, change: Change) -> Workspace:
    """Runs of the framework, PyTorch and ONNX Runtime, the last one changed."""
    _write_images(folder / "data")
    config = _config(folder / "data")
    dataset = open_dataset(config.data, task=TASK)
    workspace = Workspace.create(folder / "work")
    image = TensorSpec(name="image", dtype="float32", shape=[1, 3, 32, 48])
    component = ComponentSpec(name="net", inputs=[image], outputs=[image], onnx="onnx/net.onnx")
    with workspace.stage("export", tool="shared") as stage:
        stage.spec(ModelSpec(model="net", task=TASK, classes=CLASSES, components=[component]))
        stage.config(resolved(config))
    for backend in ("framework", "pytorch", "onnx"):
        of_framework = backend == "framework"
        samples = 2 if of_framework else COUNT
        tokens = [dataset.sample(index).token for index in range(samples)]
        of_model = {"model": "net", "task": TASK, "classes": CLASSES}
        header = run_header(tokens, backend=backend, dataset=dataset.digest(), raw_samples=[0, 1], **of_model)
        name = "reference" if of_framework else f"runs/{backend}-cpu"
        with workspace.stage("reference" if of_framework else f"run:{backend}-cpu", tool="runtime") as stage:
            writer = RunWriter.open(stage.folder(name), header)
            for index in range(samples):
                boxes, mask = (change if backend == "onnx" else _unchanged)(index, *_right(index))
                raw = {"net": np.full((1, 3), index + 1.0, np.float32)} if index < 2 else None
                answer = Answers({"detection2d": boxes, "segmentation2d": mask})
                writer.commit(index, answer, {"total": 1.0}, raw=raw)
            for file in writer.finish():
                stage.add_artifact(f"{name}/{file}", "run")
    return workspace


@pytest.fixture(scope="module", name="right")
def _right_workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return _workspace(tmp_path_factory.mktemp("right"), _unchanged)


def test_a_run_keeps_the_answers_of_all_tasks(right: Workspace) -> None:
    run = Run.open(right.path("runs/onnx-cpu"))
    answer = run.predictions(3, Answers)
    boxes, mask = _right(3)
    assert len(answer) == len(boxes) + len(mask)
    np.testing.assert_array_equal(answer.parts["detection2d"].corners, boxes.corners)
    parts = run.parts()
    assert parts["segmentation2d"].header.classes == ["road", "car"]
    np.testing.assert_array_equal(parts["segmentation2d"].predictions(3, ClassMask).labels, mask.labels)
    with pytest.raises(InputError, match="holds results of task 'detection2d', not ClassMask"):
        parts["detection2d"].predictions(3, ClassMask)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("detection2d+nothing", "there is no task 'nothing'"),
        ("detection2d+detection2d", "names a task twice"),
        ("detection2d+detection3d", "don't take the same samples: detection2d takes samples of view image"),
    ],
)
def test_tasks_that_don_t_go_together_are_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tasks.find(name)


def test_labels_and_the_quick_metric_are_those_of_both(right: Workspace) -> None:
    dataset = open_dataset(_config(right.root.parent / "data").data, task=TASK)
    task = tasks.find(TASK)
    to_model = task.label_map(CLASSES, dataset.classes)
    labels = [task.labels_of(dataset.sample(index), to_model) for index in range(COUNT)]
    assert [each is None for each in labels] == [False] * (COUNT - 2) + [True, True]  # no boxes, no mask
    answers = [Answers(dict(zip(task.parts, _right(index), strict=True))) for index in range(COUNT - 2)]
    metric = task.quick_metric([dataset.sample(index) for index in range(COUNT - 2)], to_model, CLASSES)
    assert metric.name == "mean of detection2d/mAP and segmentation2d/mIoU"
    assert metric.score(answers) == 1.0
    nothing = [Answers({**answer.parts, "detection2d": Boxes2D.empty()}) for answer in answers]
    assert metric.score(nothing) == 0.5
    assert task.agreement(labels[:-2], nothing) == {
        "detection2d/mAP": 0.0, "segmentation2d/mIoU": 1.0, "segmentation2d/accuracy": 1.0,
    }  # fmt: skip


def test_pairs_of_both_are_counted_together() -> None:
    task = tasks.find(TASK)
    statistics = ResultStatistics(task)
    boxes, mask = _right(0)
    moved, _ = _shifted_box(0, boxes, mask)
    reference, test = (Answers({"detection2d": each, "segmentation2d": mask}) for each in (boxes, moved))
    statistics.add(0, reference, test)
    found = statistics.summary()
    assert found["matched"] == 1 + len(mask)
    assert found["errors"]["detection2d/corner"]["pairs"] == 1
    assert found["errors"]["detection2d/corner"]["max"] == 2.0
    assert found["errors"]["segmentation2d/margin"]["pairs"] == len(mask)


def test_equal_runs_are_verified_and_evaluated(right: Workspace) -> None:
    done = verify(right.root, (), force=False)
    assert "Boxes2D of 2 samples: 2 matched" in done and "ClassMask of 2 samples: 3072 matched" in done
    evaluated = evaluate(right.root, gates=["segmentation2d/mIoU < 0.9", "onnx-cpu: detection2d/mAP drop > 1%"])
    stored = evaluated.data["evaluations"]["onnx-cpu"]
    assert stored["headline"]["segmentation2d/mIoU"] == 1.0
    assert stored["headline"]["detection2d/mAP"] == 1.0
    assert stored["metrics"]["parts"]["segmentation2d"]["frames"] == COUNT - 1
    assert stored["metrics"]["parts"]["detection2d"]["frames"] == COUNT - 1
    assert stored["intervals"].keys() >= {"segmentation2d/mIoU", "detection2d/mAP"}
    compared = compare_subjects([], right.root, None)
    assert compared.data["subjects"][0]["classes"].keys() == set(CLASSES)
    assert "onnx-cpu" in summary(right.root)


def test_the_report_has_both(right: Workspace) -> None:
    verify(right.root, (), force=False)
    evaluate(right.root)
    report(right.root, None, force=True)
    page = (right.root / "report/index.html").read_text()
    for section in ("metrics-detection2d", "metrics-segmentation2d", "frames-detection2d"):
        assert f'id="{section}"' in page
    assert "segmentation2d/mIoU" in page


@pytest.mark.parametrize(
    ("change", "failure", "passes", "metric"),
    [
        (_shifted_box, "detection2d results corner: 2, the limit is 0.1", "segmentation2d results", "COCO AP"),
        (_shifted_mask, "segmentation2d results unmatched, share", "detection2d results", "mIoU"),
    ],
)
def test_a_fault_of_one_task_is_found_and_named(
    tmp_path: Path, change: Change, failure: str, passes: str, metric: str
) -> None:
    workspace = _workspace(tmp_path, change)
    with pytest.raises(VerificationFailed) as caught:
        verify(workspace.root, (), force=False)
    failures = caught.value.answer.data["failures"]
    assert any(failure in line for line in failures)
    assert not any(passes in line for line in failures)
    part = failure.split(maxsplit=1)[0]
    with pytest.raises(GateFailed, match=part):
        evaluate(workspace.root, gates=[f"{part}/{metric} drop > 1%"])


def test_a_limit_of_one_task_can_be_set(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path, _shifted_box)
    overrides = ["results.detection2d/corner=4", "results.detection2d/left=4", "results.detection2d/top=4"]
    overrides += ["results.detection2d/right=4", "results.detection2d/bottom=4"]
    assert verify(workspace.root, overrides, force=False).data["passed"]


def test_settings_of_the_metric_of_one_of_the_tasks_are_told() -> None:
    parts = {"detection3d": {"computed_with": "compat awml"}, "segmentation3d": {"frames": 3}}
    assert computed_with({"metrics": {"parts": parts}}) == "compat awml"
    headline = dict.fromkeys(["detection3d/mAP", "detection3d/T4 mAP", "segmentation3d/mIoU"], 0.5)
    evaluation = {"metrics": {"parts": parts}, "headline": headline}
    assert settings_by_number(evaluation) == dict.fromkeys(list(headline)[:2], "compat awml")
    parts["detection3d"]["depends_on_settings"] = ["T4 mAP"]
    assert settings_by_number(evaluation) == {"detection3d/T4 mAP": "compat awml"}
    assert settings_by_number({"metrics": None, "headline": {}}) == {}
    assert computed_with({"metrics": {"parts": {"segmentation3d": {}}}}) == computed_with({"metrics": None}) == ""
