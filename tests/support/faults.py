"""Faults as exports and deployments really have them, each to be planted into a demo model.

A fault is in one of three places: in the graph (another weight, a lost node), in the parameters that the exporter hands
to the runtime, or in a step of the runtime's own code. Each says which check has to catch it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.backends.onnx import OnnxSession
from shared.errors import InputError, ManifestError
from shared.runs import Run
from shared.tasks import find
from shared.workspace import Workspace
from tests.support.planted import planted
from verifier.compare import compare_runs
from verifier.tolerances import default_tolerance, judge
from verifier.verify import find_score_threshold

Change = Callable[[Any], None]
Wrapper = Callable[[Any], Any]

HEAD = "pts_backbone_neck_head"
#: What catches a fault: raw outputs, results, or that the runs can't be compared at all.
RAW, RESULTS, REFUSED = "raw outputs", "results", "refused"


@dataclass(frozen=True)
class Fault:
    """A fault.

    Attributes:
        name: in a few words.
        model: the demo model that has it.
        caught_by: the check that has to catch it between runs in FP32: `RAW`, `RESULTS` or `REFUSED`.
        in_fp16: whether FP16's limits, too, have to tell it from rounding.
        graph: changes the ONNX model of the last component.
        parameters: sections of the model spec's parameters that differ, whole or key by key.
        steps: by name in the model's ``steps`` module, what stands in for it, made from the right one.
        classes: from the right class list to the wrong one.
    """

    name: str
    model: str
    caught_by: str
    in_fp16: bool = True
    graph: Change | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    steps: Mapping[str, Wrapper] = field(default_factory=dict)
    classes: Callable[[list[str]], list[str]] | None = None


@dataclass(frozen=True)
class Verdict:
    """What the verifier says of a faulty run against the framework's.

    Attributes:
        exact: what is wrong by FP32's limits, a line each.
        half: by FP16's.
        refused: why nothing was compared; empty where it was.
    """

    exact: Sequence[str] = ()
    half: Sequence[str] = ()
    refused: str = ""

    def caught_by(self, policy: str) -> set[str]:
        """The checks that catch it by the limits of ``fp32`` or ``fp16``."""
        if self.refused:
            return {REFUSED}
        lines = self.exact if policy == "fp32" else self.half
        return {RESULTS if line.startswith("results") else RAW for line in lines}


#: What ONNX Runtime answered, by the graph and the digest of its inputs.
Answers = dict[tuple[str, str, str], Any]


def verdict(fault: Fault, workspace: Workspace, folder: Path, answers: Answers) -> Verdict:
    """Plant a fault in a copy of an exported workspace, run that in ONNX Runtime, and judge.

    Args:
        fault: which.
        workspace: of the model, exported, with the framework's reference.
        folder: where the copy goes.
        answers: of the faults before, taken where graph and inputs are the same; a third of the calls are.
    """
    from runtime.run import run

    reference = Run.open(workspace.path("reference"))
    copy = _copy_with(fault, workspace, folder)
    try:
        with _steps_replaced(fault), _remembered(fault, answers):
            run(copy.root, "onnx", "cpu", num_samples=len(reference), readers=0, threads=1)
        return judged(reference, Run.open(copy.path("runs/onnx-cpu")), workspace)
    except (InputError, ManifestError) as refused:
        return Verdict(refused=str(refused))


def judged(reference: Run, test: Run, workspace: Workspace) -> Verdict:
    """What the verifier says of a run by its default limits."""
    task = find(reference.header.task)
    compared = compare_runs(reference, test, find_score_threshold(workspace.spec().parameters))
    return Verdict(*(judge(compared, default_tolerance(policy, task)) for policy in ("fp32", "fp16")))


def _copy_with(fault: Fault, workspace: Workspace, folder: Path) -> Workspace:
    spec = workspace.spec()
    parameters = {
        name: {**spec.parameters[name], **value} if isinstance(value, Mapping) else value
        for name, value in fault.parameters.items()
    }
    return planted(
        workspace,
        folder,
        parameters=parameters,
        component=spec.components[-1].name if fault.graph is not None else None,
        change=fault.graph,
        classes=None if fault.classes is None else fault.classes(list(spec.classes)),
    )


@contextmanager
def _remembered(fault: Fault, answers: Answers) -> Iterator[None]:
    compute = OnnxSession.run

    def remembered(session: OnnxSession, component: str, inputs: Mapping[str, Any]) -> Any:
        digest = hashlib.sha256()
        for name, values in sorted(inputs.items()):
            digest.update(f"{name} {values.shape}".encode() + np.ascontiguousarray(values).data)
        key = (fault.name if fault.graph is not None else "right", f"{fault.model} {component}", digest.hexdigest())
        if key not in answers:
            answers[key] = {name: values.copy() for name, values in compute(session, component, inputs).items()}
        return {name: values.copy() for name, values in answers[key].items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnnxSession, "run", remembered)
        yield


@contextmanager
def _steps_replaced(fault: Fault) -> Iterator[None]:
    module = import_module(f"runtime.models.{fault.model}.steps")
    with pytest.MonkeyPatch.context() as patch:
        for name, wrapper in fault.steps.items():
            patch.setattr(module, name, wrapper(getattr(module, name)))
        yield


# -- in the graph -----------------------------------------------------------------------------------------------------


def _weights(model: Any, name: str) -> Any:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def _change_weights(model: Any, name: str, change: Callable[[Any], Any]) -> None:
    from onnx import numpy_helper

    tensor = _weights(model, name)
    values = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(change(values.copy()).astype(values.dtype), name))


def _convolution(model: Any, position: int) -> Any:
    return [node for node in model.graph.node if node.op_type == "Conv"][position]


def _makes(model: Any, output: str) -> Any:
    return next(node for node in model.graph.node if output in node.output)


def scaled(position: int, factor: float) -> Change:
    """The weights of a convolution, by its position, multiplied."""
    return lambda model: _change_weights(model, _convolution(model, position).input[1], lambda values: values * factor)


def without_bias(position: int) -> Change:
    """A convolution that lost its bias."""
    return lambda model: _change_weights(model, _convolution(model, position).input[2], lambda values: 0 * values)


def sign_bit(position: int) -> Change:
    """The sign of a convolution's largest weight, as a flipped bit in memory leaves it."""

    def change(values: Any) -> Any:
        values[np.unravel_index(np.abs(values).argmax(), values.shape)] *= -1
        return values

    return lambda model: _change_weights(model, _convolution(model, position).input[1], change)


