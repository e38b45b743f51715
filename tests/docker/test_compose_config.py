"""`docker compose config` of every target and way to a GPU. Needs the docker command, and no engine."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.containers import ROOT

pytestmark = pytest.mark.docker

TARGETS = sorted(path.stem for path in (ROOT / "docker" / "targets").glob("*.env"))


def _config(tmp_path: Path, **variables: str) -> dict[str, Any]:
    if subprocess.run(["docker", "compose", "version"], check=False, capture_output=True).returncode != 0:
        pytest.skip("Docker has no Compose v2 here")
    environment = {name: value for name, value in os.environ.items() if name != "BASE_IMAGE"}
    answer = subprocess.run(
        ["docker", "compose", "--profile", "*", "config", "--format", "json"],
        capture_output=True, text=True, check=False, cwd=ROOT, env=environment | {"WORK": str(tmp_path)} | variables,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""
    value = json.loads(answer.stdout)
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize("gpu", ["none", "nvidia", "jetson"])
@pytest.mark.parametrize("target", TARGETS)
def test_every_target_resolves(target: str, gpu: str, tmp_path: Path) -> None:
    config = _config(tmp_path, TARGET=target, GPU=gpu)
    services = config["services"]
    assert {service["image"].rpartition(":")[2] for service in services.values()} == {target}
    variables = dict(
        line.split("=", 1) for line in (ROOT / "docker" / "targets" / f"{target}.env").read_text().splitlines()[2:]
    )
    assert services["trt_builder"]["build"]["args"]["BASE_IMAGE"] == variables["TENSORRT_BASE"]
    assert services["trt_builder"]["build"]["args"]["TENSORRT"] == variables["TENSORRT"]
    assert services["verifier"]["build"]["args"]["BASE_IMAGE"] == variables["PYTHON_BASE"]
    builder = services["trt_builder"]
    assert ("deploy" in builder) == (gpu == "nvidia")
    assert builder.get("runtime") == ("nvidia" if gpu == "jetson" else None)


def test_the_default_target_is_awmls_pin(tmp_path: Path) -> None:
    services = _config(tmp_path)["services"]
    assert services["trt_builder"]["image"] == "awml-deploy/trt_builder:x86-trt10.8"
    assert services["trt_builder"]["build"]["args"]["BASE_IMAGE"] == "nvcr.io/nvidia/tensorrt:25.01-py3"


def test_base_images_can_be_replaced_and_data_lies_where_the_user_says(tmp_path: Path) -> None:
    services = _config(tmp_path, BASE_IMAGE="mirror/base:1", DATA="/somewhere")["services"]
    built = [service["build"]["args"]["BASE_IMAGE"] for service in services.values() if "build" in service]
    assert set(built) == {"mirror/base:1"}
    mounts = {mount["target"]: mount for mount in services["evaluator"]["volumes"]}
    assert mounts["/data"]["source"] == "/somewhere"
    assert mounts["/data"]["read_only"] is True
    assert mounts["/workspace"]["source"] == str(tmp_path)
