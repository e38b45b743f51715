"""`runtime bench`: the latency of a model on one sample, over and over, stage by stage."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict
from pathlib import Path

from runtime.model import open_model
from runtime.warm_up import warm_up
from shared.errors import UsageError
from shared.latency import TOTAL, summarise_stages
from shared.table import Table, number

_log = logging.getLogger("runtime")

_COLUMNS = ("mean", "std", "min", "median", "p90", "p95", "p99", "max")


def bench(
    work: Path,
    backend_name: str,
    device: str,
    *,
    sample_index: int | None = None,
    min_requests: int = 20,
    min_seconds: float = 5.0,
    max_warm_up_seconds: float = 60.0,
    data_root: Path | None = None,
    threads: int | None = None,
) -> str:
    """Measure requests one after the other, from points in host memory to boxes in host memory.

    Measuring is what the command is for: it is never up to date. Statistics go into the manifest's results under
    ``bench``, every single latency into ``bench/<name>.json``.

    Args:
        work: the workspace, with an exported model.
        backend_name: name of the backend.
        device: cpu, cuda, cuda:N, or an alias of the config.
        sample_index: the sample; None: the one that the model was traced with.
        min_requests: at least so many requests are measured.
        min_seconds: for at least so long.
        max_warm_up_seconds: the warm-up ends here, stable or not.
        data_root: where the data set lies, when not where the config says.
        threads: threads within an operation, None for the backend's default.

    Returns:
        A table.
    """
    model = open_model(work, backend_name, device, data_root, threads)
    index = model.config.data.sample_idx if sample_index is None else sample_index
    if not 0 <= index < len(model.dataset):
        raise UsageError(f"sample {index} is not in the data set", hint=f"choose 0 to {len(model.dataset) - 1}")
    stage = model.workspace.stage(
        f"bench:{model.name}",
        tool="runtime",
        config={**model.settings(), "sample": index, "min_requests": min_requests, "min_seconds": min_seconds},
        inputs=model.inputs(),
        versions=model.versions(),
    )
    with stage:
        session, pipeline = model.load()
        sample = model.dataset.sample(index)
        data = pipeline.read(sample).data
        warmth = warm_up(lambda: pipeline.infer(data).latency_ms[TOTAL], max_warm_up_seconds)
        if not warmth.stable:
            _log.warning(
                "the median did not settle within %.0f s of warm-up; is something else using this machine?",
                max_warm_up_seconds,
            )
        requests: list[dict[str, float]] = []
        started = time.perf_counter()
        while len(requests) < min_requests or time.perf_counter() - started < min_seconds:
            answer = pipeline.infer(data)
            requests.append(answer.latency_ms)
        statistics = summarise_stages(requests)
        result = {
            "stages": statistics,
            "warm_up": asdict(warmth),
            "sample": sample.token,
            "counters": answer.counters,
            "backend": session.settings,
        }
        with stage.artifact(f"bench/{model.name}.json", kind="latency") as path:
            path.write_text(json.dumps({**result, "requests_ms": requests}), encoding="utf-8")
        stage.result("bench", model.name, result)
    throughput = statistics[TOTAL]["throughput"]
    title = f"{model.name}, sample {index}, {len(requests)} requests, {throughput:.2f} a second"
    rows = [
        [name, *(number(values[column], 3) if column in values else "-" for column in _COLUMNS)]
        for name, values in statistics.items()
    ]
    return Table(title, ["stage [ms]", *_COLUMNS], rows).text()
