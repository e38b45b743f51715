"""CenterPoint on a GPU against the bare engines and against a driver like AWML's, all in one run.

The engines are those of the workspace. Frames are synthetic, of 200,000 points; the score threshold is chosen so that
the model, whatever its weights, has about a thousand cells above it.

    python benchmarks/gpu_latency.py --work work/centerpoint-121m --out gpu_latency.json
    python benchmarks/gpu_latency.py --work work/centerpoint-121m --out gpu_latency.json --soak 20000
    python benchmarks/gpu_latency.py --work work/centerpoint-121m --out onnx_latency.json --backend onnx
    python benchmarks/gpu_latency.py --work work/centerpoint-121m --out pytorch_latency.json --backend pytorch --compile

``--rows`` names a workspace with the same engines built with ``tensorrt.input_formats=rows``, as every program could
load them: the bare engines and AWML's driver are then those.

AWML's driver allocates device memory and a stream for every request, copies from pageable memory, and takes every
tensor through the host; its steps are NumPy here. They are not part of ``engines_only_ms``. With ONNX Runtime and
PyTorch it hands over and takes back arrays of the host. They have no bare engines: the share of the components is taken
from the stages.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.drift import Part, drift
from runtime import engine_times
from runtime.backends import BackendModule, Compilable, Session, tensorrt
from runtime.backends import backend as backend_called
from runtime.backends.tensorrt import TensorRTSession
from runtime.bench import throughput
from runtime.conditions import gpu_conditions
from runtime.cuda.gpu import driver
from runtime.cuda.session import DeviceSession
from runtime.devices import Device
from runtime.lidar.device_voxels import row_buckets
from runtime.model import HostOnly
from runtime.models.centerpoint.device import CenterPointOnDevice
from runtime.models.centerpoint.device_encoder import BUCKETS, kernel_form
from runtime.models.centerpoint.encoder import PillarEncoder
from runtime.models.centerpoint.parameters import ENCODER, HEAD, read_parameters
from runtime.models.centerpoint.pipeline import build
from runtime.pipeline import DevicePipeline, Inference
from runtime.waiting import waited_ms
from shared.engines import as_taken, dtype_of, tensor_names
from shared.errors import InferenceError
from shared.json_reader import read_json
from shared.latency import median_interval, summarize
from shared.provenance import package_versions
from shared.spec import ComponentSpec, ModelSpec
from shared.workspace import Workspace

if TYPE_CHECKING:
    from typing_extensions import Self

Float32 = npt.NDArray[np.float32]

CELLS_ABOVE = 1000
WARM_UP_REQUESTS = 100
STAGED_REQUESTS = 200
AWML_REQUESTS = 20
# For the bare engines and for each throughput.
SECONDS = 2.0
SAME_SET = 1e-4
CLOCK_SECONDS = 0.05
COLUMNS = ("centers", "sizes", "yaws", "velocities", "labels", "scores")


def frame(count: int, features: int, seed: int) -> Float32:
    """(count, features) x, y, z, then zeros, thinning out with range; 200,000 points fill 89,000 pillars of 0.24 m."""
    rng = np.random.default_rng(seed)
    distance = np.minimum(rng.gamma(1.82, 13.0, count), 122.0)
    angle = rng.uniform(-np.pi, np.pi, count)
    points = np.zeros((count, features), np.float32)
    points[:, 0], points[:, 1] = distance * np.cos(angle), distance * np.sin(angle)
    points[:, 2] = rng.uniform(-2.5, 4.5, count)
    return points


class AwmlEngines:
    """Engines driven as AWML's TensorRT pipeline drives them."""

    def __init__(self, session: TensorRTSession) -> None:
        self._engines = {name: session.new_engine(name) for name in (ENCODER, HEAD)}
        self._contexts = {name: engine.create_execution_context() for name, engine in self._engines.items()}

    def run(self, component: str, inputs: Any) -> dict[str, npt.NDArray[Any]]:
        """One engine: memory, stream and copies anew."""
        engine, context = self._engines[component], self._contexts[component]
        stream = driver.Stream()
        memory = []
        for name, array in inputs.items():
            contiguous = as_taken(tensorrt.trt, engine, name, array)
            context.set_input_shape(name, array.shape)
            device = driver.mem_alloc(contiguous.nbytes)
            memory.append(device)
            context.set_tensor_address(name, int(device))
            driver.memcpy_htod_async(device, contiguous, stream)
        outputs = {}
        for name in tensor_names(tensorrt.trt, engine, inputs=False):
            host = np.empty(tuple(context.get_tensor_shape(name)), dtype_of(tensorrt.trt, engine, name))
            device = driver.mem_alloc(host.nbytes)
            memory.append(device)
            context.set_tensor_address(name, int(device))
            outputs[name] = (host, device)
        context.execute_async_v3(stream.handle)
        for host, device in outputs.values():
            driver.memcpy_dtoh_async(host, device, stream)
        stream.synchronize()
        for device in memory:
            device.free()
        return {name: host for name, (host, _) in outputs.items()}


