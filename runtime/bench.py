"""`runtime bench`: the latency of a model on one sample, over and over, stage by stage."""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime import engine_times
from runtime.backends import Session
from runtime.backends.tensorrt import TensorRTSession
from runtime.bench_tables import chrome_trace, engine_table, findings, layer_table, stage_table, throughput_line
from runtime.component_inputs import IndexInputs, index_inputs
from runtime.conditions import conditions
from runtime.input_buffers import InputBuffer, arrays_in
from runtime.model import Model, ModelOptions, open_model
from runtime.pipeline import DevicePipeline, Inference, Pipeline
from runtime.waiting import with_waiting
from runtime.warm_up import WarmUp, warm_up
from shared.answer import Answer
from shared.errors import UsageError
from shared.latency import (
    TOTAL,
    compare,
    median_interval,
    round_of,
    summarize,
    summarize_stages,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

_log = logging.getLogger("runtime")

# Requests with an event at every stage, where those slow a request down.
_STAGED_REQUESTS = 200

Requests = list[dict[str, float]]
# Requests, requests with stages, and the conditions that they were made under.
Measured = tuple[Requests, Requests, dict[str, str]]
# Input shapes by component and input.
EngineShapes = Mapping[str, Mapping[str, tuple[int, ...]]]


def bench(
    work: Path,
    backend_name: str,
    device: str,
    *,
    sample_index: int | None = None,
    min_requests: int = 20,
    min_seconds: float = 5.0,
    max_warm_up_seconds: float = 60.0,
    streams: int = 1,
    batch: int | None = None,
    page_locked: bool = False,
    like: str | None = None,
    profile: bool = False,
    trace: bool = False,
    against: str | None = None,
    processes: int = 1,
    **options: Unpack[ModelOptions],
) -> Answer:
    """Measure requests from the input in host memory to predictions in host memory. Returns tables.

    Measuring is what the command is for: it is never up to date. Statistics go into the manifest's results under
    ``bench``, every single latency into ``bench/<name>.json``.

    Args:
        work, backend_name, device, options: see `runtime.model.open_model`.
        sample_index: the sample; None: the one that the model was traced with.
        min_requests: at least so many requests are measured.
        min_seconds: for at least so long.
        max_warm_up_seconds: the warm-up ends here, stable or not.
        streams: requests in flight; more than one needs a pipeline on a GPU, and measures throughput besides.
        batch: a request has so many samples, from ``sample_index`` on, which the network takes at a time.
        page_locked: the input lies in memory that the GPU fetches from by itself.
        like: measure the bare engines too, as ``trtexec-10`` or ``trtexec-11`` does.
        profile: time every layer of the engines too, in a pass of its own.
        trace: write the stages of the staged requests as a Chrome trace.
        against: name of an earlier result to compare the total with.
        processes: measure in so many processes, one after another, each with a model and a warm-up of its own: what a
            latency differs by from process to process, `evaluator regress` can tell from a change only then.

    Raises:
        UsageError: an option that this backend or pipeline does not have, or no such sample or result.
    """
    model = open_model(work, backend_name, device, **options)
    index = model.config.data.sample_idx if sample_index is None else sample_index
    if not 0 <= index < len(model.dataset):
        raise UsageError(f"sample {index} is not in the data set", hint=f"choose 0 to {len(model.dataset) - 1}")
    other = _earlier(model, against)
    stage = model.stage("bench", {"sample": index, "min_requests": min_requests, "min_seconds": min_seconds})
    subject = _Subject(work, backend_name, device, options, index, batch, page_locked)
    with stage, subject.ready(model) as (session, pipeline, data):
        _check_options(pipeline, session, streams=streams, bare=like is not None or profile)
        warmth = settle(pipeline, data, max_warm_up_seconds)
        totals, staged, answer = measure(pipeline, data, min_requests, min_seconds)
        found = subject.conditions(model)
        rounds = [round_of(by_stage(totals, staged), found)]
        for _ in range(processes - 1):
            # Started afresh, and ended behind it.
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                another = process.submit(subject.measured, min_requests, min_seconds, max_warm_up_seconds)
                more, more_staged, others = another.result()
            rounds.append(round_of(by_stage(more, more_staged), others))
            totals, staged = totals + more, staged + more_staged
        statistics = _statistics(totals, staged)
        result: dict[str, Any] = {
            "stages": statistics,
            "warm_up": asdict(warmth),
            "sample": model.dataset.sample(index).token,
            "counters": answer.counters,
            "backend": session.settings,
            "conditions": found,
            "batch": batch,
            "page_locked": page_locked,
            "rounds": rounds,
            "memory": {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024},
        }
        parts = [stage_table(model, index, batch, len(totals), statistics)]
        parts += findings(statistics, list(model.spec.components), found)
        if streams > 1:
            result["streams"] = throughput(pipeline, data, streams, min_seconds)
            parts.append(throughput_line(result["streams"], statistics))
        given = index_inputs(model.spec, session, data) if like is not None or profile else {}
        if like is not None:
            result["engines"] = _bare_engines(session, _engine_shapes(pipeline, data, answer), given, like)
            parts.append(engine_table(result["engines"], statistics, like))
        if profile:
            result["layers"] = _layers(session, _engine_shapes(pipeline, data, answer), given)
            parts += [layer_table(name, layers) for name, layers in result["layers"].items()]
        if other is not None:
            result["against"] = {"run": against, "total": compare(statistics[TOTAL], other)}
            parts.append(f"total: {result['against']['total']} against {against}")
        requests = {**result, "requests_ms": totals, "staged_ms": staged}
        stage.text_artifact(f"bench/{model.name}.json", "latency", json.dumps(requests))
        if trace:
            stage.text_artifact(f"bench/{model.name}.trace.json", "trace", json.dumps(chrome_trace(staged)))
            parts.append(f"stages for chrome://tracing or Perfetto: bench/{model.name}.trace.json")
        stage.result("bench", model.name, {key: value for key, value in result.items() if key != "layers"})
    return Answer("\n\n".join(parts), {"run": model.name, "requests": len(totals), **result})


@dataclass(frozen=True)
class _Subject:
    """What is measured, so that another process can open it too; see `bench`."""

    work: Path
    backend: str
    device: str
    options: ModelOptions
    index: int
    batch: int | None
    page_locked: bool

    @contextlib.contextmanager
    def ready(self, model: Model) -> Iterator[tuple[Session, Pipeline, Any]]:
        """The model's session, the pipeline that takes requests, and the input of one.

        Raises:
            UsageError: what is asked for needs a pipeline on a GPU, or one that takes batches.
        """
        session, one = model.load()
        pipeline = one if self.batch is None else _of_batches(one, self.batch)
        dataset = model.dataset
        samples = [dataset.sample((self.index + number) % len(dataset)) for number in range(self.batch or 1)]
        inputs = [one.read(sample).data for sample in samples]
        with contextlib.ExitStack() as locked:
            if self.page_locked:
                inputs = [locked.enter_context(_page_locked(one, data)) for data in inputs]
            yield session, pipeline, inputs[0] if self.batch is None else inputs

    def conditions(self, model: Model) -> dict[str, str]:
        """What tells whether what was measured just now can be compared with another measurement."""
        memory = {"memory": "page-locked"} if self.page_locked else {}
        of_several = {"batch": str(self.batch)} if self.batch is not None else {}
        threads, sample = str(model.threads or "default"), str(self.index)
        return conditions(model.device, threads=threads, sample=sample, **memory, **of_several)

    def measured(self, min_requests: int, min_seconds: float, max_warm_up_seconds: float) -> Measured:
        """What this process measures, with a model and a warm-up of its own."""
        model = open_model(self.work, self.backend, self.device, **self.options)
        with self.ready(model) as (_, pipeline, data):
            settle(pipeline, data, max_warm_up_seconds)
            totals, staged, _ = measure(pipeline, data, min_requests, min_seconds)
            return totals, staged, self.conditions(model)


def _of_batches(pipeline: Pipeline, batch: int) -> Pipeline:
    if not isinstance(pipeline, DevicePipeline):
        raise UsageError(f"--batch {batch}", hint="several samples in a request need a pipeline on a GPU")
    return pipeline.batch(batch)


def _earlier(model: Model, name: str | None) -> Mapping[str, float] | None:
    """The total of an earlier result."""
    if name is None:
        return None
    results = model.workspace.manifest().results.get("bench", {})
    if name not in results:
        raise UsageError(f"there is no bench result '{name}'", hint=f"there are: {', '.join(results) or 'none'}")
    total: Mapping[str, float] = results[name]["stages"][TOTAL]
    if "median_low" not in total:
        raise UsageError(f"bench result '{name}' has no interval", hint="measure it again with this version")
    return total


@contextlib.contextmanager
def _page_locked(pipeline: Pipeline, data: Any) -> Iterator[Any]:
    """An input where a run's readers leave theirs: in memory that the GPU fetches from by itself within the block.

    Raises:
        UsageError: the pipeline does not run on a GPU.
    """
    if not isinstance(pipeline, DevicePipeline):
        raise UsageError("--page-locked", hint="it needs a pipeline on a GPU")
    packing = pipeline.interface.packing
    with contextlib.closing(InputBuffer.make()) as buffer:
        placed, end = buffer.write(packing.pack(data))
        mapped = buffer.mapped(end)
        with pipeline.page_locked(mapped):
            yield packing.unpack(arrays_in(mapped, placed))


def _check_options(pipeline: Pipeline, session: Session, *, streams: int, bare: bool) -> None:
    if streams > 1 and not isinstance(pipeline, DevicePipeline):
        raise UsageError(f"--streams {streams}", hint="several requests in flight need a pipeline on a GPU")
    if bare and not (isinstance(pipeline, DevicePipeline) and isinstance(session, TensorRTSession)):
        raise UsageError("--like and --profile measure engines", hint="they need --backend tensorrt, without --steps")


def _request(pipeline: Pipeline, data: Any) -> Inference:
    """One request; without the events of the stages where they can be left out."""
    if not isinstance(pipeline, DevicePipeline):
        return pipeline.infer(data)
    pipeline.submit(data)
    return pipeline.collect()


def settle(pipeline: Pipeline, data: Any, max_seconds: float) -> WarmUp:
    """Make requests until their median has settled, or the time is up."""
    warmth = warm_up(lambda: _request(pipeline, data).latency_ms[TOTAL], max_seconds)
    if not warmth.stable and max_seconds > 0:
        _log.warning(
            "the median did not settle within %.0f s of warm-up; is something else using this machine?", max_seconds
        )
    return warmth


def measure(
    pipeline: Pipeline, data: Any, min_requests: int, min_seconds: float
) -> tuple[Requests, Requests, Inference]:
    """Latencies of requests, of requests with stages (the same ones where stages cost nothing), and the last answer."""
    requests: Requests = []
    started = time.perf_counter()
    while len(requests) < min_requests or time.perf_counter() - started < min_seconds:
        answer = with_waiting(partial(_request, pipeline, data))
        requests.append(answer.latency_ms)
    if not isinstance(pipeline, DevicePipeline):
        return requests, requests, answer
    staged = [pipeline.infer(data).latency_ms for _ in range(_STAGED_REQUESTS)]
    return requests, staged, answer


def by_stage(totals: Requests, staged: Requests) -> dict[str, list[float]]:
    """Milliseconds by stage; of stages that the plain requests have too, the total first of all, those of these."""
    return {name: [request[name] for request in source] for source in (staged, totals) for name in source[0]}


def _statistics(totals: Requests, staged: Requests) -> dict[str, dict[str, float]]:
    stages = by_stage(totals, staged)
    statistics = summarize_stages(stages)
    for name, values in statistics.items():
        values["median_low"], values["median_high"] = median_interval(stages[name])
    return statistics


def throughput(pipeline: Pipeline, data: Any, streams: int, min_seconds: float) -> dict[str, float]:
    """Requests a second with one lane, and with ``streams`` of them taken in turn."""
    assert isinstance(pipeline, DevicePipeline)
    lanes = [pipeline, *(pipeline.another() for _ in range(streams - 1))]
    alone = _rounds(lanes[:1], data, min_seconds)
    together = _rounds(lanes, data, min_seconds)
    return {"streams": streams, "one_per_second": alone, "per_second": together, "gain": together / alone}


def _rounds(lanes: Sequence[DevicePipeline[Any]], data: Any, min_seconds: float) -> float:
    """Requests a second: each lane in turn answers and gets the next request."""
    for lane in lanes:
        lane.submit(data)
    finished = 0
    # The first rounds are not counted: clocks and caches settle.
    started = time.perf_counter() + min_seconds / 10
    while True:
        for lane in lanes:
            lane.collect()
            lane.submit(data)
            finished += time.perf_counter() >= started
        elapsed = time.perf_counter() - started
        if elapsed >= min_seconds:
            break
    for lane in lanes:
        lane.collect()
    return finished / elapsed


def _engine_shapes(pipeline: Pipeline, data: Any, answer: Inference) -> EngineShapes:
    assert isinstance(pipeline, DevicePipeline)
    return pipeline.input_shapes(data, answer.counters)


def _bare_engines(
    session: Session, shapes_of: EngineShapes, given: IndexInputs, like: str
) -> dict[str, dict[str, Any]]:
    assert isinstance(session, TensorRTSession)
    results = {}
    for component, shapes in shapes_of.items():
        times = engine_times.measure(session, component, shapes, like, given=given.get(component, {}))
        results[component] = {
            "shapes": {name: list(shape) for name, shape in shapes.items()},
            "compute": summarize(times.compute_ms),
            "latency": summarize(times.latency_ms),
            "enqueue": summarize(times.enqueue_ms),
            "throughput": times.throughput,
        }
    return results


def _layers(session: Session, shapes_of: EngineShapes, given: IndexInputs) -> dict[str, dict[str, float]]:
    assert isinstance(session, TensorRTSession)
    return {
        component: engine_times.layer_times(session, component, shapes, given.get(component, {}))
        for component, shapes in shapes_of.items()
    }
