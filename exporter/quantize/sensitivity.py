"""Which layers and blocks suffer from INT8: each alone in INT8, all others in float, on one calibrated model.

A measurement is a choice of INT8 layers and what came out: the task metric, and the signal to noise ratio of every
output against the float model. `exporter.quantize.bench` makes them, and keeps each in a journal.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from exporter.quantize.cost import GPUS, LayerCost, Times, latency_ms, layer_ms
from shared.files import atomic_path
from shared.layer_blocks import blocks_of
from shared.lazy import lazy_import
from shared.table import Table, number

figure = lazy_import("matplotlib.figure")

#: A layer that costs more than this alone, in points of the metric, is sensitive.
THRESHOLD = 0.1
_BARS = 25


@dataclass(frozen=True)
class Measured:
    """What a model answers with some layers in INT8.

    Attributes:
        metric: of the task, in points (0 to 100).
        snr_db: per output, against the float model's.
    """

    metric: float
    snr_db: Mapping[str, float]

    @property
    def lowest_snr(self) -> float | None:
        """Of the output that suffers most; None where outputs can't be compared."""
        return min(self.snr_db.values(), default=None)


#: Measures the model with each choice of layers in INT8, with a title for the progress; side by side, on a cluster.
Measure = Callable[[Sequence[Iterable[str]], str], list[Measured]]


@dataclass(frozen=True)
class Sensitivity:
    """A layer or block that was alone in INT8.

    Attributes:
        name: of the layer or block.
        kind: ``layer`` or ``block``.
        layers: the layers in it.
        drop: points of the metric lost against the float model; negative where it gained.
        measured: metric and signal to noise ratios.
    """

    name: str
    kind: str
    layers: tuple[str, ...]
    drop: float
    measured: Measured


def build_sensitivity_profile(
    measure: Measure, layers: Sequence[str], blocks: Mapping[str, Sequence[str]] | None = None
) -> list[Sensitivity]:
    """Put each layer, and each block, alone into INT8.

    Args:
        measure: measures choices of layers in INT8.
        layers: names of the layers.
        blocks: layers by name of the block; None: `blocks_of`. A block that is one layer is not measured twice.

    Returns:
        Layers and blocks, those that lose most first; where they lose the same, the lower signal to noise ratio.
    """
    groups: dict[tuple[str, str], tuple[str, ...]] = {("layer", name): (name,) for name in layers}
    for name, inside in (blocks_of(layers) if blocks is None else blocks).items():
        if tuple(inside) != (name,):
            groups["block", name] = tuple(inside)
    baseline, *alone = measure([(), *groups.values()], "sensitivity")
    profile = [
        Sensitivity(name, kind, inside, baseline.metric - measured.metric, measured)
        for ((kind, name), inside), measured in zip(groups.items(), alone, strict=True)
    ]
    return sorted(profile, key=rank)


def rank(entry: Sensitivity) -> tuple[float, float]:
    """Sorts what suffers most first. Drops below a hundredth of a point count as equal."""
    lowest = entry.measured.lowest_snr
    return (-round(entry.drop, 2), lowest if lowest is not None else float("inf"))


def get_sensitive_layers(
    profile: Iterable[Sensitivity], threshold: float = THRESHOLD, min_snr_db: float | None = None
) -> list[str]:
    """Layers that should stay in floating point.

    Args:
        profile: what `build_sensitivity_profile` gave.
        threshold: points of the metric that a layer may lose alone.
        min_snr_db: signal to noise ratio that every output must keep; None: any will do.

    Returns:
        Names of layers, the most sensitive first: what ``quantization.sensitive_layers`` takes.
    """
    sensitive = []
    for entry in profile:
        lowest = entry.measured.lowest_snr
        noisy = min_snr_db is not None and lowest is not None and lowest < min_snr_db
        if entry.kind == "layer" and (entry.drop > threshold or noisy):
            sensitive.append(entry.name)
    return sensitive


