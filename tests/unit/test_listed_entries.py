"""What a network lists best first: entries that are nearly equal may change places, and nothing else is forgiven."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.exporter

from exporter.artifacts.checks import TOLERANCE, compare, relative, root_mean_square  # noqa: E402
from exporter.artifacts.listed import in_order_of  # noqa: E402
from exporter.component import Component  # noqa: E402
from shared.errors import ExportError  # noqa: E402
from shared.spec import TensorSpec  # noqa: E402

# Scores of 12 cells; those of cells 2 and 5 differ by less than the tolerance.
SCORES = torch.tensor([[0.1, 0.9, 0.50000, 0.2, 0.8, 0.50001, 0.3, 0.0, 0.15, 0.25, 0.05, 0.35]])
PLACES = torch.arange(12.0)
TIED = [2, 3]  # their places in the list


class Best(torch.nn.Module):
    """The best 9 of the cells: their scores (1, 1, 9), and their places (1, 2, 9)."""

    def forward(self, scores: Any) -> Any:
        best = scores.topk(9, dim=1)
        places = PLACES[best.indices]
        return best.values[:, None], torch.stack([places, -places], dim=1)


def component(listed_along: int | None) -> Component:
    return Component(
        name="best",
        module=Best().eval(),
        inputs=(TensorSpec(name="scores", dtype="float32", shape=[1, 12]),),
        outputs=(
            TensorSpec(name="score", dtype="float32", shape=[1, 1, 9]),
            TensorSpec(name="place", dtype="float32", shape=[1, 2, 9]),
        ),
        inputs_of=lambda sizes: (SCORES,),
        trace_sizes={},
        check_sizes=({},),
        deployed_sizes={},
        listed_along=listed_along,
    )


def results(change: Callable[[Any, Any], None]) -> list[Any]:
    score, place = (value.numpy().copy() for value in Best()(SCORES))
    change(score, place)
    return [score, place]


def swap_tied(score: Any, place: Any) -> None:
    for values in (score, place):
        values[..., TIED] = values[..., TIED[::-1]]


def swap_in_one_output(score: Any, place: Any) -> None:
    place[..., [0, 4]] = place[..., [4, 0]]


def another_cell(score: Any, place: Any) -> None:
    swap_tied(score, place)
    place[..., 4] = [[0.0, 0.0]]


def one_twice(score: Any, place: Any) -> None:
    for values in (score, place):
        values[..., 4] = values[..., 3]


def other_way_round(score: Any, place: Any) -> None:
    for values in (score, place):
        values[...] = values[..., ::-1].copy()


def shifted(score: Any, place: Any) -> None:
    for values in (score, place):
        values[...] = np.roll(values, 1, -1)


def lost(score: Any, place: Any) -> None:
    score[..., 1] = np.nan


@pytest.mark.parametrize("measure", [relative, root_mean_square])
def test_tied_entries_may_change_places(measure: Any) -> None:
    swapped = results(swap_tied)
    (agreement,) = compare(component(2), lambda inputs: swapped, TOLERANCE, "it", measure=measure)
    assert agreement.largest_difference == 0
    with pytest.raises(ExportError, match="differ in 'place'"):
        compare(component(None), lambda inputs: swapped, TOLERANCE, "it", measure=measure)


@pytest.mark.parametrize("fault", [swap_in_one_output, another_cell, one_twice, other_way_round, shifted, lost])
@pytest.mark.parametrize("measure", [relative, root_mean_square])
def test_all_else_is_seen(fault: Callable[[Any, Any], None], measure: Any) -> None:
    with pytest.raises(ExportError, match="it and PyTorch differ"):
        compare(component(2), lambda inputs: results(fault), TOLERANCE, "it", rounding_margin=4.0, measure=measure)


def test_entries_of_all_outputs_move_together() -> None:
    rng = np.random.default_rng(0)
    reference = [rng.normal(size=(1, 3, 200)), rng.normal(size=(1, 8, 200))]
    order = np.arange(200).reshape(-1, 4)[:, [2, 0, 3, 1]].reshape(-1)
    moved = [value[..., order] + rng.normal(0, 1e-6, value[..., order].shape) for value in reference]
    again = in_order_of(reference, moved, 2)
    assert all(np.abs(got - value).max() < 1e-5 for got, value in zip(again, reference, strict=True))
