"""`exporter quantize sensitivity` and `exporter quantize auto`: the recipes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from exporter.devices import resolved_device
from exporter.quantize import auto
from exporter.quantize.bench import Bench, fingerprint, open_bench, open_metric_of
from exporter.quantize.cost import check_gpu
from exporter.quantize.layers import matching, quantizable
from exporter.quantize.sensitivity import (
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
from shared.errors import UsageError
from shared.files import copy, sha256_of_file
from shared.json_reader import read_json
from shared.layer_blocks import blocks_of
from shared.stages import StageRun, hold_stages
from shared.workspace import Workspace

_log = logging.getLogger("exporter")


def sensitivity(
    config_path: Path,
    work: Path,
    overrides: Sequence[str] = (),
    *,
    data_root: Path | None = None,
    num_samples: int,
    threshold: float,
    min_snr_db: float | None = None,
    block_size: int,
    gpu: str,
    profiles: Sequence[Path] = (),
    output: Path | None = None,
    device: str = "cpu",
    cluster: str | None = None,
    force: bool = False,
) -> Answer:
    """Measure what each layer and block loses alone in INT8, and combined choices of them. Interrupted, it resumes.

    Args:
        config_path: the deploy config; the metric is measured on its section ``data``.
        work: the workspace; made when it is not there.
        overrides: ``key=value`` for the config.
        data_root: where the data set lies, when not where the config says.
        num_samples: frames to measure on.
        threshold: points of the metric that a layer may lose alone before it goes to the skip list.
        min_snr_db: signal to noise ratio that a layer must keep at every output, or go there too.
        block_size: layers in a block at most.
        gpu: what latencies are estimated for.
        profiles: reports of engines with measured times of layers.
        output: a copy of the CSV.
        device: where to measure.
        cluster: measure side by side there, see `shared.cluster.connect`.
        force: measure again what was measured.

    Returns:
        The tables.

    Raises:
        UsageError: a GPU whose peaks are not known.
        InputError: no labels, no samples, broken files.
        EnvironmentLacks: no such cluster, or a node lacks something.
    """
    check_gpu(gpu)
    session = open_session(config_path, overrides, data_root)
    place = resolved_device(session.config, device)
    metric = open_metric_of(session, num_samples)
    workspace = Workspace.create(work)
    key = fingerprint(session, metric, session.config.quantization.calibration.num_batches, device)
    settings = {"threshold": threshold, "min_snr_db": min_snr_db, "block_size": block_size, "gpu": gpu}
    names = {
        kind: f"quantized/sensitivity/{kind}"
        for kind in ("report.csv", "picture.png", "skip.yaml", "tables.txt", "tables.json")
    }
    stage = _stage(workspace, "sensitivity", key, settings, profiles)
    if force or not stage.up_to_date():
        with (
            measuring_workers(cluster, session, workspace, key, data_root, num_samples, place) as workers,
            stage,
            hold_stages(workspace.root, ["quantize:search"]),
        ):
            bench = open_bench(session, metric, workspace, key, device=place, force=force, workers=workers)
            estimate = bench.estimate(gpu, profiles)
            profile = build_sensitivity_profile(bench.measure, bench.layers, blocks_of(bench.layers, block_size))
            skip = get_sensitive_layers(profile, threshold, min_snr_db)
            candidates = choices(bench.measure, bench.layers, profile, skip, estimate)
            baseline = bench.measure([()], "float")[0].metric
            tables = [
                profile_table(profile, metric.name, baseline),
                choices_table(candidates, pareto(candidates), metric.name, baseline, estimate.source),
            ]
            with stage.artifact(names["report.csv"], kind="sensitivity") as path:
                write_csv(path, profile, estimate)
            with stage.artifact(names["picture.png"], kind="sensitivity") as path:
                draw(path, profile, candidates, metric.name, baseline, estimate.source)
            reason = f"lose more than {threshold:g} points of {metric.name} alone in INT8"
            stage.text_artifact(names["skip.yaml"], "sensitivity", skip_list(skip, reason))
            text = "\n\n".join(table.text() for table in tables)
            stage.text_artifact(names["tables.txt"], "sensitivity", f"{text}\n")
            data = {
                "metric": metric.name,
                "float": baseline,
                "latency": estimate.source,
                "ranking": profile_json(profile),
                "choices": choices_json(candidates, pareto(candidates), baseline),
                "skip": skip,
            }
            stage.json_artifact(names["tables.json"], "sensitivity", data)
    if output is not None:
        copy(workspace.artifact(names["report.csv"]), output)
    return _tables_and_next_step(workspace, names, config_path)


def auto_search(
    config_path: Path,
    work: Path,
    overrides: Sequence[str] = (),
    *,
    data_root: Path | None = None,
    num_samples: int,
    max_drop: float,
    skip: Sequence[str] = (),
    transposed: bool = False,
    block_size: int,
    gpu: str,
    profiles: Sequence[Path] = (),
    device: str = "cpu",
    cluster: str | None = None,
    force: bool = False,
) -> Answer:
    """Find the INT8 blocks that lose at most ``max_drop`` points at the least estimated latency.

    Interrupted, it resumes.

    Args:
        max_drop: points of the metric that may be lost, against the float model on the same frames.
        skip: names or regular expressions of layers that stay in floating point in any case.
        transposed: whether ConvTranspose2d may be INT8; TensorRT 8.6 can't build it so.
        config_path, work, overrides, data_root, num_samples, block_size, gpu, profiles, device, cluster, force: as in
            `sensitivity`.

    Returns:
        The table of what was tried.

    Raises:
        GateFailed: no block can be INT8.
        UsageError: a GPU whose peaks are not known.
        InputError: no labels, no samples, broken files.
        EnvironmentLacks: no such cluster, or a node lacks something.
    """
    check_gpu(gpu)
    session = open_session(config_path, overrides, data_root)
    place = resolved_device(session.config, device)
    metric = open_metric_of(session, num_samples)
    workspace = Workspace.create(work)
    key = fingerprint(session, metric, session.config.quantization.calibration.num_batches, device)
    kept = _kept_float(session, skip, transposed)
    settings = {"max_drop": max_drop, "kept": kept, "block_size": block_size, "gpu": gpu}
    names = {kind: f"quantized/auto/{kind}" for kind in ("skip.yaml", "tables.txt", "tables.json")}
    stage = _stage(workspace, "auto", key, settings, profiles)
    if force or not stage.up_to_date():
        with (
            measuring_workers(cluster, session, workspace, key, data_root, num_samples, place) as workers,
            stage,
            hold_stages(workspace.root, ["quantize:search"]),
        ):
            bench = open_bench(session, metric, workspace, key, device=place, force=force, workers=workers)
            estimate = bench.estimate(gpu, profiles)
            blocks = _blocks(bench, kept, block_size)
            found = auto.search(bench.measure, blocks, estimate, max_drop, bench.at_once)
            table = choices_table(found.tried, [found.best], metric.name, found.baseline, estimate.source)
            left = [name for name in bench.layers if name not in found.best.int8]
            drop = found.baseline - found.best.measured.metric
            reason = f"the others in INT8 lose {drop:.2f} points of {metric.name}"
            stage.text_artifact(names["skip.yaml"], "auto", skip_list(left, reason))
            summary = f"In floating point: {', '.join([*found.float_blocks, *kept]) or 'nothing'}"
            stage.text_artifact(names["tables.txt"], "auto", f"{table.text()}\n\n{summary}\n")
            data = {
                "metric": metric.name,
                "float": found.baseline,
                "latency": estimate.source,
                "choices": choices_json(found.tried, [found.best], found.baseline),
                "skip": left,
            }
            stage.json_artifact(names["tables.json"], "auto", data)
    return _tables_and_next_step(workspace, names, config_path)


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
        found = matching(session.model, pattern)
        if not found:
            raise UsageError(f"'{pattern}' matches no layer", where="--skip", hint=f"layers: {', '.join(layers)}")
        kept.update(found)
    return [name for name in layers if name in kept]


def _stage(
    workspace: Workspace, name: str, key: Mapping[str, Any], settings: Mapping[str, Any], profiles: Sequence[Path]
) -> StageRun:
    """The stage of a search: all that its measurements depend on, its own settings, and measured times."""
    times = {f"profile {position}": sha256_of_file(path) for position, path in enumerate(profiles)}
    return workspace.stage(
        name,
        tool="exporter",
        config={**key["config"], **settings},
        inputs={**key["inputs"], **times},
        versions=key["versions"],
    )


def skip_list(layers: Iterable[str], reason: str) -> str:
    """A file for ``exporter quantize ptq --skip-from``: YAML with the key ``sensitive_layers``."""
    content = to_yaml({"sensitive_layers": list(layers)})
    return f"# Layers that stay in floating point: {reason}.\n{content}"


def _tables_and_next_step(workspace: Workspace, names: Mapping[str, str], config_path: Path) -> Answer:
    path = workspace.artifact(names["skip.yaml"])
    text = workspace.artifact(names["tables.txt"]).read_text(encoding="utf-8")
    following = f"exporter quantize ptq --config {config_path} --work {workspace.root} --skip-from {path}"
    return Answer(f"{text}\nNext: {following}", read_json(workspace.artifact(names["tables.json"])))
