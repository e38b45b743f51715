"""Camera-lidar pairs of every format: both states, the calibration, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from shared.data import DataSettings, open_dataset
from shared.data.camera_pairs import CameraPair
from shared.data.miscalibration import Miscalibration
from shared.errors import ConfigError, DeployError, InputError
from tests.support.calibration_data import DEMO_INFO, entry, make_demo, write_pair


def opened(folder: Path, **settings: object):
    base = {"format": "info", "root": folder, "info_file": Path("infos.json")}
    return open_dataset(DataSettings(**(base | settings)), task="classification")


def sample(folder: Path, index: int = 0, **settings: object) -> CameraPair:
    return opened(folder, **settings).sample(index)


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    return make_demo(tmp_path_factory.mktemp("pairs") / "demo", 2)


def test_every_image_comes_in_both_states(tmp_path: Path) -> None:
    dataset = opened(write_pair(tmp_path, [entry(0), entry(1)]))
    assert dataset.classes == ("miscalibrated", "calibrated")
    samples = [dataset.sample(index) for index in range(len(dataset))]
    assert [s.label for s in samples] == [0, 1, 0, 1]
    assert [s.token for s in samples] == [
        "scene/0/CAM_FRONT/miscalibrated",
        "scene/0/CAM_FRONT/calibrated",
        "scene/1/CAM_FRONT/miscalibrated",
        "scene/1/CAM_FRONT/calibrated",
    ]
    wrong, right = samples[:2]
    assert right.disturbance is None
    assert wrong.disturbance is not None
    np.testing.assert_allclose(wrong.camera.lidar2cam, right.camera.lidar2cam @ wrong.disturbance.matrix)
    assert np.abs(samples[0].camera.lidar2cam - samples[2].camera.lidar2cam).max() > 1e-4


def test_disturbance_does_not_depend_on_the_rest_of_the_file(tmp_path: Path) -> None:
    whole = sample(write_pair(tmp_path / "a", [entry(0), entry(1)]), 2)
    alone = sample(write_pair(tmp_path / "b", [entry(1)]), 0)
    np.testing.assert_array_equal(whole.camera.lidar2cam, alone.camera.lidar2cam)


def test_seed_and_preset_are_part_of_the_digest(tmp_path: Path) -> None:
    folder = write_pair(tmp_path, [entry()])
    laws = [Miscalibration(), Miscalibration(seed=1), Miscalibration(preset="autoware_ml")]
    assert len({opened(folder, miscalibration=law).digest() for law in laws}) == 3
    other = sample(folder, miscalibration=laws[2])
    assert other.disturbance is not None
    assert not other.disturbance.on_lidar_side


def test_entry_is_read_as_awml_writes_it(demo: Path) -> None:
    dataset = opened(demo, info_file=Path(DEMO_INFO))
    assert len(dataset) == 2 * 6 * 2
    pair = dataset.sample(1)
    assert pair.channel == "CAM_FRONT"
    assert pair.image.is_file()
    assert pair.lidar.path.is_file()
    assert pair.timestamp == pytest.approx(1_700_000_000.0)
    assert pair.camera.distortion.shape == (5,)
    np.testing.assert_allclose(pair.camera.lidar2cam @ pair.camera.sensor2ego, np.eye(4), atol=1e-12)


def test_the_same_pairs_from_info_of_frames_and_from_t4_tables(demo: Path) -> None:
    own = opened(demo, info_file=Path(DEMO_INFO))
    frames = opened(demo, info_file=Path("info/t4dataset_demo_infos_eval.pkl"))
    tables = open_dataset(DataSettings(format="t4", root=demo), task="classification")
    assert len(own) == len(frames) == len(tables)

    def by_image(dataset) -> dict[str, np.ndarray]:
        pairs = [dataset.sample(index) for index in range(1, len(dataset), 2)]
        return {p.image.relative_to(demo).as_posix(): p.camera.lidar2cam for p in pairs}

    reference = by_image(own)
    for other in (by_image(frames), by_image(tables)):
        assert other.keys() == reference.keys()
        for name, matrix in reference.items():
            np.testing.assert_allclose(other[name], matrix, atol=1e-6)


def test_lidar2cam_from_poses_where_it_is_missing(tmp_path: Path) -> None:
    moved = np.eye(4)
    moved[0, 3] = 1.0  # the vehicle is a meter further when the camera fires
    folder = write_pair(tmp_path, [entry(lidar2cam=..., cam_pose=moved.tolist())])
    given = np.array(entry()["image"]["lidar2cam"])
    expected = given @ np.linalg.inv(moved)
    np.testing.assert_allclose(sample(folder, 1).camera.lidar2cam, expected, atol=1e-12)


@pytest.mark.parametrize("count", [4, 5, 8, 12, 14])
def test_distortion_of_every_lens_model(tmp_path: Path, count: int) -> None:
    coefficients = [0.01] * count
    folder = write_pair(tmp_path, [entry(distortion_coefficients=coefficients)])
    np.testing.assert_array_equal(sample(folder).camera.distortion, coefficients)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distortion_coefficients": [0.1] * 7}, "has 7 distortion coefficients.*4, 5, 8, 12, 14"),
        ({"distortion_coefficients": [[0.1] * 5]}, "has 5 distortion coefficients"),
        ({"distortion_coefficients": [0.1, float("nan"), 0, 0, 0]}, "distortion coefficient is not a number"),
        ({"cam2img": ...}, "lacks the key 'cam2img'"),
        ({"cam2img": [[1, 0, 0], [0, 1, 0]]}, r"cam2img has shape \(2, 3\)"),
        ({"cam2img": [[0, 0, 0], [0, 0, 0], [0, 0, 1]]}, "focal lengths 0 and 0"),
        ({"lidar2cam": np.full((4, 4), np.nan).tolist()}, "lidar2cam has a value that is not a number"),
        ({"lidar2cam": ..., "cam2ego": ...}, "lacks the key 'cam2ego'"),
        ({"img_path": "../elsewhere.png"}, "leaves its folder"),
        ({"cam2img": "none"}, "is malformed"),
    ],
)
def test_what_no_calibration_can_be(tmp_path: Path, change: dict, message: str) -> None:
    folder = write_pair(tmp_path, [entry(**change)])
    with pytest.raises(InputError, match=message) as caught:
        sample(folder)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3


def test_empty_info_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no frames"):
        opened(write_pair(tmp_path, []))


def test_no_info_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such info file"):
        opened(tmp_path)
    with pytest.raises(ConfigError, match="needs an info file"):
        opened(tmp_path, info_file=None)


def test_an_image_twice(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="scene/0/CAM_FRONT more than once"):
        opened(write_pair(tmp_path, [entry(0), entry(0)]))


def test_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "was_run",))

    (tmp_path / "infos.pkl").write_bytes(pickle.dumps({"data_list": [{"image": Evil()}]}))
    with pytest.raises(InputError):
        opened(tmp_path, info_file=Path("infos.pkl"))
    assert not (tmp_path / "was_run").exists()


def test_frames_without_images(tmp_path: Path) -> None:
    (tmp_path / "kitti" / "velodyne").mkdir(parents=True)
    np.zeros((3, 4), np.float32).tofile(tmp_path / "kitti" / "velodyne" / "000000.bin")
    settings = DataSettings(format="kitti", root=tmp_path / "kitti")
    with pytest.raises(InputError, match="camera image with a calibration"):
        open_dataset(settings, task="classification")


def test_format_without_this_view(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="argoverse2"):
        open_dataset(DataSettings(format="argoverse2", root=tmp_path), task="classification")


def test_real_pairs(real_data: Path) -> None:
    dataset = open_dataset(DataSettings(format="real", root=real_data), task="classification")
    pairs = [dataset.sample(index) for index in range(len(dataset))]
    channels = [pair.channel for pair in pairs if pair.label == 1]
    assert sum(channel.startswith("CAM_") for channel in channels) == 6
    assert channels.count("image_2") == 8
    assert len({pair.token for pair in pairs}) == len(pairs) == 28
    assert all(pair.image.is_file() and pair.lidar.path.is_file() for pair in pairs)


def test_t4_scene_without_distortion(real_data: Path) -> None:
    settings = DataSettings(format="t4", root=real_data / "t4_perception_eval_sample")
    pair = open_dataset(settings, task="classification").sample(1)
    assert pair.channel == "CAM_FRONT"
    assert pair.camera.distortion.size == 0
