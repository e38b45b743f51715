"""The header of an ONNX file: who made it, of what, and the parameters that a reader of the file alone would miss.

Operators see the header in TensorRT's log. The fields are those that AWML's and autoware-ml's tools write.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporter.onnx_export import save
from shared import __version__
from shared.lazy import lazy_import

onnx = lazy_import("onnx")

PRODUCER = "awml-deploy"
DOMAIN = "ai.onnx"


def stamp(
    path: Path,
    *,
    component: str,
    model_name: str,
    task: str,
    classes: list[str],
    parameters: Mapping[str, Any],
    origin: Mapping[str, str],
) -> None:
    """Write header and ``metadata_props`` into an ONNX file, in place.

    Args:
        path: the file.
        component: which part of the model it is.
        model_name: for example ``centerpoint``.
        task: for example ``detection3d``.
        classes: class names in label order.
        parameters: parameters of pre- and post-processing; stored as JSON.
        origin: checkpoint hash, config name, exporter and the like, as text.
    """
    model = onnx.load(str(path))
    model.producer_name = PRODUCER
    model.producer_version = __version__
    model.domain = DOMAIN
    model.model_version = 1
    model.doc_string = f"{model_name} {component}, exported by {PRODUCER} {__version__}"
    values = {
        "model_name": model_name,
        "component": component,
        "task": task,
        "classes": json.dumps(classes),
        "parameters": json.dumps(dict(parameters)),
        "exported_with": f"{PRODUCER} {__version__}",
        "export_date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        **origin,
    }
    del model.metadata_props[:]
    for key, value in sorted(values.items()):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    save(model, path)
