"""`runtime run --shard` and `manifest merge`: shards on many machines give the run that one process would give."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from runtime import run as runtime_run
from runtime.cli import cli as runtime
from runtime.run import run
from shared.errors import UsageError
from shared.manifest_cli import cli as manifest
from shared.pieces import Piece
from shared.runs import Run
from shared.stages import stage_lock
from shared.work_path import WorkPath
from shared.workspace import Workspace
from tests.support import tiny_centerpoint as tiny

COUNTS = [500, 0, 1, 900, 300, 20, 40]
RUN = "runs/onnx-cpu"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A workspace ``work``, and ``single``, a copy in which one process ran all samples."""
    root = tmp_path_factory.mktemp("shards")
    frames = tiny.write_frames(root / "frames", COUNTS)
    tiny.make_workspace(root / "work", frames, max_voxels=250)
    shutil.copytree(root / "work", root / "single")
    run(root / "single", "onnx", "cpu", num_samples=-1)
    return root


@pytest.fixture
def work(exported, tmp_path):
    return Path(shutil.copytree(exported / "work", tmp_path / "work"))


def copies(work: Path, count: int) -> list[Path]:
    return [Path(shutil.copytree(work, work.parent / f"copy{number}")) for number in range(1, count + 1)]


def shard(work: Path, which: str, **options) -> str:
    return run(work, "onnx", "cpu", num_samples=-1, shard=which, **options)


def merge(work: Path, *others: Path, code: int = 0, **options) -> str:
    """What `manifest merge` prints, without what it logs."""
    flags = [f"--{name.replace('_', '-')}" for name in options]
    answer = CliRunner().invoke(manifest, ["merge", "--work", str(work), *map(str, others), *flags])
    assert answer.exit_code == code, answer.output
    return answer.output


def pieces(work: Path) -> list[Path]:
    return sorted((work / "runs").glob(".onnx-cpu.pieces-*/*")) if (work / "runs").exists() else []


def check_is_the_single_run(work: Path, exported: Path) -> None:
    one, other = exported / "single" / RUN, work / RUN
    names = sorted(str(path.relative_to(one)) for path in one.rglob("*") if path.is_file())
    assert sorted(str(path.relative_to(other)) for path in other.rglob("*") if path.is_file()) == names
    for name in set(names) - {"samples.jsonl", "journal.jsonl"}:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert list(Run.open(one).counters) == list(Run.open(other).counters)
    ours, theirs = (Workspace.open(root).manifest() for root in (work, exported / "single"))
    stage, single = ours.stages["run:onnx-cpu"], theirs.stages["run:onnx-cpu"]
    assert (stage.fingerprint, stage.key, stage.outputs) == (single.fingerprint, single.key, single.outputs)
    assert {path: record.kind for path, record in ours.artifacts.items()} == {
        path: record.kind for path, record in theirs.artifacts.items()
    }
    assert CliRunner().invoke(manifest, ["check", "--work", str(work)]).exit_code == 0
    assert "up to date" in run(work, "onnx", "cpu", num_samples=-1)
    assert not pieces(work), "they go with the commit"
    assert not list(work.rglob("*.partial-*"))


def test_shards_in_copies_of_the_workspace(exported, work) -> None:
    one, two = copies(work, 2)
    for where, which in ((two, "2/3"), (one, "1/3"), (two, "3/3")):
        assert "done, samples" in shard(where, which)
    before = {path: path.read_bytes() for copy in (one, two) for path in copy.rglob("*") if path.is_file()}
    assert "commit    run onnx-cpu, from 3 shards" in merge(work, one, two)
    check_is_the_single_run(work, exported)
    assert before == {path: path.read_bytes() for copy in (one, two) for path in copy.rglob("*") if path.is_file()}
    assert "everything is here already" in merge(work, one, two)
    assert "everything is here already" in merge(work)


def test_shards_on_a_volume_that_all_share(exported, work) -> None:
    for which in ("3/4", "1/4", "4/4", "2/4"):
        shard(work, which)
    assert Workspace.open(work).manifest().stages.keys() == {"export"}, "a shard does not write to the manifest"
    merge(work)
    check_is_the_single_run(work, exported)


