"""Everything that only a GPU can show, in the order of what it is worth, each part with a time limit of its own.

    python benchmarks/gpu_round.py --out gpu-round                             all of it: 25 minutes at most on an H200
    python benchmarks/gpu_round.py --out gpu-round --parts runtime --minutes 9 where one command may not run that long
    python benchmarks/gpu_round.py --out gpu-round --table                     the tables of what is there, once more
    python benchmarks/gpu_round.py --out gpu-round --write benchmarks/README.md   the same, into a page

Tests share the GPU, several processes of them at once; what is timed has it to itself. A part that fails or runs out of
time costs none of the others. ``parts/<name>.json`` says how it went, on which card, when, and with which clocks; every
part leaves its log and figures beside that folder, and ``round.md`` has them as tables. A later call goes on: what went
well with these sources is not run again unless ``--parts`` names it. Folders of several calls may be copied into one.
The reports of engines that were rejected are kept too.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu_round_tables import PARTS as PARTS_FOLDER
from benchmarks.gpu_round_tables import read_parts, tables, write_into
from runtime.conditions import gpu_conditions
from shared import provenance

ROOT = Path(__file__).resolve().parents[1]
# A part with less than this left is not begun.
_LEAST_SECONDS = 20.0
# A command that is interrupted at its limit has so long to say what it found, as pytest does with its failures.
_GRACE_SECONDS = 20.0
_TAIL_LINES = 4
_LATE = "out of time"
# What engines are built from, and programs.
_EXPORTED = ("onnx", "pytorch", "ranges", "quantized", "quantization", "manifest.json")
# Kernel timings, which later parts and rounds go on with.
_TIMINGS = "timings"
# Those of the demo's models, and of the network of the 121 m model's size.
_MODELS_TIMINGS, _FULL_TIMINGS = "models", "full-size"
_TIMINGS_OF_A_WORKSPACE = "tensorrt/timing"
# Whose sources decide whether a part is still what was measured.
_SOURCES = ("shared", "trt_builder", "runtime", "verifier", "evaluator", "benchmarks", "tests")


@dataclass(frozen=True)
class Part:
    """One or more commands of the round.

    Attributes:
        name: of its log.
        seconds: its limit.
        commands: what Python is called with; ``OUT`` stands for the folder, ``WORK/<name>`` for a copy of the workspace
            ``<name>``, ``SCRATCH`` for the folder of those copies, ``WORKSPACES`` for that of the originals.
        variables: of its environment, likewise; ``COMMAND`` stands for the number of the command.
        at_once: run the commands side by side, not one after the other; nothing in them is timed.
        keep: files below ``SCRATCH``, as patterns, that are copied to the folder as ``<part>-<name>``.
        needs: packages without which it is not run.
        made: workspaces below ``SCRATCH`` that its commands make, and build engines in.
        timings: whose kernel timings its workspaces begin with and add to.
        cold: they begin without them.
        when_named: it is no part of a whole round, only run where it is asked for by name.
    """

    name: str
    seconds: float
    commands: Sequence[Sequence[str]]
    variables: dict[str, str] = field(default_factory=dict)
    at_once: bool = False
    keep: Sequence[str] = ()
    needs: Sequence[str] = ()
    made: Sequence[str] = ()
    timings: str = _MODELS_TIMINGS
    cold: bool = False
    when_named: bool = False

    def workspaces(self) -> set[str]:
        """Names of the workspaces that it takes."""
        words = [*self.variables.values(), *(word for command in self.commands for word in command)]
        return {word.split("/")[1] for word in words if word.startswith(_WORK)}


_WORK = "WORK/"
_PYTEST = (
    "-m", "pytest", "-m", "gpu", "-v", "--tb=short", "--durations=12", "--durations-min=3",
    "--continue-on-collection-errors", "-p", "no:cacheprovider",
)  # fmt: skip
_NO_LIBRARIES = ("--set", "tensorrt.tactic_sources=[]")
_BUILD = ("-c", "from trt_builder.cli import cli; cli()", "build", "--target", "tensorrt", *_NO_LIBRARIES)
_FP16 = ("--set", "tensorrt.precision_policy=fp16")
_IN_FP16 = ("--choice", "fp16")
_DEMO = "WORK/centerpoint"
_DEMO_DATA = "WORKSPACES/demo"
_LABELED_DATA = "WORKSPACES/demo-labels"
_SEARCHED_DATA = "WORKSPACES/demo-search"

_LATENCY_TESTS = "tests/gpu/test_runtime_tensorrt.py"
_CUDA_TESTS = "tests/gpu/test_runtime_on_cuda.py"
_BACKENDS_TESTS = "tests/gpu/test_latency_of_backends.py"
_OPERATORS_TESTS = "tests/gpu/test_operators.py"
_ENGINES_TESTS = "tests/gpu/test_trt_engines.py"
_INT8_TESTS = "tests/gpu/test_int8.py"
# Of them, those that take a demo's workspace.
_METRICS = "demo_s_metric"
_BISECT_TESTS = "tests/gpu/test_bisect_with_tensorrt.py"
_IN_PROCESSES_OF_THEIR_OWN = (
    _LATENCY_TESTS, _CUDA_TESTS, _BACKENDS_TESTS, _OPERATORS_TESTS, _ENGINES_TESTS, _INT8_TESTS, _BISECT_TESTS,
)  # fmt: skip
# Some 90 engines of one operator each. The first half takes the less time, and so has a test of engines too;
# bisection takes less still, and has two.
_FIRST_OPERATORS = "Resize or Reduce"
_BESIDE_OPERATORS, _BESIDE_BISECTION = "second_build", "corrupt_timing_cache or auto"
# Each backend in a process of its own: one that crashes takes no other along.
_BACKENDS = {"onnx": ("onnx",), "pytorch": ("pytorch",), "compiled": ("pytorch", "--compile")}


def _tests() -> list[Sequence[str]]:
    """The tests but for those that are timed or take a demo's workspace, as processes that run side by side."""
    files = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests" / "gpu").glob("test_*.py"))
    others = [file for file in files if file not in _IN_PROCESSES_OF_THEIR_OWN]
    kernels = [
        "tests/unit/test_cuda_kernels.py",
        "tests/unit/test_cuda_frnet.py",
        "tests/unit/test_cuda_masks.py",
        "tests/unit/test_pillar_encoder.py",
    ]
    return [
        (*_PYTEST, _OPERATORS_TESTS, _ENGINES_TESTS, "-k", f"{_FIRST_OPERATORS} or {_BESIDE_OPERATORS}"),
        (*_PYTEST, _OPERATORS_TESTS, "-k", f"not ({_FIRST_OPERATORS})"),
        (*_PYTEST, _BISECT_TESTS, _ENGINES_TESTS, "-k", f"bisect or {_BESIDE_BISECTION}"),
        (*_PYTEST, _ENGINES_TESTS, "-k", f"not ({_BESIDE_OPERATORS} or {_BESIDE_BISECTION})"),
        (*_PYTEST, _INT8_TESTS, "-k", f"not {_METRICS}"),
        (*_PYTEST, *kernels, *others),
    ]


