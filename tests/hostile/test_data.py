"""Data sets and results of others: info files, points, images, annotations and predictions."""

from __future__ import annotations

import csv
import io
import json
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.data.points import read_points
from shared.data.types import PointFile
from shared.errors import InputError
from shared.images import read_image
from tests.hostile.commands import run, time_limit
from tests.hostile.values import FILES, VALUES, places, replaced

SAMPLED = 2

ODD_NUMBERS = {"NaN": float("nan"), "infinite": float("inf"), "10**400": 10**400, "complex": 1 + 2j, "bytes": b"a"}
ARRAYS = {"array": np.zeros((3, 3)), "strings": np.array(["a"]), "objects": np.array([None, {}], dtype=object)}
PICKLED = VALUES | ODD_NUMBERS | ARRAYS


def _with_infos(whole: Path, folder: Path, infos: Any, *, pickled: bool) -> list[str]:
    """The command that evaluates a workspace whose labels are ``infos``."""
    shutil.copytree(whole / "work", folder / "work")
    data = folder / "data"
    data.mkdir()
    manifest = json.loads((folder / "work" / "manifest.json").read_text())
    if pickled:
        (data / "infos.pkl").write_bytes(pickle.dumps(infos))
        manifest["config"]["data"]["info_file"] = "infos.pkl"
        (folder / "work" / "manifest.json").write_text(json.dumps(manifest))
    else:
        (data / "infos.json").write_text(json.dumps(infos))
    return ["evaluator", "evaluate", "--work", str(folder / "work"), "--data", str(data), "--force"]


def _infos(whole: Path) -> Any:
    return json.loads((whole / "data" / "infos.json").read_text())


def test_the_whole_data_set_is_evaluated(whole: Path, tmp_path: Path) -> None:
    """Otherwise the refusals below show nothing."""
    assert run(_with_infos(whole, tmp_path / "a", _infos(whole), pickled=False)).code == 0


@pytest.mark.parametrize("value", PICKLED)
def test_a_value_of_an_info_file_is_another(whole: Path, tmp_path: Path, value: str) -> None:
    infos = _infos(whole)
    for number, place in enumerate(random.Random(value).sample(list(places(infos)), SAMPLED)):
        changed = replaced(infos, place, PICKLED[value])
        for pickled in (True, False):
            if value in PICKLED and (pickled or value in VALUES or value in ("NaN", "infinite", "10**400")):
                folder = tmp_path / f"{number}{pickled}"
                answer = run(_with_infos(whole, folder, changed, pickled=pickled))
                shutil.rmtree(folder)
                assert answer.faults([0, 2, 3, 5]) == [], f"{place}: {answer.err}"


@pytest.mark.parametrize(
    "categories", [{"car": 10**12}, {"car": -5}, {"car": "x"}, {"car": None}, {1: 1}, [], "car", 7]
)
def test_categories_that_make_no_sense(whole: Path, tmp_path: Path, categories: Any) -> None:
    infos = {**_infos(whole), "metainfo": {"categories": categories}}
    answer = run(_with_infos(whole, tmp_path / "a", infos, pickled=True))
    assert answer.faults([0, 2, 3]) == [], answer.err


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("name", ["infos.pkl", "infos.json"])
def test_an_info_file_is_something_else(whole: Path, tmp_path: Path, kind: str, name: str) -> None:
    command = _with_infos(whole, tmp_path / "a", {}, pickled=name.endswith("pkl"))
    file = tmp_path / "a" / "data" / name
    file.unlink()
    FILES[kind](file)
    answer = run(command)
    assert answer.faults([3]) == [], answer.err


POINTS: dict[str, Callable[[Path], object]] = {
    **{
        f"a.{suffix}": lambda path: read_points(PointFile(path, path.parent, 5))
        for suffix in ("bin", "npy", "npz", "pcd")
    },
    "a.jpg": read_image,
    "a.png": read_image,
}


