"""Simplification of an ONNX graph. Optional; what comes out is checked like any export."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

from exporter.artifacts.onnx_export import save
from exporter.quiet import quiet
from shared.errors import ExportError
from shared.lazy import lazy_import

onnx = lazy_import("onnx")
onnxsim = lazy_import("onnxsim")
onnxslim = lazy_import("onnxslim")
polygraphy = lazy_import("polygraphy.backend.onnx")

Simplifier = Literal["none", "onnxsim", "onnxslim", "polygraphy"]

_log = logging.getLogger("exporter")


def simplify(path: Path, simplifier: Simplifier, component: str) -> None:
    """Simplify an ONNX file in place; left as it is where the result has more nodes.

    onnxsim 0.8 does that: a product of three axes and its sum become Gemm, with reshapes around it.

    Args:
        path: the file.
        simplifier: ``none`` leaves it as it is.
        component: whose file it is, for messages.

    Raises:
        ExportError: the simplifier failed, or says itself that its result is wrong.
        EnvironmentLacks: it is not installed.
    """
    if simplifier == "none":
        return
    before = onnx.load(str(path))
    with quiet():
        after = _run(before, simplifier, component)
    # A simplifier makes its own header and may rename nothing that others bind by.
    for field in ("input", "output"):
        names = [[value.name for value in getattr(model.graph, field)] for model in (before, after)]
        if names[0] != names[1]:
            raise ExportError(f"{simplifier} changed the {field}s from {names[0]} to {names[1]}", where=component)
    made, had = len(after.graph.node), len(before.graph.node)
    if made > had:
        _log.info("%s: %s made %d nodes of %d; the file stays as it was", component, simplifier, made, had)
        return
    _log.info("%s: %s made %d nodes of %d", component, simplifier, made, had)
    save(after, path)


def _run(model: Any, simplifier: Simplifier, where: str) -> Any:
    hint = "leave it out with --set export.simplify=none, or try another one"
    # Resolved before the try: a missing package is no failure of the simplifier.
    run = {"onnxsim": onnxsim.simplify, "onnxslim": onnxslim.slim, "polygraphy": _sanitize}[simplifier]
    try:
        result = run(model)
    # They are graph rewriters with many passes, any of which may trip over a graph in its own way.
    except Exception as error:
        raise ExportError(f"{simplifier} failed ({type(error).__name__}: {error})", where=where, hint=hint) from error
    if simplifier != "onnxsim":
        return result
    simplified, agrees = result
    if not agrees:
        raise ExportError("onnxsim's own check says that its result differs", where=where, hint=hint)
    return simplified


def _sanitize(model: Any) -> Any:
    """What ``polygraphy surgeon sanitize --fold-constants`` does: fold, sort, and remove what nothing needs."""
    return polygraphy.fold_constants(model, error_ok=False, copy=True)
