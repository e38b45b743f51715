"""Polygraphy's files, written and read without Polygraphy: to the bit, and a stranger's file is data."""

from __future__ import annotations

import base64
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.arrays import read_arrays
from shared.errors import InputError
from shared.packed import PackedFile
from shared.polygraphy_json import read_results, write_results

ARRAYS = {
    "float32": np.array([[1.5, -0.0], [np.nan, np.inf]], np.float32),
    "whole": np.arange(6, dtype=np.int64).reshape(2, 3),
    "truth": np.array([True, False]),
    "scalar": np.array(3.25, np.float16),
    "empty": np.zeros((0, 4), np.float32),
    "columns": np.asfortranarray(np.arange(12, dtype=np.float64).reshape(3, 4)),
}


def test_what_was_written_is_read_to_the_bit(tmp_path: Path) -> None:
    write_results(tmp_path / "results.json", "ours", [ARRAYS, {"float32": ARRAYS["float32"]}])
    (runner, iterations), *rest = read_results(tmp_path / "results.json").items()
    assert (runner, len(iterations), rest) == ("ours", 2, [])
    assert list(iterations[0]) == list(ARRAYS)
    for name, array in ARRAYS.items():
        found = iterations[0][name]
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert found.tobytes() == array.tobytes()
        assert found.flags.writeable


def npy(array: Any, **options: Any) -> bytes:
    content = io.BytesIO()
    np.save(content, array, **options)
    return content.getvalue()


def claiming(shape: tuple[int, ...]) -> bytes:
    """A header of an array of that shape, with the eight bytes of another."""
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return content.getvalue() + bytes(8)


def results(content: bytes) -> dict[str, Any]:
    array = {"array": base64.b64encode(content).decode(), "polygraphy_class": "ndarray"}
    outputs = {"y": {"values": array, "polygraphy_class": "LazyArray"}}
    iteration = {"outputs": outputs, "runtime": 0.1, "runner_name": "r", "polygraphy_class": "IterationResult"}
    return {"lst": [["r", [iteration]]], "polygraphy_class": "RunResults"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (npy(np.array([{}], object), allow_pickle=True), "array of objects"),
        (pickle.dumps([1]), "is no array"),
        (claiming((1 << 40, 1 << 20)), "needs"),
        (claiming((1 << 62, 1 << 62)), "needs"),
        (claiming((-2, -1)), "shape"),
        (claiming((1,)), "it has 8 bytes"),
        (npy(np.zeros(2, np.float32))[:-1], "it has 7 bytes"),
        (npy(np.zeros(2, np.float32)).replace(b"}", b" "), "is no array"),
        (b"", "is no array"),
        (b"PK\x03\x04" + bytes(40), "is no array"),
    ],
)
def test_what_is_no_array_is_a_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results(content)))
    with pytest.raises(InputError, match=said):
        read_results(path)


def _as_tensor(value: dict[str, Any]) -> None:
    value["lst"][0][1][0]["outputs"]["y"]["values"] = {"tensor": "AAAA", "polygraphy_class": "Tensor"}


def _not_base64(value: dict[str, Any]) -> None:
    value["lst"][0][1][0]["outputs"]["y"]["values"]["array"] = "\x93NUMPY!"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_as_tensor, "tensor of PyTorch"),
        (_not_base64, "is no array"),
        (lambda value: value.update(polygraphy_class="AccuracyResults"), "no RunResults"),
        (lambda value: value.update(lst={}), "no RunResults"),
        (lambda value: value["lst"].append(["r", []]), "twice"),
        (lambda value: value["lst"].append([["r"], []]), "without a list"),
        (lambda value: value["lst"][0][1].append("x"), "no IterationResult"),
        (lambda value: value["lst"][0][1][0].update(outputs=[]), "no IterationResult"),
        (lambda value: value["lst"][0][1][0]["outputs"].update(y=3), "no LazyArray"),
    ],
)
def test_what_is_no_results_file_is_a_line(tmp_path: Path, change: Callable[[Any], None], said: str) -> None:
    value = results(npy(np.zeros(2, np.float32)))
    change(value)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match=said):
        read_results(path)


@pytest.mark.parametrize("content", [b"no archive", npy(np.zeros(2, np.float32)), b""], ids=["text", "npy", "empty"])
def test_what_is_no_archive_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "arrays.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"can't be read as arrays \(it is no \.npz file\)$"):
        read_arrays(path)


def test_an_archive_whose_header_does_not_end_is_a_line_too(tmp_path: Path) -> None:
    """NumPy makes Python's tokens of a header, whose own error is no ValueError."""
    path = tmp_path / "arrays.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy(np.zeros(2, np.float32)).replace(b"}", b" "))
    with pytest.raises(InputError, match="can't be read as arrays"):
        read_arrays(path)
    with pytest.raises(InputError, match="can't be read as arrays"):
        PackedFile.open(path)
