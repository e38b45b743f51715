"""The round on a GPU machine: a part that fails, hangs or is late costs none of the others, and tables tell all."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu_round, gpu_round_tables
from benchmarks.gpu_round import Part
from benchmarks.gpu_round_tables import read_parts, tables, write_into

# Writes a figure, leaves a rejected engine's record, starts a child that heeds no interrupt, and never ends by itself.
HANGS = """
import pathlib, signal, subprocess, sys, tempfile, time
folder = pathlib.Path(tempfile.mkdtemp()) / "trt8.6.0-sm90-fp16"
folder.mkdir()
(folder / "encoder.rejected.json").write_text("{}")
ignore = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], preexec_fn=ignore).pid, flush=True)
try:
    pathlib.Path(sys.argv[1]).write_text("{}")
    time.sleep(300)
except KeyboardInterrupt:
    print("one test failed")
"""
# Hears nothing.
DEAF = """
import os, signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
print(os.getpid(), flush=True)
time.sleep(300)
"""
# Writes a file and waits for another's.
MEET = """
import pathlib, sys, time
pathlib.Path(sys.argv[1]).touch()
while not pathlib.Path(sys.argv[2]).exists():
    time.sleep(0.01)
print(sys.argv[1])
"""
LOG = """
tests/gpu/test_a.py::test_one PASSED                      [ 25%]
tests/gpu/test_a.py::test_two[on a GPU-None-all above] FAILED        [ 50%]
tests/gpu/test_a.py::test_three SKIPPED (no TensorRT)     [ 75%]
tests/gpu/test_b.py::test_four ERROR
tests/gpu/test_b.py::test_five """


def run(parts: list[Part], out: Path, work: Path, minutes: float = 1.0) -> dict[str, Any]:
    gpu_round.run_parts(parts, out, work, time.monotonic() + 60 * minutes)
    return read_parts(out)


def cut_off(parts: Callable[[float], list[Part]], out: Path, work: Path, begun: Callable[[], object]) -> dict[str, Any]:
    """Run parts with a limit: the first with which what hangs had begun to, as it has not on every machine."""
    for seconds in (2.0, 8.0, 30.0):
        found = run(parts(seconds), out, work, minutes=3)
        if begun():
            break
    return found


def soon_ended(pid: int) -> bool:
    deadline = time.monotonic() + 60
    while not ended(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return ended(pid)


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_a_part_that_fails_or_hangs_costs_none_of_the_others(tmp_path: Path) -> None:
    fails = Part("fails", 30, [("-c", "print('a'); print('no kernel'); raise SystemExit(3)"), ("-c", "print('on')")])
    runs = Part("runs", 30, [("-c", "import os; print(os.environ['WHERE'])")], {"WHERE": "OUT/figures"})
    found = cut_off(
        lambda seconds: [fails, Part("hangs", seconds, [("-c", HANGS, "OUT/kept.json")]), runs],
        tmp_path, tmp_path / "none", (tmp_path / "kept.json").exists,
    )  # fmt: skip
    assert found["fails"]["status"] == "exit 3"
    assert found["fails"]["last_lines"] == ["a", "no kernel", "on"]
    assert found["hangs"]["status"] == "out of time"
    assert (tmp_path / "kept.json").read_text() == "{}"
    assert [path.name for path in (tmp_path / "rejected" / "hangs").iterdir()] == [
        "0-trt8.6.0-sm90-fp16-encoder.rejected.json"
    ]
    child, summary = (tmp_path / "hangs.log").read_text().splitlines()
    assert summary == "one test failed"
    assert soon_ended(int(child))
    assert found["runs"]["status"] == "done"
    assert (tmp_path / "runs.log").read_text().strip() == f"{tmp_path}{os.sep}figures"
    assert "| hangs | out of time |" in (tmp_path / "round.md").read_text()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_what_does_not_heed_an_interrupt_is_killed_and_nothing_is_begun_after_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_round, "_GRACE_SECONDS", 0.5)
    log = tmp_path / "deaf.log"
    limit = 0.0

    def deaf(seconds: float) -> list[Part]:
        nonlocal limit
        limit = seconds
        return [Part("deaf", seconds, [("-c", DEAF), ("-c", "print('begun')")])]

    found = cut_off(deaf, tmp_path, tmp_path / "none", lambda: log.read_text().strip().isdigit())
    assert found["deaf"]["status"] == "out of time"
    assert limit < found["deaf"]["seconds"] < limit + 18
    assert soon_ended(int(log.read_text()))


def test_a_round_in_the_background_interrupts_its_parts_too(tmp_path: Path) -> None:
    """Shells start background jobs with SIGINT ignored, which every process below them inherits."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        cut_off(
            lambda seconds: [Part("hangs", seconds, [("-c", HANGS, "OUT/kept.json")])],
            tmp_path, tmp_path / "none", (tmp_path / "kept.json").exists,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)
    assert "one test failed" in (tmp_path / "hangs.log").read_text()


