"""What the demo models answered in TensorRT engines on a GPU, kept so that the verdict on it is repeated without one.

A file ``tests/data/h200/<model>.npz`` holds results of the first samples, of each precision and of the reference that
it is compared with, as columns joined over the samples; and the statistics of the raw outputs, which are too large to
be kept themselves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shared.runs import Run
from shared.tasks import find
from verifier.results import ResultStatistics

FOLDER = Path(__file__).parents[1] / "data" / "h200"
_ABOUT = "about"


def record(
    path: Path, pairs: Mapping[str, tuple[Run, Run, Mapping[str, Any]]], samples: int, about: Mapping[str, Any]
) -> None:
    """Keep runs.

    Args:
        path: the file.
        pairs: by precision policy the reference, the engines' run, and the statistics of its raw outputs.
        samples: how many, from the first.
        about: ``score_threshold`` of the model, which ``machine``, and by precision the ``settings`` of builds that are
            not the config's.
    """
    columns: dict[str, Any] = {}
    for policy, (reference, test, _) in pairs.items():
        task = find(test.header.task)
        for side, run in (("reference", reference), ("test", test)):
            parts = [task.arrays(run.predictions(index, task.container)) for index in range(samples)]
            for name in parts[0]:
                columns[f"{policy}/{side}/{name}"] = np.concatenate([part[name] for part in parts])
                columns[f"{policy}/{side}/{name}/lengths"] = np.array([len(part[name]) for part in parts])
    outputs = {policy: statistics for policy, (_, _, statistics) in pairs.items()}
    write(path, columns, {**about, "task": test.header.task, "samples": samples, "outputs": outputs})


def write(path: Path, columns: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Keep columns, those that are equal once."""
    kept: dict[tuple[str, tuple[int, ...], bytes], str] = {}
    firsts = {
        name: kept.setdefault((column.dtype.str, column.shape, column.tobytes()), name)
        for name, column in columns.items()
    }
    same = {name: first for name, first in firsts.items() if first != name}
    text = json.dumps({**about, "same": same})
    path.parent.mkdir(parents=True, exist_ok=True)
    alone = {name: columns[name] for name in kept.values()}
    np.savez_compressed(path, **alone, **{_ABOUT: np.frombuffer(text.encode(), np.uint8)})


def models() -> list[str]:
    """The models that were recorded."""
    return sorted(path.stem for path in FOLDER.glob("*.npz"))


def policies(path: Path) -> list[str]:
    """The precisions that a file has."""
    return list(_about(path)["outputs"])


def title(path: Path, policy: str) -> str:
    """A precision, with the settings of its build where they are not the config's."""
    settings = _about(path).get("settings", {})
    return f"{policy}, {settings[policy]}" if policy in settings else policy


def machine(path: Path) -> str:
    """Where the engines ran."""
    return str(_about(path)["machine"])


def answers(path: Path, policy: str) -> tuple[list[Any], list[Any]]:
    """What the reference and the engines answered, by sample."""
    about = _about(path)
    task = find(about["task"])
    with np.load(path) as file:
        kept_as = {name: name for name in file.files} | about["same"]
        columns = {name: file[kept] for name, kept in kept_as.items() if name.startswith(f"{policy}/")}
    reference, test = (
        [task.from_arrays(each) for each in _samples(columns, f"{policy}/{side}/", about["samples"])]
        for side in ("reference", "test")
    )
    return reference, test


def comparison(path: Path, policy: str) -> tuple[Any, dict[str, Any]]:
    """The task, and the comparison as `verifier.compare.compare_runs` gives it."""
    about = _about(path)
    task = find(about["task"])
    reference, test = answers(path, policy)
    statistics = ResultStatistics(task)
    for sample, pair in enumerate(zip(reference, test, strict=True)):
        statistics.add(sample, *pair)
    return task, {
        "problems": [],
        "outputs": about["outputs"][policy],
        "results": statistics.summary(),
        "score_threshold": about["score_threshold"],
        "agreement": task.agreement(reference, test),
    }


def _samples(columns: Mapping[str, Any], prefix: str, count: int) -> list[dict[str, Any]]:
    names = [name.removeprefix(prefix) for name in columns if name.startswith(prefix) and not name.endswith("/lengths")]
    samples: list[dict[str, Any]] = [{} for _ in range(count)]
    for name in names:
        ends = np.cumsum(columns[f"{prefix}{name}/lengths"])[:-1]
        for sample, part in zip(samples, np.split(columns[f"{prefix}{name}"], ends), strict=True):
            sample[name] = part
    return samples


def _about(path: Path) -> dict[str, Any]:
    with np.load(path) as file:
        content: dict[str, Any] = json.loads(file[_ABOUT].tobytes())
    return content
