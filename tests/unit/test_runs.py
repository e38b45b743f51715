"""Runs: what is committed survives a kill, what is read back is what was written, and broken runs are refused."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from shared.errors import InputError
from shared.runs import Run, RunHeader, RunWriter
from shared.tasks import find
from shared.tasks.classification import ClassScores
from shared.tasks.detection2d import Boxes2D
from shared.tasks.detection3d import Boxes3D


def _header(count: int = 3, **changes: object) -> RunHeader:
    values = {
        "backend": "onnx",
        "device": "cpu",
        "model": "centerpoint",
        "task": "detection3d",
        "classes": ["car"],
        "dataset": "digest",
        "tokens": [f"token{n}" for n in range(count)],
        "raw_samples": [0],
        "fingerprint": "f",
    }
    return RunHeader.model_validate(values | changes)


def _boxes(count: int, seed: int = 0) -> Boxes3D:
    random = np.random.default_rng(seed)
    return Boxes3D.build(
        random.normal(size=(count, 3)) * 50,
        random.uniform(0.3, 12, (count, 3)),
        random.uniform(-np.pi, np.pi, count),
        np.where(random.random((count, 2)) < 0.3, np.nan, random.normal(size=(count, 2))),
        scores=random.random(count),
    )


def _write(folder: Path, count: int = 3) -> None:
    writer = RunWriter.open(folder, _header(count))
    for index in range(count):
        raw = {"heatmap": np.arange(4, dtype=np.float32)} if index == 0 else None
        writer.commit(index, _boxes(index, index), {"total": 1.5 + index}, {"voxels": index}, raw)
    writer.finish()


def _same(a: Boxes3D, b: Boxes3D) -> bool:
    pairs = [(getattr(a, field.name), getattr(b, field.name)) for field in fields(Boxes3D)]
    return all(x.dtype == y.dtype and np.array_equal(x, y, equal_nan=x.dtype.kind == "f") for x, y in pairs)


def test_round_trip(tmp_path: Path) -> None:
    _write(tmp_path)
    run = Run.open(tmp_path)
    assert len(run) == 3
    assert all(_same(boxes, _boxes(index, index)) for index, boxes in enumerate(map(run.boxes, range(len(run)))))
    assert run.raw(0)["heatmap"].tolist() == [0, 1, 2, 3]
    assert [latency["total"] for latency in run.latencies] == [1.5, 2.5, 3.5]
    assert [counters["voxels"] for counters in run.counters] == [0, 1, 2]


@settings(max_examples=30, deadline=None)
@given(values=arrays.arrays(np.float32, (4, 3), elements=st.floats(width=32)))
def test_every_float_survives_the_journal(tmp_path_factory: pytest.TempPathFactory, values: np.ndarray) -> None:
    folder = tmp_path_factory.mktemp("run")
    writer = RunWriter.open(folder, _header(1, raw_samples=[]))
    writer.commit(0, Boxes3D.build(values, np.ones((4, 3)), np.zeros(4)), {"total": 1.0})
    resumed = RunWriter.open(folder, _header(1, raw_samples=[]))
    resumed.finish()
    np.testing.assert_array_equal(Run.open(folder).boxes(0).centers, values)


def test_resumes_after_the_last_whole_line(tmp_path: Path) -> None:
    writer = RunWriter.open(tmp_path, _header())
    writer.commit(0, _boxes(2), {"total": 1.0}, raw={})
    writer.commit(1, _boxes(2), {"total": 1.0})
    journal = tmp_path / "journal.jsonl"
    journal.write_text(journal.read_text()[:-40])  # the power went while line 2 was written
    writer = RunWriter.open(tmp_path, _header())
    assert writer.done == {0}
    with pytest.raises(InputError, match="2 samples are not finished, the first is 1"):
        writer.finish()
    writer.commit(1, _boxes(3), {"total": 1.0})
    writer.commit(2, _boxes(4), {"total": 1.0})
    writer.finish()
    assert [len(boxes) for boxes in map(Run.open(tmp_path).boxes, range(3))] == [2, 3, 4]


@pytest.mark.parametrize("change", [{"fingerprint": "g"}, {"tokens": ["a", "b", "c"]}, {"device": "cuda:0"}])
def test_another_run_starts_afresh(tmp_path: Path, change: dict[str, object]) -> None:
    _write(tmp_path)
    assert RunWriter.open(tmp_path, _header(**change)).done == set()


def test_force_starts_afresh(tmp_path: Path) -> None:
    _write(tmp_path)
    assert RunWriter.open(tmp_path, _header(), resume=False).done == set()


def test_half_a_run_is_refused(tmp_path: Path) -> None:
    RunWriter.open(tmp_path, _header()).commit(0, _boxes(1), {"total": 1.0}, raw={})
    with pytest.raises(InputError, match="not finished"):
        Run.open(tmp_path)


@pytest.mark.parametrize("name", ["run.json", "predictions.npz", "latency.json"])
@pytest.mark.parametrize("keep", [0, 0.5])
def test_truncated_files_are_refused(tmp_path: Path, name: str, keep: float) -> None:
    _write(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(InputError) as error:
        Run.open(tmp_path)
    assert name in str(error.value)


def test_files_of_different_runs_are_refused(tmp_path: Path) -> None:
    _write(tmp_path / "a", 3)
    _write(tmp_path / "b", 2)
    (tmp_path / "a" / "predictions.npz").write_bytes((tmp_path / "b" / "predictions.npz").read_bytes())
    with pytest.raises(InputError, match="does not hold the 3 samples"):
        Run.open(tmp_path / "a")


def test_packed_files_have_the_same_bytes_every_time(tmp_path: Path) -> None:
    _write(tmp_path / "a")
    _write(tmp_path / "b")
    assert (tmp_path / "a" / "predictions.npz").read_bytes() == (tmp_path / "b" / "predictions.npz").read_bytes()
    assert json.loads((tmp_path / "a" / "run.json").read_text())["backend"] == "onnx"


@pytest.mark.parametrize(
    ("task", "answers"),
    [
        ("detection2d", [Boxes2D.empty(), Boxes2D.build([[0, 1, 2, 3], [4, 5, 6, 7]], [1, 0], [0.5, 0.25])]),
        ("classification", [ClassScores.build([0.5, -1.0]), ClassScores.build([[1.0, 2.0]])]),
    ],
)
def test_other_tasks_round_trip(task: str, answers: list, tmp_path: Path) -> None:
    kind = type(answers[0])
    writer = RunWriter.open(tmp_path, _header(2, task=task))
    writer.commit(0, answers[0], {"total": 1.0}, {}, {"x": np.zeros(1, np.float32)})
    # A kill here: the next writer goes on.
    writer = RunWriter.open(tmp_path, _header(2, task=task))
    assert writer.done == {0}
    writer.commit(1, answers[1], {"total": 1.0})
    writer.finish()
    run = Run.open(tmp_path)
    for index, answer in enumerate(answers):
        back = run.predictions(index, kind)
        for name in kind.columns():
            assert getattr(back, name).dtype == getattr(answer, name).dtype
            assert getattr(back, name).tolist() == getattr(answer, name).tolist()
    with pytest.raises(InputError, match=f"results of task '{task}', not Boxes3D"):
        run.boxes(0)


def test_columns_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Boxes2D.corners has shape \(2, 3\)"):
        Boxes2D(np.zeros((2, 3), np.float32), np.zeros(2, np.int64), np.zeros(2, np.float32))
    with pytest.raises(ValueError, match=r"Boxes2D.labels has shape \(1,\)"):
        Boxes2D(np.zeros((2, 4), np.float32), np.zeros(1, np.int64), np.zeros(2, np.float32))
    with pytest.raises(InputError, match="no task 'segmentation'"):
        find("segmentation")
