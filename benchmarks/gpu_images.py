"""YOLOX and the calibration status classifier on a GPU against their bare engines, in one run.

The engines are those of the workspace; images, and the points of the classifier, are random. YOLOX's score threshold is
chosen so that the model, whatever its weights, has a thousand candidates, which is a lot: the demo's has 115 an image,
for which there is ``--candidates``.

    python benchmarks/gpu_images.py --work work/yolox --size 1080 1920 --cameras 6 --out yolox.json
    python benchmarks/gpu_images.py --work work/calibration --size 1860 2880 --out calibration.json

    python benchmarks/gpu_images.py --work work/yolox-batch --size 1080 1920 --cameras 6 --batch --out yolox-batch.json

``cameras`` requests of one image each are in flight at a time: how long it takes from the first one's start to the last
answer, which a batch of as many images in one engine is compared with (``--batch-engines``). With ``--batch`` the
images of all cameras are one request, to engines that take so many.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu_latency import SECONDS, WARM_UP_REQUESTS, Components, Notes, loaded, measured, request_times
from runtime import engine_times
from runtime.backends import tensorrt
from runtime.backends.tensorrt import TensorRTSession
from runtime.bench import throughput
from runtime.conditions import gpu_conditions
from runtime.model import HostOnly
from runtime.models.calibration.steps import CameraView
from runtime.models.yolox.parameters import BOX_COLUMNS
from runtime.pipeline import DevicePipeline, build_pipeline
from shared import tasks
from shared.spec import ModelSpec

STAGED_REQUESTS = 100
POINTS = 200_000


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="a workspace with engines")
    parser.add_argument("--batch-engines", type=Path, help="the same model in a workspace whose engine takes a batch")
    parser.add_argument("--size", type=int, nargs=2, required=True, metavar=("HEIGHT", "WIDTH"), help="of the images")
    parser.add_argument("--cameras", type=int, default=1, help="requests that are in flight at a time")
    parser.add_argument("--batch", action="store_true", help="a request has an image of each camera")
    parser.add_argument("--candidates", type=int, default=1000, help="rows of YOLOX that score high enough")
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--frames", type=int, default=10, help="inputs compared with the NumPy pipeline")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    options = parser.parse_args()
    notes = Notes(options.out)
    spec, session = engines_of(options.work)
    height, width = options.size
    data = random_input(spec, height, width, 0)
    if spec.model == "yolox":
        spec = with_candidates(spec, session, data, options.candidates)
    pipeline = build_pipeline(spec, session)
    assert isinstance(pipeline, DevicePipeline)
    inputs = [random_input(spec, height, width, seed) for seed in range(options.frames)]
    if options.batch:
        images = [random_input(spec, height, width, seed) for seed in range(options.cameras)]
        lane = pipeline.batch(options.cameras)
        latency(notes, lane, images, options.requests)
        against_engines(notes, bare_engines(notes, session, lane, images))
        batches_against_numpy(notes, spec, lane, [images, images[::-1]])
        notes.add("streams", throughput(lane, images, streams=2, min_seconds=SECONDS))
        return
    latency(notes, pipeline, data, options.requests)
    engines = bare_engines(notes, session, pipeline, data)
    against_engines(notes, engines)
    against_numpy(notes, spec, session, pipeline, inputs)
    notes.add("streams", throughput(pipeline, data, streams=2, min_seconds=SECONDS))
    if options.cameras > 1:
        cameras(notes, pipeline, inputs[: options.cameras], options.batch_engines)


def engines_of(work: Path) -> tuple[ModelSpec, TensorRTSession]:
    """The model of a workspace and its engines."""
    spec, session = loaded(work, tensorrt, None)
    assert isinstance(session, TensorRTSession)
    return spec, session


def random_input(spec: ModelSpec, height: int, width: int, seed: int) -> Any:
    """An image, for the classifier with points in view of a distorted camera."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if spec.model == "yolox":
        return image
    points = np.column_stack(
        [rng.normal(0, 12, (POINTS, 2)), rng.uniform(2, 120, (POINTS, 1)), rng.uniform(0, 255, (POINTS, 1))]
    ).astype(np.float32)
    intrinsics = np.array([[0.6 * width, 0, width / 2], [0, 0.6 * width, height / 2], [0, 0, 1]])
    return CameraView(image, points, intrinsics, np.array([-0.1, 0.02, 0.0, 0.0, 0.0]), np.eye(4))


def with_candidates(spec: ModelSpec, session: TensorRTSession, image: Any, count: int) -> ModelSpec:
    """The model with the score threshold that so many rows of an image pass."""
    (output,) = build_pipeline(spec, HostOnly(session)).infer(image).outputs.values()
    rows = np.asarray(output[0], np.float32)
    scores = np.sort(rows[:, BOX_COLUMNS:].max(axis=1) * rows[:, BOX_COLUMNS - 1])
    return spec.model_copy(update={"parameters": {**spec.parameters, "score_threshold": float(scores[-count])}})


