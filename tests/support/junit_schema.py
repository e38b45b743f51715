"""What Jenkins' xunit plug-in takes for JUnit XML, as a check of a file.

Written from facts: elements, attributes and types were read in its ``junit-10.xsd`` (the newest). What GitLab
reads (``classname`` and ``name`` of a case, ``message`` or text of what is in it) is part of that.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

_TIME = re.compile(r"(([0-9]{0,3},)*[0-9]{3}|[0-9]{0,3})*(\.[0-9]{0,3})?")
_MESSAGE = {"type", "message"}
# Per element: attributes that it must have and may have, and what may be in it.
_ELEMENTS: dict[str, tuple[set[str], set[str], set[str]]] = {
    "testsuites": (set(), {"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors"},
        {"group", "time", "skipped", "timestamp", "hostname", "id", "package", "file", "log", "url", "version"},
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
    ),
    "properties": (set(), set(), {"property"}),
    "property": ({"name", "value"}, set(), set()),
    "testcase": (
        {"name"},
        {"time", "classname", "group"},
        {"skipped", "error", "failure", "system-out", "system-err"},
    ),
    "failure": (set(), _MESSAGE, set()),
    "error": (set(), _MESSAGE, set()),
    "skipped": (set(), _MESSAGE, set()),
    "system-out": (set(), set(), set()),
    "system-err": (set(), set(), set()),
}


def checked(path: Path) -> ElementTree.Element:
    """The one suite in a file that is as it should be, with counts that are those of its cases."""
    root = ElementTree.parse(path).getroot()
    assert root.tag == "testsuites"
    _check(root)
    (suite,) = root
    cases = suite.findall("testcase")
    assert int(suite.attrib["tests"]) == len(cases)
    for count, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(suite.attrib[count]) == sum(case.find(tag) is not None for case in cases), count
    names = [(case.attrib["classname"], case.attrib["name"]) for case in cases]
    assert len(set(names)) == len(names), "a service would show one of two cases of the same name"
    return suite


def _check(element: ElementTree.Element) -> None:
    needed, allowed, children = _ELEMENTS[element.tag]
    assert needed <= element.attrib.keys() <= needed | allowed, (element.tag, element.attrib)
    if element.tag in ("testsuites", "testsuite") and "time" in element.attrib:
        assert _TIME.fullmatch(element.attrib["time"]), element.attrib
    if children:
        assert not (element.text or "").strip(), element.tag
    for child in element:
        assert child.tag in children, (element.tag, child.tag)
        _check(child)


def verdicts(suite: ElementTree.Element) -> dict[tuple[str, str], tuple[str, str]]:
    """Of each case, by group and name, how it ended (``passed``, ``failure``, ``skipped``), and its line."""
    ends = {}
    for case in suite.findall("testcase"):
        inside = next(iter(case), None)
        end = ("passed", "") if inside is None else (inside.tag, inside.attrib["message"])
        ends[(case.attrib["classname"], case.attrib["name"])] = end
    return ends