class AwmlDriver:
    """Components driven as AWML's pipelines drive them, with CenterPoint's NumPy steps around them.

    Attributes:
        engines_ms: what the two components of the last request took, copies and allocations included.
    """

    def __init__(self, spec: ModelSpec, session: Session) -> None:
        self.settings: dict[str, Any] = {}
        self.engines_ms = 0.0
        self._components = AwmlEngines(session) if isinstance(session, TensorRTSession) else session
        self._pipeline = build(spec, self)

    def infer(self, points: Float32) -> Any:
        """One request."""
        self.engines_ms = 0.0
        return self._pipeline.infer(points)

    def run(self, component: str, inputs: Any) -> dict[str, npt.NDArray[Any]]:
        """One component, timed."""
        started = time.perf_counter()
        outputs = self._components.run(component, inputs)
        self.engines_ms += (time.perf_counter() - started) * 1e3
        return outputs


def with_threshold(spec: ModelSpec, session: Session, points: Float32) -> ModelSpec:
    """The model with the score threshold that about a thousand cells of the frame pass."""
    parameters = read_parameters(spec)
    outputs = build(spec, HostOnly(session)).infer(points).outputs
    logits = np.concatenate([outputs[task.outputs["heatmap"]].ravel() for task in parameters.tasks])
    above = min(CELLS_ABOVE, len(logits) // 10)
    limit = float(np.partition(logits, -above)[-above])
    coder = {**spec.parameters["bbox_coder"], "score_threshold": 1 / (1 + np.exp(-limit))}
    return spec.model_copy(update={"parameters": {**spec.parameters, "bbox_coder": coder}})


def largest_difference(ours: Any, theirs: Any) -> float:
    """Of any value of two lists of boxes; infinite where they are not the same boxes in the same order."""
    if len(ours) != len(theirs) or not np.array_equal(ours.labels, theirs.labels):
        return float("inf")
    return max(
        float(np.nanmax(np.abs(getattr(ours, name).astype(np.float64) - getattr(theirs, name)), initial=0.0))
        for name in COLUMNS
    )


def same_boxes(ours: Any, theirs: Any) -> str:
    """``identical`` to the bit, ``same set`` when values differ in rounding, or ``different``."""
    difference = largest_difference(ours, theirs)
    if difference == 0:
        return "identical"
    return "same set" if difference < SAME_SET else "different"


def request_times(pipeline: DevicePipeline, points: Float32, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds of requests from host to host, and of enqueueing them."""
    total, enqueue = [], []
    for _ in range(count):
        pipeline.submit(points)
        latency = pipeline.collect().latency_ms
        total.append(latency["total"])
        enqueue.append(latency["enqueue"])
    return total, enqueue


class Clocks:
    """The GPU's clock while a block runs, looked at now and then by a thread [MHz]."""

    def __init__(self) -> None:
        self._seen: list[float] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def median(self) -> float | None:
        """Of all that was seen; None where the card tells no clock."""
        return _median(self._seen)

    def halves(self) -> tuple[float | None, float | None]:
        """Of the first half and of the second."""
        middle = (len(self._seen) + 1) // 2
        return _median(self._seen[:middle]), _median(self._seen[middle:])

    def _look(self) -> None:
        while True:
            self._seen += [float(mhz) for name, mhz in gpu_conditions(0).items() if name == "sm_clock_mhz"]
            if self._ended.wait(CLOCK_SECONDS):
                return


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None


def measured(milliseconds: list[float]) -> dict[str, Any]:
    """Statistics with the interval of the median."""
    return {**summarize(milliseconds), "median_interval": median_interval(milliseconds[:5000])}


def soak(pipeline: DevicePipeline, frames: list[Float32], count: int, used: Any) -> dict[str, Any]:
    """Many requests of changing frames: memory before and after, medians of tenths, and why they differ."""
    before = used()
    times: list[float] = []
    tenths: list[Part] = []
    for numbers in np.array_split(np.arange(count), 10):
        first, waited, conditions = len(times), waited_ms(), []
        for number in numbers.tolist():
            pipeline.submit(frames[number % len(frames)])
            times.append(pipeline.collect().latency_ms["total"])
            if number % max(count // 100, 1) == 0:
                conditions.append(gpu_conditions(0))
        elapsed = sum(times[first:])
        tenths.append(Part.of(times[first:], conditions, (waited_ms() - waited) / elapsed))
    return {
        "requests": count,
        "grown_bytes": used() - before,
        "medians_of_tenths": [part.median_ms for part in tenths],
        "tenths": [part.json() for part in tenths],
        "drift": drift(tenths).json(),
        **summarize(times),
    }


class Notes:
    """Results by name: printed, and saved at once, so that a run that is cut short leaves what it has."""

    def __init__(self, path: Path) -> None:
        self.values: dict[str, Any] = {}
        self._path = path

    def add(self, name: str, value: Any) -> None:
        """Note a result."""
        self.values[name] = value
        self._path.write_text(json.dumps(self.values, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {json.dumps(value)}", flush=True)


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="a workspace with engines")
    backends = ("tensorrt", "onnx", "pytorch")
    parser.add_argument("--backend", dest="backend_name", choices=backends, default="tensorrt")
    parser.add_argument(
        "--compile", dest="compiled", action="store_true", help="hand PyTorch's programs to torch.compile"
    )
    parser.add_argument("--target", help="set of engines, where there are several")
    parser.add_argument("--choice", help="name of one of the choices that `trt_builder sweep` or `tune` measured there")
    parser.add_argument("--rows", type=Path, help="a workspace with the engines that take rows")
    parser.add_argument("--points", type=int, default=200_000)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--frames", type=int, default=50, help="frames compared with the NumPy pipeline")
    parser.add_argument("--streams", type=int, default=2)
    parser.add_argument("--soak", dest="soak_requests", type=int, default=0, help="requests of the soak at the end")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    options = vars(parser.parse_args())
    label = options.pop("choice")
    measure(**options if label is None else {**options, "work": choice(options["work"], label)})


def measure(
    work: Path,
    out: Path,
    *,
    backend_name: str = "tensorrt",
    compiled: bool = False,
    target: str | None = None,
    rows: Path | None = None,
    points: int = 200_000,
    requests: int = 2000,
    frames: int = 50,
    streams: int = 2,
    soak_requests: int = 0,
) -> dict[str, Any]:
    """All of it; the results by name, which ``out`` holds as JSON.

    Args:
        work: a workspace, for TensorRT with engines.
        out: the JSON file.
        backend_name: what runs the components.
        compiled: PyTorch's programs go through torch.compile.
        target: set of engines, where there are several.
        rows: a workspace whose engines take rows; None: ``work``.
        points: points of a frame.
        requests: requests that the latency is taken of.
        frames: frames compared with the NumPy pipeline.
        streams: requests in flight for the throughput.
        soak_requests: requests of the soak at the end.
    """
    module = backend_called(backend_name)
    started = time.perf_counter()
    spec, session = loaded(work, module, target)
    as_rows = session if rows is None else loaded(rows, module, target)[1]
    if compiled:
        assert isinstance(session, Compilable)
        session.compile()
    features = read_parameters(spec).decoration.raw_features
    one = frame(points, features, 0)
    spec = with_threshold(spec, session, one)
    notes = Notes(out)
    notes.add("settings", {**session.settings, "versions": package_versions(module.PACKAGES)})
    notes.add("load_seconds", time.perf_counter() - started)
    started = time.perf_counter()
    pipeline = build(spec, session)
    assert isinstance(pipeline, DevicePipeline)
    notes.add("pipeline_seconds", time.perf_counter() - started)

    requests_alone(notes, session, pipeline, one, requests)
    if isinstance(as_rows, TensorRTSession):
        against_engines(notes, as_rows, pipeline, one)
    again, _ = request_times(pipeline, one, requests)
    notes.add("total_again", measured(again))
    # In AWML's driver every engine runs; other backends have no kernels in a component's place, and may have one lane.
    by_engines = build(spec, as_rows.as_built()) if isinstance(as_rows, TensorRTSession) else pipeline
    assert isinstance(by_engines, DevicePipeline)
    against_awml(notes, spec, as_rows, by_engines, one)
    # Its memory goes now, and not in the middle of a soak that counts bytes.
    del by_engines
    gc.collect()
    sizes = [int(points * (0.2 + 0.9 * number / frames)) for number in range(frames)]
    different = [frame(size, features, number) for number, size in enumerate(sizes)]
    against_numpy(notes, spec, session, pipeline, different)
    rows_of_the_encoder(notes, spec, session, pipeline)
    several_streams(notes, session, pipeline, one, streams)
    if soak_requests:
        changing = [frame(points - points // 200 * number, features, number) for number in range(8)]
        request_times(pipeline, changing[0], WARM_UP_REQUESTS)
        notes.add("soak", soak(pipeline, changing, soak_requests, session.gpu.used_memory))
    return notes.values


def choice(work: Path, label: str) -> Path:
    """The workspace of a choice of precisions in a model's."""
    labels = {read_json(path)["label"]: path.parent for path in sorted(work.glob("choices/*/choice.json"))}
    if label not in labels:
        sys.exit(f"{work}: no choice '{label}', but {', '.join(sorted(labels)) or 'none'}")
    return labels[label]


def loaded(work: Path, module: BackendModule, target: str | None) -> tuple[ModelSpec, DeviceSession]:
    """The model of a workspace, and its components on the GPU."""
    ws = Workspace.open(work)
    spec = ws.spec()
    files = {name: ws.artifact(path) for name, path in module.artifacts(ws, spec, target).items()}
    session = module.load(files, spec, Device("cuda"), None)
    assert isinstance(session, DeviceSession)
    return spec, session


def requests_alone(
    notes: Notes, session: DeviceSession, pipeline: DevicePipeline, points: Float32, requests: int
) -> None:
    """Latency, memory and stages."""
    used = session.gpu.used_memory
    request_times(pipeline, points, WARM_UP_REQUESTS)
    before = used()
    total, enqueue = request_times(pipeline, points, requests)
    notes.add("grown_bytes", used() - before)
    notes.add("total", measured(total))
    notes.add("enqueue", summarize(enqueue))
    if isinstance(pipeline, CenterPointOnDevice):
        buffer = pipeline.input_buffer(len(points))
        buffer[:] = points
        total, enqueue = request_times(pipeline, buffer, requests)
        notes.add("total_page_locked", measured(total))
        notes.add("enqueue_page_locked", summarize(enqueue))
    notes.add("conditions", gpu_conditions(0))
    clocks = Clocks()
    with clocks:
        staged = [pipeline.infer(points).latency_ms for _ in range(STAGED_REQUESTS)]
    notes.add("clock_of_stages_mhz", clocks.median())
    notes.add("counters", pipeline.infer(points).counters)
    stages = {name: round(float(np.median([one[name] for one in staged])), 4) for name in staged[0]}
    notes.add("stages", stages)
    whole = sum(value for name, value in stages.items() if name not in ("enqueue", "total"))
    notes.add("share_of_components", (stages[ENCODER] + stages[HEAD]) / whole)


@dataclass(frozen=True)
class Components:
    """A session whose components are a function: from a component's name and its inputs to its outputs, by name."""

    run: Callable[[str, Any], Mapping[str, npt.NDArray[Any]]]
    settings: dict[str, Any] = field(default_factory=dict)


def encoder_in_numpy(session: Session, encoder: PillarEncoder, component: ComponentSpec) -> Components:
    """The encoder is the kernel's twin in NumPy, the head as it is."""

    def run(name: str, inputs: Any) -> Mapping[str, npt.NDArray[Any]]:
        if name != ENCODER:
            return session.run(name, inputs)
        (features,) = inputs.values()
        return {component.outputs[0].name: encoder.encode(features)}

    return Components(run)


def pillars_against_the_engine(
    notes: Notes, spec: ModelSpec, session: DeviceSession, encoder: PillarEncoder, points: Float32
) -> None:
    """How far the kernel's pillars are from the engine's; both round, each in its own order."""
    component = spec.component(ENCODER)
    kernel = encoder_in_numpy(HostOnly(session), encoder, component)
    asked: list[Float32] = []

    def noted(name: str, inputs: Any) -> Mapping[str, npt.NDArray[Any]]:
        if name == ENCODER:
            asked.append(next(iter(inputs.values())).copy())
        return kernel.run(name, inputs)

    build(spec, Components(noted)).infer(points)
    features = asked[0]
    ours = encoder.encode(features)
    theirs = np.asarray(
        session.run(ENCODER, {component.inputs[0].name: features})[component.outputs[0].name], np.float32
    )
    exact = PillarEncoder(encoder.layers, half=False).encode(features)
    largest = float(np.abs(exact).max())
    errors = {"kernel": float(np.abs(ours - exact).max()), "engine": float(np.abs(theirs - exact).max())}
    notes.add("pillars", {"largest": largest, "between": float(np.abs(ours - theirs).max()), "from FP32": errors})


def against_engines(notes: Notes, session: TensorRTSession, pipeline: DevicePipeline, points: Float32) -> None:
    """The engines' own times."""
    answer = pipeline.infer(points)
    for like in engine_times.LIKE:
        alone = {}
        for component, shapes in pipeline.input_shapes(points, answer.counters).items():
            times = engine_times.measure(session, component, shapes, like, min_seconds=SECONDS)
            alone[component] = summarize(times.compute_ms)
        engines = sum(values["median"] for values in alone.values())
        ours = notes.values["total"]["median"]
        notes.add(f"engines as {like}", alone)
        against = {"engines_ms": engines, "times": ours / engines, "above_ms": ours - engines}
        if "total_page_locked" in notes.values:
            against["times_page_locked"] = notes.values["total_page_locked"]["median"] / engines
        notes.add(f"against {like}", against)


def against_awml(notes: Notes, spec: ModelSpec, session: Session, pipeline: DevicePipeline, points: Float32) -> None:
    """The same components in AWML's driver."""
    awml = AwmlDriver(spec, session)
    whole, engines = [], []
    for _ in range(AWML_REQUESTS):
        begin = time.perf_counter()
        theirs = awml.infer(points)
        whole.append((time.perf_counter() - begin) * 1e3)
        engines.append(awml.engines_ms)
    # The first three requests are warm-up.
    notes.add("awml_like", {"total": measured(whole[3:]), "engines_only": measured(engines[3:])})
    ours = notes.values["total"]["median"]
    faster = {"total": float(np.median(whole[3:])) / ours, "engines_only": float(np.median(engines[3:])) / ours}
    notes.add("times_faster_than_awml_like", faster)
    pipeline.submit(points)
    notes.add("boxes_against_awml_like", same_boxes(pipeline.collect().predictions, theirs.predictions))


def against_numpy(
    notes: Notes, spec: ModelSpec, session: DeviceSession, pipeline: DevicePipeline, frames: list[Float32]
) -> None:
    """The boxes of the NumPy pipeline on the same components, and of a second pass over the frames.

    Where a kernel takes the encoder's place, NumPy computes what the kernel does, and what the kernel's pillars are
    against the engine's is a result of its own.

    The encoder takes a row a pillar from NumPy, and as many as the frame before suggests from the kernels. Where that
    alone makes another box, the NumPy steps give the same ones from the same outputs of the head: ``other rows``. In
    ``differences`` these frames are by number.
    """
    parameters = read_parameters(spec)
    encoder = kernel_form(parameters, session)
    on_host: Session = HostOnly(session)
    if encoder is not None:
        on_host = encoder_in_numpy(on_host, encoder, spec.component(ENCODER))
        pillars_against_the_engine(notes, spec, session, encoder, frames[0])
    host = build(spec, on_host)
    verdicts: dict[str, int] = {}
    differences: list[dict[str, Any]] = []

    def check(number: int, points: Float32, ours: Inference) -> None:
        theirs = host.infer(points)
        verdict = same_boxes(ours.predictions, theirs.predictions)
        if verdict == "different":
            pillars = np.zeros((parameters.max_voxels, 1, parameters.encoder_channels), np.float32)
            outputs = {HEAD: dict(ours.outputs), ENCODER: {spec.component(ENCODER).outputs[0].name: pillars}}
            on_same = build(spec, Components(lambda name, _: outputs[name])).infer(points)
            same_steps = same_boxes(ours.predictions, on_same.predictions) != "different"
            verdict = "other rows" if same_steps and ours.counters == on_same.counters else verdict
            raw = max(float(np.abs(ours.outputs[name] - value).max()) for name, value in theirs.outputs.items())
            boxes = largest_difference(ours.predictions, theirs.predictions)
            voxels = ours.counters["voxels"]
            differences.append({"frame": number, "voxels": voxels, "boxes": str(boxes), "outputs": raw})
        verdicts[verdict] = verdicts.get(verdict, 0) + 1

    first = one_pass(pipeline, frames, check)
    second = one_pass(pipeline, frames)
    boxes = sum(len(predictions) for predictions in first)
    notes.add("against_numpy", {"frames": len(frames), "boxes": boxes, **verdicts})
    if differences:
        notes.add("differences", differences)
    repeats = [same_boxes(ours, again) for ours, again in zip(first, second, strict=True)]
    notes.add("against_itself", {verdict: repeats.count(verdict) for verdict in sorted(set(repeats))})


def one_pass(
    pipeline: DevicePipeline, frames: list[Float32], look: Callable[[int, Float32, Inference], None] | None = None
) -> list[Any]:
    """The boxes of all frames, in order; every pass begins behind the first frame, and so in the same state."""
    pipeline.submit(frames[0])
    pipeline.collect()
    boxes = []
    for number, points in enumerate(frames):
        pipeline.submit(points)
        answer = pipeline.collect()
        boxes.append(answer.predictions)
        if look is not None:
            look(number, points, answer)
    return boxes


def rows_of_the_encoder(notes: Notes, spec: ModelSpec, session: DeviceSession, pipeline: DevicePipeline) -> None:
    """Whether the encoder gives a pillar the same features, to the bit, however many rows it is called with."""
    most = read_parameters(spec).max_voxels
    ((name, shape),) = pipeline.input_shapes(None, {"voxels": most})[ENCODER].items()
    features = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)

    def pillars(rows: int) -> Float32:
        (answer,) = session.run(ENCODER, {name: features[:rows]}).values()
        return np.asarray(answer, np.float32)

    whole = pillars(len(features))
    counts = row_buckets(ENCODER, session.rows(ENCODER), most, BUCKETS)
    sizes = [size for size in counts if size < len(whole)]
    different = {size: float(np.abs(pillars(size) - whole[:size]).max()) for size in sizes}
    different = {str(size): value for size, value in different.items() if value > 0}
    notes.add("rows_of_the_encoder", {"sizes": len(sizes), "against": len(whole), "different": different})


def several_streams(
    notes: Notes, session: DeviceSession, pipeline: DevicePipeline, points: Float32, streams: int
) -> None:
    """Throughput with several requests in flight, where the backend can.

    ``busy``, for TensorRT, is how full the GPU is: requests a second, as part of what it does a second when the same
    lanes are launched back to back on frames that are there already, with the same number of lanes and under the same
    power cap. Elsewhere that is no measure: kernels are launched one by one, and the GPU waits between them.
    """
    clocks = Clocks()
    try:
        with clocks:
            figures: dict[str, Any] = throughput(pipeline, points, streams, SECONDS)
    except InferenceError as refused:
        notes.add("streams_refused", str(refused))
        return
    # One request at a time comes first, all of them at a time then.
    figures["clock_one_mhz"], figures["clock_mhz"] = clocks.halves()
    if isinstance(session, TensorRTSession):
        assert isinstance(pipeline, CenterPointOnDevice)
        lanes = [pipeline, *(pipeline.another() for _ in range(streams - 1))]
        for lane in lanes:
            lane.infer(points)
        for which, some in (("one_", lanes[:1]), ("", lanes)):
            clocks = Clocks()
            with clocks:
                most = back_to_back(some, int(SECONDS * figures[f"{which}per_second"]), session.gpu.synchronize)
            figures |= {f"device_{which}per_second": most, f"device_{which}clock_mhz": clocks.median()}
        figures["busy_one"] = figures["one_per_second"] / figures["device_one_per_second"]
        figures["busy"] = figures["per_second"] / figures["device_per_second"]
    notes.add("streams", figures)


def back_to_back(lanes: Sequence[CenterPointOnDevice], requests: int, wait: Callable[[], None]) -> float:
    """Requests a second of the device alone: the lanes in turn, on frames that are there, without the host between."""
    rounds = -(-requests // len(lanes))

    def seconds(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            for lane in lanes:
                lane.launch_again()
        wait()
        return time.perf_counter() - started

    # The first ones are not counted: clocks settle.
    seconds(-(-rounds // 10))
    return rounds * len(lanes) / seconds(rounds)


if __name__ == "__main__":
    main()