def latency(notes: Notes, pipeline: DevicePipeline[Any], data: Any, requests: int) -> None:
    """From ordinary and from page-locked memory, and stage by stage."""
    request_times(pipeline, data, WARM_UP_REQUESTS)
    total, enqueue = request_times(pipeline, data, requests)
    notes.add("total", measured(total))
    notes.add("enqueue", float(np.median(enqueue)))
    with contextlib.ExitStack() as locked:
        for one in data if isinstance(data, list) else [data]:
            for array in pipeline.interface.packing.pack(one).values():
                if array.nbytes >= 1 << 20:
                    locked.enter_context(pipeline.page_locked(array.reshape(-1).view(np.uint8)))
        request_times(pipeline, data, WARM_UP_REQUESTS)
        notes.add("total_page_locked", measured(request_times(pipeline, data, requests)[0]))
    notes.add("conditions", gpu_conditions(0))
    staged = [pipeline.infer(data) for _ in range(STAGED_REQUESTS)]
    notes.add("counters", staged[0].counters)
    names = staged[0].latency_ms
    notes.add("stages", {name: round(float(np.median([one.latency_ms[name] for one in staged])), 4) for name in names})


def bare_engines(notes: Notes, session: TensorRTSession, pipeline: DevicePipeline[Any], data: Any) -> float:
    """The engines' own time as trtexec 11 measures it [ms]."""
    whole = 0.0
    for component, shapes in pipeline.input_shapes(data, {}).items():
        times = engine_times.measure(session, component, shapes, "trtexec-11", min_seconds=SECONDS)
        whole += float(np.median(times.compute_ms))
    notes.add("engines_ms", whole)
    return whole


def against_engines(notes: Notes, engines_ms: float) -> None:
    """How many times as long as the engines alone a request takes."""
    for kind in ("total", "total_page_locked"):
        notes.add(f"{kind} against the engines", notes.values[kind]["median"] / engines_ms)


def against_numpy(
    notes: Notes, spec: ModelSpec, session: TensorRTSession, pipeline: DevicePipeline[Any], inputs: list[Any]
) -> None:
    """On how many inputs the answers are those of the NumPy steps to the bit, and those of a repeat."""
    host = build_pipeline(spec, HostOnly(session))
    same = again = 0
    for data in inputs:
        ours = packed(spec, pipeline.infer(data).predictions)
        same += ours == packed(spec, host.infer(data).predictions)
        again += ours == packed(spec, pipeline.infer(data).predictions)
    notes.add("against_numpy", {"inputs": len(inputs), "identical": same, "identical when repeated": again})


def batches_against_numpy(notes: Notes, spec: ModelSpec, lane: DevicePipeline[Any], batches: list[Any]) -> None:
    """On how many images of some batches the boxes are those of the NumPy steps, given the same outputs, to the bit."""
    count = same = again = 0
    for images in batches:
        answer = lane.infer(images)
        outputs = {name: answer.outputs[name] for name in answer.outputs}
        repeated = lane.infer(images).predictions
        for number, image in enumerate(images):
            own = {name: array[number : number + 1] for name, array in outputs.items()}
            known = Components(lambda _, __, own=own: own)
            ours = packed(spec, answer.predictions[number])
            count += 1
            same += ours == packed(spec, build_pipeline(spec, known).infer(image).predictions)
            again += ours == packed(spec, repeated[number])
    notes.add("against_numpy", {"inputs": count, "identical": same, "identical when repeated": again})


def packed(spec: ModelSpec, predictions: Any) -> list[bytes]:
    """All arrays of some predictions."""
    return [array.tobytes() for array in tasks.find(spec.task).arrays(predictions).values()]


def cameras(notes: Notes, pipeline: DevicePipeline[Any], images: list[Any], batch_engines: Path | None) -> None:
    """Images of several cameras at a time, each a request of its own."""
    lanes = [pipeline, *(pipeline.another() for _ in images[1:])]
    times = []
    for _ in range(WARM_UP_REQUESTS + STAGED_REQUESTS):
        started = time.perf_counter()
        for lane, image in zip(lanes, images, strict=True):
            lane.submit(image)
        for lane in lanes:
            lane.collect()
        times.append((time.perf_counter() - started) * 1e3)
    result = {"cameras": len(images), "all_ms": measured(times[WARM_UP_REQUESTS:])}
    if batch_engines is not None:
        spec, session = engines_of(batch_engines)
        (component,) = spec.components
        shapes = {component.inputs[0].name: tuple(component.inputs[0].shape)}
        alone = engine_times.measure(session, component.name, shapes, "trtexec-11", min_seconds=SECONDS)
        batch = float(np.median(alone.compute_ms))
        result |= {"batch_engine_ms": batch, "times": result["all_ms"]["median"] / batch}
    notes.add("several cameras", result)


if __name__ == "__main__":
    main()
