"""The reader of Python configs gives what Python would, runs nothing, and is not worn out by what it is given."""

from __future__ import annotations

import time
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from shared.config.python_literals import read_python_literals, read_with_bases
from shared.errors import ConfigError

texts = st.text(st.sampled_from("ab/. _'\"\\{}é"), max_size=8)
numbers = st.integers(-50, 50) | st.floats(-1e3, 1e3)
atoms = (texts | numbers | st.booleans() | st.none()).map(repr)


def _combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    text = texts.map(repr)
    number = st.integers(0, 9).map(str)
    return st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.lists(inner, max_size=3).map(lambda items: f"({''.join(f'{item}, ' for item in items)})"),
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3).map(
            lambda items: f"dict({', '.join(f'{key}={value}' for key, value in items.items())})"
        ),
        st.dictionaries(texts, inner, max_size=3).map(
            lambda items: f"{{{', '.join(f'{key!r}: {value}' for key, value in items.items())}}}"
        ),
        st.lists(inner, max_size=3).map(lambda items: f"[*({''.join(f'{item}, ' for item in items)}), 1]"),
        st.tuples(number, st.sampled_from(["+", "-", "*", "<<", "|", "**"]), number).map(" ".join),
        st.tuples(text, text).map(" + ".join),
        st.tuples(text, st.sampled_from(["strip()", "rstrip('/')", "removesuffix('a')", "upper()"])).map(".".join),
        st.lists(text, min_size=1, max_size=3).map(lambda parts: f"os.path.join({', '.join(parts)})"),
        (text | number).map(lambda value: f"str({value})"),
        (text | number).map(lambda value: f"f'<{{_x}}{{_y}}>' + str({value})"),
    )


expressions = st.recursive(atoms, _combined, max_leaves=8)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(expression=expressions)
def test_expressions_have_pythons_value(tmp_path: Path, expression: str) -> None:
    source = f"import os\n_x = 'x'\n_y = 7\nvalue = {expression}\n"
    path = tmp_path / "c.py"
    path.write_text(source, encoding="utf-8")
    names: dict[str, object] = {}
    exec(source, names)  # what Python itself makes of it
    read = read_python_literals(path)["value"]
    assert read == names["value"]
    assert repr(read) == repr(names["value"])


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(source=st.text(st.sampled_from("abx=()[]{}.,'\"\\\n *+_-#:1@"), max_size=40) | st.text(max_size=40))
def test_whatever_is_in_a_file_is_a_value_or_one_clear_error(tmp_path: Path, source: str) -> None:
    path = tmp_path / "c.py"
    path.write_bytes(source.encode("utf-8", "surrogatepass"))
    try:
        read_python_literals(path)
    except ConfigError as error:
        (line,) = error.lines()
        assert line.startswith(str(path))


