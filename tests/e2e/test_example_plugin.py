"""docs/extending.md, followed: the package is built from an empty folder, installed, and goes from training to report.

It is installed into a folder of the test's own, on PYTHONPATH: the environments stay as they are.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from shared.manifest import read_manifest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "plugin"
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

#: A file of the page, or its commands, in their order.
BLOCK = re.compile(r"(?:`|<code>)([\w/.]+)(?:`:|</code></summary>)\n\n```\w+\n(.*?)```|```console\n(.*?)```", re.DOTALL)
SECTION = "## A package, from an empty folder"


class Reader:
    """Somebody who does what the page says, with `work/` in a folder of their own."""

    def __init__(self, home: Path) -> None:
        self.work = home / "work"
        self.site = home / "site"
        self.printed: dict[str, str] = {}
        hidden = ("REAL_DATA", "MAKELEVEL")
        self.environment = {name: value for name, value in os.environ.items() if name not in hidden} | {
            "PYTHONPATH": f"{self.site}:{ROOT}",
            "MAKEFLAGS": f"SETUP= RUN=local WORK={self.work}/sector-net DEMO_DATA={self.work}/demo",
            "PIP_TARGET": str(self.site), "PIP_UPGRADE": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0",
            "OMP_NUM_THREADS": "1",
        }  # fmt: skip

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", re.sub(r"(?<![\w/])work/", f"{self.work}/", command)],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def follow(self, page: str) -> None:
        for name, text, commands in BLOCK.findall(page):
            if name:
                path = self.work / "plugin" / name
                assert path.parent.is_dir(), f"the page writes {name} before it makes the folder"
                path.write_text(text, encoding="utf-8")
            for command in commands.splitlines():
                answer = self.run(command.removeprefix("$ "))
                assert answer.returncode == 0, f"{command}\n{answer.stdout}{answer.stderr}"
                self.printed[command.removeprefix("$ ")] = answer.stdout + answer.stderr


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """The reader of the page, at its end."""
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    section = page[page.index(SECTION) :].split("\n## ", maxsplit=1)[0]
    reader = Reader(tmp_path_factory.mktemp("reader"))
    reader.follow(section)
    return reader


def test_the_page_makes_the_example(reader: Reader) -> None:
    def files(folder: Path) -> dict[str, bytes]:
        paths = [path.relative_to(folder) for path in folder.rglob("*.*")]
        return {
            path.as_posix(): (folder / path).read_bytes()
            for path in paths
            if path.suffix in (".py", ".toml", ".yaml") and path.parts[0] not in ("build", "tests")
        }

    assert files(reader.work / "plugin") == files(EXAMPLE)


def test_it_is_listed_once_installed(reader: Reader) -> None:
    rows = [line.split() for line in reader.printed["make plugins PLUGINS=work/plugin"].splitlines()]
    package = ["awml-deploy-clearance", "0.1.0"]
    for group, name in (
        ("tasks", "clearance"), ("metrics", "clearance"), ("report", "clearance"),
        ("exporter_models", "sector_net"), ("pipelines", "sector_net"),
    ):  # fmt: skip
        assert [group, name, *package] in rows


def test_every_stage_ends_well_and_the_numbers_are_those_of_a_trained_network(reader: Reader) -> None:
    manifest = read_manifest(reader.work / "sector-net" / "manifest.json")
    done = {name for name, stage in manifest.stages.items() if stage.status == "done"}
    assert {"export", "run:pytorch-cpu", "run:onnx-cpu", "verify", "evaluate", "report"} <= done
    assert manifest.results["runs"]["onnx-cpu"]["samples"] == 40
    metrics = manifest.results["metrics"]["onnx-cpu"]
    assert metrics["within 1 m"] > 0.8
    report = (reader.work / "sector-net" / "report" / "index.html").read_text(encoding="utf-8")
    assert "Errors of onnx-cpu" in report
    assert "free in each direction, from above" in report


def test_a_second_call_does_nothing_and_an_edit_runs_its_stages_again(reader: Reader) -> None:
    again = reader.run("make sector_net-all CONFIG=work/plugin/deploy.yaml")
    assert again.returncode == 0
    told = again.stdout + again.stderr
    stages = ("export", "run:pytorch-cpu", "run:onnx-cpu", "verify", "evaluate", "report")
    assert [stage for stage in stages if f"{stage}: up to date" not in told] == []
    installed = reader.site / "clearance" / "metric.py"
    installed.write_text(installed.read_text(encoding="utf-8") + "\n# edited\n", encoding="utf-8")
    edited = reader.run("make evaluate report")
    assert edited.returncode == 0
    assert "up to date" not in edited.stdout + edited.stderr


def test_tests_of_ours_pass_beside_it(reader: Reader) -> None:
    names = ("unit/test_steps.py", "unit/test_config_errors.py", "unit/test_new_task.py", "unit/test_plugin_listing.py")
    files = " ".join(str(ROOT / "tests" / name) for name in (*names, "unit/test_docs.py", "unit/test_added_formats.py"))
    answer = reader.run(f".venv/tools/bin/python -m pytest -q -p no:cacheprovider {files}")
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_its_own_tests_pass(reader: Reader) -> None:
    answer = reader.run(f".venv/exporter/bin/python -m pytest -q -p no:cacheprovider {EXAMPLE / 'tests'}")
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_without_the_package_its_workspace_says_what_is_missing(reader: Reader) -> None:
    answer = subprocess.run(
        [ROOT / ".venv/tools/bin/runtime", "run", "--work", reader.work / "sector-net", "--backend", "onnx"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 3
    assert "there is no task 'clearance'" in answer.stderr
