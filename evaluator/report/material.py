"""The input of the sections: evaluations and runs of the workspace, and samples if the data set is available."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluator.evaluate import baseline_of
from evaluator.metrics import find_metric
from evaluator.selection import check_runs, finished_runs
from evaluator.stored import STAGE as EVALUATE
from evaluator.stored import stored_evaluations
from shared.data import open_dataset
from shared.data.types import Dataset
from shared.errors import DeployError, InputError
from shared.manifest import Manifest
from shared.runs import Run
from shared.several_tasks import classes_of, names_of, of_part, parts_of
from shared.spec import ModelSpec
from shared.staleness import refuse_outdated
from shared.workspace import Workspace

if TYPE_CHECKING:
    from shared.config import DeployConfig

#: The stage of the report itself, which the report leaves out: it is still running while the report is written.
OWN_STAGE = "report"

# What an evaluation has by the names of the headline numbers.
_BY_NUMBER = ("headline", "intervals", "differences")

# The report looks most closely at the backend nearest to the vehicle.
_ON_THE_WAY = ("tensorrt", "onnx")


@dataclass(frozen=True)
class Samples:
    """The samples of the runs with their labels.

    Attributes:
        dataset: the data set.
        truth: what the metric's ``ground_truth`` gave; its frames are the labeled samples.
    """

    dataset: Dataset[Any]
    truth: Any


@dataclass(frozen=True)
class Material:
    """The input of all sections.

    Attributes:
        workspace: where it is from.
        manifest: as it was when the report was begun.
        spec: the model.
        evaluations: stored evaluations by run; empty where the config switches evaluation off.
        runs: the runs of those.
        samples: None where the data set can't be opened, or has no labels.
        missing: why there are no samples.
        part: the task that this is the material of, of a model of several; empty for all of it.
        sharers: how many tasks share the page.
    """

    workspace: Workspace
    manifest: Manifest
    spec: ModelSpec
    evaluations: Mapping[str, dict[str, Any]]
    runs: Mapping[str, Run]
    samples: Samples | None
    missing: str
    part: str = ""
    sharers: int = 1

    def parts(self) -> dict[str, Material]:
        """The material of each of the model's tasks, by its name; of a single task itself, under an empty name."""
        tasks = names_of(self.spec.task)
        return {name: self._part(name) for name in tasks} if len(tasks) > 1 else {"": self}

    def _part(self, name: str) -> Material:
        update = {"task": name, "classes": classes_of(name, self.spec.classes)}
        known = self.samples is not None and name in self.samples.truth.parts
        missing = f"nothing is labeled for {name}" if self.samples is not None and not known else self.missing
        return replace(
            self,
            spec=self.spec.model_copy(update=update),
            evaluations={run: _evaluation_of(name, evaluation) for run, evaluation in self.evaluations.items()},
            runs={run: recorded.parts()[name] for run, recorded in self.runs.items()},
            samples=replace(self.samples, truth=self.samples.truth.parts[name]) if known and self.samples else None,
            missing=missing,
            part=name,
            sharers=len(names_of(self.spec.task)),
        )

    @property
    def truth(self) -> Any:
        """What is labeled, of material that has samples."""
        assert self.samples is not None
        return self.samples.truth

    def sample(self, position: int) -> Any:
        """The sample at ``position`` of the truth, of material that has samples."""
        assert self.samples is not None
        return self.samples.dataset.sample(self.samples.truth.positions[position])

    @property
    def first(self) -> str:
        """The run that the others are compared with."""
        return baseline_of(list(self.runs.values())).folder.name

    @property
    def shown(self) -> str:
        """The run that the report looks at most closely: TensorRT's where there is one, then ONNX Runtime's."""
        for backend in _ON_THE_WAY:
            for name, run in self.runs.items():
                if run.header.backend == backend:
                    return name
        return self.first

    @property
    def pair(self) -> Sequence[str]:
        """The runs to be drawn together: the first, and the shown one where that is another."""
        return list(dict.fromkeys((self.first, self.shown)))

    @property
    def drawn(self) -> list[str]:
        """The same runs, the shown one first."""
        return list(dict.fromkeys((self.shown, self.first)))


def _evaluation_of(part: str, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Of an evaluation of several tasks the numbers of one, under its own names."""
    found = {**evaluation, **{key: of_part(part, evaluation[key]) for key in _BY_NUMBER}}
    if evaluation["metrics"] is not None:
        found["metrics"] = parts_of(evaluation["metrics"]).get(part)
    if "float" in evaluation:
        beside = evaluation["float"]
        found["float"] = {**beside, **{key: of_part(part, beside[key]) for key in (*_BY_NUMBER, "classes")}}
    return found


def evaluated_runs(workspace: Workspace, config: DeployConfig) -> tuple[dict[str, dict[str, Any]], dict[str, Run]]:
    """Evaluations and their runs; both empty where the config switches evaluation off.

    Raises:
        InputError: nothing was evaluated, the evaluation did not finish or is of other runs than the current ones, or a
            run is incomplete.
        ManifestError: a file was changed.
    """
    manifest, where = workspace.manifest(), str(workspace.root)
    stage = manifest.stages.get(EVALUATE)
    if stage is None or stage.status in ("failed", "running"):
        problem = "nothing was evaluated here" if stage is None else f"the evaluation is '{stage.status}'"
        reason = f" ({stage.reason})" if stage is not None and stage.reason else ""
        raise InputError(f"{problem}{reason}", where=where, hint=f"evaluate first: evaluator evaluate --work {where}")
    if stage.status == "skipped":
        return {}, {}
    folders = finished_runs(workspace, config)
    refuse_outdated(manifest, EVALUATE, "evaluation", workspace.root)
    evaluations = stored_evaluations(workspace)
    runs = {
        Path(folder).name: Run.open(workspace.path(folder)) for folder in folders if Path(folder).name in evaluations
    }
    return evaluations, runs


def find_dataset(
    workspace: Workspace, config: DeployConfig, runs: Mapping[str, Run], root: Path | None
) -> tuple[Dataset[Any] | None, str]:
    """The data set of the runs, or why it is not available.

    Raises:
        InputError: ``root`` was given, and is not the data of the runs.
    """
    if not runs:
        return None, "nothing was evaluated"
    try:
        dataset = open_dataset(config.data, root=root, task=config.task_type)
        check_runs(list(runs.values()), dataset, workspace)
    except DeployError as error:
        if root is not None:
            raise
        return None, f"{error.where}: {error.message}" if error.where else error.message
    return dataset, ""


def read_samples(
    dataset: Dataset[Any] | None, missing: str, runs: Mapping[str, Run], spec: ModelSpec
) -> tuple[Samples | None, str]:
    """The labels of ``dataset``, or why there are none."""
    if dataset is None:
        return None, missing
    metric = find_metric(spec.task)
    count = len(next(iter(runs.values())))
    truth = metric.ground_truth((dataset.sample(index) for index in range(count)), dataset.classes, spec.classes)
    if truth is None:
        return None, "the data set has no labels"
    return Samples(dataset, truth), ""
