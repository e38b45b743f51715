"""The recipe: from the ONNX files in a workspace to engines that are proven to be what was asked for."""

from __future__ import annotations

from pathlib import Path

from shared.errors import EnvironmentLacks
from shared.workspace import Workspace
from trt_builder import target as targets

TOOL = "trt_builder"


def build_all(work: Path, *, target: str, if_available: bool, force: bool) -> None:
    """Build the engines of every component.

    Args:
        work: the workspace.
        target: ``auto``, ``tensorrt`` or ``rtx``.
        if_available: where this machine can't build, record that and end well.
        force: build although everything is up to date.

    Raises:
        EnvironmentLacks: no TensorRT or no GPU here.
    """
    ws = Workspace.open(work)
    try:
        found = targets.find(target)
    except EnvironmentLacks as missing:
        if not if_available:
            raise
        ws.stage("build", tool=TOOL).skip(str(missing))
        return
    raise EnvironmentLacks(f"{found.tensorrt.title} is not supported yet")
