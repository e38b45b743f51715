"""ONNX files made elsewhere, taken into the workspace (``export.onnx_path``)."""

from __future__ import annotations

import shutil
from pathlib import Path

from shared.errors import InputError
from shared.files import sha256_of_file, sha256_of_json
from shared.lazy import lazy_import

onnx = lazy_import("onnx")


def given_digest(source: Path) -> str:
    """Hex sha256 over the ONNX files that ``export.onnx_path`` names: a file, or all those in a folder.

    Raises:
        InputError: there are none.
    """
    files = [source] if source.is_file() else sorted(source.glob("*.onnx"))
    if not files:
        raise InputError(
            "no ONNX files here", where=str(source), hint="export.onnx_path is a folder of them, or the file"
        )
    return sha256_of_json({file.name: sha256_of_file(file) for file in files})


def take_onnx(source: Path, file_name: str, target: Path) -> int:
    """Copy the file of one component.

    Args:
        source: ``export.onnx_path``: the folder, or the file itself.
        file_name: the component's file in the folder.
        target: where to write it.

    Returns:
        Its opset.

    Raises:
        InputError: it is not there, not ONNX, or keeps its weights in a file beside it.
    """
    path = source if source.is_file() else source / file_name
    try:
        model = onnx.load(str(path), load_external_data=False)
    except FileNotFoundError as error:
        raise InputError(
            "no such ONNX file", where=str(path), hint="name the file with components.<name>.onnx_file"
        ) from error
    except Exception as error:  # protobuf's own class differs between its implementations
        raise InputError("not a whole ONNX file", where=str(path), hint="copy or export it again") from error
    if any(tensor.external_data for tensor in model.graph.initializer):
        raise InputError("keeps its weights in a file beside it", where=str(path), hint="save it as one file")
    shutil.copyfile(path, target)
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