def _model(name: str, data: str) -> Part:
    """A demo's model in FP16."""
    work = f"WORK/{name}"
    commands = [(*_BUILD, "--work", work, *_FP16, *_tactics(name)), _data_set(work, name, *_repeated(data))]
    return Part(name, 200, commands)


def _model_in_precisions(name: str, *more: Sequence[str], seconds: float = 300) -> Part:
    """A demo's model in FP16 and INT8; the engines in FP16 serve the data set too, and ``more`` commands."""
    data_set = _data_set(f"WORK/{name}-int8", name, *_repeated(_DEMO_DATA), *_IN_FP16)
    return Part(name, seconds, [_sweep(name), *more, data_set], keep=[f"{name}-int8/choices/pareto.*"])


def _sweep(name: str) -> Sequence[str]:
    """Latency in FP16 and INT8, and the metric where the evaluator's packages are."""
    policies = [word for policy in ("fp16", "int8") for word in ("--policy", policy)]
    package = _EVALUATED_WITH.get(name)
    metric = () if package is None or importlib.util.find_spec(package) else ("--no-metric",)
    options = ("--data", _DEMO_DATA, "--seconds", "2", "--num-samples", "60", *metric)
    settings = (*_NO_LIBRARIES, *_tactics(name))
    return ("-m", "trt_builder", "sweep", "--trust", "--work", f"WORK/{name}-int8", *options, *settings, *policies)