def test_a_run_without_shards_takes_in_those_that_are_there(exported, work, monkeypatch) -> None:
    for which in ("1/3", "3/3"):
        shard(work, which)
    inferred = []
    original = runtime_run.record

    def counted(model, loaded, writer, *rest):
        inferred.extend(writer.missing())
        return original(model, loaded, writer, *rest)

    monkeypatch.setattr(runtime_run, "record", counted)
    run(work, "onnx", "cpu", num_samples=-1)
    assert inferred == [2, 3], "the samples of shard 2/3"
    check_is_the_single_run(work, exported)


def test_more_shards_than_samples(exported, work) -> None:
    said = [shard(work, f"{number}/9") for number in range(1, 10)]
    assert sum("nothing to do" in line for line in said) == 2
    merge(work)
    check_is_the_single_run(work, exported)


def test_one_shard_is_the_whole_run(exported, work) -> None:
    shard(work, "1/1")
    assert "from 1 shard\n" in merge(work)
    check_is_the_single_run(work, exported)


def test_a_shard_of_fewer_samples_is_of_another_run(exported, work) -> None:
    for which in ("1/2", "2/2"):
        run(work, "onnx", "cpu", num_samples=4, shard=which)
    merge(work)
    assert len(Run.open(work / RUN)) == 4
    for which in ("1/2", "2/2"):
        shard(work, which)
    merge(work)
    check_is_the_single_run(work, exported)


def test_missing_shards_are_named(work) -> None:
    (one,) = copies(work, 1)
    shard(one, "2/4")
    before = sorted(work.rglob("*"))
    assert "3 of 4 shards are missing: 1/4, 3/4, 4/4" in merge(work, one, code=3)
    assert sorted(work.rglob("*")) == before
    assert "no shard is here" in merge(work, code=3)


def test_a_half_finished_shard_is_missing_until_it_is_run_again(exported, work, monkeypatch) -> None:
    shard(work, "1/2")
    shard(work, "2/2")
    (pieces(work)[1] / "finished.json").unlink()
    said = merge(work, code=3)
    assert "1 of 2 shards is missing: 2/2" in said
    assert "2-of-2 is not finished; run it again, it goes on" in said
    lock = stage_lock(work, "run:onnx-cpu-2-of-2")
    with lock:
        assert "2-of-2 is running" in merge(work, code=3)
    shard(work, "2/2")
    merge(work)
    check_is_the_single_run(work, exported)


def test_what_is_whole_is_merged_beside_an_abandoned_shard_of_another_run(exported, work) -> None:
    one, two = copies(work, 2)
    shard(one, "1/2")
    shard(two, "2/2")
    run(two, "pytorch", "cpu", num_samples=2, shard="1/2")
    (abandoned,) = (two / "runs").glob(".pytorch-cpu.pieces-*/*")
    (abandoned / "finished.json").unlink()
    said = merge(work, one, two)
    assert "commit    run onnx-cpu, from 2 shards" in said
    assert "leave out run pytorch-cpu: no shard of the model that is here is finished; " in said
    assert f"{abandoned} is not finished; run it again, it goes on" in said
    check_is_the_single_run(work, exported)
    said = merge(work, one, two)
    assert "leave out run pytorch-cpu: " in said and "everything else is here already" in said
    assert "pytorch-cpu" not in " ".join(Workspace.open(work).manifest().stages)


def test_stages_of_a_copy_are_taken_beside_a_run_without_all_its_shards(work) -> None:
    (one,) = copies(work, 1)
    shard(one, "1/2")
    run(one, "pytorch", "cpu", num_samples=2)
    said = merge(work, one, dry_run=True)
    assert merge(work, one) == said
    assert "take      stage run:pytorch-cpu" in said
    assert "leave out run onnx-cpu: 1 of 2 shards is missing: 2/2" in said
    assert Workspace.open(work).manifest().stages.keys() == {"export", "run:pytorch-cpu"}
    assert "run onnx-cpu: 1 of 2 shards is missing: 2/2" in merge(work, one, code=3)


