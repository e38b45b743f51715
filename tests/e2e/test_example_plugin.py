"""docs/extending.md, followed: the package is built from an empty folder, installed, and goes from training to report.

It is installed into a folder of the test's own, on PYTHONPATH: the environments stay as they are.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shared.manifest import read_manifest
from tests.support.jobs import ROOT
from tests.support.pages import Reader

EXAMPLE = ROOT / "examples" / "plugin"
pytestmark = pytest.mark.e2e

SECTION = "## A package, from an empty folder"


@dataclass(frozen=True)
class Followed:
    """The reader of the page at its end, what each command printed, and the folder of results."""

    reader: Reader
    printed: dict[str, str]
    work: Path


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory, demo_data: Path) -> Iterator[Followed]:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    section = page[page.index(SECTION) :].split("\n## ", maxsplit=1)[0]
    with Reader(tmp_path_factory.mktemp("reader"), {"demo": demo_data}) as reader:
        yield Followed(reader, reader.follow(section, files="work/plugin"), reader.root / "work")


def test_the_page_makes_the_example(followed: Followed) -> None:
    def files(folder: Path) -> dict[str, bytes]:
        paths = [path.relative_to(folder) for path in folder.rglob("*.*")]
        return {
            path.as_posix(): (folder / path).read_bytes()
            for path in paths
            if path.suffix in (".py", ".toml", ".yaml") and path.parts[0] not in ("build", "tests")
        }

    assert files(followed.work / "plugin") == files(EXAMPLE)


def test_it_is_listed_once_installed(followed: Followed) -> None:
    rows = [line.split() for line in followed.printed["make plugins PLUGINS=work/plugin"].splitlines()]
    package = ["awml-deploy-clearance", "0.1.0"]
    for group, name in (
        ("tasks", "clearance"), ("metrics", "clearance"), ("report", "clearance"),
        ("exporter_models", "sector_net"), ("pipelines", "sector_net"),
    ):  # fmt: skip
        assert [group, name, *package] in rows


def test_every_stage_ends_well_and_the_numbers_are_those_of_a_trained_network(followed: Followed) -> None:
    manifest = read_manifest(followed.work / "sector-net" / "manifest.json")
    done = {name for name, stage in manifest.stages.items() if stage.status == "done"}
    assert {"export", "run:pytorch-cpu", "run:onnx-cpu", "verify", "evaluate", "report"} <= done
    assert manifest.results["runs"]["onnx-cpu"]["samples"] == 40
    metrics = manifest.results["metrics"]["onnx-cpu"]
    assert metrics["within 1 m"] > 0.8
    report = (followed.work / "sector-net" / "report" / "index.html").read_text(encoding="utf-8")
    assert "Errors of onnx-cpu" in report
    assert "free in each direction, from above" in report


def test_a_second_call_does_nothing_and_an_edit_runs_its_stages_again(followed: Followed) -> None:
    code, told = followed.reader.run("make sector_net-all CONFIG=work/plugin/deploy.yaml")
    assert code == 0
    stages = ("export", "run:pytorch-cpu", "run:onnx-cpu", "verify", "evaluate", "report")
    assert [stage for stage in stages if f"{stage}: up to date" not in told] == []
    installed = followed.reader.site / "clearance" / "metric.py"
    installed.write_text(installed.read_text(encoding="utf-8") + "\n# edited\n", encoding="utf-8")
    code, told = followed.reader.run("make evaluate report WORK=work/sector-net")
    assert code == 0
    assert "up to date" not in told


def test_tests_of_ours_pass_beside_it(followed: Followed) -> None:
    names = ("unit/test_steps.py", "unit/test_config_errors.py", "unit/test_new_task.py", "unit/test_plugin_listing.py")
    files = " ".join(f"tests/{name}" for name in (*names, "unit/test_docs.py", "unit/test_added_formats.py"))
    code, told = followed.reader.run(f".venv/tools/bin/python -m pytest -q -p no:cacheprovider {files}")
    assert code == 0, told


def test_its_own_tests_pass(followed: Followed) -> None:
    code, told = followed.reader.run(".venv/exporter/bin/python -m pytest -q -p no:cacheprovider examples/plugin/tests")
    assert code == 0, told


def test_without_the_package_its_workspace_says_what_is_missing(followed: Followed) -> None:
    answer = subprocess.run(
        [ROOT / ".venv/tools/bin/runtime", "run", "--work", followed.work / "sector-net", "--backend", "onnx"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 3
    assert "there is no task 'clearance'" in answer.stderr
