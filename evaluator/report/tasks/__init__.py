"""What a task adds to the report: one module per task, found by the task's name, as its metric is.

Another package adds a task through the entry point group ``awml_deploy.report``. `TaskReport` says what a module has. A
task without one still has a report, without curves and pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, cast

from evaluator.report.blocks import Block, Picture
from evaluator.report.material import Material
from evaluator.report.scene import Scene
from shared import plugins


class TaskReport(Protocol):
    """What the module of a task has. Positions are frames of the truth, which are the labeled samples."""

    def metric_blocks(self, material: Material) -> list[Block]:
        """Curves, confusion and the like; ``material.samples`` may be None."""

    def source(self, sample: Any) -> Path:
        """The file that pictures of a sample are drawn from."""

    def frame_scores(self, material: Material) -> list[float | None]:
        """How good the shown run is in each frame, 0 to 1; None where there is nothing to find and nothing found."""

    def picture(self, material: Material, position: int, key: str, title: str) -> Picture | Scene:
        """A frame with ground truth and the pair of runs: drawn, or as data that the page draws.

        Args:
            material: the input.
            position: of the frame.
            key: unique in the report.
            title: token of the sample.

        Raises:
            InputError: its file is missing or broken (a `Scene` reads files in its ``media``, and raises there).
        """

    def log(self, stream: Any, material: Material, position: int) -> None:
        """Log a frame to a Rerun stream.

        Raises:
            InputError: its file is missing or broken.
        """


def find_task(task: str) -> TaskReport | None:
    """The module of ``task``; None when there is none."""
    return cast("TaskReport | None", plugins.find(plugins.REPORTS, task))
