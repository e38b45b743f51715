"""``exporter config``: show, convert, schema, init; and ``import shared.config`` stays cheap."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from exporter.config_commands import TEMPLATES
from shared.config import load_config

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "tests" / "data" / "awml_deploy_config.py"


def exporter(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from exporter.cli import cli; cli()", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "REAL_DATA": "/data/real"},
    )


def test_show_prints_the_resolved_config_as_yaml() -> None:
    answer = exporter(
        "config", "show", "--config", "configs/centerpoint.yaml", "--set", "export.mode=onnx",
        "--section", "export", "--section", "evaluation",
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    shown = yaml.safe_load(answer.stdout)
    assert list(shown) == ["export", "evaluation"]
    assert shown["export"]["mode"] == "onnx"
    assert shown["export"]["opset_version"] == 17


def test_shown_config_can_be_loaded_again(tmp_path: Path) -> None:
    answer = exporter("config", "show", "--config", "configs/centerpoint.yaml")
    (tmp_path / "c.yaml").write_text(answer.stdout, encoding="utf-8")
    assert load_config(tmp_path / "c.yaml") == load_config(ROOT / "configs/centerpoint.yaml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "--config", "configs/centerpoint.yaml", "--section", "exprt"], "did you mean 'export'?"),
        (["show", "--config", "configs/centerpoint.yaml", "--set", "exprt.mode=onnx"], "did you mean 'export'?"),
        (["show", "--config", "nothing.yaml"], "nothing.yaml: no such config file"),
        (["convert", "nothing.py", "--out", "x.yaml"], "nothing.py: no such config file"),
        (["init", "yolov5"], "yolov5"),
        (["show", "--config", str(REFERENCE), "--type", "nonsense"], "no such model. there are: calib"),
        (["convert", str(REFERENCE), "--out", "x.yaml", "--type", "nonsense"], "calibration, centerpoint, "),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    answer = exporter("config", *arguments)
    assert answer.returncode == 2
    assert message in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("model", TEMPLATES)
def test_init_writes_a_commented_config_that_loads(tmp_path: Path, model: str) -> None:
    answer = exporter("config", "init", model, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    path = tmp_path / f"{model}.yaml"
    assert load_config(path).model.type == model
    text = path.read_text(encoding="utf-8")
    assert "# Before:" in text
    assert f"--config {model}.yaml" in text
    assert "THIS_FILE" not in text


def test_init_and_convert_do_not_overwrite_unless_told_to(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("mine", encoding="utf-8")
    for command in (["init", "centerpoint", "--out", path], ["convert", REFERENCE, "--out", path]):
        answer = exporter("config", *command)
        assert answer.returncode == 2
        assert "say --force" in answer.stderr
        assert path.read_text(encoding="utf-8") == "mine"
        assert exporter("config", *command, "--force").returncode == 0
        assert path.read_text(encoding="utf-8") != "mine"
        path.write_text("mine", encoding="utf-8")


@pytest.mark.parametrize("model", sorted(path.name for path in (ROOT / "runtime/models").glob("[a-z]*")))
def test_init_has_a_config_to_start_from_for_every_model_of_ours(tmp_path: Path, model: str) -> None:
    answer = exporter("config", "init", model, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert load_config(tmp_path / f"{model}.yaml").model.type == model


def test_init_with_ci_leaves_what_is_there_and_says_so(tmp_path: Path) -> None:
    def init(*options: str) -> list[str]:
        answer = exporter("config", "init", "yolox", "--out", "mine.yaml", *options, cwd=tmp_path)
        assert answer.returncode == 0, answer.stderr
        return [line.split(";")[0] for line in answer.stdout.splitlines()]

    config, script = tmp_path / "mine.yaml", tmp_path / "ci/deploy.sh"
    workflow = ".github/workflows/deploy.yml: written"
    assert init("--ci", "github") == ["mine.yaml: written", "ci/deploy.sh: written", workflow]
    assert load_config(config).model.type == "yolox"
    config.write_text(config.read_text(encoding="utf-8") + "# mine\n", encoding="utf-8")
    script.write_text("mine", encoding="utf-8")
    assert init("--ci", "gitlab") == ["ci/deploy.sh: kept, as it is there", ".gitlab-ci.yml: written"]
    assert script.read_text(encoding="utf-8") == "mine"
    assert init("--ci", "github", "--force") == ["ci/deploy.sh: written", workflow]
    assert "mine.yaml" in script.read_text(encoding="utf-8")
    assert config.read_text(encoding="utf-8").endswith("# mine\n")


def test_convert_tells_what_changed_and_writes_what_awml_meant(tmp_path: Path) -> None:
    answer = exporter("config", "convert", REFERENCE, "--out", tmp_path / "c.yaml")
    assert answer.returncode == 0, answer.stderr
    assert "export.work_dir: dropped: give --work to a tool" in answer.stderr
    assert load_config(tmp_path / "c.yaml") == load_config(REFERENCE)


def test_schema_accepts_our_configs_and_refuses_typos(tmp_path: Path) -> None:
    answer = exporter("config", "schema")
    schema = json.loads(answer.stdout)
    assert exporter("config", "schema", "--out", tmp_path / "s.json").returncode == 0
    assert json.loads((tmp_path / "s.json").read_text(encoding="utf-8")) == schema
    jsonschema.Draft202012Validator.check_schema(schema)
    for path in [*(ROOT / "configs").glob("*.yaml"), *(ROOT / "shared/config/templates").glob("*.yaml")]:
        # JSON has text for keys, also for the numbers of axes.
        value = json.loads(json.dumps(yaml.safe_load(path.read_text(encoding="utf-8"))))
        jsonschema.validate(value, schema)
        value["export"]["mdoe"] = "onnx"
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(value, schema)


def test_importing_the_config_package_is_cheap() -> None:
    code = "import sys, shared.config; sys.exit('pydantic' in sys.modules or 'yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
