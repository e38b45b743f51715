"""The search of `trt_builder tune`: the fastest choice that loses no more than is allowed, by measurement alone.

1. FP32 is what metrics are compared with.
2. Each component takes TF32 or FP16, whichever is faster; where FP16 loses too much, layers go back to FP32.
3. All blocks in INT8; where that is faster, as few of them back in floating point as the metric asks for, by halving.
4. From the best so far: what differs from it by two blocks or by a stretch of layers, the fastest by estimate first. A
   block as a whole may be no faster while most of it is: its ends lie where a conversion costs least.

A choice is run over the data set only if its engines are faster than those of the best.
"""

from __future__ import annotations

import functools
import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from shared.logs import event
from trt_builder.choices.choice import Choice, uniform
from trt_builder.choices.measure import Failed, Score
from trt_builder.choices.ranking import Block, Estimate, leaving_order

_log = logging.getLogger("choices")

#: Latencies that differ by less, as a share, are equal: then the choice that loses less is better.
SAME = 0.01
# An estimate may be so wrong, as a factor, for its choice to be tried.
_TRUST = 1.1

Names = frozenset[str]


class Measure(Protocol):
    """Measures choices; see `trt_builder.choices.measure.Bench`."""

    def components_ms(self, choice: Choice) -> Mapping[str, float]:
        """Of each engine."""

    def score(self, choice: Choice, reference: Choice) -> Score:
        """Against the reference."""


@dataclass(frozen=True)
class Limit:
    """What may be lost.

    Attributes:
        max_drop: points of the metric, against FP32 on the same frames; None: any number.
        min_snr_db: the lowest signal to noise ratio of an output against FP32; None: any.
        sure: whether the bound of the drop's 95 % interval must be within the limit, not only its value.
    """

    max_drop: float | None = None
    min_snr_db: float | None = None
    sure: bool = False

    def allows(self, score: Score) -> bool:
        """Whether a choice is good enough. One that can't be judged is not."""
        if self.max_drop is not None:
            drop = score.high if self.sure else score.drop
            if drop is None or drop > self.max_drop:
                return False
        return self.min_snr_db is None or (score.snr_db is not None and score.snr_db >= self.min_snr_db)


@dataclass(frozen=True)
class Tried:
    """A choice that was measured.

    Attributes:
        choice: its precisions.
        latency_ms: of the engines together; infinite where it can't be built.
        score: None where it was not worth running.
        good: whether it loses no more than is allowed.
    """

    choice: Choice
    latency_ms: float
    score: Score | None = None
    good: bool = False


