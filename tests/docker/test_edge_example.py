"""examples/edge_device, followed: its bundle takes packages from an index, as all bundles do."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.manifest import read_manifest
from tests.support import tiny_centerpoint
from tests.support.jobs import ROOT
from tests.support.pages import Reader
from tests.support.pythons import find_python, find_uv, index_is_there

pytestmark = pytest.mark.packages


def test_a_reader_takes_a_workspace_to_a_device_and_back(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    find_python("3.11")
    if not index_is_there(find_uv()):
        pytest.skip("no package index can be reached")
    frames = tiny_centerpoint.write_frames(tmp_path / "frames", [300])
    work = tiny_centerpoint.make_workspace(tmp_path / "my-model", frames).root
    with Reader(tmp_path / "home", {"my-model": work}) as reader:
        reader.follow((ROOT / "examples" / "edge_device" / "README.md").read_text(encoding="utf-8"))
        build = read_manifest(reader.root / "work" / "my-model" / "manifest.json").stages["build"]
    assert build.status == "skipped"
    assert build.reason is not None and "TensorRT" in build.reason
