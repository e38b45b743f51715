"""`--mlflow`: an evaluation in an MLflow tracking server: parameters, metrics, artifacts, and a version of the model.

One MLflow run for the evaluation, with the config as parameters and the files as artifacts, and below it one for each
run of a backend, whose metrics carry the same names, so that MLflow's tables and charts show them side by side. The
evaluation is registered as a version of the model. An evaluation that was logged before is not logged again. By
MLflow's client rather than ``mlflow.log_params`` and its kin, which act on the one current run of the process.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from evaluator.stored import STAGE
from evaluator.subjects import Subject, subjects_of
from shared.errors import EnvironmentLacks
from shared.files import write_text
from shared.latency import TOTAL
from shared.lazy import lazy_import
from shared.manifest import MANIFEST_NAME, Manifest
from shared.staleness import refuse_outdated
from shared.versions import versions
from shared.workspace import Workspace

_INSTALL = "make setup-mlflow, or pip install 'awml-deploy[mlflow]'"
mlflow = lazy_import("mlflow", install=_INSTALL)
sqlalchemy = lazy_import("sqlalchemy", install=_INSTALL)

#: Folders of the workspace whose artifacts are logged: models, and the reports on them. Raw outputs are not.
FOLDERS = ("onnx", "pytorch", "tensorrt", "verification", "evaluation", "attribution", "report")
#: Marks an evaluation, so that it is logged once.
EVALUATION_TAG = "awml_deploy.evaluation"
#: Names the version of the workspace.
VERSION_TAG = "awml_deploy.tag"
_PARENT_TAG = "mlflow.parentRunId"
# MLflow's limits of one request, and of a value.
_PARAMETERS_AT_ONCE = 100
_LONGEST_VALUE = 500
# Names of metrics may hold these.
_NOT_IN_NAMES = re.compile(r"[^\w\-. :/]")


@dataclass(frozen=True)
class Logged:
    """Where an evaluation was logged.

    Attributes:
        uri: of the tracking server or database.
        experiment: name of the experiment.
        run: id of the MLflow run.
        model: name of the registered model.
        version: of the model; None: the evaluation was logged before.
    """

    uri: str
    experiment: str
    run: str
    model: str
    version: str | None

    def text(self) -> str:
        """For a terminal."""
        where = f"MLflow {self.uri}: experiment {self.experiment}, run {self.run}"
        return f"{where}, logged before" if self.version is None else f"{where}, {self.model} version {self.version}"


def tracking_uri(work: Path, given: str) -> str:
    """Where to log: the given address, else ``MLFLOW_TRACKING_URI``, else a SQLite file beside the workspace."""
    return given or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{work.resolve().parent / 'mlflow.db'}"


def log_evaluation(work: Path, uri: str = "", experiment: str | None = None, model: str | None = None) -> Logged:
    """Log the last evaluation of a workspace.

    Raises:
        InputError: nothing is evaluated, the runs were made again since, or an artifact was changed.
        EnvironmentLacks: MLflow is not installed, or can't be reached or written.
    """
    workspace = Workspace.open(work)
    refuse_outdated(workspace.manifest(), STAGE, "evaluation", work)
    subjects = subjects_of(work, None, None)
    spec, manifest = workspace.spec(), workspace.manifest()
    where = tracking_uri(work, uri)
    with _explained(where):
        client = _client(where)
        name = experiment or spec.model
        place = _experiment(client, name, where)
        mark = f"{manifest.stages[STAGE].fingerprint} {manifest.stages[STAGE].ended}"
        before = client.search_runs([place], f"tags.`{EVALUATION_TAG}` = '{mark}' and attributes.status = 'FINISHED'")
        if before:
            return Logged(where, name, before[0].info.run_id, model or spec.model, None)
        tags = {**_tags(manifest, mark), **_version_tag(work, manifest)}
        title = f"{spec.model} {tags.get(VERSION_TAG, subjects[0].created[:19])}"
        run = client.create_run(place, tags=tags, run_name=title)
        with _ended(client, run.info.run_id):
            _log_parameters(client, run.info.run_id, _flat(workspace.config()))
            _log_artifacts(client, run.info.run_id, workspace, manifest)
            for subject in subjects:
                _log_subject(client, place, run.info.run_id, subject)
            version = _register(client, run, model or spec.model, tags)
    return Logged(where, name, run.info.run_id, model or spec.model, version)


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turn what MLflow, its database or the network say into one line.

    Raises:
        EnvironmentLacks: for each of them.
    """
    try:
        yield
    except _failures() as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise EnvironmentLacks(
            f"MLflow did not take the evaluation ({reason})",
            where=uri,
            hint="check the address and whether the server runs; the evaluation itself is in the workspace",
        ) from error


def _failures() -> tuple[type[Exception], ...]:
    """What MLflow fails with; its database's errors only where there is a database."""
    database = [sqlalchemy.exc.SQLAlchemyError] if "sqlalchemy" in sys.modules else []
    return (mlflow.exceptions.MlflowException, OSError, *database)


def _client(uri: str) -> Any:
    if uri.startswith("sqlite:"):
        # MLflow would report a wrong address.
        sqlalchemy.create_engine  # noqa: B018
    # By default MLflow sends telemetry to its makers, and retries an unreachable address for minutes.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return client