HOSTILE = {
    "a call": "x = __import__('pathlib').Path('owned').touch()",
    "a call in an f-string": "x = f\"{open('owned', 'w')}\"",
    "a call in a default": "x = dict(a=open('owned', 'w'))",
    "a chain of attributes": "x = ().__class__.__bases__[0].__subclasses__()[0]",
    "attributes of a module": "import os\nx = os.path.os.system('touch owned')",
    "join of something else": "import os\nx = os.environ.join('a')",
    "a name for a module": "import os as str\nx = str.system('touch owned')",
    "a decorator": "@print\ndef f(): pass",
    "a class": "class A(object): pass",
    "a lambda": "x = (lambda: 1)()",
    "a comprehension": "x = [open('owned', 'w') for _ in (1,)]",
    "a walrus": "x = (y := 1)",
    "an await": "x = await y",
    "a star import": "from os import *",
    "a format": "x = '{0.__class__}'.format(1)",
    "a huge text": "x = 'a' * 10**9",
    "a huge list": "x = [0] * 10**9",
    "a huge number": "x = 9**9**9",
    "a huge shift": "x = 1 << 10**10",
    "a percent": "x = '%1000000000d' % 1",
    "doubled texts": "\n".join(["a = 'aaaaaaaaaaaaaaaa'", *["a = a + a"] * 60]),
    "doubled texts in f-strings": "\n".join(["a = 'aaaaaaaaaaaaaaaa'", *["a = f'{a}{a}'"] * 60]),
    "doubled texts in paths": "\n".join(["import os", "a = 'aaaaaaaa'", *["a = os.path.join(a, a)"] * 60]),
    "doubled lists": "\n".join(["a = [0, 0]", *["a = [a, a]"] * 60]),
    "deep lists": f"x = {'[' * 150}{']' * 150}",
    "deep signs": f"x = {'-' * 3000}1",
    "deep sums": "x = " + "+".join(["1"] * 50_000),
    "deep names": "\n".join(["a = [0]", *["a = [a]"] * 100]),
    "a null byte": "x = 1\0",
    "its own base": "_base_ = 'c.py'",
    "a list that holds itself": "a = [1]\na += [a]",
    "a dictionary that holds itself": "a = dict(b=1)\na.update(c=a)",
    "doubled lists in place": "\n".join(["a = [0, 0]", *["a += a"] * 60]),
    "nested lists in place": "\n".join(["a = [0]", "b = [a]", *["a += [b]", "b = [a]"] * 60]),
    "updates of much": "\n".join([f"a = [{'0, ' * 40_000}]", "b = dict(a=a)", *["b.update(c=1)"] * 2_000]),
    "much, over and over": "\n".join([f"a = [{'0, ' * 40_000}]", *["a = [*a]"] * 2_000]),
    "an update of a module": "import os\nos.environ.update(A='1')",
    "an update by code": "a = dict()\na.update(b=open('owned', 'w'))",
    "another method": "a = [1]\na.append(2)",
    "an attribute of a value": "a = dict(b=1)\nx = a.b",
    "an attribute of no base": "x = _base_.a",
    "what every object has": "x = _base_.__class__",
    "other operators in place": "a = 1\na <<= 2",
    "a number that grows": "a = 1\na += 1",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_refused_soon_and_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.py"
    path.write_text(HOSTILE[kind], encoding="utf-8")
    start = time.process_time()
    with pytest.raises(ConfigError) as caught:
        read_python_literals(path)
    assert time.process_time() - start < 5
    assert len(caught.value.lines()) == 1
    assert not (tmp_path / "owned").exists()


def test_lists_and_dictionaries_change_as_python_changes_them(tmp_path: Path) -> None:
    source = """
a = dict(names=["x"], other=dict(k=1))
b = [a, a["names"]]
a["names"] += ("y", "z")
c = a["other"]
c.update(dict(l=2), m=3)
b[1] += b[1]
a.update(n=b[1] + [4])
"""
    (tmp_path / "c.py").write_text(source, encoding="utf-8")
    names: dict[str, object] = {}
    exec(source, names)  # what Python itself makes of it
    read = read_python_literals(tmp_path / "c.py")
    assert dict(read) == {name: names[name] for name in "abc"}


def test_what_a_base_sets_is_read_and_may_be_changed(tmp_path: Path) -> None:
    (tmp_path / "base.py").write_text("count = 3\nimports = dict(a=['x'])\nmeta = dict(p=[[1, 2]])\n")
    (tmp_path / "sibling.py").write_text("_base_ = 'base.py'\nmore = _base_.imports.a + ['s']\n")
    (tmp_path / "c.py").write_text(
        """
_base_ = ["base.py", "sibling.py"]
imports = dict(a=["y"])
imports["a"] += _base_.imports["a"]
meta = _base_.meta
meta.update(dict(q=[_base_.count]))
"""
    )
    read, bases = read_with_bases(tmp_path / "c.py")
    assert dict(read) == {
        "count": 3, "imports": {"a": ["y", "x"]}, "meta": {"p": [[1, 2]], "q": [3]}, "more": ["x", "s"],
    }  # fmt: skip
    assert read.lines["meta"] == (tmp_path / "c.py", 5)
    assert list(bases) == ["base.py", "sibling.py"]
    assert bases["base.py"] == {"count": 3, "imports": {"a": ["x"]}, "meta": {"p": [[1, 2]]}}


def test_a_name_that_no_base_sets_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "base.py").write_text("count = 3\n")
    (tmp_path / "c.py").write_text("_base_ = 'base.py'\nx = _base_.counts\n")
    with pytest.raises(ConfigError, match=r"c.py:2: '_base_.counts': there is no counts in its _base_"):
        read_python_literals(tmp_path / "c.py")