# -- latency against metric -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """A choice of INT8 layers, measured.

    Attributes:
        label: what it is.
        int8: the layers in INT8.
        latency_ms: estimated.
        measured: metric and signal to noise ratios.
    """

    label: str
    int8: tuple[str, ...]
    latency_ms: float
    measured: Measured


@dataclass(frozen=True)
class Estimate:
    """What latencies are estimated from: see `exporter.quantize.cost`.

    Attributes:
        layers: all layers of the model.
        gpu: name of the GPU.
        times: measured times of layers, by layer and precision.
    """

    layers: Sequence[LayerCost]
    gpu: str
    times: Times

    def latency_ms(self, int8: Collection[str]) -> float:
        """With these layers in INT8 and the others in FP16."""
        return latency_ms(self.layers, frozenset(int8), GPUS[self.gpu], times=self.times)

    @property
    def source(self) -> str:
        """In words."""
        basis = "measured layer times, else roofline" if self.times else "roofline, a lower bound"
        return f"estimate for {self.gpu} ({basis})"


def choices(
    measure: Measure, layers: Sequence[str], profile: Sequence[Sensitivity], skip: Sequence[str], estimate: Estimate
) -> list[Choice]:
    """Combined choices between all INT8 and all float: the blocks that lose something leave INT8 one after another.

    Args:
        measure: measures choices of layers in INT8.
        layers: all layers.
        profile: what `build_sensitivity_profile` gave.
        skip: sensitive layers; a choice without them is among the results.
        estimate: of latencies.
    """
    blocks = [entry for entry in profile if entry.kind == "block" or _is_alone(entry, profile)]
    blocks = [block for block in blocks if round(block.drop, 2) > 0]
    wanted: dict[tuple[str, ...], str] = {tuple(layers): "all INT8", (): "all float"}
    wanted.setdefault(tuple(name for name in layers if name not in skip), f"sensitive layers in float: {len(skip)}")
    left = list(layers)
    for count, block in enumerate(blocks, start=1):
        left = [name for name in left if name not in block.layers]
        wanted.setdefault(tuple(left), f"worst blocks in float: {count}")
    return [
        Choice(label, int8, estimate.latency_ms(int8), measured)
        for (int8, label), measured in zip(wanted.items(), measure(list(wanted), "latency against metric"), strict=True)
    ]


def _is_alone(entry: Sensitivity, profile: Sequence[Sensitivity]) -> bool:
    """Whether a layer is in no block of several."""
    return not any(other.kind == "block" and entry.name in other.layers for other in profile)


def pareto(found: Iterable[Choice]) -> list[Choice]:
    """The choices that no other beats in both latency and metric, fastest first."""
    front: list[Choice] = []
    for choice in sorted(found, key=lambda each: (each.latency_ms, -each.measured.metric)):
        if not front or choice.measured.metric > front[-1].measured.metric:
            front.append(choice)
    return front


# -- how it is shown --------------------------------------------------------------------------------------------------


def profile_table(profile: Sequence[Sensitivity], metric: str, baseline: float) -> Table:
    """The ranking."""
    rows = [
        [
            str(position), entry.kind, entry.name, str(len(entry.layers)), number(entry.drop, 2),
            number(entry.measured.metric, 2), number(entry.measured.lowest_snr, 1), _worst_output(entry.measured),
        ]
        for position, entry in enumerate(profile, start=1)
    ]  # fmt: skip
    title = f"Alone in INT8, all others float (float: {metric} {baseline:.2f})"
    return Table(title, ["rank", "kind", "name", "layers", "drop", metric, "SNR [dB]", "of output"], rows)


def _worst_output(measured: Measured) -> str:
    return min(measured.snr_db, key=lambda name: measured.snr_db[name], default="-")


def choices_table(
    found: Iterable[Choice], marked: Sequence[Choice], metric: str, baseline: float, source: str
) -> Table:
    """Combined choices, fastest first, some of them marked with a star."""
    rows = [
        [
            "*" if choice in marked else "", choice.label, str(len(choice.int8)), number(choice.latency_ms, 4),
            number(choice.measured.metric, 2), number(baseline - choice.measured.metric, 2),
            number(choice.measured.lowest_snr, 1),
        ]
        for choice in sorted(found, key=lambda each: each.latency_ms)
    ]  # fmt: skip
    title = f"Together (float: {metric} {baseline:.2f}); latency: {source}"
    return Table(title, ["", "choice", "INT8 layers", "ms", metric, "drop", "SNR [dB]"], rows)


def profile_json(profile: Sequence[Sensitivity]) -> list[dict[str, Any]]:
    """The ranking."""
    return [
        {"kind": entry.kind, "name": entry.name, "layers": list(entry.layers), "drop": entry.drop}
        | asdict(entry.measured)
        for entry in profile
    ]


def choices_json(found: Iterable[Choice], marked: Sequence[Choice], baseline: float) -> list[dict[str, Any]]:
    """Combined choices, fastest first."""
    return [
        {
            "label": choice.label,
            "int8": list(choice.int8),
            "latency_ms": choice.latency_ms,
            "drop": baseline - choice.measured.metric,
            "marked": choice in marked,
        }
        | asdict(choice.measured)
        for choice in sorted(found, key=lambda each: each.latency_ms)
    ]


def write_csv(path: Path, profile: Sequence[Sensitivity], estimate: Estimate) -> None:
    """The ranking as CSV: a row per layer and block, a column ``snr_db:<output>`` per output; times are estimates."""
    outputs = sorted({name for entry in profile for name in entry.measured.snr_db})
    precisions = ("fp32", "fp16", "int8")
    costs = {layer.name: layer for layer in estimate.layers}
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["rank", "kind", "name", "layers", "drop", "metric", "lowest_snr_db",
             *(f"snr_db:{name}" for name in outputs), "gmacs", *(f"{each}_ms" for each in precisions)]
        )  # fmt: skip
        for position, entry in enumerate(profile, start=1):
            inside = [costs[name] for name in entry.layers if name in costs]
            times = [sum(layer_ms(layer, each, GPUS[estimate.gpu]) for layer in inside) for each in precisions]
            ratios = [number(entry.measured.snr_db.get(name), 2) for name in outputs]
            writer.writerow(
                [position, entry.kind, entry.name, len(entry.layers), f"{entry.drop:.4f}",
                 f"{entry.measured.metric:.4f}", number(entry.measured.lowest_snr, 2), *ratios,
                 f"{sum(layer.macs for layer in inside) / 1e9:.4f}", *(f"{time:.6f}" for time in times)]
            )  # fmt: skip


def draw(
    path: Path, profile: Sequence[Sensitivity], found: Sequence[Choice], metric: str, baseline: float, source: str
) -> None:
    """A picture: what the most sensitive layers and blocks lose, and the metric against the latency."""
    shown = profile[:_BARS]
    page = figure.Figure(figsize=(13, 1.6 + 0.26 * max(len(shown), 12)), layout="constrained")
    bars, front = page.subplots(1, 2)
    positions = range(len(shown))
    colors = ["#c0392b" if entry.kind == "block" else "#2980b9" for entry in shown]
    bars.barh(positions, [entry.drop for entry in shown], color=colors)
    labels = [f"{entry.name}  ({number(entry.measured.lowest_snr, 0)} dB)" for entry in shown]
    bars.set_yticks(positions, labels, fontsize=7)
    bars.invert_yaxis()
    bars.set_xlabel(f"{metric} lost alone in INT8 [points]; layers blue, blocks red")
    front.plot([each.latency_ms for each in found], [each.measured.metric for each in found], "o", color="#7f8c8d")
    best = pareto(found)
    front.plot([each.latency_ms for each in best], [each.measured.metric for each in best], "-o", color="#27ae60")
    for each in best:
        place = (each.latency_ms, each.measured.metric)
        front.annotate(str(len(each.int8)), place, (0, 5), textcoords="offset points", fontsize=8)
    front.axhline(baseline, linestyle=":", color="black", linewidth=0.8)
    front.set_xlabel(f"latency [ms]: {source}\nnumbers: layers in INT8")
    front.set_ylabel(f"{metric} [points], dotted: float")
    with atomic_path(path) as temporary:
        page.savefig(temporary, format="png", dpi=90)
