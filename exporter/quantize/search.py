"""`exporter quantize sensitivity` and `exporter quantize auto`: the recipes."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from exporter.devices import resolved_device
from exporter.follow_up import arguments_of
from exporter.quantize import auto
from exporter.quantize.bench import Bench, fingerprint, open_bench, open_metric_of
from exporter.quantize.cost import check_gpu
from exporter.quantize.layers import SKIP_OPTION, matching, quantizable
from exporter.quantize.sensitivity import (
    Estimate,
    build_sensitivity_profile,
    choices,
    choices_json,
    choices_table,
    draw,
    get_sensitive_layers,
    pareto,
    profile_json,
    profile_table,
    write_csv,
)
from exporter.quantize.session import Session, open_session
from exporter.quantize.workers import measuring_workers
from shared.answer import Answer
from shared.config.write import to_yaml
from shared.files import copy, sha256_of_file
from shared.json_reader import read_json
from shared.layer_blocks import blocks_of
from shared.stages import StageRun, hold_stages
from shared.workspace import Workspace


@dataclass(frozen=True)
class Request:
    """What both commands are told.

    Attributes:
        config: the deploy config; the metric is measured on its section ``data``.
        work: the workspace; made when it is not there.
        overrides: ``key=value`` for the config.
        data_root: where the data set lies, when not where the config says.
        num_samples: frames to measure on.
        block_size: layers in a block at most.
        gpu: what latencies are estimated for.
        profiles: reports of engines with measured times of layers.
        device: where to measure.
        cluster: measure side by side there, see `shared.cluster.connect`.
        force: measure again what was measured.
    """

    config: Path
    work: Path
    overrides: Sequence[str]
    data_root: Path | None
    num_samples: int
    block_size: int
    gpu: str
    profiles: Sequence[Path]
    device: str
    cluster: str | None
    force: bool


class _Search:
    """What both commands do before and after their own measurements.

    Args:
        request: see `Request`.
        name: of the stage, and of its folder.

    Raises:
        UsageError: a GPU whose peaks are not known, or no such device.
        InputError: no labels, no samples, broken files.
    """

    def __init__(self, request: Request, name: str) -> None:
        check_gpu(request.gpu)
        self.request, self.name = request, name
        self.session = open_session(request.config, request.overrides, request.data_root)
        self._device = resolved_device(self.session.config, request.device)
        self.metric = open_metric_of(self.session, request.num_samples)
        self.workspace = Workspace.create(request.work)
        count = self.session.config.quantization.calibration.num_batches
        self._key = fingerprint(self.session, self.metric, count, request.device)

    def stage(self, settings: Mapping[str, Any]) -> StageRun:
        """The stage: all that its measurements depend on, its own settings, and measured times."""
        times = {f"profile {position}": sha256_of_file(path) for position, path in enumerate(self.request.profiles)}
        sizes = {"block_size": self.request.block_size, "gpu": self.request.gpu}
        return self.workspace.stage(
            self.name,
            tool="exporter",
            config={**self._key["config"], **settings, **sizes},
            inputs={**self._key["inputs"], **times},
            versions=self._key["versions"],
        )

    @contextlib.contextmanager
    def measuring(self, stage: StageRun) -> Iterator[tuple[Bench, Estimate]]:
        """What measures, and what estimates latencies, while the stage runs.

        Raises:
            EnvironmentLacks: no such cluster, or a node lacks something.
        """
        request = self.request
        with (
            measuring_workers(
                request.cluster,
                self.session,
                self.workspace,
                self._key,
                request.data_root,
                request.num_samples,
                self._device,
            ) as workers,
            stage,
            hold_stages(self.workspace.root, ["quantize:search"]),
        ):
            bench = open_bench(
                self.session, self.metric, self.workspace, self._key,
                device=self._device, force=request.force, workers=workers,
            )  # fmt: skip
            yield bench, bench.estimate(request.gpu, request.profiles)

    def file(self, kind: str) -> str:
        """Path of a result in the workspace."""
        return f"quantized/{self.name}/{kind}"

    def record(self, stage: StageRun, skip: Sequence[str], reason: str, text: str, data: Mapping[str, Any]) -> None:
        """Write the results: layers that stay in floating point, tables, and both as JSON."""
        stage.text_artifact(self.file("skip.yaml"), self.name, skip_list(skip, reason))
        stage.text_artifact(self.file("tables.txt"), self.name, f"{text}\n")
        content = {"metric": self.metric.name, **data, "skip": skip}
        stage.json_artifact(self.file("tables.json"), self.name, content)

    def answer(self) -> Answer:
        """The tables, and the next step."""
        path = self.workspace.artifact(self.file("skip.yaml"))
        text = self.workspace.artifact(self.file("tables.txt")).read_text(encoding="utf-8")
        request = self.request
        arguments = arguments_of(request.config, self.workspace.root, request.overrides, request.data_root)
        following = f"exporter quantize ptq {arguments} {shlex.join(['--skip-from', str(path)])}"
        return Answer(f"{text}\nNext: {following}", read_json(self.workspace.artifact(self.file("tables.json"))))


def sensitivity(request: Request, threshold: float, min_snr_db: float | None, output: Path | None) -> Answer:
    """Measure what each layer and block loses alone in INT8, and combined choices of them. Interrupted, it resumes.

    Args:
        request: see `Request`.
        threshold: points of the metric that a layer may lose alone before it goes to the skip list.
        min_snr_db: signal to noise ratio that a layer must keep at every output, or go there too.
        output: a copy of the CSV.

    Returns:
        The tables.

    Raises:
        UsageError: a GPU whose peaks are not known.
        InputError: no labels, no samples, broken files.
        EnvironmentLacks: no such cluster, or a node lacks something.
    """
    search = _Search(request, "sensitivity")
    stage = search.stage({"threshold": threshold, "min_snr_db": min_snr_db})
    metric = search.metric.name
    if request.force or not stage.up_to_date():
        with search.measuring(stage) as (bench, estimate):
            blocks = blocks_of(bench.layers, request.block_size)
            profile = build_sensitivity_profile(bench.measure, bench.layers, blocks)
            skip = get_sensitive_layers(profile, threshold, min_snr_db)
            candidates = choices(bench.measure, bench.layers, profile, skip, estimate)
            front = pareto(candidates)
            baseline = bench.measure([()], "float")[0].metric
            tables = [
                profile_table(profile, metric, baseline),
                choices_table(candidates, front, metric, baseline, estimate.source),
            ]
            with stage.artifact(search.file("report.csv"), kind="sensitivity") as path:
                write_csv(path, profile, estimate)
            with stage.artifact(search.file("picture.png"), kind="sensitivity") as path:
                draw(path, profile, candidates, metric, baseline, estimate.source)
            data = {
                "float": baseline,
                "latency": estimate.source,
                "ranking": profile_json(profile),
                "choices": choices_json(candidates, front, baseline),
            }
            reason = f"lose more than {threshold:g} points of {metric} alone in INT8"
            search.record(stage, skip, reason, "\n\n".join(table.text() for table in tables), data)
    if output is not None:
        copy(search.workspace.artifact(search.file("report.csv")), output)
    return search.answer()


def auto_search(request: Request, max_drop: float, skip: Sequence[str], transposed: bool) -> Answer:
    """Find the INT8 blocks that lose at most ``max_drop`` points at the least estimated latency.

    Interrupted, it resumes.

    Args:
        request: see `Request`.
        max_drop: points of the metric that may be lost, against the float model on the same frames.
        skip: names or regular expressions of layers that stay in floating point in any case.
        transposed: whether ConvTranspose2d may be INT8; TensorRT 8.6 can't build it so.

    Returns:
        The table of what was tried.

    Raises:
        GateFailed: no block can be INT8.
        UsageError, InputError, EnvironmentLacks: as `sensitivity`.
    """
    search = _Search(request, "auto")
    kept = _kept_float(search.session, skip, transposed)
    stage = search.stage({"max_drop": max_drop, "kept": kept})
    metric = search.metric.name
    if request.force or not stage.up_to_date():
        with search.measuring(stage) as (bench, estimate):
            blocks = _blocks(bench, kept, request.block_size)
            found = auto.search(bench.measure, blocks, estimate, max_drop, bench.at_once)
            table = choices_table(found.tried, [found.best], metric, found.baseline, estimate.source)
            left = [name for name in bench.layers if name not in found.best.int8]
            drop = found.baseline - found.best.measured.metric
            summary = f"In floating point: {', '.join([*found.float_blocks, *kept]) or 'nothing'}"
            data = {
                "float": found.baseline,
                "latency": estimate.source,
                "choices": choices_json(found.tried, [found.best], found.baseline),
            }
            reason = f"the others in INT8 lose {drop:.2f} points of {metric}"
            search.record(stage, left, reason, f"{table.text()}\n\n{summary}", data)
    return search.answer()


def _blocks(bench: Bench, kept: Sequence[str], block_size: int) -> dict[str, tuple[str, ...]]:
    """Blocks of the layers that may be INT8; those of the whole model, so that both commands share measurements."""
    blocks = {}
    for name, inside in blocks_of(bench.layers, block_size).items():
        if free := tuple(layer for layer in inside if layer not in kept):
            blocks[name] = free
    return blocks


def _kept_float(session: Session, skip: Sequence[str], transposed: bool) -> list[str]:
    layers = quantizable(session.model)
    kept = {name for name, layer in layers.items() if isinstance(layer, nn.ConvTranspose2d) and not transposed}
    for pattern in skip:
        kept.update(matching(session.model, pattern, SKIP_OPTION))
    return [name for name in layers if name in kept]


def skip_list(layers: Iterable[str], reason: str) -> str:
    """A file for ``exporter quantize ptq --skip-from``: YAML with the key ``sensitive_layers``."""
    content = to_yaml({"sensitive_layers": list(layers)})
    return f"# Layers that stay in floating point: {reason}.\n{content}"
