"""`trt_builder tune`: the fastest assignment of precisions that loses no more than is allowed, and its config."""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict

from shared.answer import Answer
from shared.config.schema import DeployConfig
from shared.config.write import commented_yaml
from shared.errors import BuildError, ConfigError, UsageError
from shared.layer_blocks import blocks_of
from trt_builder.choices.choice import Choice, uniform
from trt_builder.choices.measure import PARETO, Bench
from trt_builder.choices.prepare import FOLDER, TOOL, config_of
from trt_builder.choices.ranking import RANKING, Estimate, blocks, from_engines, from_rooflines
from trt_builder.choices.search import Limit, Search, Tried
from trt_builder.choices.source import Source, matching

_log = logging.getLogger("choices")

CONFIG = f"{FOLDER}/tuned.yaml"
# Beside INT8, TensorRT computes in FP16; ONNX Runtime on a CPU, which stands for it, in FP32.
_FLOATS = {"tensorrt": ("fp32_tf32", "fp16"), "onnx": ("fp32",)}
_KEEP_FLOAT = "--keep-float"


def tune(bench: Bench, limit: Limit, *, keep_float: Sequence[str] = (), most: int) -> Answer:
    """Search, and write the config of what was found.

    Args:
        bench: how choices are measured.
        limit: what may be lost.
        keep_float: names of layers or blocks, or regular expressions: never in INT8.
        most: choices that are tried around the best one at most.

    Returns:
        What to print: the table of all choices that were measured, and what was found.

    Raises:
        ConfigError: nothing was exported with quantized layers, or nothing is left of them.
        UsageError: ``keep_float`` names what is no layer, or nothing can be measured here.
        InputError, EnvironmentLacks: nothing can be measured here.
        BuildError: the reference, FP32, can't be built or run.
    """
    source = bench.source
    if not source.layers:
        raise ConfigError(
            "the export has no quantized layers to choose from",
            where=str(source.workspace.root),
            hint="quantize and export the model first: exporter quantize ptq (docs/quantization.md)",
        )
    refused = source.refused if bench.backend == "tensorrt" else _none
    allowed = source.without(keep_float, _KEEP_FLOAT)
    _check_names(source, keep_float)
    while without := refused(allowed):
        _log.info("without an INT8 kernel, in floating point: %s", ", ".join(sorted(without)))
        allowed -= without
    found = blocks(source, allowed)
    if all(block.drop is None for block in found):
        _log.info("no %s here: blocks leave INT8 from the outputs back (exporter quantize sensitivity)", RANKING)

    def estimate(in_float: Choice, in_int8: Choice) -> Estimate:
        if bench.backend == "tensorrt":
            return from_engines(source, bench.records(in_float), bench.records(in_int8), in_int8.int8)
        return from_rooflines(source)

    search = Search(bench, _FLOATS[bench.backend], source.components, found, estimate, refused, limit, most)
    best = search.run()
    if math.isinf(best.latency_ms):
        raise BuildError(
            "no choice could be measured: the reference, FP32, can't be built or run",
            where=str(source.workspace.root),
            hint="the warning above says why; --force tries again what failed",
        )
    _write(bench, best, limit)
    drawn = bench.draw(search.reference)
    text = "\n".join([drawn, "", *_findings(bench, search, best)])
    lost = {} if best.score is None else asdict(best.score)
    chosen = {"label": best.choice.label, **best.choice.as_json(), "latency_ms": best.latency_ms, **lost}
    return Answer(text, {**drawn.data, "found": chosen, "config": CONFIG})


def _check_names(source: Source, keep_float: Sequence[str]) -> None:
    """Raise for what stands for no layer: it protects nothing, and is a slip of the keyboard."""
    for pattern in keep_float:
        if matching(source.layers, pattern, _KEEP_FLOAT):
            continue
        if matching(source.in_float, pattern, _KEEP_FLOAT):
            _log.info("%s %s: in floating point already", _KEEP_FLOAT, pattern)
            continue
        parts = [name.split(".") for name in (*source.layers, *source.in_float)]
        known = {".".join(part[:depth]) for part in parts for depth in range(1, len(part) + 1)}.union(*parts)
        close = difflib.get_close_matches(pattern, sorted(known), n=1)
        guess = f"did you mean '{close[0]}'? " if close else ""
        raise UsageError(
            f"'{pattern}' is no layer or block that the export quantized",
            where=_KEEP_FLOAT,
            hint=f"{guess}there are: {', '.join(blocks_of(list(source.layers)))}",
        )


def _none(_: frozenset[str]) -> frozenset[str]:
    """ONNX Runtime computes whatever the graph says."""
    return frozenset()


def _write(bench: Bench, best: Tried, limit: Limit) -> None:
    """The config of a choice, as an artifact of the model's workspace."""
    workspace = bench.source.workspace
    stage = workspace.stage(
        "tune",
        tool=TOOL,
        config={**best.choice.as_json(), "limit": [limit.max_drop, limit.min_snr_db, limit.sure], "run": bench.run},
        inputs=bench.source.inputs(),
    )
    if stage.up_to_date(say=False):
        return
    config = config_of(bench.source, best.choice)
    value = config.model_dump(mode="json", exclude_defaults=True)
    header = [
        f"{best.choice.label}: found by trt_builder tune, {bench.run}, engines {best.latency_ms:.3f} ms.",
        "",
        f"Run: make {config.model.type}-int8 CONFIG={workspace.root}/{CONFIG} WORK=WORKSPACE",
        "Override: add --set KEY=VALUE. All keys: docs/configuration.md.",
    ]
    comments = {name: str(field.description) for name, field in DeployConfig.model_fields.items()}
    with stage:
        stage.text_artifact(CONFIG, "config", commented_yaml(value, header, comments))


def _findings(bench: Bench, search: Search, best: Tried) -> list[str]:
    """What was found, beside FP16."""
    score, lines = best.score, []
    lost = ""
    if score is not None and score.drop is not None:
        lost = f", {score.drop:.2f} points lost"
        if score.low is not None and score.high is not None:
            lost += f" ({score.low:+.2f} to {score.high:+.2f})"
    elif score is not None and score.snr_db is not None:
        lost = f", at least {score.snr_db:.1f} dB at every output"
    lines.append(
        f"Found: {best.choice.label}, {len(best.choice.int8)} layers in INT8, engines {best.latency_ms:.3f} ms{lost}"
    )
    half = search.tried.get(uniform(search.components, "fp16"))
    if half is not None and best.choice != half.choice:
        lines.append(f"FP16: engines {half.latency_ms:.3f} ms, {half.latency_ms / best.latency_ms:.2f} times as long")
    if (
        search.limit.max_drop is not None
        and score is not None
        and score.high is not None
        and score.high > search.limit.max_drop
    ):
        lines.append(
            f"The interval reaches beyond {search.limit.max_drop:g} points: more frames would tell "
            "(--num-samples), and --sure asks for it"
        )
    root = bench.source.workspace.root
    return [*lines, f"In {root}: {CONFIG}; {PARETO}, pareto.csv and pareto.svg"]