@pytest.mark.parametrize("kind", [kind for kind in FILES if kind not in ("empty", "zeros")])
@pytest.mark.parametrize("name", POINTS)
def test_points_and_images_are_something_else(tmp_path: Path, name: str, kind: str) -> None:
    file = tmp_path / name
    FILES[kind](file)
    try:
        with time_limit():
            POINTS[name](file)
    except InputError:
        return
    assert name == "a.bin", "any bytes are points, whose number fits"


def _submission(scored: bool) -> dict[str, Any]:
    box = {"translation": [1.0, 2.0, 3.0], "size": [2.0, 4.0, 1.5], "rotation": [1.0, 0.0, 0.0, 0.0],
           "velocity": [0.0, 0.0], "detection_name": "car", "attribute_name": ""}  # fmt: skip
    box |= {"detection_score": 0.5} if scored else {"num_pts": 3}
    return {"meta": {}, "results": {"a": [box, box], "b": [box]}}


def _coco(scored: bool) -> Any:
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1.0, 2.0, 30.0, 40.0], "area": 1200.0, "iscrowd": 0}
    if scored:
        return [{**box, "score": 0.5}]
    return {"images": [{"id": 1}], "categories": [{"id": 1, "name": "car"}], "annotations": [box]}


MADE = {"detection3d": _submission, "detection2d": _coco}


@pytest.mark.parametrize("value", [*VALUES, "NaN", "infinite", "10**400"])
@pytest.mark.parametrize("which", ["truth", "predictions"])
@pytest.mark.parametrize("task", MADE)
def test_a_value_of_a_score_file_is_another(tmp_path: Path, task: str, which: str, value: str) -> None:
    files = {"truth": MADE[task](False), "predictions": MADE[task](True)}
    for place in [(), *random.Random(f"{task}{which}{value}").sample(list(places(files[which])), SAMPLED)]:
        for name, content in (files | {which: replaced(files[which], place, PICKLED[value])}).items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        for metric in ("nuscenes", "t4") if task == "detection3d" else (None,):
            answer = run(_score(tmp_path, task, "json", metric))
            assert answer.faults([0, 2, 3]) == [], f"{place}: {answer.err}"


def _score(folder: Path, task: str, suffix: str, metric: str | None = None) -> list[str]:
    files = ["--ground-truth", str(folder / f"truth.{suffix}"), "--predictions", str(folder / f"predictions.{suffix}")]
    options = ["--metric", metric, "--classes", "car"] if metric else []
    return ["evaluator", "score", "--task", task, *files, *options]


CELLS = ("", "nan", "inf", "-1", "1e999", "x" * 200_000, "\x1b[31m", "\0", '"', "a,b", "9" * 5000, "\ud7ff")


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: repr(cell[:6]))
@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("column", [0, 1, 2])
def test_a_cell_of_a_table_is_another(tmp_path: Path, row: int, column: int, cell: str) -> None:
    rows = [["sample", "label", "score_car", "score_bus"], ["a", "car", "0.9", "0.1"], ["b", "bus", "0.3", "0.7"]]
    rows[row][column] = cell
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    (tmp_path / "predictions.csv").write_text(text.getvalue())
    (tmp_path / "truth.csv").write_text("sample,label\na,car\nb,bus\n")
    answer = run(_score(tmp_path, "classification", "csv"))
    assert answer.faults([0, 2, 3]) == [], answer.err


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("which", ["truth", "predictions"])
@pytest.mark.parametrize("task", [*MADE, "classification"])
def test_a_score_file_is_something_else(tmp_path: Path, task: str, which: str, kind: str) -> None:
    suffix = "csv" if task == "classification" else "json"
    for name in ("truth", "predictions"):
        if task == "classification":
            (tmp_path / f"{name}.csv").write_text("sample,label,score_car,score_bus\na,car,0.9,0.1\n")
        else:
            (tmp_path / f"{name}.json").write_text(json.dumps(MADE[task](name == "predictions")))
    (tmp_path / f"{which}.{suffix}").unlink()
    FILES[kind](tmp_path / f"{which}.{suffix}")
    answer = run(_score(tmp_path, task, suffix, "nuscenes" if task == "detection3d" else None))
    assert answer.faults([2, 3]) == [], answer.err
