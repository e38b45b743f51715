"""`exporter inspect`: a training config's model, told without data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from exporter.cli import cli
from tests.support.exporting import CONFIGS, SMALL, built, save_checkpoint
from tests.support.tiny_yolox import TRAINING_CONFIG, write_config

pytestmark = pytest.mark.exporter

ROOT = Path(__file__).parents[2]
CALIBRATION = ROOT / "configs/train/calibration_resnet18.py"


def run(*arguments: object):
    return CliRunner().invoke(cli, ["inspect", *map(str, arguments)])


def as_json(*arguments: object):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_centerpoint():
    found = as_json(CONFIGS / "j6gen2_121m.py")
    assert (found["model"], found["task"]) == ("centerpoint", "detection3d")
    encoder, head = found["components"]
    assert encoder["inputs"][0]["shape"] == ["num_voxels", "num_max_points", 11]
    assert [output["name"] for output in head["outputs"]] == ["heatmap", "reg", "height", "dim", "rot", "vel"]
    assert found["outputs"]["pts_backbone_neck_head"]["heatmap"] == [1, len(found["classes"]), 510, 510]
    assert found["parameters"]["grid_size"] == [1020, 1020, 1]
    # Boxes from the y axis are an option of the export; with it the node takes the model.
    assert found["autoware"] == {"taken": True, "reason": None, "model_options": {"rot_y_axis_reference": True}}
    assert any("our own" in note and "stand in" in note for note in found["notes"])


def test_a_yolox_and_a_classifier(tmp_path):
    yolox = as_json(write_config(tmp_path))
    assert yolox["components"][0]["inputs"][0]["shape"] == [1, 3, 96, 96]
    assert yolox["outputs"] == {"yolox": {"output": [1, 12 * 12 + 6 * 6 + 3 * 3, 8]}}
    classifier = as_json(CALIBRATION)
    assert classifier["outputs"] == {"end2end": {"output": [1, 2]}} and classifier["autoware"]["taken"]
    assert classifier["weights"] > 11e6


def test_the_text_has_the_same():
    text = run(SMALL).stdout
    for part in ("centerpoint (CenterPoint), detection3d", "classes: ", "spatial_features float32 [", "Autoware: ",
                 "grid_size: ", "left out or replaced"):  # fmt: skip
        assert part in text


def test_it_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = write_config(tmp_path)
    assert run(config).exit_code == 0
    assert list(tmp_path.rglob("*")) == [config]


def test_a_checkpoint_is_tried(tmp_path):
    fitting = save_checkpoint(built(SMALL)[0], tmp_path / "fits.pth")
    assert as_json(SMALL, "--checkpoint", fitting)["checkpoint"] == str(fitting)
    other = run(CALIBRATION, "--checkpoint", fitting)
    assert other.exit_code == 3 and "another model" in str(other.output)


def test_options_are_those_of_a_deploy_config(tmp_path):
    rotated = tmp_path / "rotated.py"
    rotated.write_text(f'_base_ = ["{SMALL}"]\nmodel = dict(test_cfg=dict(pts=dict(nms_type="rotate")))\n')
    assert run(rotated).exit_code == 2
    found = as_json(rotated, "--set", "model.options.nms_type=circle")
    assert found["parameters"]["nms"]["type"] == "circle"
    assert "model.optoins" in run(rotated, "--set", "model.optoins.nms_type=circle").output


def test_parts_that_do_not_fit_together_are_found(tmp_path):
    """mmdet builds such a model, and fails when it runs."""
    path = write_config(tmp_path, TRAINING_CONFIG.replace("in_channels=[16, 32, 64]", "in_channels=[16, 32, 96]"))
    result = run(path)
    assert result.exit_code == 2
    assert "the parts of yolox don't fit together" in result.output


def test_a_model_of_no_known_kind(tmp_path):
    path = tmp_path / "other.py"
    path.write_text("model = dict(type='PTv3')\n")
    result = run(path)
    assert result.exit_code == 2
    assert (
        "model is a PTv3 (the config imports no package that could have it), which can't be exported" in result.output
    )
    assert "centerpoint (CenterPoint" in result.output and "docs/extending.md" in result.output


def test_a_summary_counts_and_goes_on_after_broken_files(tmp_path):
    (tmp_path / "inner").mkdir()
    write_config(tmp_path / "inner")
    (tmp_path / "base.py").write_text("lr = 1\n")
    (tmp_path / "broken.py").write_text("<<<<<<< HEAD\n")
    (tmp_path / "ends.py").write_text("raise SystemExit(7)\n")
    (tmp_path / "other.py").write_text("model = dict(type='PTv3')\n")
    (tmp_path / "notes.txt").write_text("no config\n")
    found = as_json(tmp_path, SMALL, "--summary")
    lines = {Path(line["file"]).name: line for line in found["files"]}
    results = {name: line["result"] for name, line in lines.items()}
    assert results == {
        "tiny_yolox.py": "inspected", "base.py": "no model", "broken.py": "unreadable", "ends.py": "unreadable",
        "other.py": "refused", "small.py": "inspected",
    }  # fmt: skip
    assert "PTv3" in lines["other.py"]["reason"]
    assert found["counts"] == {"inspected": 2, "unreadable": 2, "no model": 1, "refused": 1}
    assert found["taken_by_autoware"] == sum(line["autoware"] is True for line in lines.values())
    text = run(tmp_path, SMALL, "--summary").stdout
    assert "6 training configs: " in text and "2 inspected" in text and "1 refused" in text
    assert "inner/tiny_yolox.py" in text


def test_what_it_is_given_wrongly_is_said(tmp_path):
    assert "say --summary" in run(SMALL, CALIBRATION).output
    assert "say --summary" in run(tmp_path).output
    assert "no .py file" in run(tmp_path, "--summary").output
    assert run(tmp_path / "missing.py").exit_code == 2
