"""What `runtime bench` shows of what it measured, and its trace for Chrome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runtime.model import Model
from shared.latency import MIN_SAMPLES, NOT_STAGES, TOTAL, disturbance
from shared.table import MISSING, Table, number

_COLUMNS = ("mean", "std", "min", "median", "p90", "p95", "p99", "max")
# Layers beyond these are in the file alone.
_LAYERS_SHOWN = 15

#: By stage and the name of a statistic.
Statistics = Mapping[str, Mapping[str, float]]


def stage_table(model: Model, index: int, batch: int | None, count: int, statistics: Statistics) -> str:
    """Every stage's statistics.

    Args:
        model: what was measured.
        index, batch: the first sample, and how many a request had, see `runtime.bench.bench`.
        count: of requests.
        statistics: of the stages.
    """
    per_second = statistics[TOTAL]["throughput"]
    samples = f"sample {index}" if batch is None else f"{batch} samples a request, from {index} on"
    title = f"{model.name}, {samples}, {count} requests, {per_second:.2f} a second"
    disturbed = disturbance(statistics[TOTAL])
    title += "" if disturbed is None else f"; {disturbed}"
    rows = [
        [
            name,
            *(number(values[column], 3) if column in values else MISSING for column in _COLUMNS),
            f"{values['median_low']:.3f}..{values['median_high']:.3f}" if values["samples"] >= MIN_SAMPLES else MISSING,
        ]
        for name, values in statistics.items()
    ]
    return Table(title, ["stage [ms]", *_COLUMNS, "median 95 %"], rows).text()


def findings(statistics: Statistics, components: Sequence[Any], conditions: Mapping[str, str]) -> list[str]:
    """The bottleneck, the components' share, and the state of the GPU."""
    names = [component.name for component in components]
    stages = {name: values["median"] for name, values in statistics.items() if name not in NOT_STAGES}
    whole = sum(stages.values())
    if whole == 0:
        return []
    slowest = max(stages, key=lambda name: stages[name])
    share = sum(stages.get(name, 0.0) for name in names) / whole
    lines = [f"bottleneck: {slowest}, {stages[slowest] / whole:.0%} of the stages; the components are {share:.0%}"]
    if conditions:
        lines.append(", ".join(f"{name} {value}" for name, value in conditions.items()))
    return lines


def throughput_line(streams: Mapping[str, float], statistics: Statistics) -> str:
    """Several requests in flight against one at a time."""
    latency = statistics[TOTAL]["median"]
    return (
        f"{streams['streams']} streams: {streams['per_second']:.1f} requests a second, {streams['gain']:.2f} times one "
        f"stream's {streams['one_per_second']:.1f} (one at a time takes {latency:.3f} ms)"
    )


def engine_table(engines: Mapping[str, Mapping[str, Any]], statistics: Statistics, like: str) -> str:
    """The bare engines, and what the pipeline takes above them."""
    rows = [
        [
            name,
            *(number(values["compute"].get(column), 3) for column in ("median", "p99")),
            number(values["latency"]["median"], 3),
            number(values["enqueue"]["median"], 3),
            number(values["throughput"], 1),
        ]
        for name, values in engines.items()
    ]
    columns = ["engine [ms]", "compute", "compute p99", "latency", "enqueue", "a second"]
    engines_alone = sum(values["compute"]["median"] for values in engines.values())
    total = statistics[TOTAL]["median"]
    overhead = (
        f"the pipeline takes {total:.3f} ms, the engines alone {engines_alone:.3f}: {total / engines_alone:.3f} times, "
        f"{total - engines_alone:.3f} ms above"
    )
    return f"{Table(f'bare engines as {like} measures them', columns, rows).text()}\n{overhead}"


def layer_table(component: str, layers: Mapping[str, float]) -> str:
    """The slowest layers of an engine."""
    whole = sum(layers.values())
    slowest = sorted(layers.items(), key=lambda item: -item[1])[:_LAYERS_SHOWN]
    rows = [[name[:100], number(value, 3), f"{value / whole:.1%}"] for name, value in slowest]
    title = f"{component}: {len(layers)} layers, {whole:.3f} ms with the profiler on"
    return Table(title, ["layer", "ms", "share"], rows).text()


def chrome_trace(staged: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Stages one after the other, in the format of Chrome's tracing (times in microseconds)."""
    events: list[dict[str, Any]] = []
    now = 0.0
    for number_of_request, request in enumerate(staged):
        begin = now
        for stage, milliseconds in request.items():
            if stage in NOT_STAGES:
                continue
            events.append({"name": stage, "ph": "X", "ts": now, "dur": milliseconds * 1e3, "pid": 0, "tid": 1})
            now += milliseconds * 1e3
        name = f"request {number_of_request}"
        events.append({"name": name, "ph": "X", "ts": begin, "dur": request[TOTAL] * 1e3, "pid": 0, "tid": 0})
        now = max(now, begin + request[TOTAL] * 1e3)
    return {"traceEvents": events, "displayTimeUnit": "ms"}