def _experiment(client: Any, name: str, uri: str) -> str:
    """Id of the experiment called ``name``, which is created if there is none."""
    existing = client.get_experiment_by_name(name)
    if existing is not None:
        return str(existing.experiment_id)
    database = PurePosixPath(uri.removeprefix("sqlite:///"))
    # A server knows where its artifacts belong; a database lies in a folder that they can be put in.
    location = f"file://{database.parent}/mlflow-artifacts/{name}" if uri.startswith("sqlite:") else None
    return str(client.create_experiment(name, artifact_location=location))


@contextmanager
def _ended(client: Any, run: str) -> Iterator[None]:
    """Mark the MLflow run finished or failed."""
    try:
        yield
    except BaseException:
        client.set_terminated(run, "FAILED")
        raise
    client.set_terminated(run, "FINISHED")


def _tags(manifest: Manifest, mark: str) -> dict[str, str]:
    stage, export = manifest.stages[STAGE], manifest.stages.get("export")
    gates = manifest.results.get("gates", {}).get("summary", {}).get("gates", [])
    inputs = export.key.get("inputs", {}) if export is not None else {}
    return {
        EVALUATION_TAG: mark,
        "awml_deploy.version": stage.tool_version,
        "awml_deploy.host": stage.host,
        "awml_deploy.gates": "failed" if any(not gate["passed"] for gate in gates) else "passed" if gates else "none",
        **{f"awml_deploy.{name}": str(value) for name, value in inputs.items() if "/" not in name},
    }


def _version_tag(work: Path, manifest: Manifest) -> dict[str, str]:
    """The name of the version that `manifest tag` kept this evaluation as, if it did."""
    kept = [version.name for version in versions(work) if version.manifest.stages.get(STAGE) == manifest.stages[STAGE]]
    return {VERSION_TAG: kept[0]} if kept else {}


def _flat(value: Any, place: str = "") -> dict[str, str]:
    """Leaves of a config by dotted name, without those that are empty."""
    if isinstance(value, Mapping):
        below = (_flat(inner, f"{place}.{key}" if place else str(key)) for key, inner in value.items())
        return {name: leaf for leaves in below for name, leaf in leaves.items()}
    return {} if value in (None, "", []) else {_legal(place): str(value)[:_LONGEST_VALUE]}


def _legal(name: str) -> str:
    return _NOT_IN_NAMES.sub("_", name)


def _log_parameters(client: Any, run: str, parameters: Mapping[str, str]) -> None:
    listed = [mlflow.entities.Param(name, value) for name, value in parameters.items()]
    for first in range(0, len(listed), _PARAMETERS_AT_ONCE):
        client.log_batch(run, params=listed[first : first + _PARAMETERS_AT_ONCE])


def _log_artifacts(client: Any, run: str, workspace: Workspace, manifest: Manifest) -> None:
    """Log files whose content is what the manifest says, and the manifest itself."""
    for relative, record in manifest.artifacts.items():
        stage = manifest.stages.get(record.stage)
        if relative.split("/")[0] in FOLDERS and stage is not None and stage.status == "done":
            folder = str(PurePosixPath(relative).parent)
            client.log_artifact(run, str(workspace.artifact(relative)), folder)
    with tempfile.TemporaryDirectory() as folder:
        # The file in the workspace may have been replaced by now.
        path = Path(folder) / MANIFEST_NAME
        write_text(path, manifest.model_dump_json(indent=1))
        client.log_artifact(run, str(path))


def _log_subject(client: Any, experiment: str, parent: str, subject: Subject) -> None:
    run = client.create_run(experiment, tags={_PARENT_TAG: parent}, run_name=subject.run).info.run_id
    with _ended(client, run):
        about = subject.evaluation["run"]
        parameters = {"backend": about["backend"], "device": about["device"], "samples": about["samples"]}
        _log_parameters(client, run, _flat({**parameters, "precision": subject.precision}))
        now = int(time.time() * 1000)
        metrics = [mlflow.entities.Metric(name, value, now, 0) for name, value in metrics_of(subject).items()]
        client.log_batch(run, metrics=metrics)


def metrics_of(subject: Subject) -> dict[str, float]:
    """Numbers of a run under names that MLflow accepts: headline numbers with the bounds of their intervals, AP and the
    like by class, latency, size."""
    numbers: dict[str, float | None] = dict(subject.evaluation["headline"])
    for name, interval in subject.evaluation["intervals"].items():
        numbers |= {f"{name} {bound}": value for bound, value in (interval or {}).items()}
    for label, values in subject.per_class().items():
        numbers |= {f"{label}/{name}": value for name, value in values.items()}
    for stage, values in subject.evaluation["latency"].items():
        kept = values if stage == TOTAL else {"mean": values["mean"]}
        numbers |= {f"latency/{stage} {name}": value for name, value in kept.items()}
    numbers["model bytes"] = subject.model_bytes
    return {_legal(name): float(value) for name, value in numbers.items() if value is not None}


def _register(client: Any, run: Any, name: str, tags: Mapping[str, str]) -> str:
    """Register the files of an MLflow run as a version of a model; returns the number of the version."""
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    version = client.create_model_version(
        name, source=run.info.artifact_uri, run_id=run.info.run_id, tags=dict(tags), description=tags.get(VERSION_TAG)
    )
    return str(version.version)
