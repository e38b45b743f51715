"""Export of a calibration status classifier: AWML's weights, what is checked, and that all that follows agrees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from demo.camera import camera_rig, render
from demo.recording import draw_scene, record_scene
from exporter.cli import cli as exporter_cli
from exporter.demo_training import through_jpeg
from exporter.mmcv_ops import provide_mmcv_ops
from exporter.models import find
from exporter.models.calibration import adapter as calibration
from exporter.models.calibration.demo_frames import (
    kept_views,
    mounted_otherwise,
    painted,
    straight_image,
    training_samples,
    training_views,
)
from exporter.models.calibration.image_classifier import build_image_classifier
from exporter.models.calibration.transform import five_channels
from exporter.training_config import TrainingConfig, random_weights, read_training_config
from runtime.cli import cli as runtime_cli
from runtime.models.calibration.steps import CameraView
from runtime.pipeline import build_pipeline
from shared.data.miscalibration import draw_disturbance
from shared.errors import ConfigError
from shared.manifest import read_manifest
from shared.runs import Run
from shared.tasks.classification import ClassScores
from tests.support.calibration_data import DEMO_INFO, FakeSession, entry, make_demo, spec, write_pair
from verifier.cli import cli as verifier_cli

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.exporter

ROOT = Path(__file__).parents[2]
TRAINING = ROOT / "configs/train/calibration_demo.py"

AWML_SECTION = {
    "type": "mmpretrain.ImageClassifier",
    "backbone": {
        "type": "ResNet",
        "depth": 18,
        "in_channels": 5,
        "num_stages": 4,
        "out_indices": (3,),
        "frozen_stages": -1,
        "style": "pytorch",
        "norm_cfg": {"type": "BN", "requires_grad": True},
    },
    "neck": {"type": "GlobalAveragePooling"},
    "head": {
        "type": "LinearClsHead",
        "num_classes": 2,
        "in_channels": 512,
        "loss": {"type": "LabelSmoothLoss", "loss_weight": 1.0, "label_smooth_val": 0.1, "reduction": "mean"},
        "topk": (1,),
        "init_cfg": {"type": "Normal", "layer": "Linear", "mean": 0, "std": 0.01, "bias": 0},
    },
}


def config_of(**model: object) -> TrainingConfig:
    section = {**AWML_SECTION, **model}
    step = {"type": "CalibrationClassificationTransform", "max_depth": 100.0, "dilation_size": 2, "undistort": True}
    return TrainingConfig(Path("config.py"), section, (step, {"type": "PackInputs", "input_key": "fused_img"}))


def awml_weights() -> dict[str, tuple[int, ...]]:
    """Names and shapes of ResNet-18's weights, as mmpretrain (and torchvision) have them."""

    def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
        parts = ("weight", "bias", "running_mean", "running_var")
        return {f"{name}.{part}": (width,) for part in parts} | {f"{name}.num_batches_tracked": ()}

    weights: dict[str, tuple[int, ...]] = {"backbone.conv1.weight": (64, 5, 7, 7), **norm("backbone.bn1", 64)}
    before = 64
    for stage, width in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            name = f"backbone.layer{stage}.{block}"
            weights[f"{name}.conv1.weight"] = (width, before, 3, 3)
            weights |= norm(f"{name}.bn1", width)
            weights[f"{name}.conv2.weight"] = (width, width, 3, 3)
            weights |= norm(f"{name}.bn2", width)
            if block == 0 and stage > 1:
                weights[f"{name}.downsample.0.weight"] = (width, before, 1, 1)
                weights |= norm(f"{name}.downsample.1", width)
            before = width
    return weights | {"head.fc.weight": (2, 512), "head.fc.bias": (2,)}


def test_weights_have_awmls_names_and_shapes() -> None:
    for config in (config_of(), read_training_config(ROOT / "configs/train/calibration_resnet18.py")):
        model = calibration.build(config, calibration.read_options({}))
        assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == awml_weights()


