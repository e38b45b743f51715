"""A backend that another package adds: run, named in configs, evaluated."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from evaluator.selection import finished_runs
from runtime.run import run
from shared.config import load_config, resolved
from shared.errors import ConfigError, EnvironmentLacks, UsageError
from shared.runs import Run
from shared.workspace import Workspace
from tests.support import plugin_packages
from tests.support import tiny_centerpoint as tiny
from tests.support.extending_page import module_of_page

BACKEND = module_of_page("twin.py")
CONFIG = """
model: {type: centerpoint}
verification: {scenarios: {both: [{ref_backend: onnx, test_backend: twin}, {ref_backend: twin, test_backend: onnx}]}}
evaluation: {backends: {twin: {enabled: true, device: cpu}, onnx: {enabled: false}}}
"""


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str = BACKEND) -> None:
    points = {"awml_deploy.backends": {"twin": "twin_plugin.twin"}}
    plugin_packages.install(monkeypatch, folder, "twin_plugin", {"twin.py": text}, points)


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    file = tmp_path / "deploy.yaml"
    file.write_text(CONFIG)
    return file


def test_it_runs_and_its_run_is_evaluated(tmp_path: Path, config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tmp_path / "site")
    workspace = tiny.make_workspace(tmp_path / "work", tiny.write_frames(tmp_path / "frames", [500, 300]))
    assert "run:twin-cpu: done, 2 samples" in run(workspace.root, "twin", "cpu")
    run(workspace.root, "onnx", "cpu")
    twin, onnx = (Run.open(workspace.root / "runs" / name) for name in ("twin-cpu", "onnx-cpu"))
    assert [len(twin.boxes(index)) for index in range(2)] == [len(onnx.boxes(index)) for index in range(2)]
    assert finished_runs(Workspace.open(workspace.root), load_config(config_file)) == ["runs/twin-cpu"]


def test_a_config_names_it_where_it_is_installed(
    tmp_path: Path, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(config_file)
    assert [line.split(": ", 1)[1] for line in str(refused.value).splitlines()] == [
        "verification.scenarios.both[0].test_backend: is 'twin'; should be one of 'onnx', 'pytorch' or 'tensorrt'",
        "verification.scenarios.both[1].ref_backend: is 'twin'; "
        "should be one of 'onnx', 'pytorch', 'tensorrt' or 'framework'",
    ]
    install(monkeypatch, tmp_path / "site")
    config = load_config(config_file, ["evaluation.backends.twin.device=cuda:1"])
    assert resolved(config)["evaluation"]["backends"]["twin"] == {"enabled": True, "device": "cuda:1"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluation.backends.twin.devices=cpu", "twin.devices: unknown key; did you mean 'device'"),
        ("evaluation.backends.twin.device=cdua", "twin.device: is 'cdua'; no such device; did you mean cuda"),
        ("evaluation.backends.onxx.enabled=true", "onxx: no such backend; should be one of .*; did you mean onnx"),
    ],
)
def test_its_section_is_checked(
    tmp_path: Path, config_file: Path, monkeypatch: pytest.MonkeyPatch, override: str, message: str
) -> None:
    install(monkeypatch, tmp_path / "site")
    with pytest.raises(ConfigError, match=message):
        load_config(config_file, [override])


def test_one_that_is_not_there_or_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"no backend is called 'twin'. there are: .*pytorch"):
        run(tmp_path, "twin", "cpu")
    install(monkeypatch, tmp_path / "site", "import no_such_package\n")
    with pytest.raises(EnvironmentLacks, match=r"'twin' of twin_plugin.twin can't be imported"):
        run(tmp_path, "twin", "cpu")
