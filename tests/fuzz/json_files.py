"""JSON of the tools and of others: the manifest, journals and records."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np

from shared.journal import read_lines
from shared.json_reader import read_json
from shared.manifest import read_manifest
from shared.polygraphy_json import read_results
from shared.work_path import WorkPath
from tests.fuzz.engine import Reader

_MANIFEST = {
    "schema_version": 1,
    "config": {"model": {"type": "centerpoint"}},
    "spec": {
        "model": "centerpoint",
        "task": "detection3d",
        "classes": ["car"],
        "parameters": {"a": [1, 2.5]},
        "components": [
            {
                "name": "head",
                "onnx": "onnx/head.onnx",
                "inputs": [{"name": "x", "dtype": "float32", "shape": [1, "height", 16]}],
                "outputs": [{"name": "y", "dtype": "float32", "shape": [1, 2, 16]}],
            }
        ],
    },
    "artifacts": {"onnx/head.onnx": {"sha256": "0" * 64, "bytes": 5, "kind": "onnx", "stage": "export"}},
    "stages": {
        "export": {
            "tool": "exporter",
            "tool_version": "0.1.0",
            "status": "done",
            "fingerprint": "f" * 64,
            "key": {"config": {}, "inputs": {"a": "b"}, "versions": {"torch": "2"}},
            "outputs": ["onnx/head.onnx"],
            "results": [],
            "command": "exporter export --work 'a b'",
            "host": "h",
            "started": "2026-01-02T03:04:05+00:00",
            "ended": None,
        }
    },
    "results": {"metrics": {"onnx-cpu": {"mAP": 0.5}}},
}
_LINES = [{"fingerprint": "f"}, {"key": "a", "value": [1.5, None, True]}, {"key": "b\u00e9\n", "value": {"c": -1e-9}}]
_TOKENS = (
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\n", b"null", b"true", b"NaN", b"-Infinity", b"1e999"),
    *(b"\\u0000", b"\\ud800", b"\x00", b"\xff", b"[" * 200, b'{"a":' * 200, b"9" * 500, b'"schema_version": 2'),
    *(b'"started": "yesterday"', b'"command": "\'"', b"-1", b'""', b'"../../x"', b'"\\u001b[31m"'),
)

MANIFEST = Reader(
    "manifest",
    read_manifest,
    ".json",
    lambda: [json.dumps(_MANIFEST, indent=indent).encode() for indent in (None, 1)],
    _TOKENS,
)
JOURNAL = Reader(
    "journal",
    lambda path: read_lines(WorkPath.of(path)),
    ".jsonl",
    lambda: ["".join(json.dumps(line) + "\n" for line in _LINES).encode()],
    _TOKENS,
)


def _read_record(file: Path) -> None:
    value = read_json(file)
    # What is read can be written, in UTF-8 and without NaN, and is the same.
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    assert json.loads(text.encode("utf-8")) == value


RECORD = Reader(
    "record", _read_record, ".json", lambda: [*MANIFEST.seeds(), b'[1, "\\ud83d\\ude00", -0.0, 1e-5]'], _TOKENS
)


def _polygraphy_seeds() -> list[bytes]:
    """Polygraphy's results with an array in C order, and with one in Fortran order."""
    arrays = [np.array([1.5, np.nan], np.float32), np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3))]
    seeds = []
    for array in arrays:
        content = io.BytesIO()
        np.save(content, array)
        encoded = {"array": base64.b64encode(content.getvalue()).decode(), "polygraphy_class": "ndarray"}
        outputs = {"y": {"values": encoded, "polygraphy_class": "LazyArray"}}
        iteration = {"outputs": outputs, "runtime": 0.5, "runner_name": "r", "polygraphy_class": "IterationResult"}
        seeds.append(json.dumps({"lst": [["r", [iteration]]], "polygraphy_class": "RunResults"}).encode())
    return seeds


POLYGRAPHY = Reader("polygraphy", read_results, ".json", _polygraphy_seeds, (*_TOKENS, b"AAAA", b"TnVtUHk=", b"=="))
