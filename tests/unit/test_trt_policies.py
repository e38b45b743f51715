"""Precision policies on a graph: what each asks of every matrix node, and what makes no sense."""

from __future__ import annotations

import onnx
import pytest
from onnx import numpy_helper

from shared.cast_graph import lower
from shared.errors import ConfigError
from shared.spec import ComponentSpec, TensorSpec
from tests.support.trt_workspaces import encoder, head, quantize
from trt_builder.policies import POLICIES, flags_do, kept_by_model, resolve

CONVOLUTIONS = 17


def expected(policy: str, model: onnx.ModelProto, *keep: str) -> dict[str, str]:
    return dict(resolve(policy, model, keep, where="x.onnx").expected)


@pytest.mark.parametrize(
    ("policy", "precision"),
    [("auto", "fp32"), ("fp32", "fp32"), ("fp32_tf32", "fp32"), ("fp16", "fp16"), ("strongly_typed", "fp32")],
)
def test_every_matrix_node_of_a_plain_graph(policy: str, precision: str) -> None:
    found = expected(policy, head())
    assert len(found) == CONVOLUTIONS
    assert set(found.values()) == {precision}


def test_bf16_leaves_transposed_convolutions_free() -> None:
    found = expected("bf16", head())
    assert len(found) == CONVOLUTIONS - 1
    assert set(found.values()) == {"bf16"}
    assert "ConvTranspose" in next(iter(resolve("bf16", head(), (), where="x").keep))


@pytest.mark.parametrize(("policy", "tf32"), [("auto", None), ("fp32", False), ("fp32_tf32", True), ("fp16", None)])
def test_tf32(policy: str, tf32: bool | None) -> None:
    assert resolve(policy, head(), (), where="x.onnx").tf32 is tf32


def test_kept_nodes_are_expected_in_fp32_and_switch_tf32_off() -> None:
    resolved = resolve("fp16", head(), ["/head/.*", r".*blocks\.0\.0/Conv"], where="x.onnx")
    assert {name for name, precision in resolved.expected.items() if precision == "fp32"} == {
        name for name in resolved.expected if name.startswith("/head/") or "blocks.0.0" in name
    }
    assert resolved.tf32 is False


def test_a_pattern_that_matches_nothing_is_an_error_that_shows_names() -> None:
    with pytest.raises(ConfigError, match=r"'/haed/.\*' matches no node.*/backbone/blocks.0/blocks.0.0/Conv"):
        resolve("fp16", head(), ["/haed/.*"], where="x.onnx")


@pytest.mark.parametrize(("policy", "kept"), [("fp16", ["/head/"]), ("bf16", ["/head/"]), ("fp32_tf32", [])])
def test_a_model_keeps_nodes_where_a_policy_lowers_them(
    caplog: pytest.LogCaptureFixture, policy: str, kept: list[str]
) -> None:
    tensor = TensorSpec(name="x", dtype="float32", shape=[1])
    model = ComponentSpec(
        name="head", inputs=[tensor], outputs=[tensor], onnx="onnx/head.onnx", keep_fp32=["/head/", "/boxes/"]
    )
    assert kept_by_model(policy, head(), model) == kept
    assert ("no node has a name like /boxes/, which should stay in FP32" in caplog.text) is bool(kept)


def test_patterns_under_a_policy_that_lowers_nothing_are_an_error() -> None:
    with pytest.raises(ConfigError, match="keep_fp32 has no meaning under precision_policy fp32"):
        resolve("fp32", head(), ["/head/.*"], where="x.onnx")


@pytest.mark.parametrize("policy", ["int8", "explicit_int8"])
def test_int8_without_qdq_is_an_error(policy: str) -> None:
    with pytest.raises(ConfigError, match=f"x.onnx: precision_policy {policy} needs Q/DQ nodes") as caught:
        resolve(policy, head(), (), where="x.onnx")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("policy", "rest"), [("int8", "fp16"), ("auto", "fp32"), ("strongly_typed", "fp32")])
def test_quantized_convolutions_are_expected_in_int8_and_the_rest_not(policy: str, rest: str) -> None:
    found = expected(policy, quantize(head()))
    assert found.pop("/neck/deblocks.1/ConvTranspose") == rest
    assert set(found.values()) == {"int8"}
    assert len(found) == CONVOLUTIONS - 1


def test_a_graph_in_fp16_stays_so_under_every_policy_that_follows_the_graph() -> None:
    lowered, _ = lower(encoder(), "fp16")
    for policy in ("auto", "strongly_typed", "fp16", "fp32"):
        assert expected(policy, lowered) == {"/pfn/linear/MatMul": "fp16"}


def test_a_weight_beyond_fp16_stays_in_fp32_in_the_graph_and_in_what_is_expected() -> None:
    model = encoder()
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[0, 0] = -1e5
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "weight"))
    resolved = resolve("fp16", model, (), where="x.onnx")
    assert resolved.keep == {"/pfn/linear/MatMul": "weight 'weight' reaches 1e+05"}
    assert resolved.expected == {"/pfn/linear/MatMul": "fp32"}
    assert resolved.tf32 is None


def test_values_on_samples_near_the_end_of_fp16_keep_their_nodes() -> None:
    resolved = resolve("fp16", encoder(), (), where="x.onnx", largest={"input_features": 2e4})
    assert "on recorded samples" in resolved.keep["/pfn/linear/MatMul"]
    assert resolve("fp16", encoder(), (), where="x", largest={"input_features": 1.0}).keep == {}


def test_flags_do_where_they_exist_or_nothing_is_lowered() -> None:
    for name in POLICIES:
        resolved = resolve(name, quantize(head()), (), where="x.onnx")
        assert flags_do(resolved, weakly_typed=True)
        assert flags_do(resolved, weakly_typed=False) == (name in ("auto", "fp32", "fp32_tf32", "strongly_typed"))
