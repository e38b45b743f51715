"""`trt_builder sweep`: given choices of precisions, measured and laid side by side."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

from shared.answer import Answer
from shared.errors import BuildError, ConfigError, UsageError
from trt_builder.choices.choice import Choice, uniform
from trt_builder.choices.measure import PARETO, Bench, Failed
from trt_builder.choices.source import Source, skip_list
from trt_builder.policies import POLICIES

_log = logging.getLogger("choices")

# The most precise first: what the others are compared with.
_PRECISE = ("fp32", "fp32_tf32", "auto", "strongly_typed", "bf16", "fp16")
#: What components and layers that are not in INT8 run in, under the policy int8.
BESIDE_INT8 = "fp16"


def sweep(bench: Bench, policies: Sequence[str], skip_lists: Sequence[Path], *, metric: bool = True) -> Answer:
    """Measure a choice per policy, and for ``int8`` one per list of layers that stay in floating point.

    Args:
        bench: how they are measured.
        policies: precision policies.
        skip_lists: files with a list ``sensitive_layers``; none: INT8 in all layers that the export quantized.
        metric: whether choices are run over the data set, not only timed.

    Returns:
        What to print.

    Raises:
        UsageError: no such policy.
        ConfigError: INT8 of a model that was not exported with quantized layers.
        BuildError: no choice could be measured.
    """
    wanted = choices(bench.source, policies, skip_lists)
    reference = min(wanted, key=_imprecision)
    failed: list[Failed] = []
    for choice in [reference, *(each for each in wanted if each is not reference)]:
        try:
            bench.latency_ms(choice)
            if metric:
                bench.score(choice, reference)
        except Failed as error:
            if choice is reference:
                raise BuildError(error.message, where=error.where, hint=error.hint) from error
            _log.warning("%s is left out: %s", choice.label, error)
            failed.append(error)
    if len(failed) == len(wanted):
        raise BuildError("no choice could be measured", where=str(bench.source.workspace.root), hint=str(failed[0]))
    drawn = bench.draw(reference)
    left_out = [str(error) for error in failed]
    lines = [drawn, *(f"left out: {line}" for line in left_out)]
    text = "\n".join([*lines, "", f"In {bench.source.workspace.root}: {PARETO}, pareto.csv and pareto.svg beside it"])
    return Answer(text, {**drawn.data, "left_out": left_out})


def choices(source: Source, policies: Sequence[str], skip_lists: Sequence[Path]) -> list[Choice]:
    """The choices that policies and skip lists stand for.

    Raises:
        UsageError, ConfigError: see `sweep`.
    """
    wanted: list[Choice] = []
    for policy in dict.fromkeys(policies):
        if policy not in POLICIES:
            raise UsageError(f"no policy '{policy}'", where="--policy", hint=f"there are: {', '.join(POLICIES)}")
        if not POLICIES[policy].quantized:
            wanted.append(uniform(source.components, policy))
            continue
        if not source.layers:
            raise ConfigError(
                f"policy {policy} needs layers that the export quantized",
                where=str(source.workspace.root),
                hint="quantize and export the model first: exporter quantize ptq (docs/quantization.md)",
            )
        wanted += int8_choices(source, skip_lists)
    return wanted


def int8_choices(source: Source, skip_lists: Sequence[Path]) -> list[Choice]:
    """A choice in INT8 per skip list, those that leave the same layers in INT8 as one; without one, all layers."""
    rest = dict.fromkeys(source.components, BESIDE_INT8)
    if not skip_lists:
        return [Choice("int8", rest, frozenset(source.layers))]
    files: dict[frozenset[str], Path] = {}
    for path in skip_lists:
        layers = source.without(skip_list(path), str(path))
        if (first := files.setdefault(layers, path)) != path:
            _log.info("%s leaves the same layers in INT8 as %s: one choice", path, first)
    return [Choice(f"int8, {_short(path, files.values())}", rest, layers) for layers, path in files.items()]


def _short(path: Path, paths: Collection[Path]) -> str:
    """The stem of a file, with as many folders before it as tell it from the others: tools give all lists one name."""
    names = [each.absolute().with_suffix("").parts for each in paths]
    own = path.absolute().with_suffix("").parts
    for depth in range(1, len(own)):
        if [name[-depth:] for name in names].count(own[-depth:]) == 1:
            return "/".join(own[-depth:])
    return path.name


def _imprecision(choice: Choice) -> tuple[int, int]:
    policies = set(choice.policies.values())
    return len(choice.int8), max(_PRECISE.index(policy) for policy in policies)
