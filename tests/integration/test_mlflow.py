"""evaluator log-mlflow: what is in the tracking database or on a real server is what is in the workspace."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import evaluator.mlflow_log as module
from evaluator.cli import cli
from evaluator.mlflow_log import log_evaluation, tracking_uri
from shared.errors import EnvironmentLacks, InputError, ManifestError
from shared.files import sha256_of_file
from shared.lazy import lazy_import
from shared.versions import tag
from shared.workspace import Workspace
from tests.support.workspaces import add_run, make_workspace

mlflow = pytest.importorskip("mlflow", reason="mlflow-skinny is not installed; run: make setup-mlflow")
pytest.importorskip("sqlalchemy", reason="sqlalchemy is not installed; run: make setup-mlflow")

SERVER = Path(os.environ.get("MLFLOW_SERVER", Path(__file__).parents[2] / ".cache" / "mlflow" / "bin" / "mlflow"))
_SECONDS_TO_START = 60


@pytest.fixture(scope="module")
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracking database without anything in it, to be copied: MLflow takes seconds to make one."""
    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{path}", registry_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A model of one file, two runs; not evaluated."""
    workspace = make_workspace(tmp_path)
    with workspace.stage("models", tool="shared") as stage, stage.artifact("onnx/head.onnx", kind="onnx") as path:
        path.write_bytes(b"weights")
    add_run(workspace, "pytorch")
    add_run(workspace, "onnx", inputs={"onnx/head.onnx": workspace.input_hash("onnx/head.onnx")})
    return workspace


def _call(*words: str) -> tuple[int, str]:
    answer = CliRunner().invoke(cli, list(words))
    return answer.exit_code, answer.output


def _check(workspace: Workspace, uri: str, folder: Path) -> None:
    """What the server has is what the workspace has."""
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.get_experiment_by_name("centerpoint")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = {run.info.run_name: run for run in runs if run is not parent}
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert parent.data.params["model.type"] == "centerpoint" and parent.data.params["export.mode"] == "onnx"
    results = workspace.manifest().results
    for name in ("pytorch-cpu", "onnx-cpu"):
        run = children[name]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        for metric, value in results["metrics"][name].items():
            assert run.data.metrics[metric] == pytest.approx(value), metric
        assert run.data.metrics["latency/total median"] == results["latency"][name]["total"]["median"]
        assert run.data.params["precision"] == "fp32"
    assert children["onnx-cpu"].data.metrics["model bytes"] == len(b"weights")
    for relative in ("onnx/head.onnx", "evaluation/onnx-cpu.json"):
        copy = client.download_artifacts(parent.info.run_id, relative, str(folder))
        assert sha256_of_file(Path(copy)) == workspace.input_hash(relative)
    assert "manifest.json" in [entry.path for entry in client.list_artifacts(parent.info.run_id)]
    (version,) = client.search_model_versions("name = 'centerpoint'")
    assert version.run_id == parent.info.run_id


def test_local_database_beside_the_workspace(
    workspace: Workspace, new_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = workspace.root.parent
    shutil.copy(new_database, folder / "mlflow.db")
    code, text = _call("evaluate", "--work", str(workspace.root), "--mlflow")
    assert code == 0 and "centerpoint version 1" in text
    uri = f"sqlite:///{folder.resolve()}/mlflow.db"
    assert tracking_uri(workspace.root, "") == uri
    _check(workspace, uri, folder)
    assert (folder / "mlflow-artifacts").is_dir()
    # The same evaluation is not logged twice; another one becomes another version.
    assert "logged before" in _call("log-mlflow", "--work", str(workspace.root))[1]
    # A gate that fails is told, and still logged.
    code, text = _call("evaluate", "--work", str(workspace.root), "--mlflow", uri, "--fail-if", "mAP < 2")
    assert code == 6 and "centerpoint version 2" in text
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    newest = max(client.search_model_versions("name = 'centerpoint'"), key=lambda version: int(version.version))
    assert client.get_run(newest.run_id).data.tags["awml_deploy.gates"] == "failed"
    # A version that manifest tag made goes by its name.
    tag(workspace.root, "v7")
    assert log_evaluation(workspace.root, uri, "others", "my-model").text().endswith("my-model version 1")
    (version,) = client.search_model_versions("name = 'my-model'")
    assert version.tags["awml_deploy.tag"] == "v7"
    assert client.get_run(version.run_id).info.run_name == "centerpoint v7"


def test_a_changed_artifact_is_not_logged(workspace: Workspace, new_database: Path) -> None:
    uri = f"sqlite:///{shutil.copy(new_database, workspace.root.parent / 'x.db')}"
    with pytest.raises(InputError, match="nothing is evaluated here"):
        log_evaluation(workspace.root, uri)
    assert _call("evaluate", "--work", str(workspace.root))[0] == 0
    workspace.path("onnx/head.onnx").write_bytes(b"Weights")
    with pytest.raises(ManifestError, match="differs from its hash"):
        log_evaluation(workspace.root, uri)
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("centerpoint").experiment_id])
    assert run.info.status == "FAILED" and not client.search_model_versions("name = 'centerpoint'")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_that_is_not_there_is_one_line(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert _call("evaluate", "--work", str(workspace.root))[0] == 0
    code, text = _call("log-mlflow", "--work", str(workspace.root), "--uri", f"http://127.0.0.1:{_free_port()}")
    assert code == EnvironmentLacks.exit_code and "MLflow did not take the evaluation" in text
    code, text = _call("log-mlflow", "--work", str(workspace.root), "--uri", "nonsense://here")
    assert code == EnvironmentLacks.exit_code and len(text.strip().splitlines()) == 1


def test_without_mlflow_the_error_says_how_to_get_it(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _call("evaluate", "--work", str(workspace.root))[0] == 0
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setattr(module, "mlflow", lazy_import("mlflow", install=module._INSTALL))
    with pytest.raises(EnvironmentLacks, match="make setup-mlflow"):
        log_evaluation(workspace.root, "http://127.0.0.1:1")


@pytest.fixture
def server(tmp_path: Path, new_database: Path) -> Iterator[str]:
    """Address of a real tracking server, which runs in an environment of its own."""
    if not SERVER.is_file():
        pytest.skip(f"no MLflow server at {SERVER}; run: make test-mlflow, or set MLFLOW_SERVER")
    port, folder = _free_port(), tmp_path / "server"
    folder.mkdir()
    shutil.copy(new_database, folder / "server.db")
    command = [SERVER, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", f"{folder}/files"]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True)
        try:
            _wait_for(port, process, folder / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, 15)
            process.wait(20)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    import urllib.error
    import urllib.request

    for _ in range(_SECONDS_TO_START * 2):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, log.read_text()
            time.sleep(0.5)
    pytest.fail(f"the MLflow server did not start: {log.read_text()[-2000:]}")


def test_real_server(workspace: Workspace, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    code, text = _call("evaluate", "--work", str(workspace.root), "--mlflow")
    assert code == 0 and f"MLflow {server}: experiment centerpoint" in text and "centerpoint version 1" in text
    _check(workspace, server, workspace.root.parent)
    assert "logged before" in _call("log-mlflow", "--work", str(workspace.root), "--uri", server)[1]
    assert any((workspace.root.parent / "server" / "files").rglob("head.onnx"))
