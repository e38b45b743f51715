"""Which runs are compared with which: the config's scenarios, and every run with the framework reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shared import precision
from shared.errors import InputError
from shared.runs import Run
from shared.staleness import is_current
from shared.workspace import Workspace
from verifier.tolerances import POLICIES

if TYPE_CHECKING:
    from shared.config import DeployConfig
    from shared.config.check_sections import Scenario

#: Folder and backend name of what the training framework itself answered.
REFERENCE = "reference"
FRAMEWORK = "framework"
#: Folder of the backends' runs.
RUNS = "runs"


@dataclass(frozen=True)
class RecordedRun:
    """A finished run of the workspace.

    Attributes:
        folder: relative to the workspace.
        stage: name of the stage that made it.
        run: the run, opened.
    """

    folder: str
    stage: str
    run: Run

    @property
    def name(self) -> str:
        """Name of the folder, as in ``onnx-cpu``."""
        return self.run.folder.name


@dataclass(frozen=True)
class Comparison:
    """Two runs to compare.

    Attributes:
        reference, test: the runs.
        scenario: the scenario that asks for it; None for the comparison with the framework that every run gets.
    """

    reference: RecordedRun
    test: RecordedRun
    scenario: Scenario | None

    @property
    def name(self) -> str:
        """``<reference>__<test>``."""
        return f"{self.reference.name}__{self.test.name}"


@dataclass(frozen=True)
class Plan:
    """What to compare, and what can't be.

    Attributes:
        comparisons: one per pair of runs.
        skipped: optional scenarios that lack a run, a line each.
        failures: scenarios that can't run although they must, a line each.
    """

    comparisons: list[Comparison]
    skipped: list[str]
    failures: list[str]


def recorded_runs(workspace: Workspace) -> list[RecordedRun]:
    """The finished runs of the workspace, the reference first, with each file checked against its hash.

    Runs of an earlier export are left out, with a warning.

    Raises:
        ManifestError: a file of a run is missing or was changed.
        InputError: a run that is recorded as finished is not whole.
    """
    manifest = workspace.manifest()
    runs = []
    for path, record in sorted(manifest.artifacts.items()):
        folder = str(Path(path).parent)
        # Traces and swapped runs lie in other folders: they are not compared.
        ordinary = folder == REFERENCE or Path(folder).parent == Path(RUNS)
        if Path(path).name != "run.json" or not ordinary or not is_current(manifest, record.stage, workspace.root):
            continue
        for relative in manifest.stages[record.stage].outputs:
            if relative.startswith(f"{folder}/"):
                workspace.artifact(relative)
        runs.append(RecordedRun(folder, record.stage, Run.open(workspace.path(folder))))
    return sorted(runs, key=lambda recorded: recorded.run.header.backend != FRAMEWORK)


def plan_comparisons(config: DeployConfig, runs: Sequence[RecordedRun]) -> Plan:
    """What the config asks for, and the comparison of every run with the framework."""
    comparisons: dict[str, Comparison] = {}
    skipped: list[str] = []
    failures: list[str] = []
    scenarios: tuple[Scenario, ...] = getattr(config.verification.scenarios, config.export.mode)
    for scenario in scenarios:
        references = _runs_of(config, runs, scenario.ref_backend, scenario.ref_device)
        tests = _runs_of(config, runs, scenario.test_backend, scenario.test_device)
        missing = [
            f"{backend} on {device}"
            for backend, device, there in (
                (scenario.ref_backend, scenario.ref_device, references),
                (scenario.test_backend, scenario.test_device, tests),
            )
            if not there
        ]
        if missing:
            line = f"{_title(scenario)}: no finished run of {' or '.join(missing)}"
            (skipped if scenario.optional else failures).append(line)
        for reference in references:
            for test in tests:
                comparison = Comparison(reference, test, scenario)
                comparisons[comparison.name] = comparison
    frameworks = [recorded for recorded in runs if recorded.run.header.backend == FRAMEWORK]
    if not frameworks:
        failures.append("the framework reference is missing; make it with: exporter export --force")
    for reference in frameworks:
        for test in runs:
            comparison = Comparison(reference, test, None)
            if test is not reference:
                comparisons.setdefault(comparison.name, comparison)
    return Plan(list(comparisons.values()), skipped, failures)


def _runs_of(config: DeployConfig, runs: Sequence[RecordedRun], backend: str, device: str) -> list[RecordedRun]:
    """Runs of a backend on a device, which may be an alias; several when there are several TensorRT targets."""
    if backend == FRAMEWORK:
        return [recorded for recorded in runs if recorded.run.header.backend == FRAMEWORK]
    wanted = config.device(device)
    return [
        recorded
        for recorded in runs
        if recorded.run.header.backend == backend and _full_name(recorded.run.header.device) == wanted
    ]


def _full_name(device: str) -> str:
    return "cuda:0" if device == "cuda" else device


def _title(scenario: Scenario) -> str:
    reference = FRAMEWORK if scenario.ref_backend == FRAMEWORK else f"{scenario.ref_backend} on {scenario.ref_device}"
    return f"scenario {reference} against {scenario.test_backend} on {scenario.test_device}"


def precision_of(run: Run, config: DeployConfig) -> str:
    """The precision policy that a run computed with, which decides the default limits.

    Raises:
        InputError: the run says it computed with a policy that has no limits.
    """
    policy = precision.precision_of(run.header, config.tensorrt.precision_policy, quantized=config.quantization.enabled)
    if policy not in POLICIES:
        raise InputError(
            f"no tolerances for precision '{policy}'", where=str(run.folder), hint=f"there are: {', '.join(POLICIES)}"
        )
    return policy
