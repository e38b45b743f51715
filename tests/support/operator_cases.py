"""Small graphs, one operator each, whose attributes a TensorRT may read otherwise than ONNX means them.

Every case is what a detector, a classifier or a segmenter really exports, or a form of it that a newer opset brought.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Case:
    """One node in a graph of its own.

    Attributes:
        name: operator and what is special about it.
        model: the graph, from ``x`` to ``y``; everything but ``x`` is an initializer.
        x: its input.
    """

    name: str
    model: onnx.ModelProto
    x: Array


def _case(
    about: str,
    operator: str,
    x: Array,
    constants: Sequence[Array | str | None] = (),
    *,
    opset: int = 17,
    output: int = TensorProto.FLOAT,
    outputs: int = 1,
    **attributes: Any,
) -> Case:
    """A graph of one node. A constant that is None is an input left out; several ``outputs`` are joined, last first."""
    weights, names = [], ["x"]
    for index, value in enumerate(constants):
        if value is None or isinstance(value, str):
            names.append("")
            continue
        names.append(f"c{index}")
        weights.append(numpy_helper.from_array(value, f"c{index}"))
    made = ["y"] if outputs == 1 else [f"y{index}" for index in range(outputs)]
    nodes = [helper.make_node(operator, names, made, name="node", **attributes)]
    if outputs > 1:
        nodes.append(helper.make_node("Concat", made[::-1], ["y"], name="join", axis=-1))
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(
        nodes,
        "one_operator",
        [helper.make_tensor_value_info("x", kind, x.shape)],
        [helper.make_tensor_value_info("y", output, None)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return Case(f"{operator}-{about}-{opset}", model, x)


def _grid(*shape: int) -> Array:
    """Values without ties, of both signs, from a seed of the shape's own."""
    random = np.random.default_rng(list(shape))
    return (random.permutation(int(np.prod(shape))).reshape(shape) / 7.0 - 3.0).astype(np.float32)


def _ints(*values: int) -> Array:
    return np.array(values, np.int64)


def _floats(*values: float) -> Array:
    return np.array(values, np.float32)


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _scatters()
    yield from _reductions()
    yield from _resizes()
    yield from _shapes()
    yield from _poolings()
    yield from _choices()
    yield from _pointwise()
    yield from _normalizations()
    yield from _convolutions()


def _scatters() -> Iterator[Case]:
    data, index = _grid(4, 6), np.array([[0, 1, 0, 3, 2, 1], [0, 1, 2, 3, 0, 1]], np.int64)
    updates = _grid(2, 6) * 3
    unique = np.array([[0, 1, 0, 3, 2, 1], [2, 0, 3, 1, 0, 2]], np.int64)
    yield _case("none", "ScatterElements", data, (unique, updates), axis=0, opset=16)
    for reduction, opset in (("add", 16), ("mul", 16), ("max", 18), ("min", 18)):
        yield _case(reduction, "ScatterElements", data, (index, updates), axis=0, reduction=reduction, opset=opset)
        where = np.array([[0], [2], [0]], np.int64)
        yield _case(reduction, "ScatterND", data, (where, _grid(3, 6) * 2), reduction=reduction, opset=opset)
    yield _case("none", "ScatterND", data, (np.array([[1], [3]], np.int64), _grid(2, 6)), opset=16)
    yield _case("negative", "GatherElements", data, (np.array([[-1, 0, -2, 1, 2, 3]], np.int64),), axis=0)
    yield _case("negative", "Gather", data, (_ints(-1, 0, -3),), axis=1)
    yield _case("batched", "GatherND", _grid(2, 3, 4), (np.array([[1], [2]], np.int64),), batch_dims=1)


