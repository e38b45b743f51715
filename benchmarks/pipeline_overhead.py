"""What the ONNX Runtime pipeline adds to the bare ``session.run`` calls, pre- and post-processing apart.

The same components on the same inputs, one thread: once inside the pipeline's requests (the laps of its component
stages, which hold everything between the steps), once by ``session.run`` alone. The two alternate, so that what
disturbs the machine disturbs both.

    .venv/tools/bin/python -m benchmarks.pipeline_overhead --work work/centerpoint
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from runtime.backends import Tensors
from runtime.model import Model, open_model
from runtime.pipeline import build_pipeline


class _Recorder:
    """Passes calls on and keeps the inputs of each component."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.settings = session.settings
        self.inputs: dict[str, dict[str, Any]] = {}

    def run(self, component: str, inputs: Tensors) -> dict[str, Any]:
        """Run one component."""
        self.inputs[component] = {name: np.array(value) for name, value in inputs.items()}
        outputs: dict[str, Any] = self._session.run(component, inputs)
        return outputs


def bare_sessions(model: Model) -> dict[str, Any]:
    """The components in ONNX Runtime and nothing else, one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return {
        component.name: ort.InferenceSession(
            str(model.workspace.artifact(component.onnx)), options, providers=["CPUExecutionProvider"]
        )
        for component in model.spec.components
    }


def measure(work: Path, data_root: Path | None, sample_index: int, requests: int) -> dict[str, Any]:
    """Medians [ms] of the components in both, and the overhead."""
    model = open_model(work, "onnx", "cpu", data_root, threads=1)
    session, pipeline = model.load()
    data = pipeline.read(model.dataset.sample(sample_index)).data
    recorder = _Recorder(session)
    build_pipeline(model.spec, recorder).infer(data)
    bare = bare_sessions(model)
    names = list(bare)
    in_pipeline: list[float] = []
    alone: list[float] = []
    for _ in range(requests + 3):
        latency = pipeline.infer(data).latency_ms
        in_pipeline.append(sum(latency[name] for name in names))
        started = time.perf_counter()
        for name in names:
            bare[name].run(None, recorder.inputs[name])
        alone.append((time.perf_counter() - started) * 1e3)
    # The first three requests are warm-up.
    differences = [ours - theirs for ours, theirs in zip(in_pipeline[3:], alone[3:], strict=True)]
    baseline = statistics.median(alone[3:])
    return {
        "sample": sample_index,
        "requests": requests,
        "voxels": len(recorder.inputs[names[0]][model.spec.components[0].inputs[0].name]),
        "session_run_ms": baseline,
        "in_pipeline_ms": statistics.median(in_pipeline[3:]),
        "median_difference_ms": statistics.median(differences),
        "overhead_percent": 100 * statistics.median(differences) / baseline,
    }


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="a workspace with an exported model")
    parser.add_argument("--data", type=Path, help="where the data set lies, if not where the config says")
    parser.add_argument("--sample", type=int, default=0, help="which sample")
    parser.add_argument("--requests", type=int, default=30, help="requests that the medians are taken of")
    options = parser.parse_args()
    print(json.dumps(measure(options.work, options.data, options.sample, options.requests), indent=2))


if __name__ == "__main__":
    main()
