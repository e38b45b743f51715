"""The generated pages are what the code says; every command helps, with an example, and stands in the guide."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import jsonschema
import pytest

from shared.workspace import Workspace

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(DOCS)
    return importlib.import_module("generate")


def test_generated_pages_are_current() -> None:
    answer = subprocess.run(
        [sys.executable, DOCS / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr


def test_a_stale_page_is_noticed(generator: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "DOCS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["generate.py", "--write"])
    generator.main()
    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
    generator.main()
    (tmp_path / "configuration.md").write_text("old", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"stale: configuration\.md; run: make docs"):
        generator.main()


@pytest.mark.parametrize("name", ["exporter", "trt_builder", "runtime", "verifier", "evaluator", "manifest"])
def test_every_command_helps_and_is_in_the_guide(generator: ModuleType, name: str) -> None:
    guide = "\n".join(
        path.read_text() for path in [DOCS.parent / "README.md", *DOCS.glob("*.md")] if path.name != "cli.md"
    )
    for path, command in generator.commands(generator.tool(name), name):
        assert command.help, path
        if not hasattr(command, "commands"):
            assert f"Example: {path}" in " ".join(command.help.split()), f"{path}: its help has no example"
            assert path in guide, f"{path} is not mentioned in the README or docs"
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.help, f"{path} {parameter.name}: no help"


def test_manifest_schema_accepts_a_real_manifest(tmp_path: Path) -> None:
    ws = Workspace.create(tmp_path)
    with ws.stage("export", tool="exporter") as stage, stage.artifact("onnx/a.onnx", kind="onnx") as path:
        path.write_bytes(b"x")
    schema = json.loads((DOCS / "manifest.schema.json").read_text())
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    jsonschema.validate(manifest, schema)
    manifest["stages"]["export"]["status"] = "perhaps"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, schema)