def _data_set(work: str, name: str, *options: str) -> Sequence[str]:
    """A request against the bare engines, and a data set against its requests; the engines were built in ``work``."""
    places = ("--work", work, "--folder", "SCRATCH/frames", "--out", f"OUT/data_set_{name}.json")
    return ("benchmarks/data_set.py", *places, *options)


def _repeated(data: str) -> Sequence[str]:
    return ("--data", data, "--repeat", "20", "--frames", "800")


def _tactics(name: str) -> Sequence[str]:
    return ("--set", "tensorrt.optimization_level=1") if name in _DEEP else ()


_EVALUATED_WITH = {"yolox": "faster_coco_eval", "calibration": "sklearn"}
_FULL_NAME = "full-size"
_FULL = f"SCRATCH/{_FULL_NAME}"
_MODELS = ("centerpoint", "yolox", "calibration")
# Networks of a hundred layers, for which TensorRT 8.6 compares kernels for minutes at its default level.
_DEEP = ("yolox", "yolox-seg", "frnet")

PARTS = (
    Part(
        "demo-data", 90,
        [
            ("-m", "demo", "generate", "--out", _DEMO_DATA),
            ("-m", "demo", "generate", "--out", _LABELED_DATA, "--labels"),
        ],
        at_once=True,
    ),
    # More processes at once take longer: engines are built by timing kernels, one after the other, on the one GPU. Of
    # seventeen that built at a time nearly none was done after four minutes.
    Part("tests", 400, _tests(), {"TIMINGS": f"OUT/{_TIMINGS}/tests-COMMAND"}, at_once=True),
    # The policies' engines, and with those in FP16 a data set of 200,000 points over ten sweeps.
    Part(
        "full-size", 300,
        [
            ("benchmarks/data_set.py", "--full-size", "--work", _FULL),
            ("benchmarks/trt_engines.py", "--work", _FULL, *_NO_LIBRARIES,
             "--out", "OUT/engines.json", "--dump", "OUT/reports"),
            _data_set(_FULL, _FULL_NAME, "--policy", "fp16", "--points", "200000", "--sweeps", "10", "--frames", "240"),
        ],
        made=[_FULL_NAME], timings=_FULL_TIMINGS, cold=True,
    ),
    # Latency, memory, streams and soak with engines of the 121 m network's size, and what is asked of them.
    Part(
        "runtime", 300, [(*_PYTEST, _LATENCY_TESTS)],
        {"SOAK": "5000", "FIGURES": "OUT/gpu_latency.json", "TIMINGS": f"OUT/{_TIMINGS}/{_FULL_TIMINGS}"},
    ),
    _model_in_precisions(
        "centerpoint",
        ("benchmarks/gpu_latency.py", "--work", "WORK/centerpoint-int8", *_IN_FP16, "--frames", "5",
         "--out", "OUT/demo_latency.json"),
        seconds=400,
    ),
    *map(_model_in_precisions, ("yolox", "calibration")),
    _model("yolox-seg", _LABELED_DATA),
    _model("frnet", _LABELED_DATA),
    # Behind the sweeps, whose kernel timings they take.
    Part(
        "int8-metrics", 200, [(*_PYTEST, _INT8_TESTS, "-k", f"{_METRICS} and {name}") for name in _MODELS],
        {"INT8_WORK": "WORKSPACES", "TIMINGS": f"OUT/{_TIMINGS}/{_MODELS_TIMINGS}"}, at_once=True,
    ),
    Part(
        "int8", 200,
        [("benchmarks/int8.py", *_NO_LIBRARIES, "--work", "SCRATCH/int8", "--out", "OUT/int8.json")],
        made=["int8"], timings=_FULL_TIMINGS,
    ),
    # The fastest precisions within a quarter of a point. A search has no end that could be told before.
    Part(
        "centerpoint-tune", 600,
        [
            ("-m", "demo", "generate", "--out", _SEARCHED_DATA, "--split", "val", "--frames", "40"),
            (
                "-m", "trt_builder", "tune", "--trust", "--work", "WORK/centerpoint-tune", "--data", _SEARCHED_DATA,
                "--set", f"data.info_file={_SEARCHED_DATA}/info/t4dataset_demo_infos_val.pkl", *_NO_LIBRARIES,
                "--max-drop", "0.25",
            ),
        ],
        keep=["centerpoint-tune/choices/pareto.*", "centerpoint-tune/choices/tuned.yaml"], when_named=True,
    ),
    # The same on ONNX Runtime and PyTorch, where their GPU builds are installed.
    Part("backends-tests", 150, [(*_PYTEST, _CUDA_TESTS)], needs=["torch"]),
    Part(
        "backends", 420, [(*_PYTEST, _BACKENDS_TESTS, "-k", name) for name in _BACKENDS], {"FIGURES": "OUT"},
        needs=["torch"],
    ),
    Part(
        "demo-backends", 180,
        [
            (
                "benchmarks/gpu_latency.py", "--work", _DEMO, "--backend", *options,
                "--requests", "500", "--soak", "1000", "--out", f"OUT/demo_{name}_latency.json",
            )
            for name, options in _BACKENDS.items()
        ],
        needs=["torch"],
    ),
)  # fmt: skip


