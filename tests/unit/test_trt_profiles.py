"""Optimization profiles: from config and model spec, complete and checked against the ONNX inputs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ConfigError
from shared.onnx_graph import GraphInput, graph_inputs
from shared.spec import AxisSizes, ModelSpec
from trt_builder.profiles import Sizes, as_json, axes_of, check, resolve

FEATURES = GraphInput("input_features", ("num_voxels", "num_max_points", 11))
IMAGE = GraphInput("spatial_features", ("batch_size", 32, "height", "width"))
FIXED = GraphInput("image", (1, 3, 960, 960))
COMPONENT = {"name": "c", "inputs": [{"name": "x", "dtype": "float32", "shape": [1]}],
             "outputs": [{"name": "y", "dtype": "float32", "shape": [1]}], "onnx": "onnx/c.onnx"}  # fmt: skip
SPEC = ModelSpec.model_validate(
    {"model": "centerpoint", "task": "detection3d", "classes": ["car"], "components": [COMPONENT],
     "parameters": {"max_voxels": 96000, "max_points_per_voxel": 32, "grid_size": [1020, 510, 1]}}
)  # fmt: skip
AXES = axes_of(SPEC.components[0], SPEC)


def sizes(*voxels: int) -> Sizes:
    return Sizes(*((number, 32, 11) for number in voxels))


def test_without_a_config_the_spec_gives_the_sizes() -> None:
    (profile,) = resolve([FEATURES, IMAGE], [{}], AXES, fixed=False, where="components.c")
    assert profile["input_features"] == sizes(1, 24000, 96000)
    assert profile["spatial_features"] == Sizes(*[(1, 32, 510, 1020)] * 3)


def test_the_axes_of_the_spec_s_component_are_the_sizes_whatever_the_model() -> None:
    axes = {"tokens": {"min": 1, "opt": 100, "max": 4000, "counter": "points"}, "width": {"min": 8, "opt": 8, "max": 8}}
    component = SPEC.components[0].model_validate({**COMPONENT, "axes": axes})
    graph_input = GraphInput("x", ("tokens", 4, "width"))
    (profile,) = resolve([graph_input], [{}], axes_of(component, SPEC), fixed=False, where="c")
    assert profile == {"x": Sizes((1, 4, 8), (100, 4, 8), (4000, 4, 8))}


def test_a_spec_written_before_axes_had_sizes_keeps_its_text() -> None:
    assert "axes" not in SPEC.components[0].model_dump(mode="json")
    assert SPEC.components[0].model_dump(mode="json") == {**COMPONENT, "program": None}


@pytest.mark.parametrize("sizes", [(0, 1, 2), (2, 1, 3), (1, 4, 3)])
def test_sizes_of_an_axis_are_in_order(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"greater than or equal to 1|must be min <= opt <= max"):
        AxisSizes(min=sizes[0], opt=sizes[1], max=sizes[2])


def test_the_config_wins_and_what_it_leaves_out_comes_from_the_spec() -> None:
    (profile,) = resolve([FEATURES, IMAGE], [{"input_features": sizes(1000, 2000, 3000)}], AXES, fixed=False, where="c")
    assert profile["input_features"] == sizes(1000, 2000, 3000)
    assert "spatial_features" in profile


def test_a_fixed_profile_has_one_size_the_largest() -> None:
    (profile,) = resolve([FEATURES], [{"input_features": sizes(1, 2, 3)}], AXES, fixed=True, where="c")
    assert profile["input_features"] == sizes(3, 3, 3)


def test_several_profiles_are_kept_in_order() -> None:
    configured = [{"input_features": sizes(1, 2, 3)}, {"input_features": sizes(4, 5, 6)}]
    found = resolve([FEATURES], configured, AXES, fixed=False, where="c")
    assert [profile["input_features"].min[0] for profile in found] == [1, 4]
    assert as_json(found)[1] == {"input_features": {"min": [4, 32, 11], "opt": [5, 32, 11], "max": [6, 32, 11]}}


def test_a_graph_with_fixed_inputs_needs_no_profile() -> None:
    assert resolve([FIXED], [{}], AXES, fixed=False, where="c") == []


def test_a_profile_for_a_fixed_input_must_agree_with_it() -> None:
    with pytest.raises(ConfigError, match=r"axis 3 is 640, but the ONNX input image .* fixes it at 960"):
        resolve([FIXED], [{"image": Sizes(*[(1, 3, 960, 640)] * 3)}], AXES, fixed=False, where="c")


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({"points": sizes(1, 2, 3)}, "names input 'points', which the ONNX file does not have. its inputs are input_f"),
        ({"input_features": sizes(5, 2, 3)}, "axis 0 has min 5, opt 2, max 3; it must be 1 <= min <= opt <= max"),
        ({"input_features": sizes(1, 4, 3)}, "axis 0 has min 1, opt 4, max 3"),
        ({"input_features": sizes(0, 4, 5)}, "axis 0 has min 0"),
        ({"input_features": Sizes((1, 32), (2, 32), (3, 32))}, "has 2 axes, the ONNX input .* has 3"),
        ({"input_features": Sizes(*[(1, 32, 10)] * 3)}, "axis 2 is 10, but the ONNX input .* fixes it at 11"),
    ],
)
def test_what_does_not_fit_is_named(profile: dict[str, Sizes], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        resolve([FEATURES], [profile], AXES, fixed=False, where="components.pts_voxel_encoder")
    assert str(caught.value).startswith("components.pts_voxel_encoder.tensorrt_profile")
    assert caught.value.exit_code == 2


def test_an_axis_that_the_spec_does_not_know_must_be_configured() -> None:
    unknown = GraphInput("x", ("tokens", 4))
    with pytest.raises(ConfigError, match=r"the model spec says nothing about its axis 'tokens'.*give min_shape"):
        resolve([unknown], [{}], AXES, fixed=False, where="c")
    nameless = GraphInput("x", ("", 4))
    with pytest.raises(ConfigError, match=r"no sizes for input x \[\?, 4\]"):
        resolve([nameless], [{}], AXES, fixed=False, where="c")


def shapes() -> st.SearchStrategy[Any]:
    return st.lists(st.tuples(*[st.integers(-2, 40)] * 3), min_size=1, max_size=4)


def test_an_axis_that_a_file_gives_the_size_minus_one_is_dynamic() -> None:
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [-1, 3, 8, 8])
    graph = onnx.helper.make_graph([], "g", [value], [])
    inputs = graph_inputs(onnx.helper.make_model(graph))
    assert inputs == [GraphInput("image", ("", 3, 8, 8))]
    configured = Sizes((1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))
    assert resolve(inputs, [{"image": configured}], {}, fixed=False, where="c") == [{"image": configured}]


@given(shapes(), st.data())
def test_check_accepts_exactly_the_ordered_positive_shapes_that_fit(axes: list[Any], data: st.DataObject) -> None:
    fixed = [data.draw(st.booleans()) for _ in axes]
    graph_input = GraphInput(
        "x", tuple(axis[0] if is_fixed else "n" for axis, is_fixed in zip(axes, fixed, strict=True))
    )
    given_shapes = Sizes(*(tuple(axis[kind] for axis in axes) for kind in range(3)))
    ordered = all(1 <= low <= middle <= high for low, middle, high in axes)
    equal = all(len(set(axis)) == 1 for axis, is_fixed in zip(axes, fixed, strict=True) if is_fixed)
    if ordered and equal:
        check(graph_input, given_shapes, where="c")
    else:
        with pytest.raises(ConfigError):
            check(graph_input, given_shapes, where="c")
