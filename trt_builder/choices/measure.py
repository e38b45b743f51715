"""Measuring a choice: its engines built and proven, timed, run over the data set and evaluated, each thing once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.answer import Answer
from shared.errors import BuildError, DeployError, InferenceError, UsageError
from shared.json_reader import DATA_BYTES, read_json
from shared.latency import TOTAL
from shared.provenance import code_digest, host, package_versions
from shared.stages import StageRun
from shared.workspace import Workspace
from trt_builder import target as targets
from trt_builder.choices.choice import Choice
from trt_builder.choices.commands import call
from trt_builder.choices.prepare import TOOL, prepare
from trt_builder.choices.source import Source

_log = logging.getLogger("choices")

TIME, SCORE = "time", "score"
#: What the manifest of a choice has of its latency, by name of the run.
RESULT = "choice"
#: What `evaluator pareto` writes into the workspace of the model.
PARETO = "choices/pareto.json"
# Bare engines are timed as a graph of launches, without copies.
_LIKE = "trtexec-11"
_LONGEST_WARM_UP = 20.0
# Begins the reason of a stage that failed over the choice itself. What else ended one (Ctrl-C, data or a GPU that was
# missing, a full disk) may be gone by the next call.
_OWN = "can't be built or run: "

Call = Callable[..., str]


class Failed(DeployError):
    """A choice that can't be built or run; the others can."""

    exit_code = BuildError.exit_code


@dataclass(frozen=True)
class Score:
    """How good a choice is, as `evaluator pareto` says.

    Attributes:
        drop: points of the metric lost against the reference, on the same frames; None without labels.
        low, high: 95 % interval of the drop; None where there are too few frames.
        snr_db: the lowest signal to noise ratio of an output against the reference [dB]; None for the reference.
    """

    drop: float | None
    low: float | None
    high: float | None
    snr_db: float | None