def without_filter(position: int) -> Change:
    """A convolution whose largest filter computes nothing."""

    def change(values: Any) -> Any:
        values[np.abs(values).sum(axis=(1, 2, 3)).argmax()] = 0
        return values

    return lambda model: _change_weights(model, _convolution(model, position).input[1], change)


def channels(output: str, order: list[int], signs: list[int] | None = None) -> Change:
    """The channels of an output in another order or with other signs, in the weights of what makes it."""

    def change(model: Any) -> None:
        of_channel = np.array(signs or [1] * len(order))
        for name in _makes(model, output).input[1:]:
            _change_weights(
                model, name, lambda values: values[order] * of_channel.reshape(-1, *[1] * (values.ndim - 1))
            )

    return change


def outputs_exchanged(first: str, second: str) -> Change:
    """Two outputs under one another's name."""

    def change(model: Any) -> None:
        makers = {name: _makes(model, name) for name in (first, second)}
        for name, other in ((first, second), (second, first)):
            makers[name].output[0] = other

    return change


def stale_batch_norm(position: int) -> Change:
    """The running variance of before the last epochs."""

    def change(model: Any) -> None:
        node = [node for node in model.graph.node if node.op_type == "BatchNormalization"][position]
        _change_weights(model, node.input[4], lambda values: values * 1.3)

    return change


def clamped(position: int, most: float = 6.0) -> Change:
    """A ReLU that has become a ReLU6."""

    def change(model: Any) -> None:
        from onnx import helper, numpy_helper

        node = [node for node in model.graph.node if node.op_type == "Relu"][position]
        limits = [numpy_helper.from_array(np.array(value, np.float32), f"clamped_{value}") for value in (0.0, most)]
        model.graph.initializer.extend(limits)
        node.CopyFrom(
            helper.make_node("Clip", [node.input[0], *(each.name for each in limits)], node.output, node.name)
        )

    return change


