"""A trace: a run whose steps' outputs were kept, so that another implementation can take over after any of them.

On disk, a run (`shared.runs`) in ``traces/<backend>-<device>`` whose header says under ``details.steps`` which steps it
has, and beside it::

    steps/000003/decode.npz    what step `decode` gave for sample 3: arrays by name, compressed

A step's arrays are all that the steps after it need. Those that are a component's inputs or outputs carry the names
that the model spec gives them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from shared.arrays import Arrays, read_arrays, write_arrays
from shared.latency import RENAMED_STAGES
from shared.runs import Run
from shared.work_path import WorkPath

#: Folder of the traces in a workspace.
TRACES = "traces"


def step_path(index: int, step: str) -> str:
    """Path of a step's output, relative to the run's folder."""
    return f"steps/{index:06d}/{step}.npz"


def write_step(folder: WorkPath, index: int, step: str, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Keep a step's output, whole or not at all; see `step_path`.

    Raises:
        EnvironmentLacks: the disk is full.
    """
    write_arrays(folder / step_path(index, step), arrays, compressed=True)


def read_step(folder: Path, index: int, step: str) -> Arrays:
    """A step's output, see `write_step`.

    Raises:
        InputError: it was not recorded, or can't be read.
    """
    return read_arrays(folder / step_path(index, step))


def traced_steps(run: Run) -> dict[str, str]:
    """The steps whose outputs a run kept, in order, and the names that its files have for them (`step_path`).

    Returns:
        Empty for a run that is not a trace.
    """
    recorded = [str(step) for step in run.header.details.get("steps", [])]
    return {RENAMED_STAGES.get(name, name): name for name in recorded}