def _reductions() -> Iterator[Case]:
    x = _grid(2, 3, 4, 5)
    for name in ("Max", "Min", "Mean", "Prod", "L1", "L2", "SumSquare", "LogSumExp", "LogSum"):
        data = np.abs(x) + 0.5 if name == "LogSum" else x / 4
        yield _case("attribute", f"Reduce{name}", data, axes=[2], keepdims=0)
        yield _case("input", f"Reduce{name}", data, (_ints(2),), keepdims=0, opset=18)
        yield _case("input_negative", f"Reduce{name}", data, (_ints(-1, 1),), keepdims=1, opset=18)
    yield _case("input", "ReduceSum", x, (_ints(2),), keepdims=0, opset=13)
    for name in ("ArgMax", "ArgMin"):
        tied = np.round(x)
        yield _case("first", name, tied, axis=2, keepdims=0, output=TensorProto.INT64)
        yield _case("last", name, tied, axis=2, keepdims=0, select_last_index=1, output=TensorProto.INT64)


def _resizes() -> Iterator[Case]:
    x = _grid(1, 2, 6, 8)
    up, down, odd = _floats(1, 1, 2, 2), _floats(1, 1, 0.5, 0.5), _floats(1, 1, 1.6, 0.6)
    for mode in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"):
        for name, scales in (("up", up), ("down", down), ("odd", odd)):
            yield _case(
                f"linear_{mode}_{name}", "Resize", x, (None, scales), mode="linear", coordinate_transformation_mode=mode
            )
    for nearest in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        for mode in ("half_pixel", "asymmetric", "align_corners"):
            yield _case(
                f"nearest_{nearest}_{mode}", "Resize", x, (None, odd),
                mode="nearest", nearest_mode=nearest, coordinate_transformation_mode=mode,
            )  # fmt: skip
    yield _case("half_pixel_symmetric", "Resize", x, (None, odd), mode="linear", opset=19,
                coordinate_transformation_mode="half_pixel_symmetric")  # fmt: skip
    yield _case("cubic", "Resize", x, (None, up), mode="cubic")
    yield _case("cubic_coefficient", "Resize", x, (None, up), mode="cubic", cubic_coeff_a=-0.5)
    yield _case("cubic_exclude_outside", "Resize", x, (None, up), mode="cubic", exclude_outside=1)
    yield _case("antialias", "Resize", x, (None, down), mode="linear", antialias=1, opset=18)
    yield _case("antialias_cubic", "Resize", x, (None, down), mode="cubic", antialias=1, opset=18)
    yield _case("axes", "Resize", x, (None, _floats(2, 2)), mode="linear", axes=[2, 3], opset=18)
    yield _case("axes_sizes", "Resize", x, (None, None, _ints(9, 5)), mode="nearest", axes=[2, 3], opset=18)
    yield _case("keep_ratio", "Resize", x, (None, None, _ints(9, 5)), mode="nearest", axes=[2, 3], opset=18,
                keep_aspect_ratio_policy="not_larger")  # fmt: skip
    yield _case("keep_ratio_whole", "Resize", x, (None, None, _ints(1, 2, 9, 5)), mode="nearest", opset=18,
                keep_aspect_ratio_policy="not_larger")  # fmt: skip
    yield _case("crop", "Resize", x, (_floats(0, 0, 0.2, 0.1, 1, 1, 0.8, 0.9), None, _ints(1, 2, 5, 7)),
                mode="linear", coordinate_transformation_mode="tf_crop_and_resize")  # fmt: skip
    grid = (np.random.default_rng(3).random((1, 5, 4, 2)) * 2.6 - 1.3).astype(np.float32)
    for mode in ("bilinear", "nearest", "bicubic"):
        for padding in ("zeros", "border", "reflection"):
            for corners in (0, 1):
                yield _case(f"{mode}_{padding}_{corners}", "GridSample", x, (grid,), mode=mode, padding_mode=padding,
                            align_corners=corners, opset=16)  # fmt: skip