def test_an_abandoned_shard_of_a_run_that_was_merged_is_no_conflict(exported, work) -> None:
    one, two = copies(work, 2)
    run(two, "onnx", "cpu", num_samples=3)
    for which in ("1/2", "2/2"):
        shard(one, which)
    merge(work, one)
    run(two, "onnx", "cpu", num_samples=4, shard="1/2")
    said = merge(work, one, two)
    assert "leave out run onnx-cpu: 1 of 2 shards is missing: 2/2" in said
    check_is_the_single_run(work, exported)


def test_shards_given_twice_and_overlapping_ones_count_once(exported, work) -> None:
    one, two = copies(work, 2)
    for where, which in ((one, "1/2"), (two, "1/2"), (one, "2/3"), (two, "3/3"), (work, "2/3")):
        shard(where, which)
    merge(work, one, two, one)
    check_is_the_single_run(work, exported)


def test_gaps_between_shards_of_different_numbers_are_named(work) -> None:
    shard(work, "1/2")
    shard(work, "3/3")
    assert "1 of 7 samples are in no shard, the first is 3" in merge(work, code=3)


def test_a_shard_of_another_model_is_left_out(exported, work) -> None:
    one, two = copies(work, 2)
    shard(one, "1/2")
    tiny.make_workspace(two, exported / "frames", max_voxels=100)
    shard(two, "2/2")
    said = merge(work, one, two, code=3)
    assert "1 of 2 shards is missing: 2/2" in said
    assert "2-of-2 was run with another model spec than is here" in said
    assert "no shard of the model that is here is finished" in merge(work, two, code=3)


def test_a_shard_of_other_data_is_left_out(exported, work, tmp_path) -> None:
    one, two = copies(work, 2)
    shard(one, "1/3")
    shard(one, "2/3")
    other = tiny.write_frames(tmp_path / "others", COUNTS)
    frame = sorted(path for path in tmp_path.glob("others/**/*") if path.is_file())[0]
    frame.write_bytes(frame.read_bytes()[:-20])
    shard(two, "3/3", data_root=other)
    said = merge(work, one, two, code=3)
    assert "1 of 3 shards is missing: 3/3" in said
    assert "is of another run than" in said
    assert "inputs.dataset" in said


def test_a_shard_with_other_threads_is_left_out(work) -> None:
    shard(work, "1/2")
    shard(work, "2/2", threads=1)
    said = merge(work, code=3)
    assert "config.threads: None -> 1" in said or "config.threads: 1 -> None" in said


def test_a_damaged_shard_is_named_and_run_again(exported, work) -> None:
    shard(work, "1/2")
    shard(work, "2/2")
    path = pieces(work)[0] / "journal.bin"
    content = bytearray(path.read_bytes())
    content[7] ^= 1
    path.write_bytes(content)
    said = merge(work, code=3)
    assert "1 of 2 shards is missing: 1/2" in said
    assert "journal.bin: differs from the hash" in said
    assert "done, samples 0 to 2" in shard(work, "1/2")
    merge(work)
    check_is_the_single_run(work, exported)


def test_a_second_call_of_a_shard_does_nothing(work) -> None:
    shard(work, "1/2")
    before = {path: path.stat().st_mtime_ns for path in pieces(work)[0].iterdir()}
    assert "shard 1/2: up to date" in shard(work, "1/2")
    assert before == {path: path.stat().st_mtime_ns for path in pieces(work)[0].iterdir()}
    shard(work, "1/2", force=True)
    assert before != {path: path.stat().st_mtime_ns for path in pieces(work)[0].iterdir()}


def test_shards_of_a_run_that_is_whole_have_nothing_to_do(exported, tmp_path) -> None:
    work = Path(shutil.copytree(exported / "single", tmp_path / "work"))
    assert "the run is whole" in shard(work, "1/2")
    assert not pieces(work)


