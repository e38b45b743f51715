"""JSON of others: what our writers write is read, whatever they would not write is one line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InputError, ManifestError
from shared.json_reader import parse_json, read_json

_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _texts,
    lambda inner: st.lists(inner) | st.dictionaries(_texts, inner),
    max_leaves=30,
)


@given(_values, st.booleans())
def test_what_json_writes_is_read(value: Any, ascii_only: bool) -> None:
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only), "x") == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("NaN", "NaN is not a number of JSON"),
        ("[-Infinity]", "-Infinity is not a number"),
        ("1e999", "a number is too large for a float"),
        ("9" * 25, "has 25 digits"),
        ("9" * 5000, "has 5000 digits"),
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' is there twice"),
        ("[" * 101 + "]" * 101, "nests more than 100 levels"),
        ("[" * 1_000_000, "nests more than 100 levels"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "nests more than 100 levels"),
        (r'["\u0000"]', "NUL"),
        (r'{"\u0000": 1}', "NUL"),
        (r'{"a": ["\ud800"]}', "surrogates not allowed"),
        ('["\x01"]', "Invalid control character"),
        ("[1] []", "Extra data"),
    ],
)
def test_what_they_would_not_write_is_one_line(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        parse_json(text, "file.json")
    assert error.value.where == "file.json"
    assert len(error.value.lines()) == 1


def test_escapes_that_are_text_stay() -> None:
    assert parse_json(r'["\\u0000", "\ud83d\ude00"]', "x") == [r"\u0000", "\U0001f600"]
    assert parse_json("[" * 100 + "]" * 100, "x")


def test_bytes_that_are_not_utf_8() -> None:
    with pytest.raises(InputError, match="utf-8"):
        parse_json(b'"\xff"', "x")


def test_nan_of_pythons_writer_where_it_is_allowed() -> None:
    assert parse_json("[NaN, Infinity, 1e999, 1.5]", "x", allow_nan=True)[1:] == [float("inf"), float("inf"), 1.5]


def test_files_that_are_too_large_or_no_files(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("[1, 2, 3]")
    assert read_json(file) == [1, 2, 3]
    with pytest.raises(ManifestError, match="larger"):
        read_json(file, most_bytes=8, error=ManifestError)
    with pytest.raises(InputError, match="folder"):
        read_json(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe"):
        read_json(tmp_path / "pipe")
    with pytest.raises(InputError, match="device"):
        read_json(Path("/dev/zero"))
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "loop", tmp_path / ("x" * 300), tmp_path / "a\0b", tmp_path / "none", file / "below"):
        with pytest.raises(InputError):
            read_json(path)
