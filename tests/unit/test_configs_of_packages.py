"""Deploy configs and demo data that packages bring: called by their names, as the Makefile does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from demo.cli import cli as demo
from shared.config import load_config
from shared.errors import ConfigError
from shared.manifest_cli import cli as manifest
from tests.support import plugin_packages

CONFIG = """
task_type: detection3d
model: {type: centerpoint, config: train.py}
data: {format: folder}
"""
WRITER = """
def write(folder, split, frames, seed):
    (folder / "lamps.txt").write_text(f"{split} {frames} {seed}")
"""


@pytest.fixture
def lamps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with the config ``lamps`` and data for it, and the config ``lamps_wide`` that has none; its folder."""
    points = {
        "awml_deploy.configs": {"lamps": "lamp_plugin.configs", "lamps_wide": "lamp_plugin.configs"},
        "awml_deploy.demo_data": {"lamps": "lamp_plugin.scenes"},
    }
    files = {"configs/__init__.py": "", "scenes.py": WRITER}
    plugin_packages.install(monkeypatch, tmp_path / "site", "lamp_plugin", files, points)
    configs = tmp_path / "site" / "lamp_plugin" / "configs"
    for name in ("lamps", "lamps_wide"):
        (configs / f"{name}.yaml").write_text(CONFIG)
    return configs


def generate(*arguments: str) -> Result:
    return CliRunner().invoke(demo, ["generate", "--frames", "2", *arguments])


def test_a_config_is_called_by_its_name_and_its_paths_start_at_its_folder(lamps: Path) -> None:
    config = load_config(Path("lamps"), ["data.format=t4"])
    assert (config.model.config, config.data.format) == (lamps / "train.py", "t4")


def test_a_file_of_that_name_comes_first(lamps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lamps").write_text(CONFIG.replace("centerpoint", "yolox"))
    assert load_config(Path("lamps")).model.type == "yolox"


def test_a_name_that_nobody_brings_is_one_line_with_those_that_are(lamps: Path) -> None:
    with pytest.raises(ConfigError, match="lamp: is neither a file nor a config of an installed package") as error:
        load_config(Path("lamp"))
    assert "lamps, lamps_wide" in str(error.value)


def test_data_of_the_config_are_written_once(lamps: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    first, second = generate("--for", "lamps", "--out", str(out)), generate("--for", "lamps", "--out", str(out))
    assert (first.exit_code, second.exit_code, second.output) == (0, 0, f"{out}: up to date\n"), first.output
    assert (out / "lamps.txt").read_text() == "eval 2 7"
    assert generate("--for", "lamps", "--out", str(out), "--split", "train").exit_code == 0
    assert (out / "lamps.txt").read_text() == "train 2 7"


def test_other_code_writes_them_anew(lamps: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    generate("--for", "lamps", "--out", str(out))
    (lamps.parent / "edited.py").touch()
    assert generate("--for", "lamps", "--out", str(out)).output != f"{out}: up to date\n"


def test_a_config_without_data_of_its_own_has_the_driving_scenes(lamps: Path, tmp_path: Path) -> None:
    result = generate("--for", "lamps_wide", "--out", str(tmp_path / "data"), "--no-cameras")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "data" / "info" / "t4dataset_demo_infos_eval.pkl").is_file()


def test_data_for_a_config_that_nobody_brings_are_refused(lamps: Path, tmp_path: Path) -> None:
    result = generate("--for", "lamp", "--out", str(tmp_path / "data"))
    assert result.exit_code == 2
    assert "no package brings a config 'lamp'" in result.output
    assert not (tmp_path / "data").exists()


def test_a_config_without_its_file_is_listed_as_a_problem(lamps: Path) -> None:
    listed = CliRunner().invoke(manifest, ["plugins"])
    assert listed.exit_code == 0, listed.output
    assert ["configs", "lamps", "lamp_plugin", "1.0"] in [line.split() for line in listed.output.splitlines()]
    (lamps / "lamps.yaml").unlink()
    broken = CliRunner().invoke(manifest, ["plugins", "--json"])
    assert broken.exit_code == 4
    said = json.loads(broken.stdout)
    problems = [entry["problem"] for entry in said["added"] if entry["problem"]]
    assert problems == ["'lamps' of lamp_plugin.configs has no file lamps.yaml"]
