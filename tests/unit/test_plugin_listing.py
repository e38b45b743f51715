"""`manifest plugins`: what other packages add, and what of it can't be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from shared import plugins
from shared.added import code_digest
from shared.manifest_cli import cli
from tests.support import plugin_packages


def listing(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["plugins", *arguments])


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, group: str, member: str, text: str) -> None:
    points = {f"awml_deploy.{group}": {member: f"{name}.{member}"}}
    plugin_packages.install(monkeypatch, folder / name, name, {f"{member}.py": text}, points, "2.1")


def test_each_is_listed_with_package_and_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tmp_path, "bag_plugin", "formats", "bag", "VIEWS = {}\n")
    result = listing()
    assert result.exit_code == 0, result.output
    assert ["formats", "bag", "bag_plugin", "2.1"] in [line.split() for line in result.output.splitlines()]
    assert f"{len(plugins.ours(plugins.TASKS))} tasks" in result.output


def test_json_has_module_and_code_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tmp_path, "bag_plugin", "formats", "bag", "VIEWS = {}\n")
    listed = json.loads(listing("--json").output)
    entry = next(entry for entry in listed["added"] if entry["name"] == "bag")
    assert entry == {
        "group": "formats", "name": "bag", "module": "bag_plugin.bag", "package": "bag_plugin", "version": "2.1",
        "code": code_digest("bag_plugin"), "problem": None,
    }  # fmt: skip
    assert listed["ours"]["tasks"] == plugins.ours(plugins.TASKS)


@pytest.mark.parametrize(
    ("group", "member", "text", "problem"),
    [
        ("tasks", "lost", "import no_such_package\n", "can't be imported (ModuleNotFoundError: No module named"),
        ("tasks", "torn", "def torn(:\n", "can't be imported (SyntaxError: "),
        ("tasks", "bare", "", "'bare' of plugin_bare.bare does not define TASK"),
        ("exporter_models", "flat", "", "'flat' of plugin_flat.flat has no module adapter"),
        ("formats", "kitti", "VIEWS = {}\n", "is not used: one of that name comes with the tools"),
    ],
)
def test_what_cannot_be_used_is_one_line_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str, member: str, text: str, problem: str
) -> None:
    install(monkeypatch, tmp_path, "bag_plugin", "formats", "bag", "VIEWS = {}\n")
    install(monkeypatch, tmp_path, f"plugin_{member}", group, member, text)
    result = listing()
    assert result.exit_code == 4
    lines = [line for line in result.output.splitlines() if problem in line]
    assert len(lines) == 1
    assert ["formats", "bag", "bag_plugin", "2.1"] in [line.split() for line in result.output.splitlines()]


def test_the_same_name_in_two_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("one_plugin", "other_plugin"):
        install(monkeypatch, tmp_path, package, "formats", "bag", "VIEWS = {}\n")
    result = listing()
    assert result.exit_code == 4
    assert "'bag' is added by several packages: one_plugin, other_plugin" in result.output


def test_a_broken_package_does_not_hide_the_others_of_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = {"awml_deploy.exporter_models": {"whole": "folder_plugin.whole", "broken": "folder_plugin.broken"}}
    files = {"whole/awml.py": "", "broken/__init__.py": "import no_such_package\n", "broken/awml.py": ""}
    plugin_packages.install(monkeypatch, tmp_path, "folder_plugin", files, points)
    added = set(plugins.with_part(plugins.EXPORTER_MODELS, "awml"))
    assert "whole" in added
    assert "broken" not in added


def test_the_code_digest_covers_the_whole_package_and_no_bytecode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path, "bag_plugin", "formats", "bag", "VIEWS = {}\n")
    before = code_digest("bag_plugin.bag")
    cache = tmp_path / "bag_plugin" / "bag_plugin" / "__pycache__"
    cache.mkdir(exist_ok=True)
    (cache / "bag.pyc").touch()
    assert code_digest("bag_plugin.bag") == before
    (tmp_path / "bag_plugin" / "bag_plugin" / "table.yaml").write_text("a: 1\n")
    assert code_digest("bag_plugin.bag") != before
    assert code_digest("no_such_package.module") == "missing"
