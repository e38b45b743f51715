"""`verifier attribute`: which step of a pipeline loses how much, from runs that take over from a trace step by step.

`runtime swap` leaves a run for every step: the reference's steps before it, the test's from it on. Two neighbors
differ in who does one step, so the difference of their metrics is what that step costs with everything before it right,
and the differences add up to the whole loss exactly. Beside it stands what the step itself did: how far its output is
from the reference's for the very same input, and what that changed in the results.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shared import plugins
from shared.added import added_versions, data_members
from shared.answer import Answer
from shared.errors import InputError
from shared.json_reader import read_json
from shared.runs import Run
from shared.staleness import is_current
from shared.table import Table, number
from shared.tasks import Container, Task, find
from shared.traces import read_step, step_path
from shared.workspace import Workspace
from verifier.results import ResultStatistics
from verifier.statistics import OutputStatistics

#: Version of the files in ``attribution/``; raise it when their meaning changes.
FORMAT = 1
SWAPS = "swaps"
REFERENCE = "reference"

# A step is responsible when it accounts for so much of a metric's movement, and for more than a rounding of it: a
# thousandth is less than the metric changes when one box in a thousand goes.
_SHARE = 0.05
_LEAST = 0.001


def attribute(work: Path, test: str | None, data_root: Path | None, force: bool) -> Answer:
    """Attribute the loss of swapped runs to their steps, and record it. Returns what to print.

    Raises:
        InputError: nothing was swapped here, or it was made from other files than are here now.
    """
    workspace = Workspace.open(work)
    found = {name: _attribute_run(workspace, name, data_root, force) for name in _swapped_runs(workspace, test)}
    return Answer("\n\n".join(map(_text, found.values())), {"runs": found})


def _attribute_run(workspace: Workspace, name: str, data_root: Path | None, force: bool) -> Any:
    from shared.config import from_resolved

    manifest = workspace.manifest()
    config = from_resolved(workspace.config(), str(workspace.root))
    files = [path for path in manifest.stages[f"swap:{name}"].outputs if path.startswith(f"{SWAPS}/{name}/")]
    stage = workspace.stage(
        f"attribute:{name}",
        tool="verifier",
        inputs={path: manifest.artifacts[path].sha256 for path in files},
        config={"data": None if data_root is None else str(data_root)},
        versions=added_versions([(plugins.TASKS, workspace.spec().task), *data_members(config.data)]),
    )
    relative = f"attribution/{name}.json"
    if force or not stage.up_to_date():
        for path in files:
            workspace.artifact(path)
        with stage:
            result = attribution(workspace, name, data_root)
            stage.json_artifact(relative, "attribution", result)
            keep = ("reference", "truth", "samples", "total", "responsible")
            stage.result("attribution", name, {key: result[key] for key in keep})
    return read_json(workspace.artifact(relative))


def _swapped_runs(workspace: Workspace, test: str | None) -> list[str]:
    """The swapped runs to look at.

    Raises:
        InputError: none, or one that is not finished or of an earlier export.
    """
    manifest = workspace.manifest()
    swapped = sorted(name.removeprefix("swap:") for name in manifest.stages if name.startswith("swap:"))
    where = str(workspace.root)
    make = f"runtime swap --work {where} --backend NAME --trace NAME (after runtime trace)"
    if not swapped or (test is not None and test not in swapped):
        known = f"; there are: {', '.join(swapped)}" if swapped else ""
        raise InputError(f"no run {test or ''} was swapped here{known}".replace("  ", " "), where=where, hint=make)
    names = swapped if test is None else [test]
    for name in names:
        if not is_current(manifest, f"swap:{name}", workspace.root):
            raise InputError(f"swapped run '{name}' is not finished, or of an earlier export", where=where, hint=make)
    return names


def attribution(workspace: Workspace, name: str, data_root: Path | None) -> dict[str, Any]:
    """The loss by step.

    Returns:
        JSON: ``reference``, ``test`` (names), ``truth`` ("labels" or "reference"), ``samples``, ``metrics`` of the
        reference and the test, ``total`` loss by metric, ``steps`` (in order: name, loss by metric, samples whose
        output differs, ``outputs`` statistics, ``results`` that changed), ``responsible`` (names, the worst first).
    """
    folder = workspace.path(f"{SWAPS}/{name}")
    reference = Run.open(folder / REFERENCE)
    steps = [str(step) for step in reference.header.details["steps"]]
    runs = [Run.open(folder / step) for step in steps] + [reference]
    task = find(reference.header.task)
    labels = _labels(workspace, reference, data_root)
    metrics = [
        task.agreement(_answers(reference, task) if labels is None else labels, _answers(run, task)) for run in runs
    ]
    rows = []
    for position, step in enumerate(steps):
        run, after = runs[position], runs[position + 1]
        changed = ResultStatistics(task)
        for index, (before, answer) in enumerate(zip(_answers(after, task), _answers(run, task), strict=True)):
            changed.add(index, before, answer)
        rows.append(
            {
                "step": step,
                "loss": {metric: metrics[position + 1][metric] - value for metric, value in metrics[position].items()},
                **_own_difference(folder / step, len(run)),
                "results": changed.summary(),
            }
        )
    return {
        "format": FORMAT,
        "reference": str(reference.header.details["reference"]),
        "test": name,
        "truth": "reference" if labels is None else "labels",
        "samples": len(reference),
        "metrics": {"reference": metrics[-1], "test": metrics[0]},
        "total": {metric: metrics[-1][metric] - value for metric, value in metrics[0].items()},
        "steps": rows,
        "responsible": responsible(rows),
    }


def _answers(run: Run, task: Task[Container]) -> Iterator[Container]:
    """What the run answered, sample by sample."""
    return run.predictions_at(range(len(run)), task.container)


def responsible(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The steps that move a metric, the one with the largest share first."""
    shares: dict[str, float] = {}
    for metric in rows[0]["loss"]:
        moved = sum(abs(row["loss"][metric]) for row in rows)
        for row in rows:
            loss = abs(row["loss"][metric])
            if loss >= max(_LEAST, _SHARE * moved):
                shares[row["step"]] = max(shares.get(row["step"], 0.0), loss)
    return sorted(shares, key=lambda step: -shares[step])


