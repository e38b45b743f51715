"""What the tests on a Ray cluster share: a workspace with a model that takes its time (`tests.support.ray_cluster`)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import plugin_packages
from tests.support.ray_cluster import BACKEND, FRAMES, ROOT, Site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    from tests.support import tiny_centerpoint as tiny

    root = tmp_path_factory.mktemp("cluster")
    with pytest.MonkeyPatch.context() as patch:
        points = {"awml_deploy.backends": {"slow": "slow_plugin.slow"}}
        backend = BACKEND.format(gate=root / "gate")
        plugin_packages.install(patch, root / "site", "slow_plugin", {"slow.py": backend}, points)
        patch.setenv("PYTHONPATH", f"{root / 'site'}{os.pathsep}{ROOT}")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # On a busy machine.
        patch.setenv("RAY_agent_register_timeout_ms", "120000")
        patch.setenv("RAY_gcs_server_port_wait_time_s", "120")
        patch.setenv("RAY_worker_niceness", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        frames = tiny.write_frames(root / "frames", [50 + number % 7 * 20 for number in range(FRAMES)])
        tiny.make_workspace(root / "work", frames)
        yield Site(root, root / "work", dict(os.environ))


@pytest.fixture
def work(site: Site, tmp_path: Path) -> Path:
    return Path(shutil.copytree(site.work, tmp_path / "work"))
