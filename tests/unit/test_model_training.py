"""Samples of a data set as training batches: what is mirrored and turned stays true, losses are the framework's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from shared.data import ImageLabels, ImageSample, PointFile, Sample
from shared.errors import ConfigError, InputError
from shared.geometry import count_points_in_boxes
from shared.tasks.detection2d import Boxes2D
from shared.tasks.detection3d import Boxes3D

pytestmark = pytest.mark.exporter

torch = pytest.importorskip("torch")
pytest.importorskip("mmengine")

from exporter import training as model_training  # noqa: E402
from exporter.training_config import read_training_config  # noqa: E402
from tests.support import tiny_yolox  # noqa: E402
from tests.support.exporting import SMALL, built  # noqa: E402
from tests.support.plugin_packages import install  # noqa: E402

TRAINED = f"""
_base_ = [{str(SMALL)!r}]
model = dict(train_cfg=dict(pts=dict(
    grid_size=[256, 192, 1], point_cloud_range=[-30.72, -23.04, -3.0, 30.72, 23.04, 5.0],
    code_weights=[1.0] * 8 + [0.2, 0.2])))
"""
LABELS = {0: 0, 1: 4}  # the data set's car and pedestrian


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Any], Any]:
    """A small CenterPoint ready for training, its parameters, and its training config."""
    from exporter.models.centerpoint import adapter as centerpoint

    path = tmp_path_factory.mktemp("config") / "trained.py"
    path.write_text(TRAINED)
    model, training, options = built(path)
    model_training.trainable("centerpoint").prepare(model, training)
    return model, centerpoint.parameters(model, training, options), training


@pytest.fixture
def frame(tmp_path: Path) -> Sample:
    """Two boxes with points in them, one without a point, one of a class that the model does not know."""
    rng = np.random.default_rng(0)
    truth = Boxes3D.build(
        centers=[[8, 3, 0.2], [-6, -9, 0], [15, -5, 0], [4, 12, 0]],
        sizes=[[4.5, 1.9, 1.6], [0.7, 0.6, 1.8], [4, 2, 2], [3, 2, 2]],
        yaws=[0.5, -2.0, 0, 0],
        velocities=[[5, 1], [np.nan, np.nan], [0, 0], [0, 0]],
        labels=[0, 1, 0, 2],
        num_points=[200, 200, 0, 200],
    )
    inside = [
        center + (rng.uniform(-0.5, 0.5, (200, 3)) * size) @ _turn(yaw).T
        for center, size, yaw in zip(truth.centers[[0, 1]], truth.sizes[[0, 1]], truth.yaws[[0, 1]], strict=True)
    ]
    around = rng.uniform([-30, -23, -3], [30, 23, 5], (3000, 3))
    points = np.zeros((3400, 5), np.float32)
    points[:, :3] = np.concatenate([*inside, around])
    points.tofile(tmp_path / "frame.bin")
    return _sample(PointFile(tmp_path / "frame.bin", tmp_path, 5), truth)


def _turn(yaw: float) -> Any:
    return np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])


def _sample(lidar: PointFile, truth: Boxes3D | None) -> Sample:
    settings: dict[str, Any] = dict.fromkeys(Sample.__dataclass_fields__)
    settings |= {"index": 0, "token": "t0", "timestamp": 0.0, "scene": "s", "sweeps": (), "lists_sweeps": True}
    return Sample(**{**settings, "cameras": MappingProxyType({}), "lidar": lidar, "ground_truth": truth})


def _load(small: Any, sample: Sample, seed: int = 0) -> Any:
    model, parameters, _ = small
    return model_training.trainable("centerpoint").load(model, sample, parameters, LABELS, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(6))
def test_points_stay_in_their_boxes_when_a_frame_is_mirrored_and_turned(small: Any, frame: Sample, seed: int) -> None:
    item = _load(small, frame, seed)
    assert item.labels.tolist() == [0, 4]  # without the box that has no point, and the class that is not known
    values = item.boxes.tensor.numpy().astype(np.float64)
    centers = item.boxes.gravity_center.numpy().astype(np.float64)
    counts = count_points_in_boxes(item.points.numpy(), centers, values[:, 3:6] * 1.001, values[:, 6])
    assert (counts >= 200).all()
    # The car drives the way that it points, the pedestrian's unknown velocity is 0.
    speed = np.linalg.norm(values[:, 7:9], axis=1)
    original = np.array([5.0, 1.0]) @ [np.cos(0.5), np.sin(0.5)]
    heading = np.stack([np.cos(values[:, 6]), np.sin(values[:, 6])], axis=1)
    assert (values[0, 7:9] @ heading[0]) / speed[0] == pytest.approx(original / np.hypot(5, 1), abs=1e-5)
    assert speed[1] == 0


def test_augmentation_does_vary(small: Any, frame: Sample) -> None:
    seen = {tuple(np.sign(_load(small, frame, seed).boxes.tensor[0, :2].tolist())) for seed in range(20)}
    assert len(seen) == 4


def test_losses_are_mmdet3ds_and_have_gradients(small: Any, frame: Sample) -> None:
    from mmdet.models.losses import GaussianFocalLoss

    model = small[0]
    # AWML's heat map loss is not installed here; what stands in must not be the L1 that exports make do with.
    assert isinstance(model.pts_bbox_head.loss_cls, GaussianFocalLoss)
    model.requires_grad_(True)
    losses = model_training.trainable("centerpoint").losses(model, [_load(small, frame, 1), _load(small, frame, 2)])
    assert set(losses) == {"task0.loss_heatmap", "task0.loss_bbox"}
    assert all(value.ndim == 0 and torch.isfinite(value) for value in losses.values())
    torch.autograd.backward(sum(losses.values()))
    assert float(model.pts_backbone.blocks[0][0].weight.grad.abs().sum()) > 0


def test_networks_trained_from_the_y_axis_get_such_targets(small: Any, frame: Sample) -> None:
    from mmengine.structures import InstanceData

    from exporter.models.centerpoint.outputs import to_y_axis_reference

    model = small[0]
    head, coder = model.pts_bbox_head, model.pts_bbox_head.bbox_coder
    straight = _load(small, frame, 3)
    coder.y_axis_reference = True
    try:
        turned = _load(small, frame, 3)
    finally:
        coder.y_axis_reference = False

    def targets(item: Any) -> Any:
        truth = InstanceData(bboxes_3d=item.boxes, labels_3d=item.labels)
        heatmaps, boxes, _, masks = head.get_targets_single(truth)
        return heatmaps[0], boxes[0][masks[0].bool()]

    (heat, values), (turned_heat, turned_values) = targets(straight), targets(turned)
    maps = {"dim": values[:, 3:6, None, None], "rot": values[:, 6:8, None, None]}
    expected = to_y_axis_reference(maps)
    torch.testing.assert_close(turned_heat, heat)
    torch.testing.assert_close(turned_values[:, 3:6], expected["dim"][..., 0, 0])
    torch.testing.assert_close(turned_values[:, 6:8], expected["rot"][..., 0, 0], atol=1e-5, rtol=0)


def test_frames_that_cant_be_trained_on(small: Any, frame: Sample, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="t0: has no labels"):
        _load(small, replace(frame, ground_truth=None))
    np.full((10, 5), 500, np.float32).tofile(tmp_path / "far.bin")
    assert _load(small, replace(frame, lidar=PointFile(tmp_path / "far.bin", tmp_path, 5))) is None


def test_training_configs_without_targets_or_losses(small: Any, tmp_path: Path) -> None:
    trainable = model_training.trainable("centerpoint")
    with pytest.raises(ConfigError, match=r"train_cfg.pts lacks .*code_weights"):
        trainable.prepare(*built(SMALL)[:2])
    path = tmp_path / "own_loss.py"
    path.write_text(
        TRAINED.replace("model = dict(", "model = dict(pts_bbox_head=dict(loss_bbox=dict(type='OwnLoss')),")
    )
    with pytest.raises(ConfigError, match="loss OwnLoss is not installed"):
        trainable.prepare(small[0], read_training_config(path))


def test_models_and_labels_that_are_not_known() -> None:
    with pytest.raises(ConfigError, match=r"no training loss for 'segmentor'.*centerpoint.*QATHook"):
        model_training.trainable("segmentor")
    assert model_training.label_map(["person", "car"], ["car", "truck"]) == {1: 0}
    with pytest.raises(ConfigError, match="none of the model's"):
        model_training.label_map(["person"], ["car", "truck"])


def test_the_folder_of_another_package_says_how_its_model_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(
        monkeypatch,
        tmp_path,
        "segmentors",
        {"segmentor/training.py": "def losses(model, items):\n    return {'loss': len(items)}\n"},
        {"awml_deploy.exporter_models": {"segmentor": "segmentors.segmentor"}},
    )
    assert model_training.trainable("segmentor").losses(None, [1, 2]) == {"loss": 2}


def test_mirrored_images_keep_their_boxes_on_what_they_show(tmp_path: Path) -> None:
    import cv2

    text = tiny_yolox.TRAINING_CONFIG.replace(
        "test_cfg=", "train_cfg=dict(assigner=dict(type='SimOTAAssigner')),\n    test_cfg="
    )
    model, training, _ = tiny_yolox.built(tmp_path, text=text)
    image = np.zeros((60, 120, 3), np.uint8)
    image[10:40, 12:48] = (10, 250, 30)
    cv2.imwrite(str(tmp_path / "image.png"), image)
    labels = ImageLabels(
        boxes=Boxes2D.build([[12, 10, 48, 40], [0, 0, 120, 60]], [0, 1]),
        ignored=np.array([False, True]),
        areas=np.array([1.0, 1.0]),
    )
    sample = ImageSample(0, "i0", 0.0, "s", tmp_path / "image.png", 120, 60, labels)
    trainable = model_training.trainable("yolox")
    trainable.prepare(model, training)
    items, lefts = [], set()
    for seed in range(6):
        item = trainable.load(model, sample, {}, {0: 0, 1: 1}, np.random.default_rng(seed))
        left, top, right, bottom = item["data_samples"].gt_instances.bboxes[0].round().int().tolist()
        inside = item["inputs"][:, top + 1 : bottom - 1, left + 1 : right - 1].float()
        assert item["data_samples"].gt_instances.labels.tolist() == [0]
        assert inside.shape[1] > 20
        torch.testing.assert_close(inside.mean(dim=(1, 2)), torch.tensor([10.0, 250.0, 30.0]), atol=2, rtol=0)
        # Outside of it the picture is black, and what fills the rest of the input is still gray, at the bottom.
        assert item["inputs"][:, 50:].eq(114).all()
        items.append(item)
        lefts.add(left)
    assert len(lefts) == 2
    losses = trainable.losses(model.requires_grad_(True), items[:2])
    assert set(losses) == {"loss_cls", "loss_bbox", "loss_obj", "loss_l1"}
    torch.autograd.backward(sum(losses.values()))
    assert all(torch.isfinite(value) for value in losses.values())