def test_network_computes_what_its_layers_say() -> None:
    """Against the same layers put together by hand."""
    provide_mmcv_ops()
    model = build_image_classifier(AWML_SECTION).eval()
    random_weights(model, 0)
    state = model.state_dict()

    def norm(x, name):
        parts = [state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return torch.nn.functional.batch_norm(x, *parts)

    inputs = torch.rand(2, 5, 70, 90, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        x = torch.nn.functional.conv2d(inputs, state["backbone.conv1.weight"], stride=2, padding=3)
        x = torch.nn.functional.max_pool2d(norm(x, "backbone.bn1").relu(), 3, 2, 1)
        for stage in range(1, 5):
            for block in range(2):
                name, stride = f"backbone.layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
                y = torch.nn.functional.conv2d(x, state[f"{name}.conv1.weight"], stride=stride, padding=1)
                y = torch.nn.functional.conv2d(norm(y, f"{name}.bn1").relu(), state[f"{name}.conv2.weight"], padding=1)
                if stride == 2:
                    x = torch.nn.functional.conv2d(x, state[f"{name}.downsample.0.weight"], stride=2)
                    x = norm(x, f"{name}.downsample.1")
                x = (norm(y, f"{name}.bn2") + x).relu()
        expected = x.mean((2, 3)) @ state["head.fc.weight"].T + state["head.fc.bias"]
        torch.testing.assert_close(model(inputs), expected, rtol=1e-4, atol=1e-4)


def test_parameters_are_those_of_the_test_pipeline() -> None:
    options = calibration.read_options({"miscalibration_confidence_threshold": 0.25})
    assert calibration.parameters(None, config_of(), options) == {
        "max_depth": 100.0,
        "dilation_size": 2,
        "undistort": True,
        "miscalibration_confidence_threshold": 0.25,
    }


def test_the_framework_decides_by_the_threshold_as_the_runtime_does() -> None:
    options = calibration.read_options({"miscalibration_confidence_threshold": 100.0})
    for chosen, labels in ((calibration.read_options({}), None), (options, [0])):
        model = calibration.build(config_of(), chosen)
        _, scores, _ = calibration.answer(model, torch.rand(1, 5, 64, 96))
        expected = [int(scores.logits[0, 1] > scores.logits[0, 0])] if labels is None else labels
        assert scores.labels.tolist() == expected


def test_older_name_of_the_depth_limit() -> None:
    step = {"type": "CalibrationClassificationTransform", "lidar_range": 77.0}
    config = TrainingConfig(Path("config.py"), AWML_SECTION, (step,))
    assert calibration.parameters(None, config, calibration.read_options({}))["max_depth"] == 77.0


@pytest.mark.parametrize(
    "arguments",
    [
        {"mode": "test", "undistort": True, "enable_augmentation": False, "data_root": "/data"},
        {"test": True},
        {"mode": "test", "transform_config": {"crop_ratio": 0.6, "depth_scale": 80.0, "radius": 2, "rgb_weight": 0.3}},
    ],
)
def test_the_transform_of_an_early_awml_is_refused_unless_the_depth_is_given(arguments) -> None:
    """Its input had other values: the answers would be wrong, and look like answers."""
    step = {"type": "CalibrationClassificationTransform", **arguments}
    config = TrainingConfig(Path("config.py"), AWML_SECTION, (step,))
    with pytest.raises(ConfigError, match=r"before September 2025.*model\.options\.max_depth=128"):
        calibration.parameters(None, config, calibration.read_options({}))
    later = calibration.parameters(None, config, calibration.read_options({"max_depth": 128.0}))
    assert (later["max_depth"], later["dilation_size"]) == (128.0, 1)


def test_the_current_transform_with_its_defaults() -> None:
    settings = {"crop_ratio": 0.6, "max_distortion": 0.001, "rgb_weight": 0.3}
    step = {"type": "CalibrationClassificationTransform", "mode": "test", "transform_config": settings}
    config = TrainingConfig(Path("config.py"), AWML_SECTION, (step,))
    assert calibration.parameters(None, config, calibration.read_options({}))["max_depth"] == 128.0


def test_points_through_a_lens_are_refused() -> None:
    step = {"type": "CalibrationClassificationTransform", "max_depth": 128.0, "undistort": False}
    config = TrainingConfig(Path("config.py"), AWML_SECTION, (step,))
    with pytest.raises(ConfigError, match="undistort=False"):
        calibration.parameters(None, config, calibration.read_options({}))


def test_the_input_is_what_awmls_transform_was_seen_to_make() -> None:
    """Values that CalibrationClassificationTransform of AWML's main gave for this image and these points."""
    rows, columns = np.mgrid[:6, :9]
    image = np.stack([rows * 40, columns * 28, (rows + columns) * 15], axis=2).astype(np.uint8)
    points = [
        [5, 1.0, 0.3, 200], [10, 1.5, 0.4, 90], [20, -4, 1, 17.5], [21, -4.4, 1, 33], [127, 3, -2, 250],
        [130, 0, 0, 60], [-5, 0, 0, 70], [4, 2.9, -1.9, 120], [40, -15, -9, 255],
    ]  # fmt: skip
    lidar2cam = np.array([[0, -1, 0, 0.1], [0, 0, -1, 0.2], [1, 0, 0, -0.3], [0, 0, 0, 1.0]])
    made = five_channels(
        image, np.array(points, np.float32), np.array([[8.0, 0, 4.2], [0, 8.5, 2.4], [0, 0, 1]]),
        np.array([-0.2, 0.05, 0.001, -0.002, 0.0]), lidar2cam, max_depth=128.0, dilation_size=1,
    )  # fmt: skip
    blue = [[5, 3, 1, 0, 0, 0, 1, 3, 5], [43, 41, 40, 40, 40, 40, 40, 41, 43], [81, 80, 80, 80, 80, 80, 80, 80, 81],
            [119, 120, 120, 120, 120, 120, 120, 120, 119], [158, 159, 160, 160, 161, 160, 160, 159, 158],
            [195, 196, 199, 200, 200, 200, 199, 198, 195]]  # fmt: skip
    near, mid, far, last = 9.3633, 19.3242, 39.2461, 79.0898
    depth, intensity = np.zeros((6, 9)), np.zeros((6, 9))
    depth[1:4, 1:7], intensity[1:4, 1:7] = [near] * 3 + [mid] + [far] * 2, [200] * 3 + [90] + [17.5] * 2
    depth[3:, 7:], depth[4:, 6] = last, last
    intensity[3:, 7:], intensity[4:, 6] = 255, 255
    assert np.array_equal(np.rint(made[0] * 255), blue)
    np.testing.assert_allclose(made[3:] * 255, [depth, intensity], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "CenterPoint"}, "not an ImageClassifier"),
        ({"backbone": {**AWML_SECTION["backbone"], "in_channels": 3}}, "takes 3 channels, the input has 5"),
        ({"backbone": {**AWML_SECTION["backbone"], "type": "VGG"}}, "has a VGG where ResNet is expected"),
        ({"backbone": {**AWML_SECTION["backbone"], "plugins": [1]}}, "backbone.plugins is not supported"),
        ({"backbone": {**AWML_SECTION["backbone"], "depth": 19}}, "can't be built"),
        ({"backbone": {**AWML_SECTION["backbone"], "out_indices": (2, 3)}}, "only the last stage"),
        ({"head": {**AWML_SECTION["head"], "num_classes": 3}}, "should have 2 classes: miscalibrated, calibrated"),
        ({"data_preprocessor": {"mean": [1, 2, 3]}}, "data_preprocessor.mean is set"),
    ],
)
def test_configs_that_can_not_be_deployed(change, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        calibration.build(config_of(**change), calibration.read_options({}))


def test_unknown_step_of_the_pipeline() -> None:
    config = TrainingConfig(Path("config.py"), AWML_SECTION, ({"type": "Resize", "scale": 224},))
    with pytest.raises(ConfigError, match="steps Resize"):
        calibration.parameters(None, config, calibration.read_options({}))


def test_unknown_option() -> None:
    with pytest.raises(ConfigError, match="options of calibration"):
        calibration.read_options({"threshold": 1.0})


@pytest.mark.parametrize("distortion", [[], [-0.3, 0.1, 0.001, 0.002], [-0.3, 0.1, 0.001, 0.002, -0.01]])
def test_runtime_makes_the_same_input_as_awmls_transform(distortion: list[float]) -> None:
    """Two implementations: one step by step with OpenCV, one for speed. Bit for bit."""
    rng = np.random.default_rng(0)
    count = 30_000
    points = np.column_stack([rng.normal(0, 15, (count, 2)), rng.uniform(-5, 140, count), rng.uniform(0, 255, count)])
    turned = np.eye(4)
    turned[:3, :3] = draw_disturbance("awml", rng).matrix[:3, :3]
    data = CameraView(
        image=rng.integers(0, 256, (240, 401, 3), dtype=np.uint8),
        points=points.astype(np.float32),
        intrinsics=np.array([[260.0, 0, 199.5], [0, 261.0, 121.0], [0, 0, 1]]),
        distortion=np.array(distortion),
        lidar2cam=turned,
    )
    expected = five_channels(
        data.image, data.points, data.intrinsics, data.distortion, data.lidar2cam, max_depth=128.0, dilation_size=1
    )
    session = FakeSession()
    build_pipeline(spec(), session).infer(data)
    np.testing.assert_array_equal(session.given[0][0], expected)
    assert (expected[3] > 0).mean() > 0.3


def test_training_samples_are_the_same_input() -> None:
    frame = record_scene(3, "train", 0, 1, cameras=True).frames[0]
    disturbance = draw_disturbance("awml", np.random.default_rng(0))
    for camera in camera_rig()[:2]:
        rendered = frame.pictures[camera.channel].image
        deployed = five_channels(
            np.ascontiguousarray(through_jpeg(rendered, 90)[..., ::-1]),
            frame.key.points,
            camera.cam2img,
            camera.distortion,
            disturbance.apply(np.linalg.inv(camera.cam2ego)),
            max_depth=128.0,
            dilation_size=1,
        )
        trained = [straight_image(rendered, camera), painted(frame.key.points, camera, disturbance)]
        difference = np.abs(np.concatenate(trained) - 255 * deployed)
        assert difference[:3].max() < 1e-4
        assert (difference[3:] > 0.01).mean() < 1e-3  # poses are inverted in two ways


def test_training_frames_come_from_vehicles_of_their_own() -> None:
    views = training_views(3, 0)
    for camera, own, image in zip(views.cameras, camera_rig(), views.images, strict=True):
        turned = camera.cam2ego[:3, :3] @ own.cam2ego[:3, :3].T
        np.testing.assert_allclose(turned @ turned.T, np.eye(3), atol=1e-12)
        angle = np.rad2deg(np.arccos((np.trace(turned) - 1) / 2))
        assert 0.01 < angle <= 10
        assert np.linalg.norm(camera.cam2ego[:3, 3] - own.cam2ego[:3, 3]) <= 0.2
        assert image.shape == (3, 300, 480)
    inputs, labels = training_samples(views, np.random.default_rng(0), "awml")
    assert inputs.shape == (12, 5, 300, 480)
    np.testing.assert_array_equal(labels, [0, 1] * 6)
    np.testing.assert_array_equal(inputs[0, :3], inputs[1, :3])
    assert (inputs[0, 3:] != inputs[1, 3:]).mean() > 0.05


def test_small_turns_of_a_camera_are_no_likelier_than_large_ones() -> None:
    """Evenly spread in the space of turns: half of them within the half of its volume, 7.9 degrees."""
    rng, own = np.random.default_rng(0), camera_rig()[0]
    mounts = [mounted_otherwise(own, rng).cam2ego[:3, :3] @ own.cam2ego[:3, :3].T for _ in range(2000)]
    angles = np.rad2deg([np.arccos((np.trace(turned) - 1) / 2) for turned in mounts])
    assert np.mean(angles < 10 / np.cbrt(2)) == pytest.approx(0.5, abs=0.04)


def test_kept_frames_are_the_same_frames(tmp_path: Path) -> None:
    first, again, new = kept_views(3, 0, tmp_path), kept_views(3, 0, tmp_path), training_views(3, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["3-0.npz"]
    for views in (first, again):
        np.testing.assert_array_equal(views.points, new.points)
        np.testing.assert_array_equal(views.mounts, new.mounts)
        np.testing.assert_array_equal(views.images, new.images)


def test_a_camera_mounted_otherwise_sees_what_lies_there() -> None:
    """Turned by 56 degrees about the vehicle's upward axis, the front camera's lens looks where its neighbor does."""
    scene = draw_scene(3, "train", 0, 1)
    front, right = camera_rig()[:2]
    turned = render(replace(front, cam2ego=right.cam2ego), scene.at(0.0), scene.road).image
    own = render(front, scene.at(0.0), scene.road).image
    beside = render(right, scene.at(0.0), scene.road).image
    middle = (slice(100, 200), slice(180, 300))

    def difference(a, b) -> float:
        return float(np.abs(a[middle].astype(float) - b[middle].astype(float)).mean())

    assert difference(turned, beside) < 0.7 * difference(turned, own)
    same = render(replace(front, cam2ego=front.cam2ego.copy()), scene.at(0.0), scene.road).image
    assert difference(same, own) < 0.5


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """A workspace with a random classifier on one frame of the demo."""
    folder = tmp_path_factory.mktemp("export")
    make_demo(folder / "data", 1)
    adapter = find("calibration")
    model = adapter.build(read_training_config(TRAINING), adapter.read_options({}))
    random_weights(model, 0)
    torch.save({"state_dict": model.state_dict()}, folder / "weights.pth")
    (folder / "config.yaml").write_text(
        f"""
task_type: classification
model:
  type: calibration
  config: {TRAINING}
  checkpoint: weights.pth
data: {{format: info, root: data, info_file: {DEMO_INFO}}}
export: {{mode: onnx, opset_version: 16}}
verification: {{num_verify_samples: 4, tolerance: 0.001}}
evaluation: {{enabled: true, num_samples: -1}}
"""
    )
    answer = CliRunner().invoke(
        exporter_cli, ["export", "--config", str(folder / "config.yaml"), "--work", str(folder / "work")]
    )
    assert answer.exit_code == 0, answer.output
    return folder


def test_spec_is_autowares(exported: Path) -> None:
    found = read_manifest(exported / "work/manifest.json").spec
    assert found is not None
    assert found.classes == ["miscalibrated", "calibrated"]
    (component,) = found.components
    assert component.onnx == "onnx/end2end.onnx"
    assert component.inputs[0].model_dump() == {
        "name": "input",
        "dtype": "float32",
        "shape": ["batch_size", 5, "height", "width"],
    }
    assert component.outputs[0].model_dump() == {"name": "output", "dtype": "float32", "shape": ["batch_size", 2]}


def test_backends_agree_with_the_framework(exported: Path) -> None:
    work = exported / "work"
    for backend in ("pytorch", "onnx"):
        answer = CliRunner().invoke(runtime_cli, ["run", "--work", str(work), "--backend", backend])
        assert answer.exit_code == 0, answer.output
    reference = Run.open(work / "reference")
    assert len(reference) == 4
    for backend in ("pytorch", "onnx"):
        run = Run.open(work / f"runs/{backend}-cpu")
        assert len(run) == 12
        for index in range(4):
            expected = reference.predictions(index, ClassScores).logits
            np.testing.assert_allclose(run.predictions(index, ClassScores).logits, expected, atol=1e-4, rtol=1e-4)
    verified = CliRunner().invoke(verifier_cli, ["verify", "--work", str(work)])
    assert verified.exit_code == 0, verified.output
    again = CliRunner().invoke(runtime_cli, ["run", "--work", str(work), "--backend", "onnx"])
    assert "up to date" in again.output


def test_picture_of_a_pair(exported: Path, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    answer = CliRunner().invoke(
        runtime_cli, ["overlay", "--work", str(exported / "work"), "--sample", "3", "--out", str(picture)]
    )
    assert answer.exit_code == 0, answer.output
    assert "calibrated, CAM_FRONT_RIGHT miscalibrated by" in answer.output
    assert picture.stat().st_size > 10_000
    wrong = CliRunner().invoke(
        runtime_cli, ["overlay", "--work", str(exported / "work"), "--out", str(tmp_path / "picture.txt")]
    )
    assert wrong.exit_code == 2


@pytest.mark.parametrize(
    ("entries", "image", "message"),
    [
        ([], None, "has no frames"),
        ([entry(cam2img=...)], None, "lacks the key 'cam2img'"),
        ([entry(distortion_coefficients=[0.1] * 7)], None, "has 7 distortion coefficients"),
        ([entry()], b"no image", "can't be decoded as an image"),
        ([entry()], (80, 120), "has 1 channel of uint8"),
    ],
)
def test_bad_data_ends_in_one_line_and_exit_code_3(exported: Path, tmp_path: Path, entries, image, message) -> None:
    data = write_pair(tmp_path, entries, image if isinstance(image, tuple) else (80, 120, 3))
    if isinstance(image, bytes):
        (data / "image.png").write_bytes(image)
    settings = {"data.root": str(data), "data.info_file": str(data / "infos.json")}
    overrides = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    answer = CliRunner().invoke(
        exporter_cli,
        ["export", "--config", str(exported / "config.yaml"), "--work", str(tmp_path / "work"), *overrides],
    )
    assert answer.exit_code == 3, answer.output
    assert message in answer.output
    assert "Traceback" not in answer.output
