"""`runtime messages`: what Autoware's node publishes for a run's answers, byte by byte, for whatever takes its topics.

A kind of model has them if its folder has a module ``messages`` with

    def messages(spec: ModelSpec, predictions: Predictions) -> list[ImageMessage]

which raises a `UsageError` where the node would answer otherwise than the run did.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from shared import plugins, tasks
from shared.errors import InputError, UsageError
from shared.files import write_bytes, write_json
from shared.runs import Run
from shared.workspace import Workspace

_PART = "messages"
_INDEX = "messages.json"


@dataclass(frozen=True)
class ImageMessage:
    """A ``sensor_msgs/Image``, but for its header.

    Attributes:
        topic: of the node, behind ``~/out/``.
        encoding: of the pixels.
        height, width: of the image [px].
        step: bytes of a line; what Autoware's node says, whatever it compresses the data to.
        data: the bytes.
    """

    topic: str
    encoding: str
    height: int
    width: int
    step: int
    data: bytes


def write_messages(work: Path, run_name: str, out: Path, *, num_samples: int) -> str:
    """Write the messages of a run's samples: the data of each in a file, and an index with the other fields.

    Args:
        work: the workspace.
        run_name: the run, as in onnx-cpu.
        out: the folder to write to.
        num_samples: how many samples, from the first; -1 for all.

    Returns:
        What was written, as text.

    Raises:
        UsageError: no node's messages are known for the model, or the node would answer otherwise.
        InputError: there is no such run.
        ManifestError: it is not finished, or was changed.
    """
    workspace = Workspace.open(work)
    spec = workspace.spec()
    module = plugins.part(plugins.PIPELINES, spec.model, _PART)
    if module is None:
        known = ", ".join(plugins.with_part(plugins.PIPELINES, _PART))
        raise UsageError(f"no messages are known for models of kind '{spec.model}'", hint=f"known: {known}")
    header, artifacts = f"runs/{run_name}/run.json", workspace.manifest().artifacts
    if header not in artifacts:
        runs = [path.split("/")[1] for path in sorted(artifacts) if fnmatch(path, "runs/*/run.json")]
        raise InputError(f"no such run; there are: {', '.join(runs) or 'none'}", where=f"{workspace.root}/{header}")
    workspace.artifact(header)
    run = Run.open(workspace.path(f"runs/{run_name}"))
    container = tasks.find(spec.task).container
    tokens = run.header.tokens if num_samples == -1 else run.header.tokens[:num_samples]
    index: list[dict[str, Any]] = []
    for position, token in enumerate(tokens):
        for message in module.messages(spec, run.predictions(position, container)):
            file = f"{position:06}.{message.topic}.bin"
            write_bytes(out / file, message.data)
            index.append({**asdict(message), "data": file, "sample": token})
    write_json(out / _INDEX, index)
    return f"{out}: {len(index)} messages of {len(tokens)} samples, {_INDEX}"