def test_an_interrupt_ends_what_runs_and_begins_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "scratch").mkdir()
    log = tmp_path / "hangs.0.log"

    def interrupt() -> None:
        while not (log.is_file() and log.read_text().strip().isdigit() and (tmp_path / "kept.json").exists()):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    begun = ("-c", "import pathlib, sys; pathlib.Path(sys.argv[1]).touch()", "OUT/begun")
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run([Part("hangs", 200, [("-c", HANGS, "OUT/kept.json"), begun])], tmp_path, tmp_path / "none", minutes=5)
    child = log.read_text().splitlines()[0]
    assert soon_ended(int(child))
    assert not (tmp_path / "begun").exists()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_parts_come_in_their_order_until_the_time_is_up_and_later_calls_add_theirs(tmp_path: Path) -> None:
    work = tmp_path / "work"
    demo = work / "demo"
    (demo / "onnx").mkdir(parents=True)
    (demo / "manifest.json").write_text("mine")
    write = "import pathlib, sys; path = pathlib.Path(sys.argv[1]); print(path.read_text()); path.write_text('theirs')"
    late = Part("late", 30, [("-c", "print(1)")])
    assert run([late], tmp_path, work, minutes=0.1)["late"]["status"] == "no time left"
    part = Part("demo", 30, [("-c", write, "WORK/demo/manifest.json")])
    found = run([part], tmp_path, work)
    assert (found["late"]["status"], found["demo"]["status"]) == ("no time left", "done")
    assert (tmp_path / "demo.log").read_text().strip() == "mine"
    assert (demo / "manifest.json").read_text() == "mine"
    missing = run([part], tmp_path, tmp_path / "none")
    assert "no workspace" in missing["demo"]["status"]


def test_tests_share_the_time_of_their_part(tmp_path: Path) -> None:
    """Each waits for a file that the other writes: one after the other, neither would end."""
    commands = [("-c", MEET, "OUT/a", "OUT/b"), ("-c", MEET, "OUT/b", "OUT/a")]
    found = run([Part("both", 30, commands, at_once=True)], tmp_path, tmp_path / "none")
    assert found["both"]["status"] == "done"
    assert (tmp_path / "both.log").read_text().split() == [str(tmp_path / "a"), str(tmp_path / "b")]


def test_kernel_timings_go_from_part_to_part_but_not_to_one_that_begins_cold(tmp_path: Path) -> None:
    """Each part writes down what it finds, and leaves another timing."""
    write = (
        "import pathlib, sys\n"
        "folder = pathlib.Path(sys.argv[1]) / 'tensorrt' / 'timing'\n"
        "print(sorted(path.name for path in folder.glob('*')))\n"
        "folder.mkdir(parents=True, exist_ok=True)\n"
        "(folder / sys.argv[2]).touch()"
    )
    (tmp_path / "work" / "demo").mkdir(parents=True)
    parts = [
        Part("first", 30, [("-c", write, "WORK/demo", "a")]),
        Part("cold", 30, [("-c", write, "WORK/demo", "b")], timings="others", cold=True),
        Part("third", 30, [("-c", write, "WORK/demo", "c")]),
        Part("made here", 30, [("-c", write, "SCRATCH/full", "d")], made=["full"]),
        Part("fifth", 30, [("-c", write, "WORK/demo", "e")]),
        Part("of others", 30, [("-c", write, "WORK/demo", "f")], timings="others"),
    ]
    run(parts, tmp_path, tmp_path / "work")
    found = [(tmp_path / f"{part.name}.log").read_text().strip() for part in parts]
    assert found == ["[]", "[]", "['a']", "['a', 'c']", "['a', 'c', 'd']", "['b']"]
    assert not (tmp_path / "work" / "demo" / "tensorrt").exists()


def test_commands_side_by_side_can_have_variables_of_their_own(tmp_path: Path) -> None:
    code = "import os; print(os.environ['FOLDER'])"
    part = Part("both", 30, [("-c", code), ("-c", code)], {"FOLDER": "OUT/timings/both-COMMAND"}, at_once=True)
    run([part], tmp_path, tmp_path / "none")
    assert (tmp_path / "both.log").read_text().split() == [str(tmp_path / f"timings/both-{each}") for each in (0, 1)]


