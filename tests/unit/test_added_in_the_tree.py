"""A module or folder put into a copy of this repository is found by its name; nothing else is edited."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shared import plugins

ROOT = Path(__file__).parents[2]
#: Folder of each group that the tools have members of.
FOLDERS = {group: group.package for group in plugins.GROUPS if group.package is not None}
ROOMS = sorted({package.partition(".")[0] for package in FOLDERS.values()})
CONFIG = """
task_type: newcomer
model: {type: newcomer}
data: {format: newcomer}
verification: {scenarios: {both: [{ref_backend: onnx, test_backend: newcomer}]}}
evaluation: {backends: {newcomer: {enabled: true}}}
"""
# Prints, of each group, which modules the newcomer was found as; then the config that names it everywhere.
PROGRAM = """
import json, sys
from pathlib import Path
from shared import plugins
from shared.config import load_config, resolved

def modules(group):
    found = [plugins.find(group, "newcomer"), *(plugins.part(group, "newcomer", part) for part in group.parts)]
    return [module.__name__ for module in found]

found = {group.entry_points: modules(group) for group in plugins.GROUPS if group.package is not None}
config = resolved(load_config(Path(sys.argv[1])))
print(json.dumps({"found": found, "task": config["task_type"], "format": config["data"]["format"]}))
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the rooms, with a newcomer of each kind."""
    tree = tmp_path_factory.mktemp("tree")
    for room in ROOMS:
        shutil.copytree(ROOT / room, tree / room, ignore=shutil.ignore_patterns("__pycache__"))
    for group, package in FOLDERS.items():
        folder = tree / package.replace(".", "/")
        if not group.parts:
            (folder / "newcomer.py").touch()
            continue
        (folder / "newcomer").mkdir()
        for name in ("__init__", *group.parts):
            (folder / "newcomer" / f"{name}.py").touch()
    (tree / "deploy.yaml").write_text(CONFIG)
    return tree


def python(tree: Path, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


def test_each_is_found_and_may_be_named_in_a_config(tree: Path) -> None:
    answer = json.loads(python(tree, "-c", PROGRAM, "deploy.yaml"))
    assert answer["found"] == {
        group.entry_points: [
            f"{package}.newcomer",
            *(f"{package}.newcomer.{part}" for part in group.parts),
        ]
        for group, package in FOLDERS.items()
    }
    assert (answer["task"], answer["format"]) == ("newcomer", "newcomer")


def test_each_comes_with_the_tools_then(tree: Path) -> None:
    listed = json.loads(python(tree, "-c", "from shared.manifest_cli import cli; cli(['plugins', '--json'])"))
    assert all("newcomer" in names for names in listed["ours"].values())
    assert len(listed["ours"]) == len(FOLDERS)
