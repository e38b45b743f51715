"""Collects what is measured of a workspace, or of one of its versions."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

from evaluator.measured import Machine, Measured, Quantity, Round, Scores, packed
from evaluator.metrics import find_metric
from evaluator.stored import STAGE, settings_by_number, stored_evaluations, stored_replicates
from shared import formats
from shared.errors import InputError
from shared.latency import NOT_STAGES, PROCESSOR, TOTAL
from shared.manifest import Manifest
from shared.staleness import outdated_inputs, refuse_outdated, warn_of_outdated
from shared.versions import KeptWorkspace
from shared.workspace import Workspace

#: How the latencies of `runtime bench` are told from those of a run over the data set.
BENCH = "bench"
#: The stage that verifications are from.
VERIFY = "verify"


def measured(source: Workspace | KeptWorkspace) -> Measured:
    """Everything that is finished and can be compared; a verification of earlier runs is left out, with a warning.

    Raises:
        InputError: nothing was measured there, or by another version, or the workspace's evaluation is of earlier runs.
        ManifestError: a file was changed.
    """
    manifest = source.manifest()
    version = source.version if isinstance(source, KeptWorkspace) else None
    if version is None:
        refuse_outdated(manifest, STAGE, "evaluation", source.root)
        warn_of_outdated(manifest, VERIFY, "verification", source.root)
    latencies = dict(_latencies(source))
    found = Measured(
        name="" if version is None else version.name,
        created=_now() if version is None else version.created,
        note="" if version is None else version.note,
        model="" if manifest.spec is None else manifest.spec.model,
        machine=_machine(manifest, latencies),
        versions=_versions(manifest),
        scores=dict(_scores(source)),
        latencies=latencies,
        quantities=[*_of_engines(manifest), *_of_benches(manifest), *_of_verification(manifest)],
    )
    if found.is_empty():
        where = str(source.root) if version is None else f"{source.root}@{version.name}"
        raise InputError("nothing is measured here", where=where, hint=f"evaluator evaluate --work {source.root}")
    return found


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _machine(manifest: Manifest, latencies: dict[str, list[Round]]) -> Machine:
    """That of the last stage."""
    stages = [stage for stage in manifest.stages.values() if stage.status == "done"]
    last = max(stages, key=lambda stage: stage.ended or "", default=None)
    gpus = [stage for stage in stages if stage.gpu is not None]
    processors = [each.conditions.get(PROCESSOR) for rounds in latencies.values() for each in rounds]
    return Machine(
        host="" if last is None else last.host,
        processor=next((name for name in processors if name is not None), None),
        gpu=gpus[-1].gpu if gpus else None,
        driver=gpus[-1].driver if gpus else None,
    )


def _versions(manifest: Manifest) -> dict[str, str]:
    versions: dict[str, str] = {}
    for stage in manifest.stages.values():
        versions |= {stage.tool: stage.tool_version, **stage.key.get("versions", {})}
    return dict(sorted(versions.items()))


def _scores(source: Workspace | KeptWorkspace) -> Iterator[tuple[str, Scores]]:
    spec = source.manifest().spec
    if spec is None:
        return
    metric = find_metric(spec.task)
    for name, evaluation in stored_evaluations(source).items():
        if evaluation["headline"]:
            yield (
                name,
                Scores(
                    task=spec.task,
                    frames=evaluation["frames"],
                    samples=evaluation["run"]["samples"],
                    computed_with=settings_by_number(evaluation),
                    precision=evaluation["run"]["precision"],
                    lower_is_better=[each for each in evaluation["headline"] if each in metric.LOWER_IS_BETTER],
                    values=evaluation["headline"],
                    intervals=evaluation["intervals"],
                    replicates=packed(stored_replicates(source, name)),
                ),
            )


def _latencies(source: Workspace | KeptWorkspace) -> Iterator[tuple[str, list[Round]]]:
    for name, evaluation in stored_evaluations(source).items():
        if "round" in evaluation:  # not in those of version 0.1
            yield name, [Round.model_validate(evaluation["round"])]
    for name, result in source.manifest().results.get("bench", {}).items():
        if "rounds" in result:
            yield f"{name}, {BENCH}", [Round.model_validate(each) for each in result["rounds"]]


def _of_engines(manifest: Manifest) -> Iterator[Quantity]:
    for name, engine in manifest.results.get("engines", {}).items():
        machine = (engine["gpu"] or {}).get("name") or engine["architecture"]
        yield Quantity(kind="size", subject=name, name="engine", unit="bytes", better="lower", value=engine["bytes"])
        if engine["engine_memory"] is not None:
            yield Quantity(
                kind="memory", subject=name, name="on the GPU", unit="bytes", better="lower",
                value=engine["engine_memory"], made_on=machine,
            )  # fmt: skip
        if not engine.get("refitted"):
            stage = manifest.stages.get(f"build:{name.rpartition('/')[0]}")
            yield Quantity(
                kind="build time", subject=name, name="build", unit="s", better="lower", value=engine["build_seconds"],
                made_on=f"{machine}, {stage.host if stage is not None else ''}",
            )  # fmt: skip
        achieved = engine["achieved"]
        wrong = len(achieved["not_as_asked"])
        yield Quantity(kind="precision", subject=name, name="layers not as asked", better="lower", value=wrong)
        for precision, share in achieved["share_of_matrix_layers"].items():
            if precision not in ("fp32", "none"):
                yield Quantity(
                    kind="precision", subject=name, name=f"matrix layers in {precision}", unit="%", better="higher",
                    value=100 * share,
                )  # fmt: skip


def _of_benches(manifest: Manifest) -> Iterator[Quantity]:
    for name, result in manifest.results.get("bench", {}).items():
        stage = manifest.stages.get(f"bench:{name}")
        if "memory" in result:
            yield Quantity(
                kind="memory", subject=f"{name}, {BENCH}", name="of the process", unit="bytes", better="lower",
                value=result["memory"]["peak_bytes"],
                made_on=result["conditions"].get(PROCESSOR, "" if stage is None else stage.host),
            )  # fmt: skip


def _of_verification(manifest: Manifest) -> Iterator[Quantity]:
    summary = manifest.results.get("verification", {}).get("summary", {})
    outdated = VERIFY in manifest.stages and outdated_inputs(manifest, VERIFY)
    if summary.get("format") != formats.VERIFICATION or outdated:
        return
    for name, comparison in summary["comparisons"].items():
        subject = name.replace("__", " -> ")
        yield _verified(subject, "failures", len(comparison["failures"]))
        noise = [values["snr_db"] for values in comparison["outputs"].values() if values["snr_db"] is not None]
        if noise:
            yield _verified(subject, "lowest SNR", min(noise), unit="dB", better="higher")
        results = comparison["results"]
        alone = results["reference_unmatched"] + results["test_unmatched"] + results["label_flips"]
        total = 2 * results["matched"] + alone
        if total:
            yield _verified(subject, "results without a partner", 100 * alone / total, unit="%")


def _verified(subject: str, name: str, value: float, *, unit: str = "", better: Any = "lower") -> Quantity:
    return Quantity(kind="verification", subject=subject, name=name, unit=unit, better=better, value=value)


def stages_of(rounds: list[Round]) -> list[str]:
    """The stages that every process measured, the total first, without what is no part of a request."""
    common = [name for name in rounds[0].stages if all(name in each.stages for each in rounds)]
    return [TOTAL, *(name for name in common if name not in NOT_STAGES)] if TOTAL in common else []
