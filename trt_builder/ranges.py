"""Which tensors reach values that FP16 can't hold: seen on real samples, run through the graph in FP32.

The samples are inputs of the components, recorded in the workspace (`samples_of`). ONNX's own reference implementation
computes them, in NumPy, node by node, so no runtime is needed and no more than a few tensors are held at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.lazy import lazy_import
from shared.spec import ComponentSpec
from shared.workspace import Workspace

if TYPE_CHECKING:
    import onnx
else:
    onnx = lazy_import("onnx")

Arrays = Mapping[str, "np.ndarray[Any, Any]"]

SAMPLES_KIND = "component-inputs"


def samples_of(ws: Workspace, component: ComponentSpec) -> list[str]:
    """Artifacts that hold recorded inputs of a component: ``samples/<component>/000000.npz``, one array per input."""
    folder = f"samples/{component.name}/"
    return sorted(path for path, record in ws.manifest().artifacts.items()
                  if record.kind == SAMPLES_KIND and path.startswith(folder))  # fmt: skip


def read_samples(ws: Workspace, paths: list[str]) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    """The arrays of each artifact, one sample at a time.

    Raises:
        ManifestError: an artifact is missing or changed.
    """
    for path in paths:
        with np.load(ws.artifact(path), allow_pickle=False) as file:
            yield {name: file[name] for name in file.files}


def largest_values(model: onnx.ModelProto, samples: Iterator[Arrays]) -> dict[str, float]:
    """Largest magnitude of every floating-point tensor over all samples; infinite where a value is not finite."""
    largest: dict[str, float] = {}
    for sample in samples:
        for name, value in _tensors(model, sample):
            if np.issubdtype(value.dtype, np.floating) and value.size:
                reached = float(np.abs(value).max())
                largest[name] = max(largest.get(name, 0.0), reached if np.isfinite(reached) else np.inf)
    return largest


def _tensors(model: onnx.ModelProto, sample: Arrays) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Every tensor of the graph for one sample, in the order in which it is computed."""
    from onnx.reference import ReferenceEvaluator

    opsets = {item.domain: item.version for item in model.opset_import}
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    values.update(sample)
    yield from sample.items()
    uses = Counter(name for node in model.graph.node for name in set(node.input))
    for node in model.graph.node:
        names = [name for name in node.input if name]
        outputs = ReferenceEvaluator(node, opsets=opsets).run(None, {name: values[name] for name in names})
        for name, value in zip(node.output, outputs, strict=False):
            values[name] = np.asarray(value)
            yield name, values[name]
        for name in set(names):
            uses[name] -= 1
            if uses[name] == 0 and name not in sample:
                del values[name]
