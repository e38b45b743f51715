"""Workspaces that are whole, for cases to break."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.commands import run
from tests.support.workspaces import add_run, make_workspace


@pytest.fixture(autouse=True)
def _limited_memory() -> Iterator[None]:
    """A case that fills the memory fails by itself, instead of taking the machine with it.

    For a case alone: whatever runs after it may reserve more, as a browser does.
    """
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (12 << 30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a workspace ``work`` that has two runs, a verification and an evaluation, and its ``data``."""
    folder = tmp_path_factory.mktemp("whole")
    workspace = make_workspace(folder)
    add_run(workspace, "framework")
    add_run(workspace, "onnx")
    add_run(workspace, "pytorch", noise=1e-6)
    for command in (["evaluator", "evaluate"], ["manifest", "tag", "v1"]):
        assert run([*command, "--work", str(workspace.root)]).code == 0
    return folder


@pytest.fixture
def broken(whole: Path, tmp_path: Path) -> Path:
    """A copy of the workspace, to be broken."""
    shutil.copytree(whole / "work", tmp_path / "work")
    return tmp_path / "work"
