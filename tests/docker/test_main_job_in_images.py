"""The whole main job through the images, and in virtual environments: the same results, stage by stage."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.containers import ROOT, TAG, TARGET, docker

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("pytorch_images")]

# Enough to show that every stage does the same, little enough for two cores.
SETTINGS = "SET=evaluation.num_samples=3 verification.num_verify_samples=2"
STAGES = ["export", "build", "run:pytorch-cpu", "run:onnx-cpu", "verify", "evaluate", "report"]


def _make(*arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "TARGET_NAME": TAG, "OMP_NUM_THREADS": "2"}
    variables.pop("REAL_DATA", None)
    return subprocess.run(["make", *arguments], capture_output=True, text=True, check=False, cwd=ROOT, env=variables)


def _job(work: Path, run: str) -> dict[str, Any]:
    demo = f"DEMO_DATA={work.parent / 'demo'}"
    answer = _make(
        "centerpoint-all", f"RUN={run}", f"TARGET={TARGET}", "GPU=none", f"WORK={work}", demo, "RTX=none", SETTINGS
    )
    assert answer.returncode == 0, answer.stdout[-3000:] + answer.stderr[-3000:]
    manifest = json.loads((work / "manifest.json").read_text())
    assert isinstance(manifest, dict)
    return manifest


def _numbers(value: Any, place: str = "") -> dict[str, float]:
    """Every number of a JSON value by its place."""
    if isinstance(value, dict):
        pairs = [(f"{place}/{key}", entry) for key, entry in value.items()]
    elif isinstance(value, list):
        pairs = [(f"{place}/{index}", entry) for index, entry in enumerate(value)]
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        return {place: float(value)}
    else:
        return {}
    return {key: number for below, entry in pairs for key, number in _numbers(entry, below).items()}


@pytest.mark.skipif(not (ROOT / ".venv" / "exporter" / ".ready").exists(), reason="make setup was not run here")
def test_docker_and_local_give_the_same_results(volume: Path) -> None:
    images = json.loads(docker("image", "inspect", f"awml-deploy/exporter:{TAG}").stdout)
    assert images, "the job below must not build or pull"
    there = _job(volume / "docker" / "centerpoint", "docker")
    here = _job(volume / "local" / "centerpoint", "local")
    assert sorted(there["stages"]) == sorted(STAGES)
    for name in STAGES:
        assert there["stages"][name]["status"] == here["stages"][name]["status"], name
        assert there["stages"][name]["image"] is not None, name
        assert here["stages"][name]["image"] is None, name
        assert sorted(there["stages"][name]["outputs"]) == sorted(here["stages"][name]["outputs"]), name
    assert there["spec"] == here["spec"]
    assert there["results"].keys() == here["results"].keys()
    for kind in ("verification", "metrics"):
        ours, theirs = _numbers(here["results"][kind]), _numbers(there["results"][kind])
        assert ours.keys() == theirs.keys(), kind
    metrics = _numbers(here["results"]["metrics"])
    assert metrics, "nothing was compared"
    for place, number in _numbers(there["results"]["metrics"]).items():
        assert number == pytest.approx(metrics[place], abs=1e-4), place

    # And again: nothing to do, in new containers.
    demo = f"DEMO_DATA={volume / 'docker' / 'demo'}"
    work = volume / "docker" / "centerpoint"
    answer = _make("pipeline", "RUN=docker", f"TARGET={TARGET}", "GPU=none", f"WORK={work}", demo, SETTINGS)
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr.count("up to date") == len(STAGES) - 1