def test_files_of_the_copy_are_kept_and_what_lacks_a_package_is_not_run(tmp_path: Path) -> None:
    # Overrides of the config name files as well.
    write = "import pathlib, sys; pathlib.Path(sys.argv[1].removeprefix('key=')).write_text('kept')"
    parts = [
        Part("keeps", 30, [("-c", write, "key=SCRATCH/a.json"), ("-c", write, "SCRATCH/b.json")], keep=["a.*"]),
        Part("lacks", 30, [("-c", write, "OUT/never")], needs=["no_such_package"]),
    ]
    found = run(parts, tmp_path, tmp_path / "none")
    assert found["keeps"]["status"] == "done"
    assert (tmp_path / "keeps-a.json").read_text() == "kept"
    assert not (tmp_path / "keeps-b.json").exists()
    assert found["lacks"]["status"] == "not here: no_such_package is not installed"
    assert not (tmp_path / "never").exists()


def test_what_went_well_with_these_sources_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = Part("good", 30, [("-c", "print(1)")]), Part("bad", 30, [("-c", "raise SystemExit(1)")])
    run([good, bad], tmp_path, tmp_path / "none")
    assert gpu_round.went_well(tmp_path) == ["good"]
    monkeypatch.setattr(gpu_round, "_sources", lambda: "others")
    assert gpu_round.went_well(tmp_path) == []


def test_a_whole_round_leaves_out_what_has_no_end_that_could_be_told_before() -> None:
    assert {part.name for part in gpu_round.chosen_parts((), done=["tests"])} == {
        part.name for part in gpu_round.PARTS if part.name not in ("tests", "centerpoint-tune")
    }
    assert [part.name for part in gpu_round.chosen_parts(["centerpoint-tune"], done=())] == ["centerpoint-tune"]


def test_tables_of_a_page_are_replaced_and_say_when_and_with_which_clocks(tmp_path: Path) -> None:
    result = {
        "status": "done", "seconds": 3, "date": "2026-11-29T07:00:00+00:00", "machine": {"gpu": "NVIDIA H200"},
        "gpu_at_end": {"sm_clock_mhz": "1900", "max_sm_clock_mhz": "1980", "throttled_by": "software power cap"},
    }  # fmt: skip
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "demo.json").write_text(json.dumps(result))
    page = tmp_path / "README.md"
    page.write_text(f"# Title\n\n{gpu_round_tables._BEGIN}\nold\n{gpu_round_tables._END}\n\nmore\n")
    for _ in range(2):
        write_into(page, tables(tmp_path))
    text = page.read_text()
    assert text.startswith("# Title\n") and text.endswith("\n\nmore\n") and "old" not in text
    assert text.count("gpu NVIDIA H200") == 1
    assert "2026-11-29T07:00:00+00:00, 1900 of 1980 MHz, throttled by software power cap" in text
    page.write_text("# Title\n")
    with pytest.raises(ValueError, match="no lines"):
        write_into(page, "x")


def test_tables_without_parts_are_as_deep_in_a_page(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"{gpu_round_tables._BEGIN}\n{gpu_round_tables._END}\n")
    write_into(page, "## One\n\n## Two\n")
    assert [line for line in page.read_text().splitlines() if line.startswith("#")] == ["#### One", "#### Two"]


def test_tests_are_counted_in_a_log_that_was_cut_short() -> None:
    assert gpu_round.test_results(LOG) == {
        "passed": 1,
        "failed": 1,
        "skipped": 1,
        "error": 1,
        "not_passed": ["tests/gpu/test_a.py::test_two[on a GPU-None-all above]", "tests/gpu/test_b.py::test_four"],
    }


def test_what_the_parts_call_is_there_and_no_gpu_test_is_left_out() -> None:
    named = {argument for part in gpu_round.PARTS for command in part.commands for argument in command}
    named = {argument for argument in named if argument.startswith(("tests/", "benchmarks/"))}
    assert [argument for argument in named if not (gpu_round.ROOT / argument).is_file()] == []
    assert {f"tests/gpu/{path.name}" for path in (gpu_round.ROOT / "tests" / "gpu").glob("test_*.py")} <= named


