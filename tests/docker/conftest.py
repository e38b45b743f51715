"""Fixtures of the tests with a Docker engine: the images, built once a session."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.containers import ROOT, TAG, TARGET, docker


@pytest.fixture(scope="session")
def engine() -> None:
    """A Docker engine that answers, with Compose."""
    answer = docker("info", "--format", "{{.ServerVersion}}")
    if answer.returncode != 0:
        pytest.skip("no Docker engine answers; start one, or set DOCKER_HOST")
    if docker("compose", "version").returncode != 0:
        pytest.skip("Docker has no Compose v2 here")


def build(*services: str, target: str = TARGET, tag: str = TAG, **more: str) -> None:
    """Build images; ``more`` variables of compose.yaml."""
    variables = {**os.environ, "TARGET": target, "TARGET_NAME": tag, "VERSION": "0.test", "REVISION": "0123abc", **more}
    answer = subprocess.run(
        ["docker", "compose", "--progress", "plain", "build", *services],
        capture_output=True, text=True, check=False, cwd=ROOT, env=variables,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout[-3000:] + answer.stderr[-3000:]


@pytest.fixture(scope="session")
def images(engine: None) -> None:
    """The images that need no PyTorch."""
    build("verifier", "evaluator", "runtime-onnx", "trt_builder")


@pytest.fixture(scope="session")
def pytorch_wheel() -> None:
    """Skips where PyTorch's CPU wheel, which is on no public index, is not there to build from."""
    if not list((ROOT / "docker" / "wheels").glob("torch-*.whl")):
        pytest.skip("exporter and runtime-pytorch: no CPU wheel of PyTorch in docker/wheels (docs/docker.md)")


@pytest.fixture(scope="session")
def pytorch_images(images: None, pytorch_wheel: None) -> None:
    """The images with PyTorch."""
    build("exporter", "runtime-pytorch")


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A folder of workspaces."""
    folder = tmp_path / "volume"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def rtx_image(engine: None) -> str:
    """The trt_builder image with TensorRT for RTX; returns its tag. Its wheels are 0.2 GB."""
    tag = f"{TAG}-rtx"
    build("trt_builder", target="rtx", tag=tag)
    return tag
