"""evaluator score for label files of points and masks: what scikit-learn says of them; bad files give one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from sklearn.metrics import jaccard_score

from evaluator.cli import cli

IDS = np.array([0, 10, 40, 252], np.uint32)  # not judged, car, road, a car that moves
CLASSES = "road=40,car=10,car=252,-=0"


def _score(task: str, truth: Path, predictions: Path, classes: str, *options: str) -> tuple[int, str]:
    command = ["score", "--task", task, "--ground-truth", str(truth), "--predictions", str(predictions)]
    done = CliRunner().invoke(cli, [*command, "--classes", classes, *options])
    return done.exit_code, done.output


def _written(folder: Path, write: Callable[[Path, np.ndarray], None], suffix: str, seed: int) -> np.ndarray:
    """Three files of ids in ``folder``; returns all of them."""
    rng = np.random.default_rng(seed)
    parts = [rng.choice(IDS, (6, 20 + number)) for number in range(3)]
    (folder / "08").mkdir(parents=True)
    for number, ids in enumerate(parts):
        write(folder / "08" / f"{number:06d}{suffix}", ids)
    return np.concatenate([ids.reshape(-1) for ids in parts])


def _semantic_kitti(path: Path, ids: np.ndarray) -> None:
    (ids | (np.arange(ids.size, dtype=np.uint32).reshape(ids.shape) << 16)).astype("<u4").tofile(path)


def _lidarseg(path: Path, ids: np.ndarray) -> None:
    ids.astype(np.uint8).tofile(path)


def _gray(path: Path, ids: np.ndarray) -> None:
    Image.fromarray(ids.astype(np.uint8)).save(path)


def _palette(path: Path, ids: np.ndarray) -> None:
    image = Image.fromarray(ids.astype(np.uint8), mode="P")
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    image.save(path)


def _sixteen_bits(path: Path, ids: np.ndarray) -> None:
    Image.fromarray(ids.astype(np.uint16)).save(path)


@pytest.mark.parametrize(
    ("task", "write", "suffix"),
    [
        ("segmentation3d", _semantic_kitti, ".label"),
        ("segmentation3d", _lidarseg, ".bin"),
        ("segmentation2d", _gray, ".png"),
        ("segmentation2d", _palette, ".png"),
        ("segmentation2d", _sixteen_bits, ".png"),
    ],
)
def test_scores_are_scikit_learns(tmp_path: Path, task: str, write: Any, suffix: str) -> None:
    truth = _written(tmp_path / "labels", write, suffix, 0)
    given = _written(tmp_path / "predictions", write, suffix, 1)
    output = tmp_path / "score.json"
    code, text = _score(task, tmp_path / "labels", tmp_path / "predictions", CLASSES, "--output", str(output))
    assert code == 0, text
    found = json.loads(output.read_text())
    wanted, answer = (np.where(ids == 252, 10, ids)[truth != 0] for ids in (truth, given))
    expected = jaccard_score(wanted, answer, labels=[40, 10], average=None)
    assert [found["by_class"][name]["IoU"] for name in ("road", "car")] == pytest.approx(expected, abs=1e-9)
    assert found["overall"]["mIoU"] == pytest.approx(expected.mean(), abs=1e-9)
    assert (found["task"], found["frames"], found["classes"]) == (task, 3, ["road", "car"])


def test_a_name_without_an_id_has_that_of_its_place(tmp_path: Path) -> None:
    np.array([0, 1, 2, 2], np.uint8).tofile(tmp_path / "truth.bin")
    np.array([1, 1, 2, 0], np.uint8).tofile(tmp_path / "node.bin")
    output = tmp_path / "score.json"
    files = tmp_path / "truth.bin", tmp_path / "node.bin"
    code, text = _score("segmentation3d", *files, "-,car,road", "--output", str(output))
    assert code == 0, text
    # What is said to be of no class is a miss.
    assert json.loads(output.read_text())["confusion"] == [[1, 0, 0], [0, 1, 1]]


@pytest.fixture(name="places")
def _places(tmp_path: Path) -> tuple[Path, Path]:
    for name, seed in (("labels", 0), ("predictions", 1)):
        _written(tmp_path / name, _semantic_kitti, ".label", seed)
    return tmp_path / "labels", tmp_path / "predictions"


def _one_line(code: int, text: str) -> str:
    assert code == 3, text
    assert "Traceback" not in text
    return text


def test_a_file_of_another_length_is_refused(places: tuple[Path, Path]) -> None:
    truth, predictions = places
    file = predictions / "08/000001.label"
    file.write_bytes(file.read_bytes()[:-8])
    line = _one_line(*_score("segmentation3d", truth, predictions, CLASSES))
    assert "000001.label: has labels of 124 points, the ground truth of 126 points" in line
    file.write_bytes(file.read_bytes()[:-1])
    line = _one_line(*_score("segmentation3d", truth, predictions, CLASSES))
    assert "has 495 bytes, which is no whole number of 32-bit labels" in line


@pytest.mark.parametrize("side", [0, 1])
def test_labels_outside_the_list_are_refused(places: tuple[Path, Path], side: int) -> None:
    np.full(120, 99, "<u4").tofile(places[side] / "08/000000.label")
    line = _one_line(*_score("segmentation3d", *places, CLASSES))
    assert "000000.label: label 99 is outside the list of 4" in line


@pytest.mark.parametrize("side", [0, 1])
def test_a_frame_without_labels_is_refused(places: tuple[Path, Path], side: int) -> None:
    (places[side] / "08/000002.label").unlink()
    line = _one_line(*_score("segmentation3d", *places, CLASSES))
    assert f"{places[side]}: has no labels of 08/000002" in line


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    _gray(tmp_path / "truth.png", np.zeros((4, 6)))
    _gray(tmp_path / "mask.png", np.zeros((6, 4)))
    line = _one_line(*_score("segmentation2d", tmp_path / "truth.png", tmp_path / "mask.png", "road"))
    assert "mask.png: has labels of 4 x 6 pixels, the ground truth of 6 x 4 pixels" in line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "can't be decoded as a PNG image"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "can't be decoded as a PNG image"),
        (np.zeros((4, 6, 3), np.uint8), "has pixels of the kind RGB, not one number each"),
    ],
)
def test_what_is_no_mask_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    _gray(tmp_path / "truth.png", np.zeros((4, 6)))
    mask = tmp_path / "mask.png"
    mask.write_bytes(content) if isinstance(content, bytes) else Image.fromarray(content).save(mask)
    line = _one_line(*_score("segmentation2d", tmp_path / "truth.png", mask, "road"))
    assert f"mask.png: {message}" in line


def test_folders_and_files_of_something_else_are_refused(tmp_path: Path, places: tuple[Path, Path]) -> None:
    (tmp_path / "empty").mkdir()
    line = _one_line(*_score("segmentation3d", tmp_path / "empty", places[1], CLASSES))
    assert "empty: holds no labels: no file ends in .label or .bin" in line
    (tmp_path / "labels.npy").write_bytes(b"")
    line = _one_line(*_score("segmentation3d", tmp_path / "labels.npy", places[1], CLASSES))
    assert "labels.npy: is no file of labels, which ends in .label or .bin" in line
    (places[0] / "08/000000.bin").write_bytes(b"")
    assert "has two files of 08/000000" in _one_line(*_score("segmentation3d", *places, CLASSES))
    line = _one_line(*_score("detection2d", *places, "car"))
    assert "can't be read (is a folder, not a file)" in line


def test_places_that_are_not_there_or_of_two_kinds(tmp_path: Path, places: tuple[Path, Path]) -> None:
    line = _one_line(*_score("segmentation3d", places[0], tmp_path / "nowhere", CLASSES))
    assert "nowhere: no such file or folder" in line
    code, text = _score("segmentation3d", places[0], next(places[1].rglob("*.label")), CLASSES)
    assert (code, "is a file" in text, "a folder" in text) == (2, True, True)


@pytest.mark.parametrize("task", ["segmentation3d", "segmentation2d", "detection2d", "classification"])
@pytest.mark.parametrize("option", [("--class-range", "50"), ("--metric", "t4"), ("--min-points", "4")])
def test_options_of_boxes_are_refused_elsewhere(places: tuple[Path, Path], task: str, option: tuple[str, str]) -> None:
    code, text = _score(task, *places, CLASSES, *option)
    assert (code, f"{option[0]} {option[1]}" in text) == (2, True)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("", "labels need classes"),
        ("road,car=0", "id 0 is given twice"),
        ("road=x", "'road=x' is no class"),
        ("road=70000", "'road=70000' is no class"),
        ("road,", "'' is no class"),
        ("-,-", "0 classes are to be judged"),
    ],
)
def test_classes_that_make_no_sense_are_a_usage_error(places: tuple[Path, Path], classes: str, message: str) -> None:
    code, text = _score("segmentation3d", *places, classes)
    assert (code, "Traceback" in text) == (2, False)
    assert message in text
