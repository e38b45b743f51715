"""What TensorRT reports of an engine's layers, in the words of its versions, and the proof made from it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from shared.errors import BuildError
from tests.support.kept import kept
from tests.support.trt_workspaces import FULL, encoder, head, quantize
from trt_builder.achieved import compare, require, summary
from trt_builder.layers import Layer, LayerTensor, from_inspector, from_log, type_in_kernel, type_of
from trt_builder.policies import Resolved, resolve


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        ("Row major linear FP32", "fp32"),
        ("Row major linear FP16 format", "fp16"),
        ("Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("Thirty-two wide channel vectorized row major Int8 format", "int8"),
        ("Half", "fp16"),
        ("Float", "fp32"),
        ("BFloat16", "bf16"),
        ("Row major linear BF16 format", "bf16"),
        ("FP8", "fp8"),
        ("Int64", "int64"),
        ("Bool", "bool"),
        ("something new", ""),
    ],
)
def test_words_for_types(text: str, dtype: str) -> None:
    assert type_of(text) == dtype


def test_the_inspectors_json() -> None:
    text = json.dumps(
        {
            "Layers": [
                {
                    "Name": "Reformatting CopyNode for Input Tensor 0 to /a/Conv + /a/Relu",
                    "LayerType": "Reformat",
                    "Inputs": [{"Name": "x", "Format/Datatype": "Row major linear FP32"}],
                    "Outputs": [{"Name": "y", "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}],
                    "TacticName": "",
                },
                {
                    "Name": "/a/Conv + /a/Relu",
                    "LayerType": "CaskConvolution",
                    "Inputs": [{"Name": "y", "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}],
                    "Outputs": [{"Name": "z", "Format/Datatype": "Row major linear FP32"}],
                    "ParameterType": "Convolution",
                    "Weights": {"Type": "Half", "Count": 9},
                    "TacticName": "sm80_xmma_fprop_implicit_gemm_f16f16",
                },
                {
                    "Name": "/b/Conv_myl0_3",
                    "LayerType": "gemm",
                    "Inputs": [{"Name": "z", "Datatype": "Half", "Format": "Row major linear format"}],
                    "Outputs": [],
                    "Metadata": "[ONNX Layer: /b/Conv]\u001e[ONNX Layer: /b/Relu]",
                },
                "a name alone",
            ]
        }
    )
    reformat, first, second, bare = from_inspector(text)
    assert reformat.is_reformat
    assert not reformat.is_matrix
    assert first.is_matrix
    assert (first.precision, first.weights, first.nodes) == ("fp16", "fp16", ("/a/Conv", "/a/Relu"))
    assert first.outputs == (LayerTensor("z", "fp32"),)
    assert (second.precision, second.nodes) == ("fp16", ("/b/Conv", "/b/Relu"))
    assert (bare.name, bare.precision) == ("a name alone", "")


LOG = (
    "Layers:\n"
    "Name: __myl_Tran_myl0_0, LayerType: kgen, Inputs: [ { Name: x, Dimensions: [1,32,64,64], Strides: [4,3,2,1], "
    "StrideOrder: [3,2,1,0], Datatype: Float, Format: (Linear) Row major linear format }], Constants: [], "
    "Outputs: [ { Name: t, Dimensions: [1,32], Strides: [32,1], StrideOrder: [1,0], Datatype: Half, Format: (NHWC) "
    "Channel major format }], TacticName: __myl_Tran_0xda, StreamId: 0, Metadata: \n"
    "Name: /a/Conv_myl0_1, LayerType: correlation, Inputs: [ { Name: t, Dimensions: [1,32], Strides: [32,1], "
    "StrideOrder: [1,0], Datatype: Half, Format: (NHWC) Channel major format }], Constants: [ { Name: w, Dimensions: "
    "[64,32,3,3], Strides: [1,1,1,1], StrideOrder: [3,0,2,1], Datatype: Half, Format: (NHWC) Channel major format }, "
    "{ Name: c, Dimensions: [1], Strides: [1], StrideOrder: [0], Datatype: Float, Format: (Linear) Row major linear "
    "format }], Outputs: [ { Name: u, Dimensions: [1,64], Strides: [64,1], StrideOrder: [1,0], Datatype: Half, Format: "
    "(NHWC) Channel major format }], TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: /a/Conv]"
    "[ONNX Layer: /a/Relu]\n"
    "\nI/O Tensors:\n Name: x, IOMode: Input, DataType: Float, Dimensions: [1,32,64,64], Location: Device\n"
)


def test_the_dump_in_the_log_of_tensorrt_for_rtx() -> None:
    transpose, convolution = from_log(LOG)
    assert (transpose.name, transpose.kind, transpose.precision) == ("__myl_Tran_myl0_0", "kgen", "fp32")
    assert convolution.is_matrix
    assert (convolution.precision, convolution.weights) == ("fp16", "fp16")
    assert convolution.inputs == (LayerTensor("t", "fp16"),)
    assert convolution.nodes == ("/a/Conv", "/a/Relu")
    assert convolution.tactic == "__myelin_CASK_STUB"


def layer(name: str, dtype: str, kind: str = "CaskConvolution", tactic: str = "", nodes: tuple[str, ...] = ()) -> Layer:
    tensor = (LayerTensor("t", dtype),)
    return Layer(name, kind, tensor, tensor, "", tactic, nodes or (name,))


def fp16() -> Resolved:
    return resolve("fp16", encoder(), (), where="x.onnx")


def test_fp16_delivered_is_accepted_and_fp32_is_not() -> None:
    node = "/pfn/linear/MatMul"
    good = summary([layer(node, "fp16")], fp16())
    require(good, fp16(), component="c")
    assert good["share_of_matrix_layers"] == {"fp16": 1.0}
    bad = summary([layer(node, "fp32")], fp16())
    with pytest.raises(
        BuildError, match=r"c: precision_policy fp16 was not met: 1 of 1 .*'/pfn/linear/MatMul' in fp32"
    ):
        require(bad, fp16(), component="c")


def test_a_reformat_layer_that_carries_the_nodes_name_proves_nothing() -> None:
    node = "/pfn/linear/MatMul"
    layers = [layer("r", "fp16", "Reformat", nodes=(node,)), layer("m", "fp32", "gemm", nodes=(node,))]
    assert compare(layers, fp16()) == ({node: "fp32"}, [])


def test_a_fused_kernel_that_is_no_matrix_kind_counts_when_nothing_else_holds_the_node() -> None:
    node = "/pfn/linear/MatMul"
    assert compare([layer("f", "fp16", "runtime_fusion", nodes=(node, "/pfn/Relu"))], fp16()) == ({}, [])


def test_nothing_proven_is_not_met() -> None:
    found = summary([layer("something", "fp16", "PointWiseV2")], fp16())
    assert found["not_proven"] == ["/pfn/linear/MatMul"]
    with pytest.raises(BuildError, match="can't be proven"):
        require(found, fp16(), component="c")


def test_a_region_that_tells_nothing_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    region = layer(
        "{ForeignNode[/pfn/linear/MatMul.../pfn/ReduceMax]}", "fp32", "Myelin", nodes=("/pfn/linear/MatMul",)
    )
    found = summary([region], fp16())
    assert (found["not_proven"], found["opaque_layers"]) == (["/pfn/linear/MatMul"], 1)
    require(found, fp16(), component="c")
    assert "inside regions whose precision TensorRT does not report: /pfn/linear/MatMul" in caplog.text


def test_control_characters_in_the_report_are_read() -> None:
    # TensorRT 8.6 separates the names in a layer's metadata with a bare 0x1e, which JSON does not allow.
    text = (
        '{"Layers": [{"Name": "a", "LayerType": "gemm", "Inputs": [], "Outputs": [], '
        '"Metadata": "[ONNX Layer: /a]\x1e[ONNX Layer: /b]"}]}'
    )
    assert from_inspector(text)[0].nodes == ("/a", "/b")


def test_fp32_without_tf32_is_proven_by_the_kernels_names() -> None:
    resolved = resolve("fp32", encoder(), (), where="x.onnx")
    found = summary([layer("/pfn/linear/MatMul", "fp32", tactic="sm80_xmma_gemm_f32tf32_tf32f32")], resolved)
    assert found["tf32_kernels"] == 1
    with pytest.raises(BuildError, match="1 layers run TF32 kernels"):
        require(found, resolved, component="c")


def test_shares_of_time_reformats_and_unfused_qdq() -> None:
    layers = [layer("a", "fp16"), layer("b", "fp32"), layer("r", "fp32", "Reformat"), layer("q", "fp32", "Quantize")]
    found = summary(layers, resolve("auto", head(), (), where="x"), {"a": 3.0, "b": 1.0})
    assert found["share_of_time"] == {"fp16": 0.75, "fp32": 0.25}
    assert found["reformat_layers"] == 1
    assert found["qdq_not_fused"] == ["q"]
    assert found["share_of_layers"] == {"fp16": 0.25, "fp32": 0.75}


def test_kernels_that_accumulate_in_fp16_are_counted() -> None:
    half, single = (f"sm90_xmma_fprop_implicit_gemm_f16f16_f16{kind}_f16_nhwckrsc_nhwc" for kind in ("f16", "f32"))
    layers = [layer(name, "fp16", tactic=name) for name in (half, half, single, "ampere_h16816cudnn", "ampere_s16816")]
    assert summary(layers, fp16())["fp16_accumulating_kernels"] == 3


def test_kernels_names_tell_types() -> None:
    assert type_in_kernel("sm80_xmma_gemm_f32f32_tf32f32_f32_nn_n_tilesize32x32x8") == "fp32"
    assert type_in_kernel("sm80_xmma_fprop_implicit_gemm_indexed_wo_smem_f16f16_f16f16_f16_nhwckrsc_nhwc") == "fp16"
    assert type_in_kernel("sm90_xmma_fprop_implicit_gemm_i8i8_i8i32_f32_nchw_vect_c_32kcrs") == "int8"
    assert type_in_kernel("__myl_Tran_0xda596f98") == ""


def test_what_is_added_to_a_product_is_not_what_it_is_computed_in() -> None:
    """As TensorRT for RTX reports the first product of the demo FRNet's head: the sum's other part is in FP32."""
    added, read, written = (
        LayerTensor("bb1_133", "fp32"),
        LayerTensor("bb1_148", "fp16"),
        LayerTensor("bb1_149", "fp16"),
    )
    name = "__myl_FcAddReluCastAddCast_myl0_122"
    layer = Layer(name, "runtime_fusion", (added, read), (written,), "fp16", "", ("/head/Gemm", "/head/Add"))
    assert layer.precision == "fp16"
    assert replace(layer, inputs=(added,)).precision == "fp32"
    assert replace(layer, weights="fp32").precision == "fp32"
    assert replace(layer, weights="").precision == "fp32"


# What TensorRT 8.6.0 reported on an H200 of engines that this builder made there (names and kernels are its own; of the
# encoder, whose shapes are dynamic, it tells no tensor's type).
@pytest.mark.parametrize(
    ("policy", "precision"),
    [("auto", "fp32"), ("fp32", "fp32"), ("fp32_tf32", "fp32"), ("fp16", "fp16"), ("strongly_typed", "fp32")],
)
def test_a_real_report_of_a_dynamic_engine_proves_its_policy(policy: str, precision: str) -> None:
    reports = json.loads(kept("trt/8.6.0-h200-encoder.json"))
    layers = from_inspector(json.dumps(reports[policy]))
    resolved = resolve(policy, encoder(norm=True), (), where="x.onnx")
    found = summary(layers, resolved)
    require(found, resolved, component="pts_voxel_encoder")
    assert found["share_of_matrix_layers"] == {precision: 1.0}
    assert (found["not_proven"], found["not_as_asked"]) == ([], {})
    asked_for_more = resolve("fp16" if precision == "fp32" else "fp32", encoder(norm=True), (), where="x.onnx")
    with pytest.raises(BuildError, match="was not met"):
        require(summary(layers, asked_for_more), asked_for_more, component="pts_voxel_encoder")


def test_a_real_report_of_an_int8_engine_proves_its_policy() -> None:
    layers = from_inspector(kept("trt/8.6.0-h200-int8-head.json").decode())
    resolved = resolve("int8", quantize(head(64, FULL)), (), where="x.onnx")
    found = summary(layers, resolved)
    require(found, resolved, component="pts_backbone_neck_head")
    assert (found["not_proven"], found["not_as_asked"]) == ([], {})
    assert found["share_of_matrix_layers"] == {"fp16": 0.037, "int8": 0.963}
    assert found["reformat_layers"] == 4
