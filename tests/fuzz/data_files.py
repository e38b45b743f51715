"""Points, masks and results of others: .pcd and .png files, and what `evaluator score` reads."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

from demo import png
from evaluator.score import Results, score_files
from shared.data.label_file import read_ids
from shared.data.points import read_points
from shared.data.types import PointFile
from tests.fuzz.engine import Reader

_POINTS = np.arange(20, dtype=np.float32).reshape(4, 5)


def _pcd(kind: str) -> bytes:
    header = (
        "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z intensity ring\nSIZE 4 4 4 4 4\nTYPE F F F F F\nCOUNT 1 1 1 1 1\n"
        f"WIDTH 4\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS 4\nDATA {kind}\n"
    ).encode()
    if kind == "ascii":
        return header + "\n".join(" ".join(map(str, row)) for row in _POINTS.tolist()).encode() + b"\n"
    if kind == "binary":
        return header + _POINTS.tobytes()
    raw = _POINTS.T.tobytes()
    literal = b"".join(bytes([len(raw[at : at + 32]) - 1]) + raw[at : at + 32] for at in range(0, len(raw), 32))
    return header + struct.pack("<II", len(literal), len(raw)) + literal


PCD = Reader(
    "pcd",
    lambda file: read_points(PointFile(file, file.parent, 5)),
    ".pcd",
    lambda: [_pcd(kind) for kind in ("ascii", "binary", "binary_compressed")],
    (
        *(b"POINTS 999999999999\n", b"POINTS -1\n", b"WIDTH 4294967295\n", b"SIZE 0 4 4 4 4\n", b"SIZE 8 8 8 8 8\n"),
        *(
            b"COUNT 1000000000 1 1 1 1\n",
            b"COUNT -1 1 1 1 1\n",
            b"TYPE U I F F F\n",
            b"FIELDS x x x x x\n",
            b"DATA ascii\n",
        ),
        *(b"DATA binary_compressed\n", b"DATA\n", b"nan", b"1e999", b"\xff" * 8, b"\x00" * 8, b"\n", b" "),
    ),
)


def _score(file: Path) -> None:
    task = "detection3d" if b'"results"' in file.read_bytes() else "detection2d"
    truth = file.parent / f"{task}.json"
    truth.write_text(json.dumps(_SUBMISSION if task == "detection3d" else _COCO))
    score_files(task, Results(file, truth, ["car"], "nuscenes" if task == "detection3d" else None, None), None)


MASKS = Reader(
    "masks",
    read_ids,
    ".png",
    lambda: [png.encode(np.arange(12, dtype=np.uint8).reshape(3, 4))],
    (
        b"IHDR",
        b"IDAT",
        b"IEND",
        b"PLTE",
        b"tRNS",
        b"acTL",
        b"\x00\x00\x00\x00",
        b"\xff\xff\xff\xff",
        b"\x7f\xff\xff\xff",
    ),
)


_BOX = {
    "translation": [1.0, 2.0, 3.0],
    "size": [2.0, 4.0, 1.5],
    "rotation": [1.0, 0.0, 0.0, 0.0],
    "velocity": [0.0, 0.0],
    "detection_name": "car",
    "detection_score": 0.5,
    "attribute_name": "",
    "num_pts": 3,
}
_SUBMISSION = {"meta": {}, "results": {"a": [_BOX, _BOX], "b": []}}
_ANNOTATION = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1.0, 2.0, 30.0, 40.0], "area": 1200.0, "iscrowd": 0}
_COCO = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "car"}], "annotations": [_ANNOTATION]}

SCORES = Reader(
    "scores",
    _score,
    ".json",
    lambda: [json.dumps(_SUBMISSION).encode(), json.dumps([{**_ANNOTATION, "score": 0.5}]).encode()],
    (
        *(b"null", b"NaN", b"1e999", b"-1", b"1e300", b"[]", b"{}", b'"x"', b"true", b"9" * 400, b"0", b"[" * 200),
        *(b'"car"', b'"results"', b",", b":", b'"', b"}", b"]", b"\\ud800", b"\x00"),
    ),
)
