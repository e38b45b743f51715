"""Runs: what is committed survives a kill, what is read back is what was written, and broken runs are refused."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from shared import sample_journal
from shared.errors import EnvironmentLacks, InputError
from shared.runs import Run, RunHeader, RunWriter
from shared.sample_journal import SampleJournal, read_slot
from shared.tasks import find
from shared.tasks.classification import ClassScores
from shared.tasks.detection2d import Boxes2D
from shared.tasks.detection3d import Boxes3D
from shared.work_path import WorkPath
from tests.support.run_files import run_header

# Written by commit 95f26c6.
FORMER = Path(__file__).parents[1] / "data" / "runs-0.1"


def _header(count: int = 3, **changes: object) -> RunHeader:
    return run_header(count, **({"raw_samples": [0]} | changes))


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


def test_a_position_may_be_numpys(tmp_path: Path) -> None:
    writer = RunWriter.open(tmp_path, _header(2, raw_samples=[]))
    for index in np.arange(2):
        writer.commit(index, _boxes(1, index), {"total": 1.0})
    writer.finish()
    assert len(Run.open(tmp_path)) == 2


def test_samples_are_read_together_in_any_order(tmp_path: Path) -> None:
    writer = RunWriter.open(tmp_path, _header(600, raw_samples=[]))
    for index in range(600):
        writer.commit(index, _boxes(index % 3, index), {"total": 1.0})
    writer.finish()
    run, positions = Run.open(tmp_path), [7, *range(5, 600), 3, 3, 2, 599, 0]
    found = list(run.predictions_at(positions, Boxes3D))
    assert all(_same(boxes, _boxes(at % 3, at)) for boxes, at in zip(found, positions, strict=True))
    assert list(run.predictions_at([], Boxes3D)) == []
    with pytest.raises(IndexError):
        list(run.predictions_at([599, 600], Boxes3D))


@settings(max_examples=30)
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


@pytest.mark.parametrize("name", ["run.json", "predictions.npz", "samples.jsonl"])
@pytest.mark.parametrize("keep", [0, 0.5])
def test_truncated_files_are_refused(tmp_path: Path, name: str, keep: float) -> None:
    _write(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(InputError) as error:
        Run.open(tmp_path)
    assert name in str(error.value)


def test_a_power_cut_that_lost_the_arrays_of_a_whole_line(tmp_path: Path) -> None:
    """Two files may reach the disk in any order: the line can be there, and zeros where its arrays should be."""
    writer = RunWriter.open(tmp_path, _header())
    for index in range(3):
        writer.commit(index, _boxes(5, index), {"total": 1.0}, raw={} if index == 0 else None)
    data = tmp_path / "journal.bin"
    content = data.read_bytes()
    data.write_bytes(content[: len(content) // 3 + 8] + bytes(len(content) - len(content) // 3 - 8))
    resumed = RunWriter.open(tmp_path, _header())
    assert resumed.missing() == [1, 2]
    for index in (1, 2):
        resumed.commit(index, _boxes(5, index), {"total": 1.0})
    resumed.finish()
    run = Run.open(tmp_path)
    assert all(_same(run.boxes(index), _boxes(5, index)) for index in range(3))


def test_arrays_cut_short_are_not_trusted(tmp_path: Path) -> None:
    writer = RunWriter.open(tmp_path, _header())
    for index in range(3):
        writer.commit(index, _boxes(5, index), {"total": 1.0}, raw={} if index == 0 else None)
    data = tmp_path / "journal.bin"
    data.write_bytes(data.read_bytes()[:-1])
    assert RunWriter.open(tmp_path, _header()).done == {0, 1}


def test_what_was_flushed_is_not_read_again_on_resuming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_journal, "_FLUSH_EVERY_SECONDS", 0.0)
    writer = RunWriter.open(tmp_path, _header())
    for index in range(3):
        writer.commit(index, _boxes(5, index), {"total": 1.0}, raw={} if index == 0 else None)
    monkeypatch.setattr(sample_journal.zlib, "crc32", None)
    assert RunWriter.open(tmp_path, _header()).done == {0, 1, 2}


def test_lines_of_a_journal_hold_what_was_added(tmp_path: Path) -> None:
    journal = SampleJournal.open(WorkPath.of(tmp_path), range(2))
    given = {'50%d "x"\n': np.zeros((2, 3, 0), ">u2"), "mask": np.ones(4, np.bool_)}
    for index in range(2):
        journal.add(index, {"to\u0142al": 1e-300}, {"voxels": 2**40}, given)
    for index, entry in enumerate(SampleJournal.read(WorkPath.of(tmp_path), range(2)).entries()):
        assert (entry.index, entry.latency_ms, entry.counters) == (index, {"to\u0142al": 1e-300}, {"voxels": 2**40})
        assert entry.arrays == {'50%d "x"\n': [">u2", [2, 3, 0]], "mask": ["|b1", [4]]}
    with pytest.raises(ValueError, match="arrays of sample 1 are"):
        journal.add(1, {}, {}, {"mask": np.ones(4, np.bool_)})


@pytest.mark.parametrize("part", [0, 1, 47, 79])
def test_a_disk_that_takes_a_part_gets_the_rest_or_nothing_is_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    flipped = np.arange(12, dtype=np.float32).reshape(3, 4)[::-1, ::2]
    sample = {"boxes": flipped, "none": np.zeros((0, 2)), "labels": np.arange(20)[::3]}
    journal = SampleJournal.open(WorkPath.of(tmp_path), range(2))
    whole = os.pwritev

    def short(file: int, blocks: list[Any], at: int) -> int:
        return whole(file, [b"".join(blocks)[:part]], at)

    def full(file: int, content: bytes, at: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwritev", short)
    journal.add(0, {}, {}, sample)
    with monkeypatch.context() as nearly, pytest.raises(EnvironmentLacks):
        nearly.setattr(os, "pwrite", full)
        journal.add(1, {}, {}, sample)
    assert journal.missing() == [1]
    read = SampleJournal.read(WorkPath.of(tmp_path), range(2))
    assert (tmp_path / "journal.bin").stat().st_size == sum(array.nbytes for array in sample.values())
    (entry,) = read.entries()
    with read.open_data() as file:
        for name, slot in entry.slots().items():
            np.testing.assert_array_equal(read_slot(file, slot), sample[name])


def test_a_write_that_failed_half_way_is_written_over(tmp_path: Path) -> None:
    writer = RunWriter.open(tmp_path, _header())
    writer.commit(0, _boxes(5), {"total": 1.0}, raw={})
    for name in ("journal.bin", "journal.jsonl"):
        with (tmp_path / name).open("ab") as file:
            file.write(b"half a sample, as a full disk leaves it" * 100)
    writer.commit(1, _boxes(3), {"total": 1.0})
    writer.commit(2, _boxes(4), {"total": 1.0})
    assert RunWriter.open(tmp_path, _header()).done == {0, 1, 2}


def test_killed_after_its_end_a_run_needs_no_sample_again(tmp_path: Path) -> None:
    """The stage hashes gigabytes between the end of the run and its own."""
    _write(tmp_path)
    before = (tmp_path / "predictions.npz").stat()
    assert not (tmp_path / "journal.bin").exists()
    writer = RunWriter.open(tmp_path, _header())
    assert writer.missing() == []
    writer.commit(1, _boxes(7), {"total": 9.0})
    assert writer.finish() == ["run.json", "predictions.npz", "samples.jsonl", "raw/000000.npz"]
    assert (tmp_path / "predictions.npz").stat() == before
    assert len(Run.open(tmp_path).boxes(1)) == 1


@pytest.mark.parametrize("name", ["predictions.npz", "samples.jsonl", "raw/000000.npz"])
def test_a_finished_run_with_a_damaged_file_starts_afresh(tmp_path: Path, name: str) -> None:
    _write(tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)
    assert RunWriter.open(tmp_path, _header()).missing() == [0, 1, 2]


def test_arrays_of_another_layout_are_refused(tmp_path: Path) -> None:
    writer = RunWriter.open(tmp_path, _header(2, task="classification"))
    writer.commit(0, ClassScores.build([0.5, -1.0]), {"total": 1.0}, raw={})
    with pytest.raises(ValueError, match="arrays of sample 1"):
        writer.commit(1, ClassScores.build([0.5, -1.0, 2.0]), {"total": 1.0})


def test_any_numpy_reads_the_packed_arrays(tmp_path: Path) -> None:
    _write(tmp_path)
    with np.load(tmp_path / "predictions.npz") as archive:
        assert archive["offsets/detection3d/centers"].tolist() == [0, 0, 1, 3]
        np.testing.assert_array_equal(archive["detection3d/centers"][1:], _boxes(2, 2).centers)


def test_a_file_replaced_under_an_open_run_is_noticed(tmp_path: Path) -> None:
    _write(tmp_path / "a")
    _write(tmp_path / "b")
    run = Run.open(tmp_path / "a")
    (tmp_path / "b" / "predictions.npz").replace(tmp_path / "a" / "predictions.npz")
    with pytest.raises(InputError, match="changed while it was read"):
        run.boxes(1)


def test_runs_of_version_0_1_are_read() -> None:
    run = Run.open(FORMER / "boxes")
    assert [len(run.boxes(index)) for index in range(3)] == [2, 0, 3]
    assert run.boxes(2).centers.tolist() == (np.arange(9).reshape(3, 3) + 0.5).tolist()
    assert run.boxes(0).labels.tolist() == [0, 1]
    assert list(run.latencies) == [{"model": 1.5 + index, "total": 2.5 + index} for index in range(3)]
    assert run.raw(0)["heatmap"].tolist() == [0, 1, 2, 3]
    scores = Run.open(FORMER / "scores")
    assert scores.predictions(1, ClassScores).logits.tolist() == [[0.5, 0.0]]
    assert scores.predictions(1, ClassScores).labels.tolist() == [0], "the largest logit; it was not stored"
    assert list(scores.counters) == [{}, {"car": 1, "bus": 0}], "the first sample counted nothing"


def test_a_stage_that_was_renamed_has_its_new_name(tmp_path: Path) -> None:
    former = shutil.copytree(FORMER / "boxes", tmp_path / "boxes")
    latencies = former / "latency.json"
    latencies.write_text(latencies.read_text().replace('"model"', '"voxelise"'))
    assert list(Run.open(former).latencies[0]) == ["voxelize", "total"]


COMMIT = """
import sys
from pathlib import Path
from typing import Any
import numpy as np
from shared.sample_journal import SampleJournal
from shared.work_path import WorkPath
journal = SampleJournal.open(WorkPath(Path(sys.argv[1])), range(1000))
for index in journal.missing():
    scores = np.full((120_000, 16), index, np.float32)
    arrays = {"segmentation3d/labels": np.full(120_000, index), "segmentation3d/scores": scores}
    journal.add(index, {"total": float(index)}, {}, arrays)