def _labels(workspace: Workspace, reference: Run, data_root: Path | None) -> list[Any] | None:
    """The labels of the samples; None where they have none.

    Raises:
        InputError: the data set is another one than the runs are of.
    """
    from shared.config import from_resolved
    from shared.data import open_dataset

    config = from_resolved(workspace.config(), str(workspace.root))
    header = reference.header
    dataset = open_dataset(config.data, root=data_root, task=header.task)
    if dataset.digest() != header.dataset:
        raise InputError(
            f"the swapped runs are of other data than data set '{dataset.name}'",
            where=str(reference.folder),
            hint="check data in the config and --data",
        )
    task = find(header.task)
    to_model = task.label_map(header.classes, dataset.classes)
    labels = [task.labels_of(dataset.sample(index), to_model) for index in range(len(reference))]
    return None if any(each is None for each in labels) else labels


def _own_difference(folder: Path, samples: int) -> dict[str, Any]:
    """How a step's output differs from the reference's for the same input, over the samples where it does.

    Returns:
        ``differs_in`` (samples), ``reordered`` (all of them: the same rows in another order), ``outputs``: statistics
        by name of the array, where the shapes allow it.
    """
    statistics: dict[str, OutputStatistics] = {}
    differing = [index for index in range(samples) if (folder / step_path(index, "test")).is_file()]
    reordered = bool(differing)
    for index in differing:
        reference, test = read_step(folder, index, REFERENCE), read_step(folder, index, "test")
        reordered &= reference.keys() == test.keys() and all(_same_rows(reference[key], test[key]) for key in test)
        for key, values in reference.items():
            if key in test:
                statistics.setdefault(key, OutputStatistics()).add(index, values, test[key])
    return {
        "differs_in": len(differing),
        "reordered": reordered,
        "outputs": {key: values.summary() for key, values in statistics.items()},
    }


def _same_rows(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    """Whether two arrays hold the same rows, each as often, in whatever order."""
    if one.shape != other.shape or one.dtype != other.dtype or one.ndim == 0:
        return False
    return not one.size or _sorted_rows(one) == _sorted_rows(other)


def _sorted_rows(array: npt.NDArray[Any]) -> bytes:
    rows = np.ascontiguousarray(array).reshape(len(array), -1)
    return np.sort(rows.view(np.dtype((np.void, rows[0].nbytes))), axis=0).tobytes()


def _text(result: Mapping[str, Any]) -> str:
    """The attribution for a terminal."""
    metrics = list(result["total"])
    errors = list(dict.fromkeys(name for row in result["steps"] for name in row["results"]["errors"]))
    rows = []
    for row in result["steps"]:
        results = row["results"]
        lost = results["num_reference_unmatched"] + results["num_test_unmatched"]
        rows.append(
            [
                row["step"],
                *[_loss(row["loss"][metric]) for metric in metrics],
                _difference(row, result["samples"]),
                str(lost + results["label_flips"]),
                *[number(results["errors"].get(name, {}).get("max"), 3) for name in errors],
            ]
        )
    rows.append(["total", *[_loss(result["total"][metric]) for metric in metrics], "", "", *["" for _ in errors]])
    against = "the labels" if result["truth"] == "labels" else f"the results of {result['reference']} (no labels)"
    title = (
        f"{result['test']}: what each step loses when it replaces that of {result['reference']}, {result['samples']} "
        f"samples, metrics against {against}"
    )
    lost = [f"{metric} lost" for metric in metrics]
    columns = ["step", *lost, "its own output", "results changed", *[f"max {name}" for name in errors]]
    return f"{Table(title, columns, rows).text()}\n{_sentence(result)}"


def _loss(value: float) -> str:
    """Four digits; no minus before zeros."""
    return f"{round(value, 4) + 0.0:.4f}"


def _difference(row: Mapping[str, Any], samples: int) -> str:
    if not row["differs_in"]:
        return "identical"
    if row["reordered"]:
        return "same rows, other order"
    where = f" in {row['differs_in']} of {samples}" if row["differs_in"] < samples else ""
    if any(values["problems"] for values in row["outputs"].values()):
        return f"other shape{where}"
    ratios = [values["snr_db"] for values in row["outputs"].values() if values["noise_energy"] and values["compared"]]
    if not ratios:
        return f"differs{where}"
    return "no signal in common" if None in ratios else f"SNR {min(ratios):.0f} dB{where}"


def _sentence(result: Mapping[str, Any]) -> str:
    if not result["responsible"]:
        differing = [row["step"] for row in result["steps"] if row["differs_in"]]
        suffix = f" Outputs differ in: {', '.join(differing)}." if differing else " All outputs are identical."
        return f"No step loses anything of the metric.{suffix}"
    by_name = {row["step"]: row["loss"] for row in result["steps"]}
    lines = []
    for step in result["responsible"]:
        parts = ", ".join(f"{_loss(loss)} of {metric}" for metric, loss in by_name[step].items())
        lines.append(f"{step} loses {parts}")
    return "Responsible: " + "; ".join(lines) + "."
