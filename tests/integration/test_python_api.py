"""The lines of docs/api/index.md run as they stand: a workspace, a pipeline, a comparison, a metric."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from tests.support import tiny_centerpoint as tiny

PAGE = Path(__file__).parents[2] / "docs" / "api" / "index.md"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``work/centerpoint``, whose data set is not there any more."""
    frames = tiny.write_frames(tmp_path / "frames", [500])
    tiny.make_workspace(tmp_path / "work" / "centerpoint", frames)
    shutil.rmtree(frames)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_pages_lines_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4
    names: dict[str, Any] = {}
    said = []
    for block in blocks:
        lines = [line for line in block.splitlines() if line]
        assert len(lines) <= 10, "ten lines each"
        exec(block, names)
        said.append(capsys.readouterr().out)
    assert said[0].startswith("centerpoint detection3d ['car', 'pedestrian', 'bicycle']\nexport done\n")
    assert len(names["boxes"]) > 0, "an answer that shows something"
    assert names["pairs"].matched == len(names["boxes"])
    assert names["statistics"].summary()["snr_db"] > 80
    assert "car" in names["score"].classes
    assert np.isfinite(names["score"].mean_average_precision)