def another_sigmoid(output: str) -> Change:
    """A sigmoid in the graph before the runtime's own."""

    def change(model: Any) -> None:
        from onnx import helper

        node = _makes(model, output)
        node.output[0] = f"{output}_logits"
        model.graph.node.append(helper.make_node("Sigmoid", [f"{output}_logits"], [output]))

    return change


def without_sigmoid(position: int) -> Change:
    """A sigmoid that got lost."""

    def change(model: Any) -> None:
        node = [node for node in model.graph.node if node.op_type == "Sigmoid"][position]
        node.op_type = "Identity"

    return change


# -- in the runtime's steps -------------------------------------------------------------------------------------------


def answer(change: Callable[[Any], Any]) -> Wrapper:
    """A step whose answer is changed."""
    return lambda right: lambda *given, **named: change(right(*given, **named))


def first_input(change: Callable[[Any], Any]) -> Wrapper:
    """A step whose first argument is changed."""
    return lambda right: lambda first, *given, **named: right(change(first), *given, **named)


def _with_columns(points: Any, change: Callable[[Any], Any]) -> Any:
    changed = points.copy()
    change(changed)
    return changed


def _without_time(points: Any) -> None:
    points[:, 3] = 0.0


def _exchange_x_and_y(points: Any) -> None:
    points[:, [0, 1]] = points[:, [1, 0]]


def _mounted_elsewhere(points: Any) -> None:
    points[:, 0] += 0.1


def _transposed(right: Any) -> Any:
    class Transposed(right):  # type: ignore[misc]  # the class is known at run time only
        def scatter(self, values: Any, coordinates: Any) -> Any:
            return super().scatter(values, np.ascontiguousarray(coordinates[:, [0, 2, 1]]))

    return Transposed


def _bottom_for_center(boxes: Any) -> Any:
    lower = boxes.sizes[:, 2:] / 2 * np.array([0, 0, 1], np.float32)
    return replace(boxes, centers=(boxes.centers - lower).astype(np.float32))


def _moved(boxes: Any, meters: float) -> Any:
    return replace(boxes, centers=boxes.centers + np.array([meters, 0, 0], np.float32))


def _from_corner(boxes: Any) -> Any:
    """Centers taken for left top corners."""
    half = (boxes.corners[:, 2:] - boxes.corners[:, :2]) / 2
    return replace(boxes, corners=boxes.corners + np.tile(half, 2))


POINTS, VEHICLES, IMAGES = "centerpoint", "yolox", "calibration"

