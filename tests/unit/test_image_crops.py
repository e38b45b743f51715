"""Format ``crops``: the labeled boxes of images as samples of classification."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from evaluator.metrics import classification
from runtime.models.calibration.pipeline import read
from shared.data import DataSettings, open_dataset
from shared.errors import ConfigError, InputError

CLASSES = ["green", "red", "unknown"]


def info_of(folder: Path, name: str, boxes: list[list[tuple[list[float], int]]]) -> DataSettings:
    """AWML's info file of images of 40 x 30 pixels, whose blue is the column of a pixel, and green its row."""
    rows, columns = np.indices((30, 40))
    pixels = np.stack([columns, rows, np.zeros_like(rows)], axis=2).astype(np.uint8)
    entries = []
    for number, instances in enumerate(boxes):
        cv2.imwrite(str(folder / f"{name}{number}.png"), pixels)
        labeled = [{"bbox": box, "bbox_label": label, "ignore_flag": 0} for box, label in instances]
        entries.append({"img_id": number, "img_path": f"{name}{number}.png", "width": 40, "height": 30,
                        "instances": labeled})  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps({"metainfo": {"classes": CLASSES}, "data_list": entries}))
    return DataSettings("info", info_file=Path(f"{name}.json"))


@pytest.fixture
def settings(tmp_path: Path) -> DataSettings:
    near = info_of(tmp_path, "near", [[([3, 4, 13, 10], 1), ([-2.5, 20.9, 7.9, 90], 0)], []])
    far = info_of(tmp_path, "far", [[([1, 1, 5, 5], 2)]])
    return DataSettings("crops", tmp_path, sources=(near, far))


def test_every_box_is_a_sample_with_its_class(settings: DataSettings) -> None:
    dataset = open_dataset(settings, task="classification")
    samples = [dataset.sample(index) for index in range(len(dataset))]
    assert dataset.classes == tuple(CLASSES)
    assert [sample.label for sample in samples] == [1, 0, 2]
    assert [sample.token for sample in samples] == ["near/0/0", "near/0/1", "far/0/0"]


def test_a_crop_has_the_pixels_of_its_box_within_the_image(settings: DataSettings) -> None:
    dataset = open_dataset(settings, task="classification")
    whole, cut = dataset.sample(0).read(), dataset.sample(1).read()
    assert (whole[0, 0].tolist(), whole[-1, -1].tolist()) == ([3, 4, 0], [12, 9, 0])
    assert (cut[0, 0].tolist(), cut[-1, -1].tolist()) == ([0, 20, 0], [6, 29, 0])


def test_a_box_outside_of_its_image_is_named(tmp_path: Path) -> None:
    source = info_of(tmp_path, "odd", [[([50, 5, 60, 9], 0)]])
    dataset = open_dataset(DataSettings("crops", tmp_path, sources=(source,)), task="classification")
    with pytest.raises(InputError, match="box 0/0 has no pixel"):
        dataset.sample(0).read()


def test_the_digest_is_that_of_what_is_read(settings: DataSettings, tmp_path: Path) -> None:
    before = open_dataset(settings, task="classification").digest()
    assert open_dataset(settings, task="classification").digest() == before
    info_of(tmp_path, "far", [[([1, 1, 5, 5], 1)]])
    assert open_dataset(settings, task="classification").digest() != before


def test_images_without_boxes_are_refused(tmp_path: Path) -> None:
    nothing = info_of(tmp_path, "none", [[]])
    cv2.imwrite(str(tmp_path / "bare.png"), np.zeros((4, 4, 3), np.uint8))
    for source, said in ((nothing, "no image has a labeled box"), (DataSettings("folder"), "without labels")):
        with pytest.raises(InputError, match=said):
            open_dataset(DataSettings("crops", tmp_path, sources=(source,)), task="classification")
    with pytest.raises(ConfigError, match="'argoverse2' has no images, which format crops needs"):
        open_dataset(DataSettings("crops", tmp_path, sources=(DataSettings("argoverse2"),)), task="classification")


def test_another_task_has_no_crops(settings: DataSettings) -> None:
    with pytest.raises(ConfigError, match="'crops' has no images, which task detection2d needs"):
        open_dataset(settings, task="detection2d")


def test_a_model_of_pairs_refuses_crops(settings: DataSettings) -> None:
    sample = open_dataset(settings, task="classification").sample(0)
    with pytest.raises(ConfigError, match="does not give camera pairs"):
        read(sample)


def test_the_metric_draws_the_crops_of_an_image_together(settings: DataSettings) -> None:
    dataset = open_dataset(settings, task="classification")
    truth = classification.ground_truth(map(dataset.sample, range(3)), dataset.classes, CLASSES)
    assert truth is not None
    assert truth.tokens == ["near/0", "near/0", "far/0"]
    assert truth.labels.tolist() == [1, 0, 2]
