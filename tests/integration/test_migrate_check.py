"""`make migrate-check` on files as AWML has them: what it says; the network is exported, and nothing of it is left."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "tests" / "data" / "awml_deploy_config.py"
MODEL = ROOT / "tests" / "data" / "awml_configs" / "small.py"

pytestmark = [pytest.mark.exporter, pytest.mark.skipif(shutil.which("make") is None, reason="no make here")]


def _check(folder: Path, deploy: Path, model: Path) -> subprocess.CompletedProcess[str]:
    environment = Path(sys.executable).parent.parent
    arguments = [f"DEPLOY={deploy}", f"MODEL_CONFIG={model}", f"TOOLS={environment}", f"EXPORTER_BIN={environment}/bin"]
    variables = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(
        ["make", "-o", "setup", "migrate-check", *arguments],
        cwd=ROOT, env={**variables, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_files_that_go_are_exported_and_nothing_is_left(tmp_path: Path) -> None:
    answer = _check(tmp_path, DEPLOY, MODEL)
    assert answer.returncode == 0, answer.stderr
    assert "1 of 3: the deploy config" in answer.stdout
    assert "component pts_backbone_neck_head" in answer.stdout
    assert "exported, and equal to PyTorch" in answer.stdout
    # PyTorch leaves folders of its own.
    assert not list(tmp_path.glob("tmp.*")) and not list(tmp_path.rglob("*.onnx"))


def test_a_model_that_is_not_here_is_said_and_not_exported(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    model = tmp_path / "model.py"
    model.write_text('model = dict(type="BEVFusion")\n')
    answer = _check(tmp_path / "made", DEPLOY, model)
    assert answer.returncode != 0
    assert "BEVFusion" in answer.stderr
    assert "is not tried" in answer.stderr
