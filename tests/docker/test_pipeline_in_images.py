"""The script of `exporter config init --ci` with its tools in images: paths, exit codes, and whom files belong to."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from exporter.pipelines import write_pipeline
from tests.support.containers import ROOT, TAG, TARGET, let_in
from tests.support.junit_schema import checked, verdicts
from tests.support.workspaces import add_run, make_workspace

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("images")]


def test_a_gate_that_fails_ends_the_script_as_it_ends_the_container(tmp_path: Path) -> None:
    repository = tmp_path / "model"
    workspace = make_workspace(tmp_path)
    for backend in ("framework", "pytorch", "onnx"):
        add_run(workspace, backend)
    shutil.copytree(workspace.root, repository / "work/mine")
    shutil.copy(ROOT / "configs/centerpoint.yaml", repository / "mine.yaml")
    write_pipeline("script", repository / "mine.yaml", repository, force=False)
    let_in(tmp_path)
    variables = {
        **os.environ, "AWML_DEPLOY": str(ROOT), "DOCKER_TARGET": TARGET, "TARGET_NAME": TAG, "GPU": "none",
        "DATA_ROOT": str(tmp_path / "data"), "DEPLOY_GATE": "mAP < 1.1",
    }  # fmt: skip

    def deploy(*stages: str) -> subprocess.CompletedProcess[str]:
        command = ["sh", "ci/deploy.sh", *stages]
        return subprocess.run(command, cwd=repository, env=variables, capture_output=True, text=True, check=False)

    answer = deploy("verify", "evaluate", "summary")
    assert answer.returncode == 6, answer.stdout + answer.stderr
    assert "gates failed" in answer.stderr
    assert set(verdicts(checked(repository / "work/results/mine/verify.xml")).values()) == {("passed", "")}
    ends = verdicts(checked(repository / "work/results/mine/gates.xml"))
    assert ends["onnx-cpu", "mAP < 1.1"][0] == "failure"
    assert (repository / "work/results/mine/gates.xml").stat().st_uid == os.getuid()
    assert deploy("summary").returncode == 0
    assert "### Gates" in (repository / "work/results/mine/summary.md").read_text()
