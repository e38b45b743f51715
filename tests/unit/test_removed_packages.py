"""A workspace of a package's model where the package is not installed any more: a line says what it lacks."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from click.testing import CliRunner, Result

from exporter.models import find
from runtime.backends import Session
from runtime.pipeline import build_pipeline
from shared.errors import ConfigError, ManifestError
from shared.manifest import read_manifest
from tests.support import plugin_packages
from tests.support.command_lines import tool
from tests.support.workspaces import add_run, make_workspace

NO_TASK = "there is no task 'lamp_state'"
NO_METRIC = "no metric for task 'lamp_state'"


def workspace(folder: Path, **of_the_spec: str) -> Path:
    """A workspace that a package took part in: its name is in the keys of the stages, and its things in the spec."""
    made = make_workspace(folder)
    for backend in ("framework", "pytorch", "onnx"):
        add_run(made, backend)
    path = made.root / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["spec"].update(of_the_spec)
    manifest["stages"]["run:onnx-cpu"]["key"] = {"versions": {"numpy": "2.4.6", "lamps": f"2.1, code {'0' * 16}"}}
    path.write_text(json.dumps(manifest))
    return made.root


def call(command: str, work: Path) -> Result:
    name, *arguments = command.split()
    return CliRunner().invoke(tool(name), ["--log-level", "error", *arguments, "--work", str(work)])


def test_a_model_is_lacking(tmp_path: Path) -> None:
    spec = read_manifest(workspace(tmp_path, model="lamp_net") / "manifest.json").spec
    assert spec is not None
    with pytest.raises(ManifestError, match=r"there is no pipeline for models of kind 'lamp_net'.* names it"):
        build_pipeline(spec, MagicMock(spec=Session))


@pytest.mark.parametrize(
    ("command", "lacks"),
    [
        ("runtime run --backend onnx", NO_TASK),
        ("runtime bench --backend onnx", NO_TASK),
        ("verifier verify", NO_TASK),
        ("evaluator baseline set before", NO_METRIC),
    ],
)
def test_a_task_is_lacking(tmp_path: Path, command: str, lacks: str) -> None:
    _one_line(call(command, workspace(tmp_path, model="lamp_net", task="lamp_state")), lacks)


def _one_line(result: Result, lacks: str) -> None:
    assert result.exit_code == 3, result.output
    (line,) = result.stderr.splitlines()
    assert lacks in line and "manifest plugins --work WORK names it" in line


@pytest.mark.parametrize("command", ["manifest show", "manifest check", "evaluator summary"])
def test_what_needs_nothing_of_the_package_works(tmp_path: Path, command: str) -> None:
    assert call(command, workspace(tmp_path, model="lamp_net", task="lamp_state")).exit_code == 0


def test_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = workspace(tmp_path, model="lamp_net")
    result = call("manifest plugins", work)
    assert result.exit_code == 4
    assert result.stderr.splitlines()[-1] == f"error: {work}: was made with lamps 2.1, not installed here. make plugins"
    points = {"awml_deploy.formats": {"lamps": "lamps.data"}}
    plugin_packages.install(monkeypatch, tmp_path / "site", "lamps", {"data.py": "VIEWS = {}"}, points)
    assert call("manifest plugins", work).exit_code == 0


def test_a_config_for_the_model_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.type: no model 'lamp_net'. there are: .* names it"):
        find("lamp_net")
