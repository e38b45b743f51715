"""What several end-to-end tests look at: the main job, run once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.jobs import ROOT, make


@pytest.fixture(scope="session")
def main_job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """`make centerpoint-all`, as a user types it: its workspace, and what it printed."""
    work = tmp_path_factory.mktemp("main") / "centerpoint"
    answer = make("centerpoint-all", f"WORK={work}")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return work, answer.stdout


@pytest.fixture(scope="session")
def demo_data() -> Path:
    """The demo's data set, where `make centerpoint-all` has it; generated once in a checkout."""
    answer = make("demo-data")
    assert answer.returncode == 0, answer.stderr
    return ROOT / "work" / "demo"