class Search:
    """One search; `run` does it.

    Args:
        measure: measures choices.
        floats: the float policies that components may have, the more precise first.
        components: names of the components.
        blocks: what may be in INT8, in the order of the model.
        estimate: of latencies, once the best choice in floating point and all of INT8 were built.
        refused: those of some layers that can't be built with these in INT8.
        limit: what may be lost.
        most: choices that are measured in step 4 at most.
    """

    def __init__(
        self,
        measure: Measure,
        floats: Sequence[str],
        components: Sequence[str],
        blocks: Sequence[Block],
        estimate: Callable[[Choice, Choice], Estimate],
        refused: Callable[[Names], Names],
        limit: Limit,
        most: int,
    ) -> None:
        self.measure, self.floats, self.components = measure, floats, components
        self.blocks, self.layers = blocks, [layer for block in blocks for layer in block.layers]
        self.estimate, self.refused, self.limit, self.most = estimate, refused, limit, most
        self.reference = uniform(components, "fp32")
        self.tried: dict[Choice, Tried] = {}

    def run(self) -> Tried:
        """The best choice; FP32 itself where nothing else is good enough, also if it can't be measured."""
        best = self.best_float()
        # Without the reference, nothing can be compared with it.
        if not self.layers or math.isinf(best.latency_ms):
            return best
        everything = self.int8(best, frozenset(self.layers))
        estimate = self.estimate(best.choice, everything.choice)
        if everything.latency_ms <= best.latency_ms * (1 + SAME):
            self.fewest_in_float(best, leaving_order(self.blocks, estimate))
        start = functools.reduce(self.better, [tried for tried in self.tried.values() if tried.good], best)
        return self.neighbors_of(start, best, estimate)

    # -- measuring --------------------------------------------------------------------------------------------------

    def time(self, choice: Choice) -> Tried:
        """Build and time a choice, once."""
        if choice not in self.tried:
            try:
                latency = sum(self.measure.components_ms(choice).values())
                _log.info("%s: engines %.3f ms", choice.label, latency, extra=event(latency_ms=latency))
            except Failed as error:
                _log.warning("%s is left out: %s", choice.label, error)
                latency = math.inf
            self.tried[choice] = Tried(choice, latency)
        return self.tried[choice]

    def judge(self, tried: Tried) -> Tried:
        """Run a choice over the data set, once, and say whether it is good enough."""
        if tried.score is not None or math.isinf(tried.latency_ms):
            return tried
        if tried.choice == self.reference:
            judged = Tried(tried.choice, tried.latency_ms, None, good=True)
        else:
            try:
                score = self.measure.score(tried.choice, self.reference)
            except Failed as error:
                _log.warning("%s is left out: %s", tried.choice.label, error)
                judged = Tried(tried.choice, math.inf)
            else:
                judged = Tried(tried.choice, tried.latency_ms, score, good=self.limit.allows(score))
                _log.info("%s: %s, %s", tried.choice.label, score, "good" if judged.good else "loses too much")
        self.tried[tried.choice] = judged
        return judged

    def better(self, best: Tried, other: Tried) -> Tried:
        """The faster of two choices that are good, or the one that loses less where both take as long."""
        if other.latency_ms < best.latency_ms * (1 - SAME):
            return other
        if other.latency_ms <= best.latency_ms * (1 + SAME) and _loss(other) < _loss(best):
            return other
        return best

    # -- steps ------------------------------------------------------------------------------------------------------

    def best_float(self) -> Tried:
        """The fastest choice without INT8."""
        self.time(self.reference)
        times = {}
        for policy in self.floats:
            choice = uniform(self.components, policy)
            if not math.isinf(self.time(choice).latency_ms):
                times[policy] = self.measure.components_ms(choice)
        if not times:
            return self.judge(self.time(self.reference))
        policies = {}
        for component in self.components:
            precise, *others = times
            policies[component] = precise
            for policy in others:
                if times[policy][component] < times[policies[component]][component] * (1 - SAME):
                    policies[component] = policy
        label = next(iter(policies.values())) if len(set(policies.values())) == 1 else "fastest float"
        mixed = self.judge(self.time(Choice(label, policies)))
        return mixed if mixed.good else self.careful(mixed)

    def careful(self, mixed: Tried) -> Tried:
        """As few layers in FP32 as the metric asks for; else the fastest uniform choice that is good."""
        order = leaving_order(self.blocks, Estimate())
        kept = _fewest(
            len(order),
            lambda count: self.judge(self.time(self.in_fp32(mixed, order[:count]))).good,
        )
        uniforms = [self.time(uniform(self.components, policy)) for policy in self.floats]
        found = [] if kept is None else [self.time(self.in_fp32(mixed, order[:kept]))]
        for tried in sorted([*found, *uniforms], key=lambda each: each.latency_ms):
            if self.judge(tried).good:
                return self.judge(tried)
        return self.judge(self.time(self.reference))

    def in_fp32(self, mixed: Tried, kept: Sequence[Block]) -> Choice:
        """A choice with some blocks in FP32."""
        layers = frozenset(layer for block in kept for layer in block.layers)
        return Choice(f"{mixed.choice.label}, {len(kept)} blocks in FP32", mixed.choice.policies, fp32=layers)

    def int8(self, base: Tried, layers: Names) -> Tried:
        """A choice with these layers in INT8, and else that of ``base``, built and timed."""
        label = "int8" if len(layers) == len(self.layers) else f"int8 in {len(layers)} of {len(self.layers)} layers"
        return self.time(Choice(label, base.choice.policies, layers, base.choice.fp32 - layers))

    def fewest_in_float(self, base: Tried, order: Sequence[Block]) -> None:
        """Try INT8 but for as few blocks as the metric asks for; it is taken that fewer in INT8 lose less."""

        def good(count: int) -> bool:
            inside = frozenset(self.layers).difference(*(block.layers for block in order[:count]))
            return not self.refused(inside) and self.judge(self.int8(base, inside)).good

        _fewest(len(order) - 1, good)

    def neighbors_of(self, best: Tried, base: Tried, estimate: Estimate) -> Tried:
        """What differs little from the best, until nothing is left that is estimated to be faster."""

        def order(inside: Names) -> tuple[bool, float, list[str]]:
            return not self.plausible(inside), estimate.latency_ms(inside), sorted(inside)

        for _ in range(self.most):
            seen = {tried.choice.int8 for tried in self.tried.values()}
            most = _TRUST * estimate.latency_ms(best.choice.int8)
            near = set(self.around(best.choice.int8)) - seen - {frozenset()}
            left = [inside for inside in near if estimate.latency_ms(inside) < most]
            inside = next((each for each in sorted(left, key=order) if not self.refused(each)), None)
            if inside is None:
                break
            tried = self.int8(base, inside)
            if tried.latency_ms <= best.latency_ms * (1 + SAME):
                tried = self.judge(tried)
                best = self.better(best, tried) if tried.good else best
        return best

    def around(self, inside: Names) -> Iterator[Names]:
        """The choices in which a stretch of layers has come into INT8 or left it, or any two blocks have changed."""
        for one, other in itertools.combinations(self.blocks, 2):
            yield inside ^ frozenset(one.layers) ^ frozenset(other.layers)
        for first in range(len(self.layers)):
            for last in range(first, len(self.layers)):
                stretch = frozenset(self.layers[first : last + 1])
                yield inside | stretch
                yield inside - stretch

    def plausible(self, inside: Names) -> bool:
        """Whether nothing speaks against a choice: what its layers lose alone, or a choice within it that lost more."""
        if any(
            each.score is not None and not each.good and each.choice.int8 and each.choice.int8 <= inside
            for each in self.tried.values()
        ):
            return False
        alone = sum(
            max(0.0, block.drop or 0.0) * len(inside.intersection(block.layers)) / len(block.layers)
            for block in self.blocks
        )
        return self.limit.max_drop is None or alone <= self.limit.max_drop


def _loss(tried: Tried) -> float:
    score = tried.score
    if score is None:
        return 0.0
    if score.drop is not None:
        return score.drop
    return math.inf if score.snr_db is None else -score.snr_db


def _fewest(most: int, good: Callable[[int], bool]) -> int | None:
    """The smallest count from 0 to ``most`` that is good, by halving; None where ``most`` is not."""
    if good(0):
        return 0
    if most < 1 or not good(most):
        return None
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        if good(middle):
            high = middle
        else:
            low = middle + 1
    return low
