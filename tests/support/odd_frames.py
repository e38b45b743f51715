"""Frames whose reading takes as long, or ends, as they say: a pipeline of another package that does nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.devices import parse_device
from runtime.model import Model
from runtime.pipeline import HostPipeline, Interface, PipelineInput, one_array
from shared.config.model_sections import Data
from shared.data import open_dataset
from shared.data.types import Sample
from shared.spec import ComponentSpec, ModelSpec, TensorSpec
from tests.support import plugin_packages

#: First value of a frame: read it, refuse it, have the process killed, crash it.
READ, REFUSE, KILL, CRASH = range(4)
COLUMNS = 5

PIPELINE = """
import ctypes, os, signal, time
import numpy as np
from runtime.pipeline import HostPipeline, Interface, PipelineInput, one_array
from shared.data import read_points
from shared.errors import InputError

def read(sample):
    points = read_points(sample.lidar)
    what, seconds = points[0, :2]
    with open(sample.lidar.path.parent / "log", "a") as log:
        log.write(sample.token + "\\n")
    time.sleep(float(seconds))
    if what == 1:
        raise InputError("is refused", where=sample.token, hint="look at it")
    if what == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if what == 3:
        ctypes.string_at(0)
    return PipelineInput(points, {"read": len(points)})

def build(spec, session):
    if spec.parameters["needs_gpu"]:
        session.gpu
    return HostPipeline(Interface(read, one_array("points")), [])
"""


def write_frame(path: Path, *, rows: int, what: int = READ, seconds: float = 0.0) -> None:
    """A frame of so many rows of random numbers, at least one."""
    points = np.random.default_rng(rows).normal(size=(rows, COLUMNS)).astype("<f4")
    points[0, :2] = what, seconds
    points.tofile(path)


def write_frames(folder: Path, frames: Sequence[dict[str, Any]]) -> Path:
    """A data set of them: keyword arguments of `write_frame` each."""
    folder.mkdir()
    for number, frame in enumerate(frames):
        write_frame(folder / f"{number:03d}.bin", **frame)
    return folder


def model_of(
    folder: Path, site: Path, monkeypatch: pytest.MonkeyPatch, device: str = "cpu", *, needs_gpu: bool = False
) -> Model:
    """A model whose pipeline reads the frames in ``folder``, and is installed in ``site``."""
    if not site.exists():
        points = {"awml_deploy.pipelines": {"odd": "odd_frames_plugin"}}
        plugin_packages.install(monkeypatch, site, "odd_frames_plugin", {"pipeline.py": PIPELINE}, points)
    data = Data(format="folder", num_features=COLUMNS)
    component = ComponentSpec(
        name="none",
        inputs=[TensorSpec(name="points", dtype="float32", shape=["N", COLUMNS])],
        outputs=[TensorSpec(name="points", dtype="float32", shape=["N", COLUMNS])],
        onnx="onnx/none.onnx",
    )
    spec = ModelSpec(
        model="odd", task="detection3d", classes=["car"], components=[component], parameters={"needs_gpu": needs_gpu}
    )
    dataset = open_dataset(data, root=folder)
    # What is read needs no workspace.
    config: Any = type("Config", (), {"data": data})
    workspace: Any = None
    return Model(workspace, spec, config, "onnx", parse_device(device, {}), None, lambda: dataset, data_root=folder)


def read_points(sample: Sample) -> PipelineInput:
    """What the plugin reads, without what it may say of itself."""
    points = np.fromfile(sample.lidar.path, "<f4").reshape(-1, COLUMNS)
    return PipelineInput(points, {"read": len(points)})


def pipeline() -> HostPipeline:
    """A pipeline that takes what is read."""
    return HostPipeline(Interface(read_points, one_array("points")), [])
