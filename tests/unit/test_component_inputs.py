"""Engines that index are measured with the indices of a request, of which random numbers would name a few rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from runtime import engine_times
from runtime.component_inputs import index_inputs
from shared.engines import filled_up
from shared.spec import ModelSpec
from tests.support import cuda_on_cpu
from tests.support import frnet_device as double

POINTS = np.random.default_rng(0).normal(0, 12, (400, 4)).astype(np.float32)
INDICES = {"coors", "inverse_map", "frustum_points", "pixel_frustums"}


def test_indices_are_those_that_the_steps_give_the_network() -> None:
    spec = double.spec()
    session = double.HostSession(spec, "float32")
    (given,) = index_inputs(spec, session, POINTS).values()
    assert set(given) == INDICES
    for name, array in given.items():
        np.testing.assert_array_equal(array, session.inputs[name], name, strict=True)


def test_nothing_runs_for_a_model_whose_inputs_are_numbers() -> None:
    spec = double.spec()
    tensors = [tensor.model_copy(update={"dtype": "float32"}) for tensor in spec.components[0].inputs]
    without = spec.model_copy(update={"components": [spec.components[0].model_copy(update={"inputs": tensors})]})
    assert index_inputs(without, Never(), POINTS) == {}


class Never:
    """A session that nobody asks."""

    settings: ClassVar[dict[str, Any]] = {}

    def run(self, component: str, inputs: Any) -> Any:
        raise AssertionError(component)


def test_rows_that_a_profile_has_more_repeat_the_first() -> None:
    array = np.arange(6, dtype=np.int32).reshape(3, 2) + 1
    np.testing.assert_array_equal(filled_up(array, (5, 2)), [[1, 2], [3, 4], [5, 6], [1, 2], [1, 2]])
    assert filled_up(array, (3, 2)) is array
    np.testing.assert_array_equal(filled_up(array[:0], (2, 2)), np.zeros((2, 2), np.int32), strict=True)


@pytest.mark.parametrize("more", [0, 200])
def test_an_engine_is_measured_with_what_is_given_and_random_numbers_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, more: int
) -> None:
    spec: ModelSpec = double.spec()
    session: Any = double.FRNetSession(cuda_on_cpu.use(monkeypatch, tmp_path), spec, "float32")
    (component,) = spec.components
    (given,) = index_inputs(spec, double.HostSession(spec, "float32"), POINTS).values()
    rows = len(given["coors"])
    shapes = {
        "points": (rows + more, 4),
        **{name: (len(array) + more, *array.shape[1:]) for name, array in given.items()},
    }
    inputs = engine_times._inputs(session, component.name, shapes, given)
    assert set(inputs) == {"points", *INDICES}
    for name, array in given.items():
        assert inputs[name].shape == shapes[name]
        np.testing.assert_array_equal(inputs[name].get()[: len(array)], array, name)
    points = inputs["points"].get()
    assert points.shape == shapes["points"]
    assert 0.9 < points.std() < 1.1
