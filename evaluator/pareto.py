"""`evaluator pareto`: latency against metric of the choices of precisions that were measured, and which none beats.

`trt_builder sweep` and `tune` measure choices, each in a workspace of its own under ``choices/`` of the model's.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluator.bootstrap import CONFIDENCE, Interval, differences
from evaluator.report.pareto_chart import pareto_chart
from evaluator.report.svg import standalone
from evaluator.stored import Replicates, stored_evaluations, stored_replicates
from shared.answer import Answer
from shared.errors import InputError, UsageError
from shared.files import sha256_of_json
from shared.json_reader import read_json
from shared.manifest import MANIFEST_NAME, Manifest
from shared.metrics.signal_to_noise import snr_db
from shared.runs import Run
from shared.table import MISSING, Table, number
from shared.workspace import Workspace

FOLDER, RECORD = "choices", "choice.json"
STAGE, RESULT = "pareto", "choice"
JSON, CSV, PICTURE = (f"{FOLDER}/pareto.{kind}" for kind in ("json", "csv", "svg"))
_FORMAT = 1


@dataclass(frozen=True)
class Measured:
    """A choice as it was measured in one run.

    Attributes:
        key: names the choice.
        record: its precisions.
        latency: of the engines, ``latency_ms``, ``components_ms``, and ``total`` of a whole request.
        evaluation: what `evaluator evaluate` stored; None where it was timed only.
        replicates: behind the intervals of its headline numbers.
        run: the run; None where it was timed only.
    """

    key: str
    record: Mapping[str, Any]
    latency: Mapping[str, Any]
    evaluation: Mapping[str, Any] | None
    replicates: Replicates
    run: Run | None


def pareto(work: Path, reference: str | None = None) -> Answer:
    """Draw the choices of a workspace, and record what they are. Returns the tables.

    Args:
        work: the workspace of the model.
        reference: key of the choice that the others are compared with; None: the most precise one, FP32 where it is.

    Raises:
        InputError: no choice of this export was measured.
        UsageError: no such reference.
    """
    workspace = Workspace.open(work)
    runs = measured_choices(workspace)
    if not runs:
        raise InputError(
            "no choice of precisions was measured here", where=str(work), hint=f"trt_builder sweep --work {work} …"
        )
    stage = workspace.stage(
        STAGE,
        tool="evaluator",
        config={"reference": reference},
        inputs={
            **{component.onnx: workspace.input_hash(component.onnx) for component in workspace.spec().components},
            **{f"{name}:{each.key}": _digest(each) for name, measured in runs.items() for each in measured},
        },
    )
    if not stage.up_to_date(say=False):
        content = {name: described(measured, reference) for name, measured in runs.items()}
        with stage:
            stage.json_artifact(JSON, "pareto", {"format": _FORMAT, "runs": content})
            stage.text_artifact(CSV, "pareto", as_csv(content))
            stage.text_artifact(
                PICTURE, "pareto", standalone([pareto_chart(name, found).svg for name, found in content.items()])
            )
    content = read_json(workspace.artifact(JSON))["runs"]
    return Answer("\n\n".join(table(name, choices).text() for name, choices in content.items()), {"runs": content})


# -- what was measured ------------------------------------------------------------------------------------------------


def measured_choices(workspace: Workspace) -> dict[str, list[Measured]]:
    """The choices of the files that the workspace holds now, by name of the run that they were measured in.

    Raises:
        InputError: what a choice recorded is none of ours, or was evaluated by another version.
        ManifestError: a file was changed.
    """
    manifest = workspace.manifest()
    runs: dict[str, list[Measured]] = {}
    for name in sorted(workspace.place(FOLDER).names()) if workspace.place(FOLDER).is_folder() else ():
        if not workspace.place(f"{FOLDER}/{name}/{MANIFEST_NAME}").is_file():
            continue
        choice = Workspace.open(workspace.path(f"{FOLDER}/{name}"))
        if RECORD not in choice.manifest().artifacts:
            continue
        try:
            record = _record(read_json(choice.artifact(RECORD)))
            if not _is_of(manifest, record["inputs"]):
                continue
            latencies = {run: _latency(value) for run, value in choice.manifest().results.get(RESULT, {}).items()}
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(
                f"is no record of a choice ({type(error).__name__}: {error})",
                where=str(choice.root),
                hint="remove the folder; trt_builder sweep measures it again",
            ) from error
        evaluations = stored_evaluations(choice)
        for run, latency in latencies.items():
            stage = choice.manifest().stages.get(f"time:{run}")
            if stage is None or stage.status != "done":
                continue
            evaluation = evaluations.get(run)
            runs.setdefault(run, []).append(
                Measured(
                    key=record["key"],
                    record=record,
                    latency=latency,
                    evaluation=evaluation,
                    replicates={} if evaluation is None else stored_replicates(choice, run),
                    run=None if evaluation is None else Run.open(choice.path(f"runs/{run}")),
                )
            )
    return runs


def _record(value: Any) -> dict[str, Any]:
    """What `trt_builder` wrote of a choice; raises what a value of another form raises."""
    return {
        "key": str(value["key"]),
        "label": str(value["label"]),
        "policies": {str(name): str(policy) for name, policy in value["policies"].items()},
        "int8": [str(name) for name in value["int8"]],
        "fp32": [str(name) for name in value["fp32"]],
        "inputs": {str(path): str(sha256) for path, sha256 in value["inputs"].items()},
    }


def _latency(value: Any) -> dict[str, Any]:
    """What it measured; raises likewise."""
    return {
        "latency_ms": float(value["latency_ms"]),
        "components_ms": {str(name): float(time) for name, time in value["components_ms"].items()},
        "total": {"median": float(value["total"]["median"])},
    }


def _is_of(manifest: Manifest, inputs: Mapping[str, str]) -> bool:
    return all(path in manifest.artifacts and manifest.artifacts[path].sha256 == sha for path, sha in inputs.items())


def _digest(measured: Measured) -> str:
    return sha256_of_json([measured.record, measured.latency, measured.evaluation])


def described(measured: Sequence[Measured], reference: str | None) -> list[dict[str, Any]]:
    """The choices as JSON, the fastest first.

    Returns:
        Per choice its ``key``, ``label`` and precisions; ``latency_ms`` of the engines and ``total_ms`` of a request;
        ``metric`` by ``metric_name`` with its ``interval``, the ``drop`` against the reference with its
        ``drop_interval`` (paired), all in points; ``snr_db`` by output against the reference; ``front``: whether no
        other choice beats it in both.

    Raises:
        UsageError: no such reference.
    """
    first = _reference(measured, reference)
    found = [_described(each, first) for each in measured]
    for entry in pareto_front(found):
        entry["front"] = True
    return sorted(found, key=lambda entry: (entry["latency_ms"], entry["label"]))


def _reference(measured: Sequence[Measured], key: str | None) -> Measured:
    if key is not None:
        for each in measured:
            if each.key == key:
                return each
        raise UsageError(f"no choice '{key}' was measured", where="--reference", hint="keys are in choices/pareto.json")
    order = ("fp32", "fp32_tf32", "auto", "bf16", "fp16")

    def precise(each: Measured) -> tuple[int, int]:
        policies = set(each.record["policies"].values())
        return len(each.record["int8"]), max((order.index(name) for name in policies if name in order), default=0)

    return min(measured, key=precise)


def _described(each: Measured, reference: Measured) -> dict[str, Any]:
    name, value = _metric(each)
    _, before = _metric(reference)
    drop = None if value is None or before is None else before - value
    ratios = {} if each is reference else _signal_to_noise(reference.run, each.run)
    record = each.record
    return {
        "key": each.key,
        "label": record["label"],
        "policies": record["policies"],
        "int8": record["int8"],
        "fp32": record["fp32"],
        "latency_ms": each.latency["latency_ms"],
        "components_ms": each.latency["components_ms"],
        "total_ms": each.latency["total"]["median"],
        "frames": None if each.evaluation is None else each.evaluation["run"]["samples"],
        "metric_name": name,
        "metric": value,
        "interval": None if each.evaluation is None else _points(each.evaluation["intervals"].get(name)),
        "drop": drop,
        "drop_interval": _drop_interval(each, reference, name),
        "snr_db": ratios,
        "lowest_snr_db": min(ratios.values(), default=None),
        "reference": each is reference,
        "front": False,
    }


def _metric(each: Measured) -> tuple[str, float | None]:
    """Name of the first headline number, and its value in points."""
    headline = {} if each.evaluation is None else each.evaluation["headline"]
    name, value = next(iter(headline.items()), ("", None))
    return name, None if value is None else 100.0 * value


def _points(interval: Interval | None) -> Interval | None:
    return None if interval is None else {name: 100.0 * value for name, value in interval.items()}


def _drop_interval(each: Measured, reference: Measured, metric: str) -> Interval | None:
    if each is reference or each.evaluation is None or reference.evaluation is None:
        return None
    if each.evaluation["frames"] != reference.evaluation["frames"]:
        return None
    return _points(differences(reference.replicates, each.replicates).get(metric))


def _signal_to_noise(reference: Run | None, run: Run | None) -> dict[str, float]:
    """See `snr_db`; over the samples whose raw outputs both runs kept."""
    if reference is None or run is None:
        return {}
    kept = sorted(set(reference.header.raw_samples) & set(run.header.raw_samples))
    return snr_db((reference.raw(index), run.raw(index)) for index in kept)


def pareto_front(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The choices that no other beats or equals in both latency and what it is worth, fastest first.

    Worth is the metric, or, where no choice has one, the lowest signal to noise ratio.
    """
    worth = "metric" if any(entry["metric"] is not None for entry in found) else "lowest_snr_db"

    def value(entry: Mapping[str, Any]) -> float:
        if worth == "lowest_snr_db" and entry["reference"]:
            return math.inf
        return -math.inf if entry[worth] is None else float(entry[worth])

    front: list[dict[str, Any]] = []
    for entry in sorted(found, key=lambda each: (each["latency_ms"], -value(each))):
        if value(entry) > (value(front[-1]) if front else -math.inf):
            front.append(entry)
    return front


