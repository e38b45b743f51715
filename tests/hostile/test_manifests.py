"""Manifests and what else lies in a workspace: broken, changed by hand, or made by somebody."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.commands import run
from tests.hostile.values import FILES, VALUES, places, replaced

READERS = {
    "manifest show": [],
    "manifest check": [],
    "manifest tags": [],
    "evaluator summary": [],
    "evaluator history": [],
    "evaluator evaluate": ["--force"],
    "evaluator report": [],
    "verifier verify": ["--force"],
    "runtime run": ["--backend", "onnx"],
    "trt_builder suggest-profiles": [],
}
# How many places of a manifest each value is tried in; more by hand.
SAMPLED = int(os.environ.get("HOSTILE_SAMPLES", "2"))


def command(reader: str, work: Path) -> list[str]:
    return [*reader.split(), *READERS[reader], "--work", str(work)]


def test_the_whole_workspace_is_read(broken: Path) -> None:
    """Otherwise the refusals below show nothing."""
    for reader in ("manifest show", "manifest check", "manifest tags", "evaluator summary", "evaluator evaluate"):
        assert run(command(reader, broken)).code == 0


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", FILES)
def test_the_manifest_is_something_else(broken: Path, reader: str, kind: str) -> None:
    manifest = broken / "manifest.json"
    manifest.unlink()
    FILES[kind](manifest)
    answer = run(command(reader, broken))
    assert answer.faults([3]) == [], answer.err


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("reader", READERS)
def test_a_value_of_the_manifest_is_another(whole: Path, tmp_path: Path, reader: str, value: str) -> None:
    manifest = json.loads((whole / "work" / "manifest.json").read_text())
    everywhere = list(places(manifest))
    work = tmp_path / "work"
    for place in random.Random(f"{reader}{value}").sample(everywhere, SAMPLED):
        shutil.copytree(whole / "work", work)
        (work / "manifest.json").write_text(json.dumps(replaced(manifest, place, VALUES[value])))
        answer = run(command(reader, work))
        shutil.rmtree(work)
        assert answer.faults([0, 2, 3, 4, 5, 6]) == [], f"{place}: {answer.err}"


@pytest.mark.parametrize("version", [0, -1, 2, 10**20, 1.0, 1.5, True, None, "1", [1], {}])
@pytest.mark.parametrize("reader", ["manifest show", "evaluator summary"])
def test_schema_versions_that_are_none(broken: Path, reader: str, version: Any) -> None:
    file = broken / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema_version": version}))
    answer = run(command(reader, broken))
    assert answer.faults([3]) == [], answer.err


@pytest.mark.parametrize("reader", ["manifest check", "evaluator summary", "runtime run"])
def test_a_manifest_of_100_mb(broken: Path, reader: str) -> None:
    text = (broken / "manifest.json").read_text()
    (broken / "manifest.json").write_text(" " * (100 << 20) + text)
    answer = run(command(reader, broken))
    assert answer.faults([3]) == [], answer.err


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("name", ["run.json", "predictions.npz", "samples.jsonl", "journal.jsonl"])
def test_a_file_of_a_run_is_something_else(broken: Path, name: str, kind: str) -> None:
    file = broken / "runs" / "onnx-cpu" / name
    file.unlink()
    FILES[kind](file)
    for reader in ("evaluator evaluate", "manifest check"):
        answer = run(command(reader, broken))
        assert answer.faults([0, 3]) == [], answer.err


@pytest.mark.parametrize("kind", FILES)
def test_a_version_is_something_else(broken: Path, kind: str) -> None:
    file = broken / ".versions" / "v1.json"
    file.unlink()
    FILES[kind](file)
    for arguments in (["tags"], ["rollback", "v1"], ["untag", "v1"]):
        answer = run(["manifest", *arguments, "--work", str(broken)])
        assert answer.faults([0, 2, 3, 4]) == [], answer.err
