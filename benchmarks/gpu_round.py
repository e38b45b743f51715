"""Everything that only a GPU can show, in the order of what it is worth, each part with a time limit of its own.

    python benchmarks/gpu_round.py --out gpu-round                              all of it: half an hour on an H200
    python benchmarks/gpu_round.py --out gpu-round --parts runtime --minutes 9  where one command may not run that long
    python benchmarks/gpu_round.py --out gpu-round --table                      the tables of what is there, once more

A part that fails or runs out of time costs none of the others. ``round.json`` says after each part how it went, every
part leaves its log and figures beside it, and ``round.md`` has them as tables, for benchmarks/README.md. Several calls
can fill one folder. The reports of engines that were rejected are kept too.
"""

from __future__ import annotations

import argparse
import contextlib
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runtime.conditions import gpu_conditions
from shared import provenance
from shared.table import MISSING, number

ROOT = Path(__file__).resolve().parents[1]
# A part with less than this left is not begun.
_LEAST_SECONDS = 20.0
# A command that is interrupted at its limit has so long to say what it found, as pytest does with its failures.
_GRACE_SECONDS = 20.0
_TAIL_LINES = 4
_LATE = "out of time"
# What engines are built from, and programs.
_EXPORTED = ("onnx", "pytorch", "ranges", "manifest.json")


@dataclass(frozen=True)
class Part:
    """One or more commands of the round.

    Attributes:
        name: of its log.
        seconds: its limit.
        commands: what Python is called with, one after the other; ``OUT`` stands for the folder, ``DEMO`` for a copy of
            the demo's workspace.
        variables: of its environment, likewise.
    """

    name: str
    seconds: float
    commands: Sequence[Sequence[str]]
    variables: dict[str, str] = field(default_factory=dict)


_PYTEST = ("-m", "pytest", "-m", "gpu", "-v", "--tb=short", "--continue-on-collection-errors", "-p", "no:cacheprovider")
_NO_LIBRARIES = ("--set", "tensorrt.tactic_sources=[]")
_LATENCY_TESTS = "tests/gpu/test_runtime_tensorrt.py"
_INT8_TESTS = "tests/gpu/test_int8.py"
_CUDA_TESTS = "tests/gpu/test_runtime_on_cuda.py"
_BACKENDS_TESTS = "tests/gpu/test_latency_of_backends.py"
# The last: every step of a search builds an engine.
_BISECT_TESTS = "tests/gpu/test_bisect_with_tensorrt.py"
_OWN_PARTS = (_LATENCY_TESTS, _INT8_TESTS, _CUDA_TESTS, _BACKENDS_TESTS, _BISECT_TESTS)
# Each backend in a process of its own: one that crashes takes no other along.
_BACKENDS = {"onnx": ("onnx",), "pytorch": ("pytorch",), "compiled": ("pytorch", "--compile")}
_BUILD = ("-c", "from trt_builder.cli import cli; cli()", "build", "--target", "tensorrt", "--work", "DEMO")


def _other_tests() -> list[str]:
    """Those that no other part has; the kernels first."""
    files = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests" / "gpu").glob("test_*.py"))
    rest = [name for name in files if name not in _OWN_PARTS]
    return ["tests/unit/test_cuda_kernels.py", *rest, _BISECT_TESTS]


