"""The search of `trt_builder tune` on models of which everything is known: it finds the best, and measures no more."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trt_builder.choices.choice import Choice
from trt_builder.choices.measure import Failed, Score
from trt_builder.choices.ranking import Block, Estimate, Tensor, leaving_order
from trt_builder.choices.search import Limit, Search, Tried

COMPONENTS = ("encoder", "head")
NAMES = ("a", "b", "c", "d")


class Known:
    """A model whose blocks are one layer each: what each takes and loses, and what a boundary between types costs.

    Args:
        drops: points that each loses in INT8; they add up.
        savings: milliseconds of 1.0 that INT8 saves each.
        boundary: milliseconds that a boundary costs.
        spread: half the interval of a drop.
    """

    def __init__(
        self,
        drops: Sequence[float],
        savings: Sequence[float] = (0.5,) * 4,
        boundary: float = 0.0,
        spread: float = 0.0,
        fp16_drop: float = 0.02,
    ) -> None:
        self.drops, self.savings = dict(zip(NAMES, drops, strict=True)), dict(zip(NAMES, savings, strict=True))
        self.boundary, self.spread, self.fp16_drop = boundary, spread, fp16_drop
        self.timed: list[Choice] = []
        self.scored: list[Choice] = []
        self.unbuildable: set[str] = set()
        self.alone: set[str] = set()
        self.beside: set[str] = set()

    def components_ms(self, choice: Choice) -> Mapping[str, float]:
        if choice not in self.timed:
            self.timed.append(choice)
        if choice.int8 & self.unbuildable:
            raise Failed("TensorRT does not build it", where=choice.label)
        factor = {"fp32": 8.0, "fp32_tf32": 2.0, "fp16": 1.0}[choice.policies["head"]]
        head = sum(1.0 - self.savings[name] if name in choice.int8 else factor for name in NAMES)
        head += self.boundary * sum((x in choice.int8) != (y in choice.int8) for x, y in itertools.pairwise(NAMES))
        return {"encoder": 0.3, "head": head + len(choice.fp32)}

    def refused(self, inside: frozenset[str]) -> frozenset[str]:
        """Layers without a kernel unless one of others is in INT8, too."""
        return inside & self.alone if inside.isdisjoint(self.beside) else frozenset()

    def drop(self, choice: Choice) -> float:
        half = self.fp16_drop if choice.policies["head"] == "fp16" else 0.0
        return half * (1 - len(choice.fp32) / len(NAMES)) + sum(self.drops[name] for name in choice.int8)

    def score(self, choice: Choice, reference: Choice) -> Score:
        assert set(reference.policies.values()) == {"fp32"}
        self.scored.append(choice)
        drop = self.drop(choice)
        return Score(drop, drop - self.spread, drop + self.spread, 40.0 - 10 * drop)

    def search(self, limit: Limit, most: int = 30, *, ranked: bool = True, size: int = 1) -> Search:
        parts = [NAMES[first : first + size] for first in range(0, len(NAMES), size)]
        blocks = [
            Block("".join(part), part, sum(self.drops[name] for name in part) if ranked else None) for part in parts
        ]
        estimate = Estimate(
            dict.fromkeys(NAMES, 1.0),
            {name: 1.0 - self.savings[name] for name in NAMES},
            tuple(Tensor(one, frozenset([other]), False, 1) for one, other in itertools.pairwise(NAMES)),
            self.boundary,
        )
        return Search(self, ("fp32_tf32", "fp16"), COMPONENTS, blocks, lambda *_: estimate, self.refused, limit, most)

    def faster_near(self, search: Search, found: Tried, limit: float) -> list[Choice]:
        """The choices that differ from what was found by two blocks or a stretch, lose no more, and are faster."""
        near = [Choice("", found.choice.policies, inside) for inside in search.around(found.choice.int8) if inside]
        return [
            choice
            for choice in near
            if self.drop(choice) <= limit and sum(self.components_ms(choice).values()) < found.latency_ms * 0.98
        ]


def test_the_block_that_loses_too_much_stays_in_fp16() -> None:
    found = Known([2.0, 0.05, 0.05, 0.05]).search(Limit(max_drop=0.25)).run()
    assert found.choice.int8 == {"b", "c", "d"}
    assert found.good
    assert found.score == Score(pytest.approx(0.17), pytest.approx(0.17), pytest.approx(0.17), pytest.approx(38.3))


def test_each_component_takes_its_faster_policy_and_the_more_precise_of_equal_ones() -> None:
    found = Known([9.0, 9.0, 9.0, 9.0]).search(Limit(max_drop=0.25)).run()
    assert found.choice.policies == {"encoder": "fp32_tf32", "head": "fp16"}
    assert not found.choice.int8


def test_where_fp16_loses_too_much_layers_stay_in_fp32() -> None:
    model = Known([9.0, 9.0, 9.0, 9.0], fp16_drop=1.0)
    found = model.search(Limit(max_drop=0.5)).run()
    assert len(found.choice.fp32) == 2
    assert model.drop(found.choice) <= 0.5


def test_islands_that_cost_more_than_they_save_are_left() -> None:
    """INT8 in b alone is allowed and slower; in nothing it is the fastest."""
    model = Known([2.0, 0.0, 2.0, 0.0], savings=[0.3] * 4, boundary=0.5)
    found = model.search(Limit(max_drop=0.25)).run()
    assert not found.choice.int8


def test_of_blocks_that_are_no_faster_the_stretch_that_is_gets_found() -> None:
    model = Known([0.0] * 4, savings=[-0.2, 0.5, 0.5, -0.2], boundary=0.1)
    assert model.search(Limit(max_drop=0.25), size=2).run().choice.int8 == {"b", "c"}


@settings(max_examples=80)
@given(
    drops=st.lists(st.sampled_from([0.0, 0.05, 0.1, 0.3, 2.0]), min_size=4, max_size=4),
    savings=st.lists(st.sampled_from([-0.1, 0.1, 0.5]), min_size=4, max_size=4),
    boundary=st.sampled_from([0.0, 0.1, 0.3]),
)
def test_with_a_right_estimate_nothing_near_is_better(
    drops: list[float], savings: list[float], boundary: float
) -> None:
    model = Known(drops, savings, boundary)
    search = model.search(Limit(max_drop=0.25))
    found = search.run()
    assert model.drop(found.choice) <= 0.25
    assert not model.faster_near(search, found, 0.25)


def test_only_choices_that_are_faster_are_run() -> None:
    model = Known([0.0] * 4, savings=[-0.5] * 4)
    model.search(Limit(max_drop=0.25)).run()
    assert all(not choice.int8 or choice.int8 == frozenset(NAMES) for choice in model.scored)


def test_an_interval_beyond_the_limit_is_refused_where_one_must_be_sure() -> None:
    model = Known([0.1, 0.0, 0.0, 0.0], spread=0.2)
    assert model.search(Limit(max_drop=0.25)).run().choice.int8 == frozenset(NAMES)
    sure = model.search(Limit(max_drop=0.25, sure=True)).run()
    assert "a" not in sure.choice.int8
    assert sure.score is not None and sure.score.high is not None and sure.score.high <= 0.25


def test_without_labels_the_signal_to_noise_ratio_decides() -> None:
    found = Known([2.0, 0.05, 0.05, 0.05]).search(Limit(min_snr_db=35.0), ranked=False).run()
    assert found.choice.int8 == {"b", "c", "d"}


def test_blocks_that_tensorrt_does_not_build_stay_out() -> None:
    model = Known([0.0] * 4)
    model.unbuildable = {"d"}
    found = model.search(Limit(max_drop=0.25)).run()
    assert found.choice.int8 == {"a", "b", "c"}


def test_what_has_no_kernel_is_not_built() -> None:
    model = Known([0.0, 2.0, 0.0, 0.0])
    model.alone, model.beside = {"c"}, {"b"}
    found = model.search(Limit(max_drop=0.25)).run()
    assert found.choice.int8 == {"a", "d"}
    assert not any("c" in choice.int8 and "b" not in choice.int8 for choice in model.timed)


def test_of_two_that_are_as_fast_the_one_that_loses_less_is_taken() -> None:
    search = Known([0.0] * 4).search(Limit(max_drop=1.0))
    slow = Tried(Choice("slow", {}), 1.005, Score(0.0, None, None, None), good=True)
    lossy = Tried(Choice("lossy", {}), 1.0, Score(0.3, None, None, None), good=True)
    assert search.better(lossy, slow) is slow
    assert search.better(slow, lossy) is slow


def test_what_was_tried_is_bounded() -> None:
    model = Known([0.1] * 4, boundary=0.05)
    model.search(Limit(max_drop=0.25), most=0).run()
    few = len(model.timed)
    model.search(Limit(max_drop=0.25), most=3).run()
    assert len(model.timed) <= few + 3


def test_what_loses_most_for_what_it_saves_leaves_first() -> None:
    blocks = [Block("a", ("a",), 0.1), Block("b", ("b",), 1.0), Block("c", ("c",), 0.1)]
    estimate = Estimate(dict.fromkeys("abc", 1.0), {"a": 0.9, "b": 0.5, "c": 0.2})
    assert [block.name for block in leaving_order(blocks, estimate)] == ["b", "a", "c"]


def test_without_a_ranking_the_outputs_leave_first() -> None:
    blocks = [Block("first", ("x",)), Block("last", ("y",))]
    assert [block.name for block in leaving_order(blocks, Estimate())] == ["last", "first"]
