"""Checks as JUnit XML, the form in which CI services show which of them passed: a test case for each."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from shared.files import write_text
from shared.manifest import Stage
from shared.text import one_line


@dataclass(frozen=True)
class Case:
    """A check and how it ended; neither ``failure`` nor ``skipped``: it passed.

    Attributes:
        group: what was checked, as in ``reference -> onnx-cpu``.
        name: the check, unique in its group.
        failure: what is wrong, in a line.
        skipped: why it was not made, in a line.
    """

    group: str
    name: str
    failure: str | None = None
    skipped: str | None = None


def write_junit(path: Path, suite: str, cases: Sequence[Case], stage: Stage | None) -> None:
    """Write the checks of a stage as a file that Jenkins, GitLab and others read (``junit-10.xsd`` of Jenkins' xunit).

    Args:
        path: the file; folders above it are made.
        suite: name of the whole.
        cases: the checks.
        stage: the stage that made them: when, for how long, and where; None: that is not recorded.

    Raises:
        EnvironmentLacks: the file can't be written.
    """
    counts = {
        "tests": len(cases),
        "failures": sum(case.failure is not None for case in cases),
        "errors": 0,
        "skipped": sum(case.skipped is not None for case in cases),
    }
    root = ElementTree.Element("testsuites")
    attributes = {"name": suite, **{name: str(count) for name, count in counts.items()}, **_circumstances(stage)}
    element = ElementTree.SubElement(root, "testsuite", attributes)
    for case in cases:
        attributes = {"classname": one_line(case.group), "name": one_line(case.name), "time": "0"}
        child = ElementTree.SubElement(element, "testcase", attributes)
        for tag, line in (("failure", case.failure), ("skipped", case.skipped)):
            if line is not None:
                ElementTree.SubElement(child, tag, {"message": one_line(line)}).text = one_line(line)
    ElementTree.indent(root)
    write_text(path, ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n")


def _circumstances(stage: Stage | None) -> dict[str, str]:
    if stage is None:
        return {}
    started = datetime.datetime.fromisoformat(stage.started)
    ended = datetime.datetime.fromisoformat(stage.ended or stage.started)
    return {
        "time": f"{(ended - started).total_seconds():.3f}",
        "timestamp": started.strftime("%Y-%m-%dT%H:%M:%S"),
        "hostname": one_line(stage.host),
    }