PARTS = (
    # Latency, memory, streams and soak with engines of the 121 m network's size, and what is asked of them.
    Part("runtime", 540, [(*_PYTEST, _LATENCY_TESTS)], {"SOAK": "20000", "FIGURES": "OUT/gpu_latency.json"}),
    # The kernels of all pipelines; the builder's policies, refit, caches; bisection.
    Part("tests", 480, [(*_PYTEST, *_other_tests())]),
    Part(
        "engines", 420,
        [("benchmarks/trt_engines.py", *_NO_LIBRARIES, "--out", "OUT/engines.json", "--dump", "OUT/reports")],
    ),
    Part("int8", 480, [(*_PYTEST, _INT8_TESTS), ("benchmarks/int8.py", *_NO_LIBRARIES, "--out", "OUT/int8.json")]),
    Part("demo", 180, [("benchmarks/trt_engines.py", "--work", "DEMO", *_NO_LIBRARIES, "--out", "OUT/demo.json")]),
    Part(
        "demo-latency", 120,
        [
            (*_BUILD, *_NO_LIBRARIES, "--set", "tensorrt.precision_policy=fp16"),
            ("benchmarks/gpu_latency.py", "--work", "DEMO", "--soak", "2000", "--out", "OUT/demo_latency.json"),
        ],
    ),
    # The same on ONNX Runtime and PyTorch, where their GPU builds are installed.
    Part("backends-tests", 150, [(*_PYTEST, _CUDA_TESTS)]),
    Part("backends", 420, [(*_PYTEST, _BACKENDS_TESTS, "-k", name) for name in _BACKENDS], {"FIGURES": "OUT"}),
    Part(
        "demo-backends", 180,
        [
            (
                "benchmarks/gpu_latency.py", "--work", "DEMO", "--backend", *options,
                "--requests", "500", "--soak", "1000", "--out", f"OUT/demo_{name}_latency.json",
            )
            for name, options in _BACKENDS.items()
        ],
    ),
)  # fmt: skip


