"""What the last `evaluator evaluate` left in a workspace or in one of its versions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shared import formats
from shared.arrays import read_arrays
from shared.errors import InputError
from shared.json_reader import read_json
from shared.several_tasks import of_part, parts_of, qualified
from shared.versions import KeptWorkspace
from shared.workspace import Workspace

#: The stage that evaluations are from.
STAGE = "evaluate"

#: What `computed_with` says nothing of, in words.
USUAL_SETTINGS = "the usual settings"

#: Per headline number, its value in each replicate (B,).
Replicates = dict[str, npt.NDArray[np.float64]]


def stored_evaluations(workspace: Workspace | KeptWorkspace) -> dict[str, dict[str, Any]]:
    """The evaluations of the last ``evaluate``, by run.

    Raises:
        ManifestError: a file was changed.
        InputError: a file was written by another version.
    """
    stage = workspace.manifest().stages.get(STAGE)
    if stage is None or stage.status != "done":
        return {}
    stored = {
        Path(relative).stem: read_json(workspace.artifact(relative))
        for relative in stage.outputs
        if relative.endswith(".json")
    }
    for name, evaluation in stored.items():
        if evaluation.get("format") != formats.EVALUATION:
            raise InputError(
                "was written by another version of the evaluator",
                where=f"{workspace.root}/evaluation/{name}.json",
                hint=f"evaluate again: evaluator evaluate --work {workspace.root}",
            )
    return stored


def computed_with(evaluation: Mapping[str, Any]) -> str:
    """Which settings of the metrics of an evaluation are not the usual ones, in words; empty: none, or not recorded."""
    metrics = evaluation.get("metrics") or {}
    return "; ".join(part["computed_with"] for part in parts_of(metrics).values() if part.get("computed_with"))


def settings_by_number(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """`computed_with` of each headline number; those that were computed as usual, or don't depend on it, are left out.

    Where a metric does not tell which of its numbers depend on its settings, all of them do.
    """
    found: dict[str, str] = {}
    for name, part in parts_of(evaluation.get("metrics") or {}).items():
        if settings := part.get("computed_with"):
            numbers = part.get("depends_on_settings", of_part(name, evaluation["headline"]))
            found |= qualified(name, dict.fromkeys(numbers, settings))
    return found


def stored_replicates(workspace: Workspace | KeptWorkspace, run: str) -> Replicates:
    """The replicates behind the intervals of ``run``, of the last ``evaluate``.

    Raises:
        ManifestError: the file is missing or was changed.
    """
    return read_arrays(workspace.artifact(f"evaluation/{run}.npz"))
