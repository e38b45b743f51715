"""The tables of a round on a GPU machine, from the files that its parts left (`gpu_round`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shared.table import MISSING, number

#: How each part went: a JSON file per part in this folder of the round's.
PARTS = "parts"
_BEGIN = "<!-- written by gpu_round.py --write -->"
_END = "<!-- end of what gpu_round.py wrote -->"
_BACKENDS = {"onnx": "ONNX Runtime", "pytorch": "PyTorch", "compiled": "PyTorch, compiled"}


def read_parts(out: Path) -> dict[str, dict[str, Any]]:
    """Part to how it went, in the order in which they ran."""
    found = {path.stem: _read(path) for path in (out / PARTS).glob("*.json")}
    return dict(sorted(found.items(), key=lambda item: item[1].get("date", "")))


def tables(out: Path) -> str:
    """What is in the folder as Markdown."""
    parts = read_parts(out)
    sections = [_table_of_parts(parts)] if parts else []
    for engines, prefix, title in (
        ("gpu_latency", "", "The 121 m network's size"),
        ("demo_latency", "demo_", "The demo's model"),
    ):
        files = {"TensorRT, FP16": engines, **{title: f"{prefix}{name}_latency" for name, title in _BACKENDS.items()}}
        columns = {column: figures for column, name in files.items() if (figures := _read(out / f"{name}.json"))}
        if columns:
            sections.append(f"## {title}: from points on the host to boxes on the host\n\n{_latency(columns)}")
    sets = {path.stem.removeprefix("data_set_"): _read(path) for path in sorted(out.glob("data_set_*.json"))}
    # Older rounds kept nothing of the requests but how many a second there were.
    benches = {name: values["bench"] for name, values in sets.items() if "bench" in values}
    if benches:
        sections.append(f"## A request against the bare engines, FP16\n\n{_models(benches)}")
    if sets:
        sections.append(f"## A data set against the requests of its engines\n\n{_data_sets(sets)}")
    searched = {path.name.removesuffix("-pareto.json"): _read(path) for path in sorted(out.glob("*-pareto.json"))}
    if searched:
        sections.append(f"## Latency and metric by precision\n\n{_precisions(searched)}")
    figures = _read(out / "engines.json")
    if figures:
        sections.append(f"## Engines of the 121 m network's size\n\n{engines_table(figures['rows'])}")
    figures = _read(out / "int8.json")
    if figures:
        sections.append(f"## INT8\n\n{int8_table(figures['rows'])}")
    return "\n\n".join(sections) + "\n"


def write_into(page: Path, text: str) -> None:
    """Put the tables between the two marks of a page, in place of those that are there.

    Raises:
        ValueError: the page has no such marks.
    """
    before, begin, rest = page.read_text(encoding="utf-8").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not end:
        raise ValueError(f"{page} has no lines '{_BEGIN}' and '{_END}'")
    # A page has its own title, so the tables' come one deeper.
    deeper = f"\n{text}".replace("\n## ", "\n#### ")
    page.write_text(f"{before}{begin}{deeper}{end}{after}", encoding="utf-8")


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _table_of_parts(parts: Mapping[str, dict[str, Any]]) -> str:
    rows = []
    for name, result in parts.items():
        tests = result.get("tests", {})
        words = [f"{tests[key]} {key}" for key in ("passed", "failed", "error", "skipped") if key in tests]
        words += [f"`{failed}`" for failed in tests.get("not_passed", [])] + result.get("last_lines", [])[-1:]
        what = ", ".join(words).replace("|", "/")
        rows.append([name, result.get("status", MISSING), number(result.get("seconds"), 0), _when(result), what])
    machines = list(dict.fromkeys(_machine(result["machine"]) for result in parts.values() if "machine" in result))
    return "\n".join([*machines, "", _markdown(["part", "how it went", "seconds", "when, clocks", "what"], rows)])


def _machine(machine: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in machine.items())


def _when(result: Mapping[str, Any]) -> str:
    """When a part ran, and the clocks and limits of the GPU when it ended."""
    clocks = result.get("gpu_at_end", {})
    words = [result.get("date", MISSING)]
    if "sm_clock_mhz" in clocks:
        words.append(f"{clocks['sm_clock_mhz']} of {clocks.get('max_sm_clock_mhz', '?')} MHz")
    if "throttled_by" in clocks:
        words.append(f"throttled by {clocks['throttled_by']}")
    return ", ".join(words)


def _latency(columns: Mapping[str, dict[str, Any]]) -> str:
    """One line a figure, one column a backend; a run that was cut short gives what it has."""
    rows = []

    def row(what: str, key: str, write: Any) -> None:
        def cell(figures: dict[str, Any]) -> str:
            # Older rounds knew less of some of them.
            try:
                return str(write(figures[key]))
            except KeyError:
                return MISSING

        if any(key in figures for figures in columns.values()):
            rows.append([what, *map(cell, columns.values())])

    def times(values: dict[str, Any]) -> str:
        percentiles = ", ".join(f"{name} {number(values.get(name), 3)}" for name in ("median", "p90", "p99"))
        return f"{percentiles} ms"

    def counts(values: dict[str, Any]) -> str:
        return ", ".join(f"{count} {name}" for name, count in values.items())

    # Only the other backends tell: of TensorRT's engines it is part of the policy.
    if any(figures.get("settings", {}).get("tf32") for figures in columns.values()):
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
        lambda v: f"{v['per_second']:.1f} a second, one: {v['one_per_second']:.1f}; {v['gain']:.2f} times"
        + (
            f"; {v['busy']:.1%} of what the GPU does without the host, with one {v['busy_one']:.1%}"
            if "device_per_second" in v  # which older rounds did not measure: they meant something else by it
            else ""
        ),
    )  # fmt: skip
    row(
        "soak", "soak",
        lambda v: f"{v['requests']} requests, grown by {v['grown_bytes']} bytes, medians of tenths "
        f"{min(v['medians_of_tenths']):.3f} to {max(v['medians_of_tenths']):.3f} ms, p99 {number(v.get('p99'), 3)}",
    )  # fmt: skip
    row("state of the GPU", "conditions", lambda v: ", ".join(f"{name} {value}" for name, value in v.items()))
    return _markdown(["what", *columns], rows)


def _at(values: Any, *keys: str) -> Any:
    """What is found in objects within objects by these keys; None where one of them is not there."""
    for key in keys:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def _models(benches: Mapping[str, dict[str, Any]]) -> str:
    rows = []
    for name, bench in benches.items():
        median = _at(bench, "stages", "total", "median")
        engines = [_at(values, "compute", "median") for values in bench.get("engines", {}).values()]
        bare = sum(engines) if engines and None not in engines else None
        rows.append(
            [
                name, number(median, 3), number(_at(bench, "stages", "total", "p99"), 3), number(bare, 3),
                number(median / bare if median and bare else None, 2),
                number(_at(bench, "streams", "per_second"), 1), number(_at(bench, "streams", "gain"), 2),
                _at(bench, "conditions", "throttled_by") or MISSING,
            ]
        )  # fmt: skip
    header = ["model", "median ms", "p99 ms", "engines ms", "times", "two in flight a second", "gain", "throttled by"]
    return _markdown(header, rows)


def _data_sets(measured: Mapping[str, dict[str, Any]]) -> str:
    rows = []
    for name, values in measured.items():
        seconds = _at(values, "run", "processor_seconds")
        rows.append(
            [
                name, str(values.get("samples", MISSING)), number(values.get("bench per second"), 1),
                number(values.get("run per second"), 1), number(values.get("ratio"), 2),
                number(None if seconds is None else 1e3 * seconds, 1), values.get("said", MISSING),
            ]
        )  # fmt: skip
    header = ["model", "samples", "bench a second", "run a second", "ratio", "processors a sample ms", "the run says"]
    return _markdown(header, [[cell.replace("|", "/") for cell in row] for row in rows])


def _precisions(searched: Mapping[str, dict[str, Any]]) -> str:
    """What `evaluator pareto` wrote for each model."""
    rows = []
    for name, content in searched.items():
        for entry in (entry for entries in content["runs"].values() for entry in entries):
            interval = entry["drop_interval"]
            metric = "" if entry["metric_name"] is None else f"{entry['metric_name']} "
            rows.append(
                [
                    name, entry["label"].replace("|", "/"), str(len(entry["int8"])),
                    number(entry["latency_ms"], 3), number(entry["total_ms"], 3),
                    f"{metric}{number(entry['metric'], 2)}", number(entry["drop"], 2),
                    MISSING if interval is None else f"{interval['low']:+.2f} to {interval['high']:+.2f}",
                    number(entry["lowest_snr_db"], 1),
                ]
            )  # fmt: skip
    header = ["part", "choice", "in INT8", "engines ms", "request ms", "metric", "drop", "its interval", "SNR dB"]
    return _markdown(header, rows)


def _shares(row: dict[str, Any]) -> str:
    return ", ".join(f"{share:.0%} {name}" for name, share in row["achieved"]["share_of_matrix_layers"].items())


def engines_table(rows: Sequence[dict[str, Any]]) -> str:
    """What `benchmarks/trt_engines.py` measured."""
    cells = []
    for row in rows:
        if "error" in row:
            cells.append([row["policy"], row["error"].replace("|", "/"), *[MISSING] * 6])
            continue
        first = f"{row['first_build_s']:.1f}" + (" (cold)" if row["first_build_cold"] else "")
        cells.append(
            [
                row["policy"], row["component"], first, number(row["warm_build_s"], 1), f"{row['megabytes']:.1f}",
                f"{row['gpu_ms_median']:.3f}", f"{row['gpu_ms_p99']:.3f}",
                "; ".join([_shares(row), *row["rejected"]]),
            ]
        )  # fmt: skip
    header = ["policy", "component", "first build s", "warm s", "MB", "GPU median ms", "p99 ms", "matrix layers"]
    return _markdown(header, cells)


def int8_table(rows: Sequence[dict[str, Any]]) -> str:
    """What `benchmarks/int8.py` measured."""
    cells = []
    for row in rows:
        if "error" in row:
            cells.append([row["name"], row["error"].replace("|", "/"), *[MISSING] * 4])
            continue
        median, p99 = (number(row.get(f"gpu_ms_{name}"), 3) for name in ("median", "p99"))
        bound = sum(layer.get("roofline_ms", 0.0) for layer in row["layers"])
        cells.append([row["name"], median, p99, number(bound or None, 3), f"{row['megabytes']:.1f}", _shares(row)])
    return _markdown(["engine", "GPU median ms", "p99 ms", "roofline ms", "MB", "matrix layers"], cells)
