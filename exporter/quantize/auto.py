"""The choice of INT8 blocks that loses at most so many points of the task metric at the least estimated latency.

Greedy with proof: blocks leave INT8 in order of what they lose alone per millisecond that they save, until the metric
of the whole choice, measured together because errors add up, is good enough; then blocks that left are tried again one
by one, and those that pass go back.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from exporter.quantize.sensitivity import Choice, Estimate, Measure
from shared.ask_ahead import Ask, asking_ahead
from shared.errors import GateFailed
from shared.logs import event

# Keeps the order by loss where a block saves next to nothing.
_LEAST_SAVING = 1e-9  # [ms]
_TITLE = "auto"

_log = logging.getLogger("exporter")

#: Names of the blocks in INT8.
Names = tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        best: the choice.
        float_blocks: names of the blocks that stay in floating point.
        tried: every choice that was measured together, in order.
        baseline: metric of the float model [points].
    """

    best: Choice
    float_blocks: tuple[str, ...]
    tried: tuple[Choice, ...]
    baseline: float


def search(
    measure: Measure, blocks: Mapping[str, Sequence[str]], estimate: Estimate, max_drop: float, at_once: int = 1
) -> Found:
    """Find the choice.

    Args:
        measure: measures choices of layers in INT8.
        blocks: layers by name of the block, of those that may be in INT8.
        estimate: of latencies.
        max_drop: points of the metric that may be lost.
        at_once: how many choices `measure` measures side by side; with more than one, also those that the search may
            ask for next. What it finds is the same.

    Raises:
        GateFailed: not one block can be in INT8; says what came closest.
    """
    return _Search(measure, blocks, estimate, max_drop, at_once).run()


class _Search:
    def __init__(
        self,
        measure: Measure,
        blocks: Mapping[str, Sequence[str]],
        estimate: Estimate,
        max_drop: float,
        at_once: int,
    ) -> None:
        self.measure, self.blocks, self.estimate, self.max_drop = measure, blocks, estimate, max_drop
        self.at_once = at_once
        self.baseline = measure([()], _TITLE)[0].metric
        self.tried: dict[Names, Choice] = {}

    def run(self) -> Found:
        worth_it = self.worth_it(self.blocks)
        order = self.order(worth_it)

        def halve_and_refine(is_good: Ask[Names]) -> list[str]:
            return self.refined(self.first_good(worth_it, order, is_good), is_good)

        ask = asking_ahead(halve_and_refine, self.are_good, self.at_once)

        def is_good(names: Names) -> bool:
            verdict = ask(names)
            self.choice(names)
            return verdict

        chosen = halve_and_refine(is_good)
        if not chosen:
            closest = min(self.tried.values(), key=self.drop)
            raise GateFailed(
                f"no choice of INT8 blocks loses at most {self.max_drop:g} points; the least lost was "
                f"{self.drop(closest):.2f}, with {closest.label}",
                where="--max-drop",
                hint="allow more, calibrate with more samples or another method, or fine-tune (exporter quantize qat)",
            )
        outside = tuple(name for name in self.blocks if name not in chosen)
        return Found(self.choice(chosen), outside, tuple(self.tried.values()), self.baseline)

    def layers(self, names: Iterable[str]) -> tuple[str, ...]:
        wanted = set(names)
        return tuple(layer for name, inside in self.blocks.items() if name in wanted for layer in inside)

    def latency(self, names: Iterable[str]) -> float:
        return self.estimate.latency_ms(self.layers(names))

    def drop(self, choice: Choice) -> float:
        return self.baseline - choice.measured.metric

    def choice(self, names: Sequence[str]) -> Choice:
        int8 = self.layers(names)
        if int8 not in self.tried:
            label = f"{len(names)} of {len(self.blocks)} blocks"
            choice = Choice(label, int8, self.latency(names), self.measure([int8], _TITLE)[0])
            drop, latency = self.drop(choice), choice.latency_ms
            extra = event(drop=drop, latency_ms=latency)
            _log.info("auto: INT8 in %s: drop %.2f, %.4f ms (estimate)", label, drop, latency, extra=extra)
            self.tried[int8] = choice
        return self.tried[int8]

    def are_good(self, choices: Sequence[Names]) -> list[bool]:
        measured = self.measure([self.layers(names) for names in choices], _TITLE)
        return [self.baseline - each.metric <= self.max_drop for each in measured]

    def worth_it(self, names: Iterable[str]) -> list[str]:
        """Without the blocks that INT8 makes slower (its input would have to be quantized first)."""
        chosen = list(names)
        while len(chosen) > 1:
            without = {name: self.latency([each for each in chosen if each != name]) for name in chosen}
            best = min(without, key=lambda name: without[name])
            if without[best] >= self.latency(chosen):
                break
            chosen.remove(best)
        return chosen

    def order(self, chosen: Sequence[str]) -> list[str]:
        """Blocks in the order in which they leave INT8."""
        whole = self.latency(chosen)
        measured = dict(zip(chosen, self.measure([self.blocks[name] for name in chosen], _TITLE), strict=True))

        def loss(name: str) -> tuple[float, float]:
            alone = measured[name]
            saved = self.latency([each for each in chosen if each != name]) - whole
            lowest = alone.lowest_snr
            drop = max(0.0, round(self.baseline - alone.metric, 2))
            return (-drop / max(saved, _LEAST_SAVING), lowest if lowest is not None else float("inf"))

        return sorted(chosen, key=loss)

    def first_good(self, chosen: Sequence[str], order: Sequence[str], is_good: Ask[Names]) -> list[str]:
        """The choice after as few blocks have left as must, found by halving: it is taken that fewer lose less."""
        if is_good(tuple(chosen)):
            return list(chosen)
        low, high = 1, len(order)
        while low < high:
            middle = (low + high) // 2
            if is_good(tuple(name for name in chosen if name not in order[:middle])):
                high = middle
            else:
                low = middle + 1
        return [name for name in chosen if name not in order[:low]]

    def refined(self, chosen: Sequence[str], is_good: Ask[Names]) -> list[str]:
        """With the blocks back that are fast in INT8 and that the metric bears, the fastest choice first."""
        chosen = list(chosen)
        while True:
            larger = [
                tuple(name for name in self.blocks if name in chosen or name == back)
                for back in self.blocks
                if back not in chosen
            ]
            faster = [names for names in larger if not chosen or self.latency(names) < self.latency(chosen)]
            better = next((names for names in sorted(faster, key=self.latency) if is_good(names)), None)
            if better is None:
                return chosen
            chosen = list(better)
