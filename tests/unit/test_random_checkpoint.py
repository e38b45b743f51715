"""Random weights for training configs as packages ship them."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

import pytest
from click.testing import CliRunner

from exporter.random_checkpoint import cli

pytestmark = pytest.mark.exporter


def _shipped(package: str, config: str) -> Path:
    return Path(str(distribution(package).locate_file(package))) / ".mim" / "configs" / config


@pytest.mark.parametrize(
    ("package", "config", "options"),
    [
        ("mmdet", "yolox/yolox_nano_8xb8-300e_coco.py", []),
        (
            "mmdet3d",
            "centerpoint/centerpoint_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py",
            ["--set", "model.options.nms_type=circle"],
        ),
    ],
)
def test_of_mmdets_and_mmdet3ds_own_configs(package: str, config: str, options: list[str], tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    out = tmp_path / "weights.pth"
    arguments = ["write", "--config", str(_shipped(package, config)), "--out", str(out), *options]
    answer = CliRunner().invoke(cli, arguments)
    assert answer.exit_code == 0, answer.output
    weights = torch.load(out, weights_only=True)["state_dict"]
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert any(name.startswith("backbone" if package == "mmdet" else "pts_backbone") for name in weights)
