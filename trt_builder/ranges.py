"""Which tensors reach values that FP16 can't hold: what `runtime ranges` saw on real samples."""

from __future__ import annotations

import logging

from shared.json_reader import read_json
from shared.spec import ComponentSpec
from shared.workspace import Workspace

_log = logging.getLogger("build")

KIND = "tensor-ranges"


def largest_values(ws: Workspace, component: ComponentSpec) -> dict[str, float]:
    """Largest magnitude by tensor of a component's graph; empty where none was recorded of this very ONNX file.

    Raises:
        ManifestError: what was recorded is missing or changed.
    """
    relative = f"ranges/{component.name}.json"
    artifact = ws.manifest().artifacts.get(relative)
    if artifact is None or artifact.kind != KIND:
        return {}
    recorded = read_json(ws.artifact(relative))
    if recorded["onnx_sha256"] != ws.input_hash(component.onnx):
        _log.warning(
            "%s: only weights are checked against FP16's range: %s is of an earlier export (`runtime ranges`)",
            component.name,
            relative,
        )
        return {}
    largest: dict[str, float] = recorded["largest"]
    return largest