FAULTS: tuple[Fault, ...] = (
    # CenterPoint, in the graph.
    Fault("length and width exchanged in the head", POINTS, RAW, graph=channels("dim", [1, 0, 2])),
    Fault("sign of yaw in the head", POINTS, RAW, graph=channels("rot", [0, 1], [-1, 1])),
    Fault("two classes exchanged in the head", POINTS, RAW, graph=channels("heatmap", [1, 0, 2, 3, 4])),
    Fault("outputs exchanged: offset and velocity", POINTS, RAW, graph=outputs_exchanged("reg", "vel")),
    Fault("weights of a convolution times 1.02", POINTS, RAW, graph=scaled(4, 1.02)),
    Fault("weights of a convolution times 1.2", POINTS, RAW, graph=scaled(4, 1.2)),
    Fault("a convolution without its bias", POINTS, RAW, graph=without_bias(6)),
    Fault("sign bit of one weight", POINTS, RAW, graph=sign_bit(2)),
    Fault("stale batch norm", POINTS, RAW, graph=stale_batch_norm(0)),
    Fault("an activation clamped at 6", POINTS, RAW, graph=clamped(0)),
    Fault("a second sigmoid", POINTS, RAW, graph=another_sigmoid("heatmap")),
    # CenterPoint, in the parameters.
    Fault("circle NMS lost", POINTS, RESULTS, parameters={"nms": {"radius": [1e-3]}}),
    Fault("circle NMS over 6 m", POINTS, RESULTS, parameters={"nms": {"radius": [6.0]}}),
    Fault("too few voxels", POINTS, RAW, parameters={"max_voxels": 2000}),
    Fault("stride of the head", POINTS, RESULTS, parameters={"out_size_factor": 1}),
    Fault(
        "score threshold 0.3 for 0.1",
        POINTS,
        RESULTS,
        in_fp16=False,
        parameters={"bbox_coder": {"score_threshold": 0.3}},
    ),
    Fault("sizes without their exponential", POINTS, RESULTS, parameters={"norm_bbox": False}),
    Fault("Autoware's convention of yaw taken for ours", POINTS, RESULTS, parameters={"rot_y_axis_reference": True}),
    Fault("classes of another order", POINTS, REFUSED, classes=lambda names: names[::-1]),
    # CenterPoint, in the steps.
    Fault(
        "x and y of the points exchanged",
        POINTS,
        RAW,
        steps={"voxelize": first_input(lambda points: _with_columns(points, _exchange_x_and_y))},
    ),
    Fault(
        "time of the points missing",
        POINTS,
        RAW,
        steps={"voxelize": first_input(lambda points: _with_columns(points, _without_time))},
    ),
    Fault(
        "lidar mounted 10 cm further ahead",
        POINTS,
        RAW,
        steps={"voxelize": first_input(lambda points: _with_columns(points, _mounted_elsewhere))},
    ),
    Fault("canvas transposed", POINTS, RAW, steps={"Canvas": _transposed}),
    Fault(
        "length and width exchanged in decoding",
        POINTS,
        RESULTS,
        steps={"decode": answer(lambda boxes: replace(boxes, sizes=boxes.sizes[:, [1, 0, 2]]))},
    ),
    Fault(
        "sign of yaw in decoding",
        POINTS,
        RESULTS,
        steps={"decode": answer(lambda boxes: replace(boxes, yaws=-boxes.yaws))},
    ),
    Fault(
        "sign of the velocity",
        POINTS,
        RESULTS,
        steps={"decode": answer(lambda boxes: replace(boxes, velocities=-boxes.velocities))},
    ),
    Fault("bottom taken for the center", POINTS, RESULTS, steps={"decode": answer(_bottom_for_center)}),
    Fault("off by one voxel", POINTS, RESULTS, steps={"decode": answer(lambda boxes: _moved(boxes, 0.4))}),
    Fault("off by a tenth of a voxel", POINTS, RESULTS, steps={"decode": answer(lambda boxes: _moved(boxes, 0.04))}),
    # YOLOX.
    Fault("BGR for RGB", VEHICLES, RAW, parameters={"image": {"color": "rgb"}}),
    Fault(
        "mean and deviation of another training",
        VEHICLES,
        RAW,
        parameters={"image": {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}},
    ),
    Fault("letterbox filled with black", VEHICLES, RAW, parameters={"image": {"fill": 0}}),
    Fault("strides of another order", VEHICLES, RESULTS, parameters={"strides": [32, 16, 8]}),
    Fault("NMS at another overlap", VEHICLES, RESULTS, parameters={"nms": {"iou_threshold": 0.95}}),
    Fault("sigmoid forgotten", VEHICLES, RAW, graph=without_sigmoid(0)),
    Fault("a filter lost", VEHICLES, RAW, graph=without_filter(10)),
    Fault("weights of a convolution times 1.02", VEHICLES, RAW, in_fp16=False, graph=scaled(10, 1.02)),
    Fault(
        "boxes in pixels of the network's input",
        VEHICLES,
        RESULTS,
        steps={"in_pixels_of_the_image": lambda right: lambda boxes, placement: boxes},
    ),
    Fault("centers taken for corners", VEHICLES, RESULTS, steps={"decode": answer(_from_corner)}),
    # Calibration status.
    Fault("lens distortion ignored", IMAGES, RAW, parameters={"undistort": False}),
    Fault("depth scaled by another range", IMAGES, RAW, parameters={"max_depth": 64.0}),
    Fault("points painted larger", IMAGES, RAW, parameters={"dilation_size": 3}),
    Fault("classes exchanged", IMAGES, RAW, graph=channels("output", [1, 0])),
    Fault("wrong threshold of the decision", IMAGES, RESULTS, parameters={"miscalibration_confidence_threshold": 20.0}),
    Fault("weights of a convolution times 1.02", IMAGES, RAW, in_fp16=False, graph=scaled(8, 1.02)),
    Fault(
        "RGB for BGR", IMAGES, RAW, steps={"undistort": answer(lambda image: np.ascontiguousarray(image[..., ::-1]))}
    ),
)
