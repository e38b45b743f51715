"""The header of an ONNX file: who made it, of what, and the parameters that a reader of the file alone would miss.

Operators see the header in TensorRT's log. The properties are autoware-ml's (its pull request 91), so that one tool
reads both: where a file comes from as plain text, what inference needs to know as one JSON document a property.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporter.artifacts.onnx_export import save
from shared import __version__
from shared.lazy import lazy_import
from shared.spec import ModelSpec

onnx = lazy_import("onnx")

PRODUCER = "awml-deploy"
# Of the operators in the file, which is how AWML uses the field; autoware-ml names its producer there.
DOMAIN = "ai.onnx"
# autoware-ml counts a release v1.2.3 as 10203. An export is none: its bundle has a version.
UNVERSIONED, UNVERSIONED_NUMBER = "unversioned", 0


def stamp(path: Path, spec: ModelSpec, component: str, origin: Mapping[str, str]) -> None:
    """Write header and ``metadata_props`` into an ONNX file, in place.

    Args:
        path: the file.
        spec: the model; its classes and parameters become properties, but for names that the others have.
        component: which part of the model the file is.
        origin: checkpoint hash, config name, exporter and the like, as text.
    """
    model = onnx.load(str(path))
    values = {
        **{key: _as_json(value) for key, value in {**spec.parameters, "class_names": spec.classes}.items()},
        **origin,
        "release": UNVERSIONED,
        "model_name": spec.model,
        "task": spec.task,
        "module": component,
        # Without the time: an export that is made again gives the same file.
        "export_date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "exported_with": f"{model.producer_name} {model.producer_version}".strip(),
    }
    model.producer_name = PRODUCER
    model.producer_version = __version__
    model.domain = DOMAIN
    model.model_version = UNVERSIONED_NUMBER
    model.doc_string = f"{spec.model} ({component}) {UNVERSIONED}"
    onnx.helper.set_model_props(model, dict(sorted(values.items())))
    save(model, path)


def _as_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