def main() -> None:
    """Run the parts, and write the tables after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True, help="folder for logs, figures and tables")
    parser.add_argument("--minutes", type=float, default=25.0, help="for all parts together")
    parser.add_argument("--parts", nargs="+", choices=[part.name for part in PARTS], help="these alone, in their order")
    parser.add_argument("--work", type=Path, default=Path("work"), help="folder of the models' workspaces")
    parser.add_argument("--table", action="store_true", help="run nothing, only write the tables")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="run nothing, write the tables into this page")
    options = parser.parse_args()
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if options.write is not None:
        write_into(options.write, tables(out))
        return
    if not options.table:
        chosen = chosen_parts(options.parts or (), done=() if options.parts else went_well(out))
        run_parts(chosen, out, options.work.resolve(), time.monotonic() + 60 * options.minutes)
    text = tables(out)
    (out / "round.md").write_text(text, encoding="utf-8")
    print(text)


def chosen_parts(named: Sequence[str], done: Sequence[str]) -> list[Part]:
    """Those that are named; without names a whole round, but for what is done."""
    if named:
        return [part for part in PARTS if part.name in named]
    return [part for part in PARTS if not part.when_named and part.name not in done]


def went_well(out: Path) -> list[str]:
    """The parts in the folder that ended well, no test failed, with the sources that are here."""
    return [
        name
        for name, result in read_parts(out).items()
        if result.get("status") == "done" and result.get("machine", {}).get("sources") == _sources()
    ]


def run_parts(parts: Sequence[Part], out: Path, work: Path, end: float) -> None:
    """Run parts one after the other until the time is up, and write down after each how it went."""
    (out / PARTS_FOLDER).mkdir(exist_ok=True)
    for part in parts:
        left = end - time.monotonic()
        missing = sorted(name for name in part.workspaces() if not (work / name).is_dir())
        lacking = [package for package in part.needs if importlib.util.find_spec(package) is None]
        if left < _LEAST_SECONDS:
            result: dict[str, Any] = {"status": "no time left"}
        elif lacking:
            result = {"status": f"not here: {lacking[0]} is not installed"}
        elif missing:
            result = {"status": f"no workspace {work / missing[0]}"}
        else:
            result = run_part(part, out, work, min(part.seconds, left))
        print(f"{part.name}: {json.dumps(result)}", flush=True)
        date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        result |= {"date": date, "machine": _machine(), "gpu_at_end": gpu_conditions(0)}
        (out / PARTS_FOLDER / f"{part.name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        (out / "round.md").write_text(tables(out), encoding="utf-8")


def run_part(part: Part, out: Path, work: Path, seconds: float) -> dict[str, Any]:
    """Run one part, its output in ``<name>.log``; at its limit it is interrupted, then killed with all it started."""

    # What pytest and the tools leave in temporary folders is looked through for records of rejected engines.
    scratch = Path(tempfile.mkdtemp(prefix=f"{part.name}-"))
    # The part builds in copies: the workspaces' own engines and results stay as they are.
    timings = out / _TIMINGS / part.timings
    for name in part.workspaces():
        _copy_exported(work / name, scratch / name)
    builds_in = (*part.workspaces(), *part.made)
    for name in builds_in:
        if timings.is_dir() and not part.cold:
            shutil.copytree(timings, scratch / name / _TIMINGS_OF_A_WORKSPACE)

    def filled(text: str) -> str:
        places = {"OUT": out, "WORK": scratch, "SCRATCH": scratch, "WORKSPACES": work}
        return re.sub(r"(?<![^=])(OUT|WORK|SCRATCH|WORKSPACES)(?=/|$)", lambda match: str(places[match[1]]), text)

    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    usual = {**os.environ, "PYTHONUNBUFFERED": "1", "TMPDIR": str(scratch), "PYTHONPATH": path}
    commands = [[sys.executable, *map(filled, command)] for command in part.commands]
    started = time.monotonic()

    # One of each command while they run, one of the part when they have.
    logs = [out / f"{part.name}.{number}.log" for number in range(len(commands))]

    running: list[subprocess.Popen[bytes]] = []

    def run(number: int) -> str:
        left = seconds - (time.monotonic() - started)
        own = {name: filled(value).replace("COMMAND", str(number)) for name, value in part.variables.items()}
        return _run(commands[number], {**usual, **own}, logs[number], left, running) if left > 0 else _LATE

    with ThreadPoolExecutor(len(commands) if part.at_once else 1) as lanes, _interrupts_heeded():
        try:
            statuses = list(lanes.map(run, range(len(commands))))
        except KeyboardInterrupt:
            # Commands have sessions of their own, so that the terminal's interrupt is not theirs.
            lanes.shutdown(wait=False, cancel_futures=True)
            for process in running:
                _end(process)
            shutil.rmtree(scratch, ignore_errors=True)
            raise
    took = time.monotonic() - started
    text = "".join(log.read_text(encoding="utf-8", errors="replace") for log in logs if log.is_file())
    (out / f"{part.name}.log").write_text(text, encoding="utf-8")
    for log in logs:
        log.unlink(missing_ok=True)
    for name in builds_in:
        if (scratch / name / _TIMINGS_OF_A_WORKSPACE).is_dir():
            shutil.copytree(scratch / name / _TIMINGS_OF_A_WORKSPACE, timings, dirs_exist_ok=True)
    _keep_rejected(scratch, out / "rejected" / part.name)
    for path in (path for pattern in part.keep for path in scratch.glob(pattern)):
        shutil.copyfile(path, out / f"{part.name}-{path.name}")
    shutil.rmtree(scratch, ignore_errors=True)
    status = next((each for each in statuses if each != "done"), "done")
    result: dict[str, Any] = {"status": status, "seconds": round(took, 1)}
    if any("pytest" in command for command in part.commands):
        result["tests"] = test_results(text)
    if status != "done" and "pytest" not in part.commands[-1]:
        result["last_lines"] = text.splitlines()[-_TAIL_LINES:]
    return result


def _copy_exported(made: Path, copy: Path) -> None:
    copy.mkdir()
    for name in _EXPORTED:
        if (made / name).is_dir():
            shutil.copytree(made / name, copy / name)
        elif (made / name).is_file():
            shutil.copyfile(made / name, copy / name)


def _run(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    seconds: float,
    running: list[subprocess.Popen[bytes]],
) -> str:
    """Run a command in a process group of its own, which is added to ``running``; ``done``, or what became of it."""
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        running.append(process)
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            _end(process)
            return _LATE
    return "done" if code == 0 else f"exit {code}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command and what it started, by an interrupt first."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_GRACE_SECONDS)
    # Also when it has ended: what it started may be left.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def _interrupts_heeded() -> Iterator[None]:
    """What is started in here heeds SIGINT: jobs of a shell ignore it and hand that down, but no handler."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def test_results(log: str) -> dict[str, Any]:
    """Tests by outcome in pytest's log, and the names of those that failed; right for a log that was cut short too."""
    found = re.findall(r"^(\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED)", log, re.MULTILINE)
    counts = Counter(outcome.lower() for _, outcome in found)
    return {**counts, "not_passed": [name for name, outcome in found if outcome in ("FAILED", "ERROR")]}


def _keep_rejected(scratch: Path, folder: Path) -> None:
    """Records of engines that were not what was asked for: the builder's tests are made of such."""
    for number_of_file, path in enumerate(sorted(scratch.rglob("*.rejected.json"))):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / f"{number_of_file}-{path.parent.name}-{path.name}")


def _machine() -> dict[str, str]:
    gpu, driver = provenance.gpu()
    versions = provenance.package_versions(("tensorrt", "pycuda", "onnx", "numpy", "onnxruntime-gpu", "torch"))
    return {"gpu": gpu or "none", "driver": driver or "none", **versions, "sources": _sources()}


def _sources() -> str:
    return provenance.code_digest(*_SOURCES)[:12]


if __name__ == "__main__":
    main()