@dataclass(frozen=True)
class Bench:
    """How choices are measured.

    Attributes:
        source: the model.
        backend: ``tensorrt``, or ``onnx``, which stands for the engine where there is none.
        device: where it runs.
        num_samples: frames that the metric is measured on; -1: all.
        seconds: how long a choice is timed.
        data_root: where the data set lies, when not where the config says.
        overrides: ``key=value`` for the config.
        cluster: where builds and runs are spread to, see `shared.cluster.connect`; choices are timed here in any case.
        force: measure again what was measured.
        call: runs a command of another tool; see `commands.call`.
    """

    source: Source
    backend: str
    device: str
    num_samples: int
    seconds: float
    data_root: Path | None = None
    overrides: Sequence[str] = ()
    cluster: str | None = None
    force: bool = False
    call: Call = call

    @property
    def run(self) -> str:
        """Name of the runs that are measured, ``tensorrt-cuda0``."""
        from shared.config import from_resolved

        config = from_resolved(self.source.workspace.config(), str(self.source.workspace.root))
        try:
            device = config.device(self.device)
        except KeyError:
            raise UsageError(
                f"no device '{self.device}'", hint="cpu, cuda, cuda:N, or an alias of the config"
            ) from None
        return f"{self.backend}-{device.replace(':', '')}"

    def workspace(self, choice: Choice) -> Workspace:
        """The choice's own workspace."""
        return prepare(self.source, choice, backend=self.backend, overrides=self.overrides)

    def latency_ms(self, choice: Choice) -> float:
        """Time of the engines together [ms], one after the other, built and proven before.

        Raises:
            Failed: it can't be built or run.
            UsageError, InputError, EnvironmentLacks: no choice can be measured here.
        """
        workspace = self.workspace(choice)
        stage = self._stage(workspace, TIME, {"seconds": self.seconds})
        self._once(workspace, stage, choice, self._time)
        return float(workspace.manifest().results[RESULT][self.run]["latency_ms"])

    def components_ms(self, choice: Choice) -> Mapping[str, float]:
        """Time of each engine [ms]; see `latency_ms`."""
        self.latency_ms(choice)
        times: dict[str, float] = self.workspace(choice).manifest().results[RESULT][self.run]["components_ms"]
        return times

    def records(self, choice: Choice) -> list[dict[str, Any]]:
        """The records of a choice's engines, which hold the times of their layers; none where there are no engines."""
        workspace = self.workspace(choice)
        found = [path for path, artifact in workspace.manifest().artifacts.items() if artifact.kind == "engine-record"]
        return [read_json(workspace.artifact(path), most_bytes=DATA_BYTES) for path in found]

    def score(self, choice: Choice, reference: Choice) -> Score:
        """Metric of a choice against that of the reference, on the same frames.

        Raises:
            Failed: it can't be run.
            UsageError, InputError, EnvironmentLacks: no choice can be measured here.
        """
        for each in (reference, choice):
            self.latency_ms(each)
            workspace = self.workspace(each)
            stage = self._stage(workspace, SCORE, {"num_samples": self.num_samples})
            self._once(workspace, stage, each, self._score)
        drawn = self.draw(reference).data["runs"][self.run]
        key = choice.key(self.source.inputs(), self.backend)
        found = next(entry for entry in drawn if entry["key"] == key)
        interval = found["drop_interval"] or {"low": None, "high": None}
        return Score(found["drop"], interval["low"], interval["high"], found["lowest_snr_db"])

    def draw(self, reference: Choice) -> Answer:
        """Bring table, CSV and picture up to date with all that was measured; returns the table."""
        key = reference.key(self.source.inputs(), self.backend)
        text = self.call("evaluator", "pareto", "--work", str(self.source.workspace.root), "--reference", key)
        content = read_json(self.source.workspace.artifact(PARETO), most_bytes=DATA_BYTES)
        return Answer(text, {"runs": content["runs"]})

    # -- steps ------------------------------------------------------------------------------------------------------

    def _stage(self, workspace: Workspace, name: str, settings: Mapping[str, Any]) -> StageRun:
        versions = {"tools": code_digest("runtime", "evaluator"), **self._machine()}
        manifest = workspace.manifest()
        inputs = {
            component.onnx: manifest.artifacts[component.onnx].sha256 for component in workspace.spec().components
        }
        config = {"config": manifest.config, "data": str(self.data_root), "run": self.run, **settings}
        return workspace.stage(f"{name}:{self.run}", tool=TOOL, config=config, inputs=inputs, versions=versions)

    def _machine(self) -> dict[str, str]:
        if self.backend != "tensorrt":
            return {**package_versions(["onnxruntime"]), "host": host()}
        found = targets.find("tensorrt")
        return {"tensorrt": found.tensorrt.version, "gpu": "" if found.gpu is None else found.gpu.name}

    def _once(
        self, workspace: Workspace, stage: StageRun, choice: Choice, work: Callable[[Workspace, StageRun], None]
    ) -> None:
        """Do a stage unless it is done, or has failed before in the same way and over the choice itself."""
        last = workspace.manifest().stages.get(stage.name)
        if not self.force and last is not None and last.fingerprint == stage.fingerprint:
            if last.status == "failed" and last.reason is not None and last.reason.startswith(_OWN):
                raise Failed(last.reason.removeprefix(_OWN), where=choice.label)
            if stage.up_to_date(say=False):
                return
        _log.info("%s: %s", choice.label, stage.name)
        try:
            with stage:
                try:
                    work(workspace, stage)
                except (BuildError, InferenceError) as error:
                    raise Failed(f"{_OWN}{error}") from error
        except Failed as error:
            raise Failed(error.message.removeprefix(_OWN), where=choice.label) from error

    def _time(self, workspace: Workspace, stage: StageRun) -> None:
        work = str(workspace.root)
        if self.backend == "tensorrt":
            timings = self.source.workspace.place("tensorrt").checked()
            build = ("--work", work, "--target", "tensorrt", "--timings", str(timings), *self._cluster())
            self.call("trt_builder", "build", *build)
        like = ("--like", _LIKE) if self.backend == "tensorrt" else ()
        self.call(
            "runtime", "bench", *self._model(work), *like,
            "--seconds", f"{self.seconds:g}", "--warm-up", f"{_LONGEST_WARM_UP:g}",
        )  # fmt: skip
        result = workspace.manifest().results["bench"][self.run]
        names = [component.name for component in workspace.spec().components]
        if "engines" in result:
            times = {name: result["engines"][name]["compute"]["median"] for name in names}
        else:
            times = {name: result["stages"][name]["median"] for name in names}
        stage.result(
            RESULT,
            self.run,
            {"latency_ms": sum(times.values()), "components_ms": times, "total": result["stages"][TOTAL]},
        )

    def _score(self, workspace: Workspace, _: StageRun) -> None:
        work = str(workspace.root)
        samples = ("--num-samples", str(self.num_samples))
        self.call("runtime", "run", *self._model(work), *samples, *self._cluster())
        self.call("evaluator", "evaluate", "--work", work, *self._data())

    def _model(self, work: str) -> tuple[str, ...]:
        return ("--work", work, "--backend", self.backend, "--device", self.device, *self._data())

    def _cluster(self) -> tuple[str, ...]:
        return () if self.cluster is None else ("--cluster", self.cluster)

    def _data(self) -> tuple[str, ...]:
        return () if self.data_root is None else ("--data", str(self.data_root))
