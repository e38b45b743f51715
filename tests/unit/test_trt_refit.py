"""Refit: which graphs are the same but for their weights, and which weight goes to which layer on TensorRT 8.6."""

from __future__ import annotations

from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from shared.config.tensorrt_section import TensorRT as Options
from shared.errors import BuildError
from tests.support import tensorrt_double
from tests.support.trt_workspaces import encoder, head, with_other_weights
from trt_builder.compat import TensorRT
from trt_builder.messages import Messages
from trt_builder.session import Session
from trt_builder.target import Target
from trt_builder.weights import refit, structure_hash


class Role(IntEnum):
    KERNEL = 0
    BIAS = 1
    SHIFT = 2
    SCALE = 3
    CONSTANT = 4


def test_other_weights_and_stamps_are_the_same_graph() -> None:
    stamped = with_other_weights(head())
    stamped.metadata_props.add(key="exported", value="yesterday")
    stamped.doc_string = "other"
    assert structure_hash(stamped) == structure_hash(head())


def test_another_attribute_operator_shape_or_name_is_another_graph() -> None:
    reference = structure_hash(head())
    changed = []
    for change in range(4):
        model = head()
        if change == 0:
            model.graph.node[0].attribute[0].ints[0] = 5
        elif change == 1:
            model.graph.node[1].op_type = "Sigmoid"
        elif change == 2:
            model.graph.initializer[0].dims[0] += 1
        else:
            model.graph.node[0].name = "other"
        changed.append(structure_hash(model))
    assert reference not in changed
    assert len(set(changed)) == 4


class Refitter:
    """Takes weights as TensorRT 8.6 does: by layer and role."""

    def __init__(self, wanted: list[tuple[str, Role]]) -> None:
        self.wanted = wanted
        self.got: dict[tuple[str, str], np.ndarray[Any, Any]] = {}

    def get_all(self) -> tuple[list[str], list[Role]]:
        return [layer for layer, _ in self.wanted], [role for _, role in self.wanted]

    def get_missing(self) -> tuple[list[str], list[Role]]:
        return [], []

    def set_weights(self, layer: str, role: Role, weights: np.ndarray[Any, Any]) -> bool:
        self.got[layer, role.name] = weights
        return True

    def refit_cuda_engine(self) -> bool:
        return True


def session_with(refitter: Refitter, *, refittable: bool = True) -> Session:
    trt = tensorrt_double.make("8.6.0")
    trt.WeightsRole = Role
    trt.Weights = lambda array: array
    trt.Refitter = lambda engine, logger: refitter
    engine = SimpleNamespace(refittable=refittable, serialize=lambda: b"refitted")
    trt.Runtime = lambda logger: SimpleNamespace(deserialize_cuda_engine=lambda plan: engine)
    target = Target(TensorRT("tensorrt", trt, "8.6.0"), None)
    return Session(target, Options(refittable=True), {}, Messages(), logger=None, builder=None, cache=None)


def saved(model: onnx.ModelProto, folder: Any) -> Any:
    path = folder / "x.onnx"
    onnx.save(model, str(path))
    return path


def test_weights_go_by_layer_and_role_and_normalization_is_folded(tmp_path: Any) -> None:
    refitter = Refitter(
        [("weight", Role.CONSTANT), ("(Unnamed Layer* 3) [Constant]", Role.CONSTANT),
         ("/pfn/norm/BatchNormalization", Role.SCALE), ("/pfn/norm/BatchNormalization", Role.SHIFT)]
    )  # fmt: skip
    model = encoder(norm=True)
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    plan = refit(session_with(refitter), b"plan", saved(model, tmp_path), component="c")
    assert plan == b"refitted"
    assert len(refitter.got) == 3  # the parser's own constant stays as it is
    np.testing.assert_array_equal(refitter.got["weight", "CONSTANT"], weights["weight"])
    scale = weights["scale"] / np.sqrt(weights["variance"] + 1e-3)
    np.testing.assert_allclose(refitter.got["/pfn/norm/BatchNormalization", "SCALE"], scale, rtol=1e-6)
    np.testing.assert_allclose(
        refitter.got["/pfn/norm/BatchNormalization", "SHIFT"], weights["bias"] - weights["mean"] * scale, atol=1e-6
    )


def test_convolutions_have_kernel_and_bias(tmp_path: Any) -> None:
    name = "/head/shared/Conv"
    refitter = Refitter([(name, Role.KERNEL), (name, Role.BIAS)])
    refit(session_with(refitter), b"plan", saved(head(), tmp_path), component="c")
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in head().graph.initializer}
    np.testing.assert_array_equal(refitter.got[name, "KERNEL"], weights["/head/shared.weight"])
    np.testing.assert_array_equal(refitter.got[name, "BIAS"], weights["/head/shared.bias"])


def test_a_layer_that_the_onnx_file_does_not_explain_ends_the_refit(tmp_path: Any) -> None:
    refitter = Refitter([("(Unnamed Layer* 3)", Role.KERNEL)])
    with pytest.raises(BuildError, match=r"c: no weights for layer '\(Unnamed Layer\* 3\)'.*build it instead"):
        refit(session_with(refitter), b"plan", saved(head(), tmp_path), component="c")


def test_an_engine_that_is_not_refittable_says_how_to_make_one(tmp_path: Any) -> None:
    with pytest.raises(BuildError, match=r"not built refittable. build with tensorrt.refittable: true"):
        refit(session_with(Refitter([]), refittable=False), b"", saved(head(), tmp_path), component="c")
