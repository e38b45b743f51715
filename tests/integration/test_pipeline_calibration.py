"""The calibration status pipeline: what the network is given, what is decided, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.backends import Session
from runtime.models.calibration.parameters import CalibrationParameters
from runtime.models.calibration.steps import CameraView, UndistortionMaps
from runtime.pipeline import HostPipeline, build_pipeline
from shared.data import DataSettings, open_dataset
from shared.errors import InferenceError, InputError, ManifestError
from shared.runs import Run, RunWriter
from shared.spec import ModelSpec, TensorSpec
from shared.tasks.classification import ClassScores
from tests.support.calibration_data import CLASSES, DEMO_INFO, FakeSession, entry, make_demo, spec, write_pair
from tests.support.run_files import run_header


def pipeline(session: Session | None = None, **parameters: object) -> HostPipeline:
    built = build_pipeline(spec(**parameters), session or FakeSession())
    assert isinstance(built, HostPipeline)
    return built


def view(**changes: object) -> CameraView:
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.normal(0, 3, (500, 2)), rng.uniform(5, 50, (500, 1)), rng.uniform(0, 255, (500, 1))])
    plain = CameraView(
        image=rng.integers(0, 256, (40, 60, 3), dtype=np.uint8),
        points=points.astype(np.float32),
        intrinsics=np.array([[50.0, 0, 30], [0, 50.0, 20], [0, 0, 1]]),
        distortion=np.zeros(5),
        lidar2cam=np.eye(4),
    )
    return replace(plain, **changes)


def test_channels_are_blue_green_red_depth_intensity() -> None:
    session = FakeSession()
    data = view()
    answer = pipeline(session).infer(data)
    (given,) = session.given
    assert given.shape == (1, 5, 40, 60)
    assert given.dtype == np.float32
    np.testing.assert_array_equal(given[0, :3], data.image.transpose(2, 0, 1) / np.float32(255))
    shows_point = given[0, 3] > 0
    assert answer.counters["pixels_painted"] == shows_point.sum() > 500
    assert given[0, 3][shows_point].min() >= 5 / 128
    assert given[0, 3][shows_point].max() <= 50 / 128
    assert given[0, 4].max() <= 1
    assert not given[0, 4][~shows_point].any()


def test_image_is_undistorted_first() -> None:
    distortion = np.array([-0.3, 0.1, 0.001, 0.001, -0.01])
    data = view(distortion=distortion)
    bent, straight = FakeSession(), FakeSession()
    pipeline(straight).infer(data)
    pipeline(bent, undistort=False).infer(data)
    matrix, _ = cv2.getOptimalNewCameraMatrix(data.intrinsics, distortion, (60, 40), 0.0, (60, 40))
    expected = cv2.undistort(data.image, data.intrinsics, distortion, newCameraMatrix=matrix)
    np.testing.assert_array_equal(straight.given[0][0, :3] * np.float32(255), expected.transpose(2, 0, 1))
    np.testing.assert_array_equal(bent.given[0][0, :3], data.image.transpose(2, 0, 1) / np.float32(255))
    assert np.abs(straight.given[0][0, 3] - bent.given[0][0, 3]).max() > 0


@pytest.mark.parametrize(
    ("logits", "threshold", "calibrated"),
    [
        ((0.0, 0.1), 0.0, 1),
        ((0.1, 0.0), 0.0, 0),
        ((0.5, 0.5), 0.0, 0),  # not above
        ((0.0, 0.5), 0.5, 0),
        ((0.0, 0.51), 0.5, 1),
        ((0.3, 0.0), -0.5, 1),
        ((float("nan"), 0.0), 0.0, 0),
    ],
)
def test_threshold_on_the_margin_as_autoware_applies_it(logits, threshold: float, calibrated: int) -> None:
    answer = pipeline(FakeSession(logits), miscalibration_confidence_threshold=threshold).infer(view())
    assert answer.counters["calibrated"] == calibrated
    assert answer.counters["miscalibrated"] == 1 - calibrated
    np.testing.assert_array_equal(answer.predictions.logits, np.array([logits], np.float32))
    assert answer.predictions.labels.tolist() == [calibrated]


def test_requests_of_several_cameras_do_not_mix() -> None:
    """Buffers and maps are kept between requests; what a camera is answered must not depend on them."""
    views = [
        view(),
        view(distortion=np.array([-0.3, 0.1, 0, 0, 0])),
        view(image=np.zeros((30, 70, 3), np.uint8)),
        view(points=np.zeros((0, 4), np.float32)),
        view(distortion=np.array([-0.1, 0.0, 0, 0, 0])),
    ]
    shared_session = FakeSession()
    shared = pipeline(shared_session)
    order = [0, 1, 2, 3, 4, 2, 1, 0, 3]
    for index in order:
        shared.infer(views[index])
    for position, index in enumerate(order):
        alone = FakeSession()
        pipeline(alone).infer(views[index])
        np.testing.assert_array_equal(shared_session.given[position], alone.given[0])


def test_many_cameras_do_not_fill_the_memory() -> None:
    maps = UndistortionMaps(CalibrationParameters.model_validate(spec().parameters))
    for number in range(40):
        maps.of(view(distortion=np.array([-0.01 * (number + 1), 0, 0, 0])))
    assert len(maps) == 16


def test_latency_of_every_stage() -> None:
    latency = pipeline().infer(view()).latency_ms
    assert list(latency) == ["undistort", "project", "paint", "fuse", "end2end", "decide", "total"]
    assert latency["total"] == pytest.approx(sum(value for name, value in latency.items() if name != "total"), abs=0.1)


def test_alerts() -> None:
    empty = pipeline().infer(view(points=np.zeros((0, 4), np.float32)))
    lines = pipeline().alerts({"read": 10, "read_nan": 2, **empty.counters})
    assert any("no lidar point" in line for line in lines)
    assert any("2 of 10 points are NaN" in line for line in lines)
    fine = pipeline().infer(view())
    assert pipeline().alerts({"read": 10, "read_nan": 0, **fine.counters}) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": np.zeros((40, 60), np.uint8)}, r"shape \(40, 60\)"),
        ({"image": np.zeros((40, 60, 4), np.uint8)}, r"shape \(40, 60, 4\)"),
        ({"image": np.zeros((40, 60, 3), np.float32)}, "of float32"),
        ({"points": np.zeros((5, 3), np.float32)}, r"points have the shape \(5, 3\)"),
    ],
)
def test_requests_of_another_form(changes, message: str) -> None:
    with pytest.raises(InferenceError, match=message):
        pipeline().infer(view(**changes))


def test_fixed_size_export() -> None:
    component = spec().components[0]
    fixed = component.model_copy(
        update={"inputs": [TensorSpec(name="input", dtype="float32", shape=["batch_size", 5, 100, 200])]}
    )
    built = build_pipeline(spec().model_copy(update={"components": [fixed]}), FakeSession())
    with pytest.raises(InferenceError, match="60 x 40, the model was exported for a fixed size of 200 x 100"):
        built.infer(view())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameters": {"max_depth": 128.0}}, "parameters.dilation_size"),
        ({"parameters": spec(max_depth=-1.0).parameters}, "parameters.max_depth"),
        ({"parameters": spec(color="red").parameters}, "parameters.color"),
        ({"classes": ["calibrated", "miscalibrated"]}, "the classes are"),
    ],
)
def test_spec_of_another_model(change, message: str) -> None:
    other = ModelSpec.model_validate(spec().model_dump() | change)
    with pytest.raises(ManifestError, match=message):
        build_pipeline(other, FakeSession())


def test_input_of_another_channel_count() -> None:
    component = spec().components[0]
    other = component.model_copy(
        update={"inputs": [TensorSpec(name="input", dtype="float32", shape=["batch_size", 3, "height", "width"])]}
    )
    with pytest.raises(ManifestError, match=r"expected \(batch, 5, height, width\)"):
        build_pipeline(spec().model_copy(update={"components": [other]}), FakeSession())


def read(folder: Path) -> object:
    settings = DataSettings(format="info", root=folder, info_file=Path("infos.json"))
    return pipeline().read(open_dataset(settings, task="classification").sample(0))


def test_points_that_are_no_numbers_are_left_out_and_counted(tmp_path: Path) -> None:
    write_pair(tmp_path, [entry()])
    points = np.fromfile(tmp_path / "points.bin", np.float32).reshape(-1, 5)
    points[:3, 0], points[3:5, 3] = np.nan, np.inf
    points.tofile(tmp_path / "points.bin")
    found = read(tmp_path)
    assert found.counters == {"read": 4000, "read_nan": 5}
    assert len(found.data.points) == 3995


@pytest.mark.parametrize(
    ("shape", "message"),
    [((80, 120), "has 1 channel of uint8"), ((80, 120, 4), "has 4 channels of uint8")],
)
def test_image_that_is_not_in_color(tmp_path: Path, shape: tuple[int, ...], message: str) -> None:
    write_pair(tmp_path, [entry()], shape)
    with pytest.raises(InputError, match=message):
        read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_image_that_is_none(tmp_path: Path, content: bytes) -> None:
    write_pair(tmp_path, [entry()])
    (tmp_path / "image.png").write_bytes(content)
    with pytest.raises(InputError, match="can't be decoded as an image"):
        read(tmp_path)


def test_image_of_another_size_than_the_calibration_is_for(tmp_path: Path) -> None:
    write_pair(tmp_path, [entry(width=1920, height=1280)])
    with pytest.raises(InputError, match="is 120 x 80, its calibration is for 1920 x 1280"):
        read(tmp_path)
    write_pair(tmp_path, [entry(width=..., height=...)])
    assert read(tmp_path).data.image.shape == (80, 120, 3)


def test_missing_image(tmp_path: Path) -> None:
    write_pair(tmp_path, [entry(img_path="gone.png")])
    with pytest.raises(InputError, match=r"gone\.png: can't be read"):
        read(tmp_path)


def test_points_without_intensity(tmp_path: Path) -> None:
    write_pair(tmp_path, [entry()])
    settings = DataSettings(format="info", root=tmp_path, info_file=Path("infos.json"), num_features=2)
    with pytest.raises(InputError, match="2 columns, without an intensity"):
        pipeline().read(open_dataset(settings, task="classification").sample(0))


def test_disturbance_moves_the_points_and_nothing_else(tmp_path: Path) -> None:
    settings = DataSettings(format="info", root=make_demo(tmp_path / "demo"), info_file=Path(DEMO_INFO))
    dataset = open_dataset(settings, task="classification")
    session = FakeSession()
    judge = pipeline(session)
    for index in range(2):
        judge.infer(judge.read(dataset.sample(index)).data)
    wrong, right = session.given
    np.testing.assert_array_equal(wrong[0, :3], right[0, :3])
    assert (wrong[0, 3:] != right[0, 3:]).mean() > 0.05


def test_edges_of_depth_lie_on_edges_of_the_image_when_calibrated(real_data: Path) -> None:
    """What the network is to learn, measured: where depth jumps the image changes, if the calibration is right."""
    dataset = open_dataset(DataSettings(format="real", root=real_data), task="classification")
    better = 0
    for first in range(0, len(dataset), 2):
        scores = []
        for index in (first, first + 1):
            session = FakeSession()
            judge = pipeline(session)
            answer = judge.infer(judge.read(dataset.sample(index)).data)
            assert answer.counters["points_seen"] > 1000
            scores.append(edge_agreement(session.given[0][0]))
        better += scores[1] > scores[0]
    assert better >= 11, f"the right calibration fits better in {better} of 14 pairs"


def edge_agreement(channels: np.ndarray) -> float:
    """Mean strength of image edges at points much nearer than their neighbor to the left or right in the scan."""
    gray = cv2.GaussianBlur(channels[:3].mean(axis=0), (0, 0), 2)
    edges = np.abs(cv2.Sobel(gray, cv2.CV_32F, 1, 0)) + np.abs(cv2.Sobel(gray, cv2.CV_32F, 0, 1))
    depth = channels[3]
    filled = np.where(depth > 0, depth, 2).astype(np.float32)  # farther than any point
    near = cv2.erode(filled, np.ones((15, 15), np.uint8))
    far = cv2.dilate(np.where(depth > 0, depth, 0).astype(np.float32), np.ones((15, 15), np.uint8))
    jumps = (depth > 0) & (depth <= 1.02 * near) & (far > near * 1.5)
    return float(edges[jumps].mean())


def test_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    header = run_header(task="classification", classes=CLASSES, raw_samples=[0])
    logits = [np.array([[0.5, -1.25]], np.float32), np.array([[2.0, 3.0]], np.float32), np.array([[-9, 9]], np.float32)]
    first = RunWriter.open(tmp_path / "run", header)
    first.commit(0, ClassScores.build(logits[0]), {"total": 1.0}, {"calibrated": 0}, {"output": logits[0]})
    again = RunWriter.open(tmp_path / "run", header)
    assert again.done == {0}
    for index in (1, 2):
        again.commit(index, ClassScores.build(logits[index]), {"total": 1.0}, {"calibrated": 1})
    again.finish()
    finished = Run.open(tmp_path / "run")
    for index in range(3):
        np.testing.assert_array_equal(finished.predictions(index, ClassScores).logits, logits[index])
    assert [counters["calibrated"] for counters in finished.counters] == [0, 1, 1]
