"""The header of an ONNX file: who made it, of what, and the parameters that a reader of the file alone would miss.

Operators see the header in TensorRT's log. The fields are those that AWML's and autoware-ml's tools write.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path

from exporter.artifacts.onnx_export import save
from shared import __version__
from shared.lazy import lazy_import
from shared.spec import ModelSpec

onnx = lazy_import("onnx")

PRODUCER = "awml-deploy"
DOMAIN = "ai.onnx"


def stamp(path: Path, spec: ModelSpec, component: str, origin: Mapping[str, str]) -> None:
    """Write header and ``metadata_props`` into an ONNX file, in place.

    Args:
        path: the file.
        spec: the model; its classes and parameters are stored as JSON.
        component: which part of the model the file is.
        origin: checkpoint hash, config name, exporter and the like, as text.
    """
    model = onnx.load(str(path))
    model.producer_name = PRODUCER
    model.producer_version = __version__
    model.domain = DOMAIN
    model.model_version = 1
    model.doc_string = f"{spec.model} {component}, exported by {PRODUCER} {__version__}"
    values = {
        "model_name": spec.model,
        "component": component,
        "task": spec.task,
        "classes": json.dumps(spec.classes),
        "parameters": json.dumps(spec.parameters),
        "exported_with": f"{PRODUCER} {__version__}",
        "export_date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        **origin,
    }
    del model.metadata_props[:]
    for key, value in sorted(values.items()):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    save(model, path)