# -- how it is shown --------------------------------------------------------------------------------------------------


def table(run: str, choices: Sequence[Mapping[str, Any]]) -> Table:
    """The choices of a run, the fastest first; a star marks the Pareto front."""
    metric = next((each["metric_name"] for each in choices if each["metric_name"]), "metric")
    reference = next(each["label"] for each in choices if each["reference"])
    rows = [
        [
            "*" if each["front"] else "",
            str(position),
            each["label"],
            str(len(each["int8"])),
            number(each["latency_ms"], 3),
            number(each["total_ms"], 3),
            number(each["metric"], 2),
            number(each["drop"], 2),
            _between(each["drop_interval"]),
            number(each["lowest_snr_db"], 1),
        ]
        for position, each in enumerate(choices, start=1)
    ]
    title = f"Choices, {run}: drop against {reference} in points, with its {CONFIDENCE:.0%} interval on the same frames"
    columns = ["", "#", "choice", "INT8 layers", "engines [ms]", "request [ms]", metric, "drop", "interval", "SNR [dB]"]
    return Table(title, columns, rows)


def _between(interval: Interval | None) -> str:
    return MISSING if interval is None else f"{interval['low']:+.2f} to {interval['high']:+.2f}"


def as_csv(content: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """A row per run and choice; columns ``<component>_ms`` per component, and ``snr_db:<output>`` per output."""
    entries = [(run, entry) for run, choices in content.items() for entry in choices]
    components = sorted({name for _, entry in entries for name in entry["components_ms"]})
    outputs = sorted({name for _, entry in entries for name in entry["snr_db"]})
    plain = ("key", "label", "front", "latency_ms", "total_ms", "frames", "metric_name", "metric", "drop")
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(
        ["run", *plain, "drop_low", "drop_high", "int8_layers", "fp32_layers", *(f"{name}_ms" for name in components),
         *(f"{name}_policy" for name in components), *(f"snr_db:{name}" for name in outputs)]
    )  # fmt: skip
    for run, entry in entries:
        bounds = entry["drop_interval"] or {"low": None, "high": None}
        writer.writerow(
            [run, *(entry[name] for name in plain), bounds["low"], bounds["high"],
             len(entry["int8"]), len(entry["fp32"]),
             *(entry["components_ms"].get(name) for name in components),
             *(entry["policies"].get(name) for name in components), *(entry["snr_db"].get(name) for name in outputs)]
        )  # fmt: skip
    return text.getvalue()