"""


def test_samples_of_many_points_survive_a_kill_at_any_moment(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    index_file, before = tmp_path / "journal.jsonl", 0
    for _ in range(8):
        with subprocess.Popen([sys.executable, "-c", COMMIT, str(tmp_path)], stdout=subprocess.PIPE) as process:
            while not index_file.exists() or index_file.read_bytes().count(b"\n") < before + 2:
                assert process.poll() is None
            time.sleep(random.uniform(0.0, 0.03))
            process.kill()
        journal = SampleJournal.open(WorkPath(tmp_path), range(1000))
        done = journal.missing()[0]
        assert done >= before + 2, "a committed sample was lost"
        before = done
    with journal.open_data() as data:
        for index, entry in enumerate(journal.entries()):
            assert entry.index == index and entry.latency_ms == {"total": index}
            for slot in entry.slots().values():
                assert (read_slot(data, slot) == index).all()


MEMORY = """
import resource, sys
from pathlib import Path
from typing import Any
import numpy as np
from shared.packed import PackedFile
from shared.runs import Run, RunHeader, RunWriter
from shared.tasks.detection3d import Boxes3D
folder, count = Path(sys.argv[1]), 60
header = {"backend": "onnx", "device": "cpu", "model": "m", "task": "detection3d", "classes": ["car"], "dataset": "d"}
header |= {"tokens": [str(n) for n in range(count)], "raw_samples": [], "fingerprint": "f"}
boxes = Boxes3D.build(np.ones((40_000, 3)), np.ones((40_000, 3)), np.ones(40_000))
writer = RunWriter.open(folder, RunHeader.model_validate(header))
writer.commit(0, boxes, {"total": 1.0})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for index in range(1, count):
    writer.commit(index, boxes, {"total": 1.0})
writer = RunWriter.open(folder, RunHeader.model_validate(header))
writer.finish()
run = Run.open(folder)
assert all(len(boxes) == 40_000 for boxes in run.predictions_at(range(count), Boxes3D))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, (folder / "predictions.npz").stat().st_size // 1024)
"""


def test_memory_does_not_grow_with_predictions(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "run")], check=True, capture_output=True, text=True
    )
    grown, size = map(int, answer.stdout.split())
    assert size > 120_000, "kilobytes of predictions"
    assert grown < 20_000


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
