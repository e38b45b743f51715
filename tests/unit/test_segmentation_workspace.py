"""A workspace of labeled points: the demo's labels, read from T4 tables, evaluated, gated and compared."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from demo.labels import SEGMENTS
from demo.lidar import points_inside
from demo.recording import record_scene
from demo.t4_writer import write_dataset
from evaluator.cli import cli
from evaluator.evaluate import evaluate
from shared.config import DeployConfig
from shared.data import Dataset, DataSettings, open_dataset, read_points
from shared.data.labels import labels_in
from shared.errors import InputError
from shared.metrics.confusion import UNLABELED
from shared.tasks.segmentation2d import TASK as MASKS
from shared.tasks.segmentation3d import TASK
from tests.support.report_workspaces import labeled_runs

CLASSES = [*SEGMENTS[:-1]]
FRAMES = 12


@pytest.fixture(scope="module", name="data")
def _data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "data"
    write_dataset(folder, "eval", [record_scene(7, "eval", 0, FRAMES, cameras=False, labels=True)], {})
    return folder


def _config(data: Path) -> DeployConfig:
    return DeployConfig.model_validate(
        {
            "model": {"type": "frnet", "config": "model.py", "checkpoint": "weights.pth"},
            "task_type": "segmentation3d",
            "data": {"format": "t4", "root": str(data), "classes": CLASSES},
            "export": {"mode": "onnx"},
            "evaluation": {"enabled": True, "num_samples": -1},
        }
    )


@pytest.fixture(scope="module", name="dataset")
def _dataset(data: Path) -> Dataset:
    return open_dataset(_config(data).data, task="segmentation3d")


def _labels(dataset: Dataset, index: int) -> np.ndarray:
    found = TASK.labels_of(dataset.sample(index), labels_in(CLASSES, dataset.classes))
    assert found is not None
    return found.labels


def test_the_demo_labels_what_its_rays_hit(data: Path, dataset: Dataset) -> None:
    assert dataset.classes == tuple(CLASSES)
    recording = record_scene(7, "eval", 0, FRAMES, cameras=False)
    counts = np.zeros(len(CLASSES), np.int64)
    for index, frame in enumerate(recording.frames):
        labels = _labels(dataset, index)
        points = read_points(dataset.sample(index).lidar)
        np.testing.assert_array_equal(points, frame.key.points)  # labels change no point
        counts += np.bincount(labels, minlength=len(CLASSES))
        inside = np.full(len(points), -1)
        for row, own in enumerate(points_inside(points, frame.annotations)):
            inside[own] = frame.annotations.labels[row]
        objects = labels < CLASSES.index("road")
        # A return may be noisy enough to leave its box, and a box holds what is on the ground below.
        assert (inside[objects] == labels[objects]).mean() > 0.99
        assert np.abs(points[labels == CLASSES.index("road"), 2]).max() < 5
    assert (counts > 0).all(), dict(zip(CLASSES, counts, strict=True))


def test_labels_are_part_of_the_digest(data: Path, dataset: Dataset) -> None:
    before = dataset.digest()
    file = next(data.rglob("lidarseg/annotation/*.bin"))
    content = file.read_bytes()
    file.write_bytes(bytes(len(content)))
    assert dataset.digest() != before
    file.write_bytes(content)
    assert dataset.digest() == before


def test_categories_of_no_class_are_not_judged_and_unknown_ids_refused(data: Path) -> None:
    fewer = open_dataset(_config(data).data.model_copy(update={"classes": ["road", "car"]}), task="segmentation3d")
    labels = TASK.labels_of(fewer.sample(0), labels_in(["road", "car"], fewer.classes))
    assert labels is not None
    assert set(np.unique(labels.labels)) == {0, 1, UNLABELED}
    file = fewer.sample(0).point_labels.path
    content = file.read_bytes()
    file.write_bytes(b"\xc8" + content[1:])
    with pytest.raises(InputError, match="label 200 is outside the list of 8"):
        TASK.labels_of(fewer.sample(0), labels_in(["road", "car"], fewer.classes))
    file.write_bytes(content)


@pytest.mark.parametrize("index", [-1, 1 << 16, "many"])
def test_an_index_that_is_no_label_is_refused(data: Path, tmp_path: Path, index: object) -> None:
    folder = tmp_path / "data"
    shutil.copytree(data, folder, ignore=shutil.ignore_patterns("*.pcd.bin"))
    table = next(folder.rglob("category.json"))
    table.write_text(json.dumps([{**record, "index": index} for record in json.loads(table.read_text())]))
    dataset = open_dataset(_config(folder).data, task="segmentation3d")
    with pytest.raises(InputError, match="is malformed"):
        dataset.sample(0)


@pytest.fixture(scope="module", name="work")
def _work(data: Path) -> Path:
    """Runs of PyTorch, which mistakes one point in ten, and of ONNX, which takes cars for trucks, too."""

    def spoil(labels: np.ndarray, index: int, backend: str) -> None:
        labels[np.random.default_rng(index).random(len(labels)) < 0.1] = 5
        labels[(labels == 0) & (backend == "onnx")] = 1

    return labeled_runs(data.parent, "segmentation3d", {"format": "t4", "classes": CLASSES}, spoil).root


def test_it_is_evaluated_and_gated(work: Path) -> None:
    command = ["evaluate", "--work", str(work), "--fail-if", "pytorch-cpu: mIoU < 0.5"]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    assert "By distance from the lidar" in done.output
    failed = CliRunner().invoke(cli, [*command, "--fail-if", "IoU car drop high > 1%"])
    assert failed.exit_code == 6
    stored = json.loads((work / "evaluation/onnx-cpu.json").read_text())
    assert stored["headline"]["IoU car"] == 0.0
    assert stored["differences"]["IoU car"]["high"] < -0.5
    low, high = (stored["intervals"]["mIoU"][side] for side in ("low", "high"))
    assert low <= stored["headline"]["mIoU"] <= high
    compared = CliRunner().invoke(cli, ["compare", "--work", str(work)])
    assert compared.exit_code == 0, compared.output
    assert "IoU car" in compared.output


def test_scores_by_distance_that_were_left_out_are_made_once_the_points_are_there(
    work: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    shutil.copytree(work, tmp_path / "work")
    shutil.copytree(data, tmp_path / "data")

    def rings(*, up_to_date: bool, force: bool = False) -> dict[str, object]:
        caplog.clear()
        evaluate(tmp_path / "work", tmp_path / "data", force)
        assert ("evaluate: up to date" in caplog.text) is up_to_date
        metrics = json.loads((tmp_path / "work/evaluation/onnx-cpu.json").read_text())["metrics"]
        return dict(metrics["rings"])

    evaluate(tmp_path / "work", tmp_path / "data", False)
    whole = rings(up_to_date=True)
    points = next((tmp_path / "data").rglob("*.pcd.bin"))
    points.rename(tmp_path / "elsewhere")
    assert rings(up_to_date=True) == whole, "what is whole stays so"
    assert rings(up_to_date=False, force=True) == {}
    assert rings(up_to_date=True) == {}
    (tmp_path / "elsewhere").rename(points)
    assert rings(up_to_date=False) == whole
    assert len(whole) > 0


def test_the_demo_labels_its_pixels(tmp_path: Path) -> None:
    recording = record_scene(7, "eval", 0, 1, cameras=True, labels=True)
    pictures = recording.frames[0].pictures
    write_dataset(tmp_path / "data", "eval", [recording], {})
    settings = DataSettings("info", tmp_path / "data", Path("info/yolox_infos_eval.json"), SEGMENTS)
    images = open_dataset(settings, task="segmentation2d")
    to_model = labels_in(SEGMENTS, images.classes)
    counts = np.zeros(len(SEGMENTS), np.int64)
    for index, picture in enumerate(pictures.values()):
        mask = MASKS.labels_of(images.sample(index), to_model)
        assert mask is not None and picture.mask is not None
        np.testing.assert_array_equal(mask.labels, picture.mask)
        counts += np.bincount(mask.labels.reshape(-1), minlength=len(SEGMENTS))
        for corners, row in zip(picture.boxes.corners, picture.boxes.objects, strict=True):
            left, top, right, bottom = np.round(corners).astype(int)
            label = recording.frames[0].annotations.labels[row]
            assert (mask.labels[top:bottom, left:right] == label).any()
    assert (counts[[SEGMENTS.index(name) for name in ("car", "road", "sidewalk", "structure", "sky")]] > 0).all()
    before = images.digest()
    file = images.sample(0).mask.path
    Image.fromarray(np.full_like(mask.labels, 99)).save(file)
    assert images.digest() != before
    with pytest.raises(InputError, match="label 99 is outside the list"):
        MASKS.labels_of(images.sample(0), to_model)


def test_labels_change_nothing_else(tmp_path: Path) -> None:
    for labels in (False, True):
        write_dataset(tmp_path / str(labels), "eval", [record_scene(7, "eval", 0, 1, cameras=True, labels=labels)], {})
    bare, labeled = (
        {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "False", tmp_path / "True")
    )
    more = labeled.keys() - bare.keys()
    assert all("lidarseg" in name or "/masks/" in name for name in more)
    assert len(more) == 2 + 6
    changed = {Path(name).name for name, content in bare.items() if labeled[name] != content}
    assert changed == {"category.json", "yolox_infos_eval.json", "dataset.json"}
