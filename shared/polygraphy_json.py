"""Polygraphy's JSON files: what goes into a model (``--load-inputs``), and what runners answered (``--load-outputs``).

Inputs are a list of arrays by name, one entry an iteration; results (its ``RunResults``) are a list of runners, with
such a list each. An array is a ``.npy`` file in base64. They are read without Polygraphy, which bounds neither a file
nor what its arrays claim to hold: here a file is at most as large as other data, and an array must have the bytes that
its shape needs before memory is taken for it.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.arrays import Arrays
from shared.errors import InputError
from shared.files import write_text
from shared.json_reader import DATA_BYTES, read_json
from shared.npy import read_header

#: The key that says what an object is, and its values.
_TYPE = "polygraphy_class"
_MADE_BY = "save them with: polygraphy run ... --save-outputs FILE.json"


def write_inputs(path: Path, samples: Sequence[Mapping[str, npt.NDArray[Any]]]) -> None:
    """Write inputs by name, per iteration, for ``polygraphy run --load-inputs``.

    Raises:
        EnvironmentLacks: the disk is full or read-only.
    """
    write_text(path, json.dumps([_arrays(sample) for sample in samples]) + "\n")


def write_results(path: Path, runner: str, samples: Sequence[Mapping[str, npt.NDArray[Any]]]) -> None:
    """Write a runner's outputs by name, per iteration, for ``polygraphy run --load-outputs``.

    Raises:
        EnvironmentLacks: the disk is full or read-only.
    """
    iterations = [
        {
            "outputs": {name: {"values": array, _TYPE: "LazyArray"} for name, array in _arrays(sample).items()},
            "runtime": None,
            "runner_name": runner,
            _TYPE: "IterationResult",
        }
        for sample in samples
    ]
    write_text(path, json.dumps({"lst": [[runner, iterations]], _TYPE: "RunResults"}) + "\n")


def read_results(path: Path) -> dict[str, list[Arrays]]:
    """Outputs by name, per iteration, by runner, as ``polygraphy run --save-outputs`` wrote them.

    Raises:
        InputError: missing, too large, not such a file, of another version, or with arrays that are none.
    """
    value = read_json(path, most_bytes=DATA_BYTES, allow_nan=True)
    where = str(path)
    found: dict[str, list[Arrays]] = {}
    for entry in _field(value, "RunResults", "lst", list, where):
        if not (
            isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) and isinstance(entry[1], list)
        ):
            raise InputError("has a runner without a list of iterations", where=where, hint=_MADE_BY)
        name, iterations = entry
        if name in found:
            raise InputError(f"has the runner {name!r} twice", where=where, hint=_MADE_BY)
        found[name] = [_outputs(iteration, where) for iteration in iterations]
    return found


def _outputs(iteration: Any, where: str) -> Arrays:
    outputs = _field(iteration, "IterationResult", "outputs", dict, where)
    return {
        name: _array(_field(lazy, "LazyArray", "values", dict, where), f"{where}, output '{name}'")
        for name, lazy in outputs.items()
    }


def _field(value: Any, kind: str, name: str, container: type, where: str) -> Any:
    """The field of an object of that kind."""
    if not isinstance(value, dict) or value.get(_TYPE) != kind or not isinstance(value.get(name), container):
        raise InputError(f"has no {kind} with '{name}' where Polygraphy writes one", where=where, hint=_MADE_BY)
    return value[name]


def _arrays(sample: Mapping[str, npt.NDArray[Any]]) -> dict[str, dict[str, str]]:
    encoded = {}
    for name, array in sample.items():
        content = io.BytesIO()
        np.save(content, array, allow_pickle=False)
        encoded[name] = {"array": base64.b64encode(content.getvalue()).decode("ascii"), _TYPE: "ndarray"}
    return encoded


def _array(value: Mapping[str, Any], where: str) -> npt.NDArray[Any]:
    if value.get(_TYPE) == "Tensor":
        raise InputError("is a tensor of PyTorch", where=where, hint="save arrays: leave out --torch and the like")
    text = _field(value, "ndarray", "array", str, where)
    try:
        content = io.BytesIO(base64.b64decode(text, validate=True))
        header = read_header(content)
        left = len(content.getbuffer()) - content.tell()
        if header.nbytes != left:
            raise ValueError(f"it has {left} bytes, its shape {header.shape} needs {header.nbytes}")
        array = np.frombuffer(content.getbuffer(), header.dtype, offset=content.tell())
        return array.reshape(header.shape, order="F" if header.fortran_order else "C").copy()
    except (ValueError, binascii.Error) as error:
        raise InputError(f"is no array ({error})", where=where, hint=_MADE_BY) from error
