"""`runtime ranges`: how large every tensor of the ONNX graphs gets on real samples.

trt_builder reads it (``ranges/<component>.json``): nodes whose values come near the end of FP16 stay in FP32. A few
kilobytes, so a machine that builds needs neither the data set nor ONNX Runtime.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from runtime.backends import Tensors
from runtime.backends.onnx import OnnxSession, ort
from runtime.model import Model, open_model
from runtime.pipeline import build_pipeline
from runtime.trace import sample_count
from shared.answer import Answer
from shared.fp16_range import KIND, largest_of, with_largest_values
from shared.json_reader import read_json
from shared.lazy import lazy_import
from shared.progress import track
from shared.table import Table, number

if TYPE_CHECKING:
    import onnx
else:
    onnx = lazy_import("onnx", install="pip install onnx")

_SHOWN = 5


def record_ranges(
    work: Path,
    *,
    num_samples: int | None = None,
    data_root: Path | None = None,
    threads: int | None = None,
    force: bool = False,
) -> Answer:
    """Run the model in ONNX Runtime on the CPU, and keep the largest magnitude of every floating-point tensor.

    Returns what to print.

    Args:
        work: the workspace, with an exported model.
        num_samples: how many samples, from the first; None: as many as are verified.
        data_root: where the data set lies, when not where the config says.
        threads: threads within an operation, None for the backend's default.
        force: run although nothing changed.
    """
    model = open_model(work, "onnx", "cpu", data_root, threads)
    count = sample_count(model, num_samples)
    stage = model.workspace.stage(
        "ranges", tool="runtime", config={"num_samples": count}, inputs=model.inputs(), versions=model.versions()
    )
    if not force and stage.up_to_date():
        return Answer(f"{stage.name}: up to date", _recorded(model))
    with stage:
        session = RangeSession(model)
        pipeline = build_pipeline(model.spec, session)
        for index in track(range(count), stage.name, total=count):
            pipeline.infer(pipeline.read(model.dataset.sample(index)).data)
        for component in model.spec.components:
            record = {
                "samples": count,
                "onnx_sha256": model.workspace.input_hash(component.onnx),
                "largest": session.largest[component.name],
            }
            stage.json_artifact(f"ranges/{component.name}.json", KIND, record)
    text = "\n\n".join(_table(name, count, largest) for name, largest in session.largest.items())
    return Answer(text, _recorded(model))


def _recorded(model: Model) -> dict[str, Any]:
    """What is recorded of each component."""
    names = [component.name for component in model.spec.components]
    return {"components": {name: read_json(model.workspace.artifact(f"ranges/{name}.json")) for name in names}}


class RangeSession:
    """The components in ONNX Runtime, their graphs extended by the largest magnitude of every tensor.

    Attributes:
        largest: by component and tensor, over all runs so far; at most float32's largest number.
    """

    def __init__(self, model: Model) -> None:
        self.settings: dict[str, Any] = {"threads": model.threads or "default"}
        self.largest: dict[str, dict[str, float]] = {component.name: {} for component in model.spec.components}
        self._outputs = {component.name: component.output_names() for component in model.spec.components}
        options = ort.SessionOptions()
        options.intra_op_num_threads = model.threads or 0
        sessions = {}
        with tempfile.TemporaryDirectory(prefix="ranges-") as folder:
            for component in model.spec.components:
                path = Path(folder) / f"{component.name}.onnx"
                graph = with_largest_values(onnx.load(str(model.workspace.onnx(component.onnx))))
                onnx.save(graph, str(path), save_as_external_data=True)
                sessions[component.name] = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._session = OnnxSession(sessions, self.settings)

    def run(self, component: str, inputs: Tensors) -> dict[str, npt.NDArray[Any]]:
        """See `runtime.backends.Session`."""
        answers = self._session.run(component, inputs)
        known = self.largest[component]
        for tensor, reached in largest_of(answers).items():
            known[tensor] = max(known.get(tensor, 0.0), reached)
        return {name: answers[name] for name in self._outputs[component]}


def _table(component: str, count: int, largest: Mapping[str, float]) -> str:
    rows = [[name, number(value, 1)] for name, value in sorted(largest.items(), key=lambda item: -item[1])[:_SHOWN]]
    title = f"{component}: the largest of {len(largest)} tensors on {count} sample{'s' if count > 1 else ''}"
    return Table(title, ["tensor", "largest magnitude"], rows).text()
