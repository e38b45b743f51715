"""Images with a package that adds a model: it runs in them, and images without it say in a line what they lack."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.manifest import read_manifest
from tests.docker.conftest import build
from tests.support.containers import ROOT, TAG, TARGET, Compose, let_in

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("images")]

PACKAGE = ROOT / "packages" / "awml-deploy-transfusion"
TRAINING_CONFIG = "awml_deploy_transfusion/configs/transfusion_demo.py"
WITH_PACKAGE = f"{TAG}-plugins"
EXPORTER = ROOT / ".venv/exporter/bin/python"
BUILT = ROOT / "docker" / "plugins"


@pytest.fixture(scope="module")
def wheel() -> Iterator[Path]:
    """The package's wheel, from which `make images` has built images."""
    if list(BUILT.glob("*.whl")):
        pytest.skip("wheels of the user's are in docker/plugins")
    answer = subprocess.run(
        ["make", "images", "IMAGES=runtime-onnx verifier evaluator", f"PLUGINS={PACKAGE}", f"TARGET={TARGET}"],
        capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "TARGET_NAME": WITH_PACKAGE},
    )  # fmt: skip
    wheels = list(BUILT.glob("*.whl"))
    assert answer.returncode == 0 and len(wheels) == 1, answer.stdout[-3000:] + answer.stderr[-3000:]
    yield wheels[0]
    wheels[0].unlink()


@pytest.fixture(scope="module")
def volume(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an export of the package's model, of random weights, and two frames for it."""
    folder = tmp_path_factory.mktemp("volume")
    site = folder / "site"

    def python(*arguments: str | Path) -> None:
        answer = subprocess.run(
            [EXPORTER, "-m", *arguments], env={**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"},
            capture_output=True, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
        assert answer.returncode == 0, answer.stdout + answer.stderr

    python("pip", "install", "--quiet", "--no-index", "--no-deps", "--target", site, wheel)
    python("demo", "generate", "--for", "transfusion", "--out", folder / "demo", "--frames", "2", "--no-cameras")
    random = ("exporter.random_checkpoint", "write", "--config", site / TRAINING_CONFIG, "--out", folder / "random.pth")
    python(*random)
    python(
        "exporter", "export", "--config", "transfusion", "--work", folder / "work" / "transfusion",
        "--data", folder / "demo", "--set", f"model.checkpoint={folder / 'random.pth'}",
        "--set", "verification.num_verify_samples=2", "--set", "export.mode=onnx",
        "--set", "verification.scenarios={onnx: [{ref_backend: framework, test_backend: onnx}]}",
    )  # fmt: skip
    let_in(folder)
    return folder


def test_the_model_of_a_package_runs_in_images_that_hold_it(volume: Path) -> None:
    compose = Compose(volume / "work", volume / "demo", WITH_PACKAGE)
    for service, *command in (
        ("runtime-onnx", "run", "--backend", "onnx"), ("verifier", "verify"), ("evaluator", "evaluate"),
    ):  # fmt: skip
        answer = compose.run(service, command[0], "--work", "/workspace/transfusion", *command[1:])
        assert answer.returncode == 0, answer.stdout + answer.stderr
    manifest = read_manifest(volume / "work" / "transfusion" / "manifest.json")
    assert manifest.stages["run:onnx-cpu"].image == f"awml-deploy/runtime-onnx:{WITH_PACKAGE}"
    assert {manifest.stages[name].status for name in ("run:onnx-cpu", "verify", "evaluate")} == {"done"}
    listed = compose.run("manifest", "plugins").stdout
    assert ["pipelines", "transfusion", "awml-deploy-transfusion"] in [line.split()[:3] for line in listed.splitlines()]


@pytest.mark.timeout(3600)
def test_the_exporters_image_exports_the_model_of_a_package(pytorch_wheel: None, wheel: Path, volume: Path) -> None:
    """The demo's checkpoint, which comes with the package."""
    compose = Compose(volume / "work", volume / "demo", WITH_PACKAGE)
    build("exporter", tag=WITH_PACKAGE, PLUGINS="yes")
    answer = compose.run(
        "exporter", "export", "--config", "transfusion", "--work", "/workspace/exported", "--data", "/data",
        "--set", "verification.num_verify_samples=1",
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout + answer.stderr
    manifest = read_manifest(volume / "work" / "exported" / "manifest.json")
    assert manifest.stages["export"].image == f"awml-deploy/exporter:{WITH_PACKAGE}"
    assert {"onnx/transfusion.onnx", "pytorch/transfusion.pt2"} <= manifest.artifacts.keys()


def test_images_without_the_package_say_what_they_lack(volume: Path) -> None:
    compose = Compose(volume / "work", volume / "demo")
    answer = compose.run("runtime-onnx", "run", "--work", "/workspace/transfusion", "--backend", "onnx", "--force")
    assert answer.returncode == 3
    (line,) = (line for line in answer.stderr.splitlines() if line.startswith("error: "))
    assert "transfusion" in line
