"""The commands that write to a workspace, each on a tiny one that has an earlier result of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from evaluator.cli import cli as evaluator
from runtime.cli import cli as runtime
from shared.manifest import MANIFEST_NAME, Manifest, update_manifest
from shared.manifest_cli import cli as manifest
from trt_builder.cli import cli as trt_builder
from verifier.cli import cli as verifier

GROUPS: dict[str, click.Group] = {
    "runtime": runtime,
    "verifier": verifier,
    "evaluator": evaluator,
    "trt_builder": trt_builder,
    "manifest": manifest,
}
RUN = ("--backend", "onnx")


@dataclass(frozen=True)
class Command:
    """A command line, without ``--work``.

    Attributes:
        line: tool, command and options.
        stage: whose result it replaces; None where it is no stage's.
    """

    line: tuple[str, ...]
    stage: str | None = None

    @property
    def name(self) -> str:
        """As a user would type it."""
        return " ".join(self.line)


# Forced, so that each replaces a result; the run goes on with what a killed one has, so it replaces another one.
COMMANDS = (
    Command(("runtime", "run", *RUN, "--num-samples", "3"), "run:onnx-cpu"),
    Command(("runtime", "trace", *RUN, "--force"), "trace:onnx-cpu"),
    Command(("runtime", "swap", *RUN, "--trace", "pytorch-cpu", "--force"), "swap:onnx-cpu"),
    Command(("runtime", "ranges", "--force"), "ranges"),
    Command(
        ("runtime", "bench", *RUN, "--requests", "2", "--seconds", "0", "--warm-up", "0", "--trace"), "bench:onnx-cpu"
    ),
    Command(("verifier", "verify", "--force"), "verify"),
    Command(("verifier", "attribute", "--force"), "attribute:onnx-cpu"),
    Command(("verifier", "bisect", "--component", "pts_voxel_encoder", "--force"), "bisect:pts_voxel_encoder"),
    Command(("evaluator", "evaluate", "--force"), "evaluate"),
    Command(("evaluator", "report", "--force"), "report"),
    Command(("trt_builder", "build", "--set", "tensorrt.precision_policy=fp16", "--force"), "build:trt8.6.0-sm90-fp16"),
    Command(("manifest", "tag", "v2")),
    Command(("manifest", "untag", "v1")),
    Command(("manifest", "rollback", "v1")),
    Command(("manifest", "merge", "{copy}", "--prefer", "theirs"), "run:onnx-cpu"),
    Command(("runtime", "run", *RUN, "--num-samples", "3", "--shard", "1/2")),
    Command(("manifest", "merge", "{shards}"), "run:onnx-cpu"),
)


def make_base(root: Path, run: Callable[[Sequence[str], Path], None]) -> None:
    """A workspace ``root / "work"`` with a result of each command and a version ``v1``, a copy ``root / "copy"`` in
    which more was done, and another, ``root / "shards"``, with the shards of a run.

    Args:
        root: an empty folder.
        run: runs a command line on a workspace; it must end well.
    """
    from tests.support import tiny_centerpoint as tiny

    work, copy = root / "work", root / "copy"
    frames = tiny.write_frames(root / "frames", [300, 0, 400, 200])
    tiny.make_workspace(work, frames, max_voxels=120)
    update_manifest(work / MANIFEST_NAME, _evaluate)
    run(("runtime", "run", "--backend", "pytorch"), work)
    run(("runtime", "run", *RUN), work)
    run(("manifest", "tag", "v1"), work)
    run(("runtime", "trace", "--backend", "pytorch"), work)
    for command in COMMANDS[1:]:
        if command.stage is not None and command.line[0] != "manifest":
            run(command.line, work)
    shutil.copytree(work, copy)
    shutil.copytree(work, root / "shards")
    for number in (1, 2):
        run(("runtime", "run", *RUN, "--num-samples", "3", "--shard", f"{number}/2"), root / "shards")
    run(("runtime", "run", *RUN, "--num-samples", "2"), copy)


def _evaluate(manifest: Manifest) -> None:
    assert manifest.config is not None
    manifest.config["evaluation"]["enabled"] = True
