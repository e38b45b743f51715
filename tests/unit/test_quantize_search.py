"""Ranking of layers, the skip list, the Pareto front, and the search of INT8 blocks, on made-up models."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from exporter.quantize.auto import search
from exporter.quantize.cost import LayerCost
from exporter.quantize.search import _kept_float
from exporter.quantize.sensitivity import (
    Estimate,
    Measured,
    build_sensitivity_profile,
    choices,
    choices_json,
    get_sensitive_layers,
    pareto,
    profile_json,
    profile_table,
    write_csv,
)
from shared.errors import GateFailed, UsageError
from shared.layer_blocks import blocks_of
from tests.support.quantizing import net

NAMES = ["encoder.0", "stage.0.a", "stage.0.b", "stage.1.a", "stage.1.b", "head.out"]
BASELINE = 90.0


class Model:
    """Errors add up, and two layers of a stage are worse together."""

    def __init__(self, losses: dict[str, float], together: float = 0.0) -> None:
        self.losses, self.together = losses, together
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, choices: Sequence[Iterable[str]], title: str) -> list[Measured]:
        self.asked += [tuple(int8) for int8 in choices]
        return [self.measured(tuple(int8)) for int8 in choices]

    def measured(self, chosen: tuple[str, ...]) -> Measured:
        loss = sum(self.losses.get(name, 0.0) for name in chosen)
        if {"stage.0.a", "stage.1.a"} <= set(chosen):
            loss += self.together
        return Measured(BASELINE - loss, {"heat": 40.0 - loss, "box": 45.0} if chosen else {})


def estimate(names: Iterable[str] = NAMES) -> Estimate:
    before: frozenset[str] = frozenset()
    layers = []
    for name in names:
        layers.append(LayerCost(name, 10, 1_000_000, 1_000_000, 10, before))
        before = frozenset([name])
    return Estimate(layers, "h200", {})


def test_blocks_are_the_largest_parts_that_are_small_enough() -> None:
    names = [f"back.blocks.{stage}.{layer}" for stage in range(2) for layer in range(4)]
    heads = ["head.shared.conv", "head.tasks.0.reg.0", "head.tasks.0.reg.1", "head.tasks.0.hm.0"]
    blocks = blocks_of([*names, *heads], most=4)
    assert blocks == {"back.blocks.0": tuple(names[:4]), "back.blocks.1": tuple(names[4:]), "head": tuple(heads)}
    smaller = blocks_of([*names, *heads], most=2)
    assert smaller["head.tasks.0.reg"] == ("head.tasks.0.reg.0", "head.tasks.0.reg.1")
    assert smaller["head.shared.conv"] == ("head.shared.conv",)  # a block of one layer has the layer's name
    assert sorted(layer for inside in smaller.values() for layer in inside) == sorted([*names, *heads])


def test_layers_are_ranked_by_what_they_lose_alone() -> None:
    model = Model({"head.out": 3.0, "stage.0.a": 0.4, "stage.1.b": 0.05})
    profile = build_sensitivity_profile(model, NAMES, blocks_of(NAMES, 2))
    assert [(entry.kind, entry.name) for entry in profile[:3]] == [
        ("layer", "head.out"), ("layer", "stage.0.a"), ("block", "stage.0"),
    ]  # fmt: skip
    assert profile[0].drop == pytest.approx(3.0) and profile[0].measured.lowest_snr == pytest.approx(37.0)
    assert get_sensitive_layers(profile) == ["head.out", "stage.0.a"]
    assert get_sensitive_layers(profile, threshold=0.5) == ["head.out"]
    assert get_sensitive_layers(profile, threshold=9.0, min_snr_db=39.7) == ["head.out", "stage.0.a"]
    assert "head.out" in profile_table(profile, "mAP", BASELINE).text()
    assert profile_json(profile)[0] == {
        "kind": "layer", "name": "head.out", "layers": ["head.out"], "drop": pytest.approx(3.0),
        "metric": pytest.approx(BASELINE - 3.0), "snr_db": pytest.approx({"heat": 37.0, "box": 45.0}),
    }  # fmt: skip


def test_no_block_of_one_layer_is_measured_twice() -> None:
    model = Model({})
    build_sensitivity_profile(model, NAMES, blocks_of(NAMES, 2))
    assert len(model.asked) == len(set(model.asked)) == 1 + len(NAMES) + 2


def test_front_holds_what_nothing_beats() -> None:
    model = Model({"head.out": 3.0, "stage.0.a": 0.4})
    profile = build_sensitivity_profile(model, NAMES, blocks_of(NAMES, 2))
    found = choices(model, NAMES, profile, ["head.out"], estimate())
    assert {choice.label for choice in found} >= {"all INT8", "sensitive layers in float: 1", "all float"}
    front = pareto(found)
    assert [choice.latency_ms for choice in front] == sorted(choice.latency_ms for choice in front)
    for choice in found:
        beaten = any(
            other.latency_ms <= choice.latency_ms and other.measured.metric > choice.measured.metric for other in found
        )
        assert not (beaten and choice in front)
    assert front[0].label == "all INT8"
    told = choices_json(found, front, BASELINE)
    assert [choice["label"] for choice in told if choice["marked"]] == [choice.label for choice in front]
    assert [choice["metric"] + choice["drop"] for choice in told] == pytest.approx([BASELINE] * len(found))


def test_csv_has_a_row_for_each_layer_and_block(tmp_path: Path) -> None:
    profile = build_sensitivity_profile(Model({"head.out": 3.0}), NAMES, blocks_of(NAMES, 2))
    write_csv(tmp_path / "report.csv", profile, estimate())
    rows = list(csv.DictReader((tmp_path / "report.csv").open()))
    assert [row["name"] for row in rows] == [entry.name for entry in profile]
    assert (rows[0]["rank"], rows[0]["drop"], rows[0]["snr_db:heat"]) == ("1", "3.0000", "37.00")
    assert float(rows[0]["fp16_ms"]) > float(rows[0]["int8_ms"]) > 0


def test_search_keeps_the_sensitive_block_in_float() -> None:
    model = Model({"head.out": 3.0, "stage.0.a": 0.1})
    found = search(model, blocks_of(NAMES, 2), estimate(), max_drop=0.3)
    assert found.float_blocks == ("head.out",)
    assert found.baseline - found.best.measured.metric <= 0.3


def test_search_proves_the_whole_choice_because_errors_add_up() -> None:
    """Every block alone is well within the limit; all together they are not."""
    model = Model(dict.fromkeys(NAMES, 0.1), together=0.4)
    found = search(model, blocks_of(NAMES, 2), estimate(), max_drop=0.45)
    assert BASELINE - found.best.measured.metric <= 0.45
    assert tuple(found.best.int8) in model.asked
    # And no block that stayed in float could have gone back and made it faster.
    for name in found.float_blocks:
        again = [layer for layer in NAMES if layer in found.best.int8 or layer in blocks_of(NAMES, 2)[name]]
        slower = estimate().latency_ms(again) >= found.best.latency_ms
        assert slower or BASELINE - model.measured(tuple(again)).metric > 0.45


@pytest.mark.parametrize("at_once", [2, 3, 8])
@pytest.mark.parametrize("max_drop", [0.05, 0.25, 0.45, 1.0])
def test_search_finds_the_same_where_several_are_measured_at_once(max_drop: float, at_once: int) -> None:
    losses = {name: 0.07 * position for position, name in enumerate(NAMES)}
    one_by_one, side_by_side = Model(losses, together=0.4), Model(losses, together=0.4)
    blocks = {name: (name,) for name in NAMES}
    found = search(one_by_one, blocks, estimate(), max_drop)
    assert search(side_by_side, blocks, estimate(), max_drop, at_once) == found
    assert set(one_by_one.asked) <= set(side_by_side.asked)


def test_search_leaves_out_what_int8_makes_slower() -> None:
    """A block between float layers pays for quantizing its input and saves less."""
    blocks = {"middle": ("stage.0.b",)}
    lone = estimate()
    assert lone.latency_ms(["stage.0.b"]) > lone.latency_ms([])
    found = search(Model({}), {**blocks, "end": ("stage.1.a", "stage.1.b", "head.out")}, lone, max_drop=1.0)
    assert found.best.latency_ms < lone.latency_ms([])


def test_when_no_block_can_be_int8_the_gate_says_what_came_closest() -> None:
    model = Model(dict.fromkeys(NAMES, 2.0))
    with pytest.raises(GateFailed, match=r"the least lost was 2\.00") as caught:
        search(model, {name: (name,) for name in NAMES}, estimate(), max_drop=0.3)
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(("pattern", "says"), [("[", "is not a regular expression"), ("nothere", "matches no layer")])
def test_a_wrong_pattern_of_layers_to_keep_names_the_option(pattern: str, says: str) -> None:
    with pytest.raises(UsageError, match=rf"^--skip: '.*' {says}"):
        _kept_float(SimpleNamespace(model=net()), [pattern], transposed=False)
