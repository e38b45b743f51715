"""The float model beside an INT8 one: runs of another workspace, of the same checkpoint and over the same frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluator.bootstrap import differences
from evaluator.stored import STAGE, USUAL_SETTINGS, Replicates, computed_with
from evaluator.subjects import Subject, subjects_of
from shared.errors import InputError, UsageError
from shared.manifest import Manifest
from shared.spec import ModelSpec
from shared.workspace import Workspace

OPTION = "--float"


@dataclass(frozen=True)
class FloatModel:
    """Evaluated runs of the float model.

    Attributes:
        name: of its workspace.
        runs: the runs, by name.
        digests: sha256 of the files that they are read from, by name, for a stage's key.
    """

    name: str
    runs: dict[str, Subject]
    digests: dict[str, str]

    def beside(self, evaluation: dict[str, Any], replicates: Replicates) -> dict[str, Any]:
        """The float model's run for the run of ``evaluation``: the same backend on the same device, else the baseline.

        Returns:
            JSON: ``name`` (workspace and run), ``precision``, ``headline``, ``intervals``, ``latency``, ``metrics``
            (only what they were computed with), ``classes`` (`Metric.per_class`), and ``differences`` (intervals of the
            run minus the float one).

        Raises:
            InputError: it was evaluated on other frames, or with other settings.
        """
        run = evaluation["run"]["name"]
        subject = self.runs.get(run) or self.runs.get("pytorch-cpu") or next(iter(self.runs.values()))
        stored = subject.evaluation
        if stored["frames"] != evaluation["frames"]:
            raise InputError(
                f"run '{subject.run}' was evaluated on other frames than '{run}' here",
                where=str(subject.workspace),
                hint="evaluate both on the same data, with the same --resample",
            )
        settings, own = (computed_with(each) or USUAL_SETTINGS for each in (stored, evaluation))
        if settings != own:
            raise InputError(
                f"run '{subject.run}' was evaluated with other settings ({settings}) than '{run}' here ({own})",
                where=str(subject.workspace),
                hint="evaluate both with the same evaluation.t4 and the same options",
            )
        return {
            "name": f"{self.name}:{subject.run}",
            "precision": subject.precision,
            "headline": stored["headline"],
            "intervals": stored["intervals"],
            "latency": stored["latency"],
            "metrics": {"computed_with": computed_with(stored)},
            "classes": subject.per_class(),
            "differences": differences(replicates, subject.replicates),
        }


def find_float_model(folder: Path, manifest: Manifest, spec: ModelSpec, *, quantized: bool) -> FloatModel:
    """The evaluated runs of ``folder``, the float model's workspace.

    Args:
        folder: the workspace.
        manifest, spec: of the workspace of the INT8 model.
        quantized: whether that model is quantized at all.

    Raises:
        UsageError: there is nothing to put a float model beside, or the model of ``folder`` is not a float one.
        InputError: ``folder`` is of another model or checkpoint, or not evaluated.
    """
    if not quantized:
        raise UsageError("this workspace's model is a float one itself", where=OPTION, hint="leave the option out")
    workspace = Workspace.open(folder)
    other, own = workspace.manifest(), workspace.spec()
    if (own.model, own.task, own.classes) != (spec.model, spec.task, spec.classes):
        raise InputError("is of another model or class list", where=str(folder), hint=f"{OPTION} names the float one")
    if (other.config or {}).get("quantization", {}).get("enabled"):
        raise UsageError("its model is quantized, too", where=f"{OPTION} {folder}", hint="name the float one's")
    checkpoints = {_checkpoint(manifest), _checkpoint(other)}
    if len(checkpoints) > 1:
        raise InputError(
            "its model was exported from another checkpoint",
            where=str(folder),
            hint="export and evaluate the checkpoint that was quantized",
        )
    subjects = {subject.run: subject for subject in subjects_of(folder, None, None)}
    digests = {
        f"{OPTION} {Path(path).name}": other.artifacts[path].sha256
        for path in other.stages[STAGE].outputs
        if Path(path).suffix in (".json", ".npz")
    }
    return FloatModel(workspace.root.resolve().name, subjects, digests)


def _checkpoint(manifest: Manifest) -> str | None:
    """sha256 of the float checkpoint that a workspace's model is from."""
    export = manifest.stages.get("export")
    return None if export is None else export.key.get("inputs", {}).get("checkpoint")