def main() -> None:
    """Run the parts, and write the tables after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True, help="folder for logs, figures and tables")
    parser.add_argument("--minutes", type=float, default=30.0, help="for all parts together")
    parser.add_argument("--parts", nargs="+", choices=[part.name for part in PARTS], help="these alone, in their order")
    parser.add_argument("--demo", type=Path, default=Path("work/centerpoint"), help="workspace of the demo's model")
    parser.add_argument("--table", action="store_true", help="run nothing, only write the tables")
    options = parser.parse_args()
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if not options.table:
        chosen = [part for part in PARTS if options.parts is None or part.name in options.parts]
        run_parts(chosen, out, options.demo.resolve(), time.monotonic() + 60 * options.minutes)
    text = tables(out)
    (out / "round.md").write_text(text, encoding="utf-8")
    print(text)


def run_parts(parts: Sequence[Part], out: Path, demo: Path, end: float) -> None:
    """Run parts one after the other until the time is up; ``round.json`` tells after each how it went."""
    state = _state(out)
    state["machine"] = _machine()
    for part in parts:
        left = end - time.monotonic()
        if left < _LEAST_SECONDS:
            result: dict[str, Any] = {"status": "no time left"}
        elif not demo.is_dir() and any(item.startswith("DEMO") for command in part.commands for item in command):
            result = {"status": f"no workspace {demo}"}
        else:
            result = run_part(part, out, demo, min(part.seconds, left))
        state["parts"][part.name] = result
        print(f"{part.name}: {json.dumps(result)}", flush=True)
        (out / "round.json").write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
        (out / "round.md").write_text(tables(out), encoding="utf-8")


def run_part(part: Part, out: Path, demo: Path, seconds: float) -> dict[str, Any]:
    """Run one part, its output in ``<name>.log``; at its limit it is interrupted, then killed with all it started."""

    # What pytest and the tools leave in temporary folders is looked through for records of rejected engines.
    scratch = Path(tempfile.mkdtemp(prefix=f"{part.name}-"))
    # The part builds in a copy: the demo's own engines and results stay as they are.
    copy = scratch / "demo"
    for name in _EXPORTED:
        if (demo / name).is_dir():
            shutil.copytree(demo / name, copy / name)
        elif (demo / name).is_file():
            copy.mkdir(exist_ok=True)
            shutil.copyfile(demo / name, copy / name)

    def filled(text: str) -> str:
        return re.sub(r"^(OUT|DEMO)(?=/|$)", lambda match: str({"OUT": out, "DEMO": copy}[match[1]]), text)

    variables = {name: filled(value) for name, value in part.variables.items()}
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TMPDIR": str(scratch), **variables}
    log = out / f"{part.name}.log"
    log.write_text("", encoding="utf-8")
    started = time.monotonic()
    statuses = []
    for command in part.commands:
        left = seconds - (time.monotonic() - started)
        if left <= 0:
            statuses.append(_LATE)
            break
        statuses.append(_run([sys.executable, *map(filled, command)], environment, log, left))
    status = next((each for each in statuses if each != "done"), "done")
    _keep_rejected(scratch, out / "rejected" / part.name)
    shutil.rmtree(scratch, ignore_errors=True)
    text = log.read_text(encoding="utf-8", errors="replace")
    result: dict[str, Any] = {"status": status, "seconds": round(time.monotonic() - started, 1)}
    if any("pytest" in command for command in part.commands):
        result["tests"] = test_results(text)
    if status != "done" and "pytest" not in part.commands[-1]:
        result["last_lines"] = text.splitlines()[-_TAIL_LINES:]
    return result


def _run(command: Sequence[str], environment: Mapping[str, str], log: Path, seconds: float) -> str:
    """Run a command in a process group of its own; ``done``, or what became of it."""
    with log.open("a", encoding="utf-8") as file:
        with _interrupts_heeded():
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_GRACE_SECONDS)
            # Also when it has ended: what it started may be left.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return _LATE
    return "done" if code == 0 else f"exit {code}"


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


def _state(out: Path) -> dict[str, Any]:
    path = out / "round.json"
    if not path.is_file():
        return {"parts": {}}
    state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return state


def _machine() -> dict[str, Any]:
    gpu, driver = provenance.gpu()
    versions = provenance.package_versions(("tensorrt", "pycuda", "onnx", "numpy", "onnxruntime-gpu", "torch"))
    return {"gpu": gpu, "driver": driver, "python": sys.version.split()[0], **versions, "at_start": gpu_conditions(0)}


# -- tables -----------------------------------------------------------------------------------------------------------


def tables(out: Path) -> str:
    """What is in the folder as Markdown."""
    state = _state(out)
    sections = [_table_of_parts(state)] if state["parts"] else []
    for engines, prefix, title in (
        ("gpu_latency", "", "The 121 m network's size"),
        ("demo_latency", "demo_", "The demo's model"),
    ):
        files = {"TensorRT, FP16": engines, **{_TITLES[name]: f"{prefix}{name}_latency" for name in _BACKENDS}}
        columns = {column: figures for column, name in files.items() if (figures := _read(out / f"{name}.json"))}
        if columns:
            sections.append(f"## {title}: from points on the host to boxes on the host\n\n{_latency(columns)}")
    for name, title in (("engines", "Engines of the 121 m network's size"), ("demo", "Engines of the demo's model")):
        figures = _read(out / f"{name}.json")
        if figures:
            sections.append(f"## {title}\n\n{_engines(figures['rows'])}")
    figures = _read(out / "int8.json")
    if figures:
        sections.append(f"## INT8\n\n{_int8(figures['rows'])}")
    return "\n\n".join(sections) + "\n"


_TITLES = {"onnx": "ONNX Runtime", "pytorch": "PyTorch", "compiled": "PyTorch, compiled"}


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _table_of_parts(state: dict[str, Any]) -> str:
    rows = []
    for name, result in state["parts"].items():
        tests = result.get("tests", {})
        words = [f"{tests[key]} {key}" for key in ("passed", "failed", "error", "skipped") if key in tests]
        words += [f"`{failed}`" for failed in tests.get("not_passed", [])] + result.get("last_lines", [])[-1:]
        rows.append([name, result["status"], number(result.get("seconds"), 0), ", ".join(words).replace("|", "/")])
    machine = ", ".join(f"{key} {value}" for key, value in state.get("machine", {}).items() if isinstance(value, str))
    return f"{machine}\n\n{_markdown(['part', 'how it went', 'seconds', 'what'], rows)}"


def _latency(columns: Mapping[str, dict[str, Any]]) -> str:
    """What issue 5 asks for, one line a figure, one column a backend; a run that was cut short gives what it has."""
    rows = []

    def row(what: str, key: str, write: Any) -> None:
        if any(key in figures for figures in columns.values()):
            rows.append([what, *(write(each[key]) if key in each else MISSING for each in columns.values())])

    def times(values: dict[str, Any]) -> str:
        percentiles = ", ".join(f"{name} {number(values.get(name), 3)}" for name in ("median", "p90", "p99"))
        return f"{percentiles} ms"

    def counts(values: dict[str, Any]) -> str:
        return ", ".join(f"{count} {name}" for name, count in values.items())

    row("TF32 in", "settings", lambda settings: ", ".join(settings.get("tf32", [])) or MISSING)
    row("a request", "total", times)
    row("the same, later", "total_again", times)
    row("enqueueing it", "enqueue", times)
    row("with points in page-locked memory", "total_page_locked", times)
    row("enqueueing that", "enqueue_page_locked", times)
    row("stages [ms]", "stages", lambda stages: ", ".join(f"{name} {value:.3f}" for name, value in stages.items()))
    row("share of the components", "share_of_components", "{:.0%}".format)
    for like in ("trtexec-11", "trtexec-10"):
        row(
            f"against the engines as {like}", f"against {like}",
            lambda v: f"{v['times']:.3f} times their {v['engines_ms']:.3f} ms, {v['above_ms']:.3f} ms above",
        )  # fmt: skip
    row("device memory after warm-up", "grown_bytes", lambda grown: f"grown by {grown} bytes")
    row(
        "a driver like AWML's",
        "awml_like",
        lambda v: f"{times(v['total'])}; its engine calls {times(v['engines_only'])}",
    )
    row(
        "faster than that", "times_faster_than_awml_like",
        lambda v: f"{v['total']:.1f} times; than its engine calls {v['engines_only']:.1f} times",
    )  # fmt: skip
    row("boxes against that driver's", "boxes_against_awml_like", str)
    row("boxes against NumPy's steps", "against_numpy", counts)
    row("boxes of a second pass", "against_itself", counts)
    row(
        "pillars with other numbers of rows", "rows_of_the_encoder",
        lambda v: f"{len(v['different'])} of {v['sizes']} differ"
        + (f", at most by {max(v['different'].values()):.2g}" if v["different"] else ""),
    )  # fmt: skip
    row("streams", "streams_refused", str)
    row(
        "two streams", "streams",
        lambda v: f"{v['several']:.1f} a second, one: {v['one']:.1f}; {v['gain']:.2f} times"
        + (f"; the GPU is busy {v['busy']:.1%} of the time, with one {v['busy_one']:.1%}" if "busy" in v else ""),
    )  # fmt: skip
    row(
        "soak", "soak",
        lambda v: f"{v['requests']} requests, grown by {v['grown_bytes']} bytes, medians of tenths "
        f"{min(v['medians_of_tenths']):.3f} to {max(v['medians_of_tenths']):.3f} ms, p99 {number(v.get('p99'), 3)}",
    )  # fmt: skip
    row("state of the GPU", "conditions", lambda v: ", ".join(f"{name} {value}" for name, value in v.items()))
    return _markdown(["what", *columns], rows)


def _shares(row: dict[str, Any]) -> str:
    return ", ".join(f"{share:.0%} {name}" for name, share in row["achieved"]["share_of_matrix_layers"].items())


def _engines(rows: Sequence[dict[str, Any]]) -> str:
    cells = []
    for row in rows:
        if "error" in row:
            cells.append([row["policy"], row["error"].replace("|", "/"), *[MISSING] * 6])
            continue
        first = f"{row['first_build_s']:.1f}" + (" (cold)" if row["first_build_cold"] else "")
        cells.append(
            [
                row["policy"], row["component"], first, f"{row['warm_build_s']:.1f}", f"{row['megabytes']:.1f}",
                f"{row['gpu_ms_median']:.3f}", f"{row['gpu_ms_p99']:.3f}",
                "; ".join([_shares(row), *row["rejected"]]),
            ]
        )  # fmt: skip
    header = ["policy", "component", "first build s", "warm s", "MB", "GPU median ms", "p99 ms", "matrix layers"]
    return _markdown(header, cells)


def _int8(rows: Sequence[dict[str, Any]]) -> str:
    cells = []
    for row in rows:
        if "error" in row:
            cells.append([row["name"], row["error"].replace("|", "/"), *[MISSING] * 4])
            continue
        median, p99 = (number(row.get(f"gpu_ms_{name}"), 3) for name in ("median", "p99"))
        bound = sum(layer.get("roofline_ms", 0.0) for layer in row["layers"])
        cells.append([row["name"], median, p99, number(bound or None, 3), f"{row['megabytes']:.1f}", _shares(row)])
    return _markdown(["engine", "GPU median ms", "p99 ms", "roofline ms", "MB", "matrix layers"], cells)


if __name__ == "__main__":
    main()