def test_figures_as_tables(tmp_path: Path) -> None:
    achieved = {"share_of_matrix_layers": {"fp16": 0.04, "int8": 0.96}}
    times = {"gpu_ms_median": 1.737, "gpu_ms_p99": 1.75, "megabytes": 6.2, "achieved": achieved}
    builds = {"first_build_s": 41.9, "first_build_cold": True, "warm_build_s": 4.1}
    engines = [
        {"policy": "int8", "component": "head", **times, **builds, "rejected": ["head: not met"]},
        {"policy": "bf16", "error": "no precision bf16 | 10.x"},
    ]
    (tmp_path / "engines.json").write_text(json.dumps({"rows": engines}))
    roofline = [{"roofline_ms": 0.25}, {"roofline_ms": 0.5}, {"ms": 1}]
    (tmp_path / "int8.json").write_text(json.dumps({"rows": [{"name": "int8", **times, "layers": roofline}]}))
    text = tables(tmp_path)
    assert "| int8 | head | 41.9 (cold) | 4.1 | 6.2 | 1.737 | 1.750 | 4% fp16, 96% int8; head: not met |" in text
    assert "no precision bf16 / 10.x" in text
    assert "| int8 | 1.737 | 1.750 | 0.750 | 6.2 | 4% fp16, 96% int8 |" in text
    entry = {
        "label": "int8, all", "int8": ["a", "b"], "latency_ms": 0.3, "total_ms": 0.51,
        "metric_name": "mAP", "metric": 92.5, "drop": 0.2,
        "drop_interval": {"low": -0.1, "high": 0.7}, "lowest_snr_db": 22.09,
    }  # fmt: skip
    unknown = ("metric_name", "metric", "drop", "drop_interval", "lowest_snr_db")
    entries = [entry, {**entry, "label": "fp16", "int8": [], **dict.fromkeys(unknown)}]
    (tmp_path / "demo-pareto.json").write_text(json.dumps({"runs": {"tensorrt-cuda0": entries}}))
    total = {"median": 1.92, "p99": 2.0}
    bench = {
        "stages": {"total": total}, "engines": {"yolox": {"compute": {"median": 0.64}}}, "conditions": {},
        "streams": {"per_second": 900.0, "gain": 1.7},
    }  # fmt: skip
    measured = {
        "bench": bench,
        "samples": 240, "bench per second": 500.0, "run per second": 450.0, "ratio": 0.9,
        "run": {"processor_seconds": 0.03}, "said": "bound by reading",
    }  # fmt: skip
    (tmp_path / "data_set_yolox.json").write_text(json.dumps(measured))
    text = tables(tmp_path)
    assert "| demo | int8, all | 2 | 0.300 | 0.510 | mAP 92.50 | 0.20 | -0.10 to +0.70 | 22.1 |" in text
    assert "| demo | fp16 | 0 | 0.300 | 0.510 | - | - | - | - |" in text
    assert "| yolox | 1.920 | 2.000 | 0.640 | 3.00 | 900.0 | 1.70 |" in text
    assert "| yolox | 240 | 500.0 | 450.0 | 0.90 | 30.0 | bound by reading |" in text
    assert sys.version.split()[0] not in text  # nothing ran, so no machine is told


def test_what_older_rounds_did_not_write_down_is_left_out(tmp_path: Path) -> None:
    counted = {
        "samples": 240, "bench per second": 500.0, "run per second": 450.0, "ratio": 0.9,
        "run": {"processor_seconds": 0.03}, "said": "bound by reading",
    }  # fmt: skip
    (tmp_path / "data_set_yolox.json").write_text(json.dumps(counted))
    text = tables(tmp_path)
    assert "bare engines" not in text
    assert "| yolox | 240 | 500.0 | 450.0 | 0.90 | 30.0 | bound by reading |" in text
    on_the_host = {"bench": {"stages": {"total": {"median": 1.92}}}, "samples": 8}
    (tmp_path / "data_set_frnet.json").write_text(json.dumps(on_the_host))
    streams = {"per_second": 343.0, "one_per_second": 320.0, "gain": 1.07, "busy": 0.94, "busy_one": 0.87}
    older = {"total": {"median": 2}, "soak": {"requests": 9}, "streams": streams}
    (tmp_path / "gpu_latency.json").write_text(json.dumps(older))
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "frnet.json").write_text('{"status": "done"}')
    text = tables(tmp_path)
    assert "| frnet | 1.920 | - | - | - | - | - | - |" in text
    assert "| frnet | 8 | - | - | - | - | - |" in text
    assert "| a request | median 2.000, p90 -, p99 - ms |" in text and "| soak | - |" in text
    assert "| two streams | 343.0 a second, one: 320.0; 1.07 times |" in text
    assert "| frnet | done | - | - |  |" in text
    assert gpu_round.went_well(tmp_path) == []