def _shapes() -> Iterator[Case]:
    x = _grid(2, 5, 7)
    yield _case("even", "Split", x, num_outputs=7, axis=2, outputs=7, opset=18)
    yield _case("uneven", "Split", x, num_outputs=3, axis=2, outputs=3, opset=18)
    yield _case("sizes", "Split", x, (_ints(2, 5),), axis=2, outputs=2, opset=13)
    pads = _ints(0, 1, 2, 0, 2, 1)
    for mode in ("constant", "reflect", "edge"):
        yield _case(mode, "Pad", x, (pads, np.float32(1.5)) if mode == "constant" else (pads,), mode=mode, opset=13)
    yield _case("wrap", "Pad", x, (pads,), mode="wrap", opset=19)
    yield _case("axes", "Pad", x, (_ints(1, 2), np.float32(0.5), _ints(1)), opset=18)
    yield _case("negative", "Pad", x, (_ints(0, -1, 0, 0, 0, -2), np.float32(0)), opset=13)
    yield _case("backward", "Slice", x, (_ints(-1, 6), _ints(-6, 0), _ints(1, 2), _ints(-2, -3)))
    yield _case("beyond", "Slice", x, (_ints(1), _ints(2**62), _ints(2), _ints(2)))
    yield _case("infer", "Reshape", x, (_ints(0, -1),))
    yield _case("allow_zero", "Reshape", x, (_ints(2, 35),), allowzero=1)
    for mode in ("DCR", "CRD"):
        yield _case(mode, "DepthToSpace", _grid(1, 8, 2, 3), blocksize=2, mode=mode)
    yield _case("blocks", "SpaceToDepth", _grid(1, 2, 4, 6), blocksize=2)
    for upper in (0, 1):
        yield _case(f"upper{upper}", "Trilu", x, (np.array(1, np.int64),), upper=upper)
    for exclusive in (0, 1):
        for reverse in (0, 1):
            yield _case(f"{exclusive}{reverse}", "CumSum", x, (np.array(1, np.int64),), exclusive=exclusive,
                        reverse=reverse)  # fmt: skip
    yield _case("transpose", "Einsum", x, equation="bij->bji")