def test_a_dry_run_changes_nothing(work) -> None:
    (one,) = copies(work, 1)
    for which in ("1/2", "2/2"):
        shard(one, which)
    before = sorted(work.rglob("*"))
    assert "commit    run onnx-cpu, from 2 shards" in merge(work, one, dry_run=True)
    assert sorted(work.rglob("*")) == before


def test_results_of_a_copy_come_along_with_its_shards(work) -> None:
    (one,) = copies(work, 1)
    shard(one, "1/2")
    shard(one, "2/2")
    run(one, "pytorch", "cpu", num_samples=2)
    said = merge(work, one)
    assert "take      stage run:pytorch-cpu" in said
    assert "commit    run onnx-cpu, from 2 shards" in said


def test_an_earlier_run_is_replaced_and_its_copies_are_no_conflict(exported, work) -> None:
    run(work, "onnx", "cpu", num_samples=2)
    one, two = copies(work, 2)
    run(two, "onnx", "cpu", num_samples=3)
    shard(one, "1/2")
    shard(two, "2/2")
    assert "commit    run onnx-cpu, from 2 shards" in merge(work, one, two)
    check_is_the_single_run(work, exported)
    assert "everything is here already" in merge(work, one, two)
    check_is_the_single_run(work, exported)


@pytest.mark.parametrize("text", ["0/4", "5/4", "x"])
def test_what_names_no_shard(work, text) -> None:
    answer = CliRunner().invoke(runtime, ["run", "--work", str(work), "--backend", "onnx", "--shard", text])
    assert answer.exit_code == UsageError.exit_code
    assert f"--shard {text}" in answer.output
    assert answer.output.count("\n") == 1


def test_alerts_name_their_shard(work, caplog) -> None:
    caplog.set_level(logging.WARNING)
    for which in ("1/2", "2/2"):
        shard(work, which)
    said = merge(work)
    alerts = Workspace.open(work).manifest().results["runs"]["onnx-cpu"]["alerts"]
    assert "run:onnx-cpu: shard 1/2: " in caplog.text
    assert alerts[0].startswith("shard 1/2: ") and "voxels did not fit" in alerts[0]
    assert alerts[0] in said


def test_a_shard_whose_key_does_not_hold_is_refused(work) -> None:
    shard(work, "1/1")
    path = pieces(work)[0] / "finished.json"
    finished = json.loads(path.read_text())
    finished["origin"]["stage"]["key"]["config"]["threads"] = 7
    path.write_text(json.dumps(finished))
    assert "the fingerprint is not that of its key" in merge(work, code=3)


def test_a_run_that_ends_leaves_shards_alone_that_are_running(work) -> None:
    shard(work, "1/2")
    (running,) = pieces(work)
    with stage_lock(work, f"run:onnx-cpu-{running.name}"):
        run(work, "onnx", "cpu", num_samples=2)
        assert pieces(work) == [running]
    run(work, "onnx", "cpu", num_samples=3)
    assert not pieces(work)


def test_shards_that_are_whole_are_committed_beside_one_of_a_larger_run(work) -> None:
    shard(work, "1/2")
    for which in ("1/2", "2/2"):
        run(work, "onnx", "cpu", num_samples=3, shard=which)
    assert "commit    run onnx-cpu, from 2 shards" in merge(work)
    assert len(Run.open(work / RUN)) == 3


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.2])
def test_a_killed_shard_goes_on(exported, work, seconds) -> None:
    command = [sys.executable, "-m", "runtime.cli", "run", "--work", str(work), "--backend", "onnx"]
    with subprocess.Popen([*command, "--num-samples", "-1", "--shard", "1/1"], stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not pieces(work) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)
    if not (pieces(work)[0] / "finished.json").exists():
        assert "no shard of the model that is here is finished" in merge(work, code=3)
    shard(work, "1/1")
    assert Piece.open(WorkPath(pieces(work)[0])).header.samples == range(7)
    merge(work)
    check_is_the_single_run(work, exported)