def _poolings() -> Iterator[Case]:
    x = _grid(1, 2, 7, 8)
    for include in (0, 1):
        for ceil in (0, 1):
            yield _case(f"include{include}_ceil{ceil}", "AveragePool", x, kernel_shape=[3, 3], strides=[2, 2],
                        pads=[1, 1, 1, 1], count_include_pad=include, ceil_mode=ceil)  # fmt: skip
    yield _case("dilations", "AveragePool", x, kernel_shape=[2, 2], dilations=[2, 2], opset=19)
    yield _case("dilations", "MaxPool", x, kernel_shape=[2, 2], dilations=[2, 2])
    yield _case("ceil", "MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    for auto in ("SAME_UPPER", "SAME_LOWER"):
        yield _case(auto.lower(), "MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], auto_pad=auto)
    yield _case("p1", "LpPool", x, kernel_shape=[2, 2], p=1)
    yield _case("global", "GlobalAveragePool", x)
    rois = np.array([[0.3, 0.6, 5.2, 4.9], [1, 1, 6, 6]], np.float32)
    for opset, extra in ((10, {}), (16, {}), (16, {"coordinate_transformation_mode": "output_half_pixel"})):
        for mode in ("avg", "max"):
            about = "_".join([mode, *extra.values()])
            yield _case(about, "RoiAlign", x, (rois, _ints(0, 0)), output_height=2, output_width=3, mode=mode,
                        sampling_ratio=2, opset=opset, **extra)  # fmt: skip


def _choices() -> Iterator[Case]:
    x = _grid(3, 9)
    for largest in (0, 1):
        yield _top_k(x, largest)
    yield _case("axis", "Hardmax", x, axis=0, opset=13)
    yield _case("middle", "Softmax", _grid(2, 3, 4), axis=1, opset=13)
    yield _case("flattened", "Softmax", _grid(2, 3, 4), axis=1, opset=11)
    yield _case("flattened", "LogSoftmax", _grid(2, 3, 4), axis=1, opset=11)
    yield _case("compress", "Compress", x, (np.array([1, 0, 1, 0, 0, 1, 1, 0, 0], bool),), axis=1)


def _top_k(x: Array, largest: int) -> Case:
    graph = helper.make_graph(
        [helper.make_node("TopK", ["x", "k"], ["y", "which"], name="node", axis=1, largest=largest)],
        "one_operator",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(_ints(4), "k")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
    return Case(f"TopK-largest{largest}-11", model, x)


def _pointwise() -> Iterator[Case]:
    x = _floats(-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.2, -3.7).reshape(2, 4)
    yield _case("half_to_even", "Round", x)
    yield _case("toward_zero", "Cast", x, to=TensorProto.INT32, output=TensorProto.INT32)
    yield _case("fmod", "Mod", x, (_floats(1.5),), fmod=1)
    signed = np.array([[-7, -3, 3, 7]], np.int32)
    yield _case("signed", "Mod", signed, (np.array([3], np.int32),), output=TensorProto.INT32)
    yield _case("signed", "Div", signed, (np.array([2], np.int32),), output=TensorProto.INT32)
    yield _case("odd", "Pow", x, (_floats(3),))
    yield _case("none", "Clip", x, (None, np.float32(1)))
    for approximate in ("none", "tanh"):
        yield _case(approximate, "Gelu", x, approximate=approximate, opset=20)
    yield _case("mish", "Mish", x, opset=18)
    yield _case("swish", "HardSwish", x, opset=14)
    yield _case("shifted", "HardSigmoid", x, alpha=1 / 6, beta=0.5)
    yield _case("alpha", "Celu", x, alpha=2.0)
    yield _case("alpha", "ThresholdedRelu", x, alpha=1.2)
    yield _case("soft", "Shrink", x, bias=0.3, lambd=1.0)
    yield _case("slopes", "PRelu", _grid(1, 3, 2, 2), (_grid(3, 1, 1),))
    yield _case("sign", "Sign", x)


def _normalizations() -> Iterator[Case]:
    x = _grid(2, 6, 3, 4)
    scale, bias = _grid(6), _grid(6)[::-1].copy()
    yield _case("epsilon", "InstanceNormalization", x, (scale, bias), epsilon=0.1)
    yield _case("last", "LayerNormalization", x, (_grid(4), _grid(4) / 2), axis=-1, epsilon=1e-3)
    yield _case("two", "LayerNormalization", x, (_grid(3, 4), _grid(3, 4) / 2), axis=2, epsilon=1e-3)
    yield _case("channels", "GroupNormalization", x, (scale, bias), num_groups=3, opset=21)
    for p in (1, 2):
        yield _case(f"p{p}", "LpNormalization", x, p=p, axis=1)
    yield _case("axes", "MeanVarianceNormalization", x, axes=[2, 3])
    positive = np.abs(scale) + 0.5
    yield _case("epsilon", "BatchNormalization", x, (scale, bias, bias / 2, positive), epsilon=0.1)


def _convolutions() -> Iterator[Case]:
    x = _grid(1, 4, 7, 8) / 8
    weight = _grid(4, 2, 3, 3) / 20
    for auto in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        yield _case(auto.lower(), "Conv", x, (weight,), group=2, strides=[2, 2], auto_pad=auto)
    yield _case("no_kernel_shape", "Conv", x, (weight,), group=2, dilations=[2, 1], pads=[1, 0, 2, 1])
    yield _case("output_padding", "ConvTranspose", x, (_grid(4, 3, 3, 3) / 20,), strides=[2, 2], output_padding=[1, 0],
                pads=[1, 1, 1, 1])  # fmt: skip
    yield _case("output_shape", "ConvTranspose", x, (_grid(4, 3, 3, 3) / 20,), strides=[2, 2], output_shape=[15, 17])
    yield _case("same_lower", "ConvTranspose", x, (_grid(4, 3, 3, 3) / 20,), strides=[2, 2], auto_pad="SAME_LOWER")
    yield _case("grouped_dilated", "ConvTranspose", x, (_grid(4, 3, 2, 2) / 9,), group=2, dilations=[2, 2])
    yield _case("transposed", "Gemm", _grid(3, 4), (_grid(5, 3) / 9, _grid(5)), transA=1, transB=1, alpha=0.5, beta=2.0)
