"""YOLOX with a mask head on a stand-in session: boxes and mask, both conventions, steps kept in files, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.models.yolox.letterbox import Placement
from runtime.models.yolox.parameters import Letterbox
from runtime.models.yolox_seg.mask import RUN, in_place, interpolated, network_labels, run_lengths
from runtime.models.yolox_seg.messages import messages
from runtime.pipeline import HostPipeline, build_pipeline
from shared.class_colors import class_colors
from shared.errors import ManifestError, UsageError
from shared.metrics.confusion import UNLABELED
from shared.several_tasks import Answers
from shared.tasks.detection2d import Boxes2D
from shared.tasks.segmentation2d import ClassMask
from tests.support import tiny_yolox as tiny
from tests.support import tiny_yolox_seg as seg

LETTERBOX = Letterbox(height=96, width=96, fill=114, color="bgr", resize="mmdet")


def probabilities(seed: int = 0, classes: int = 4) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(0, 3, (classes, 96, 96))
    shares = np.exp(logits)
    return (shares / shares.sum(axis=0)).astype(np.float32)


def one_label(label: int) -> np.ndarray:
    given = np.full((4, 96, 96), 0.02, np.float32)
    given[label] = 0.94
    return given


def test_boxes_and_mask_come_together() -> None:
    rows = tiny.random_rows(3)
    pipeline = build_pipeline(seg.spec(), seg.StandIn(rows, one_label(2)))
    image = np.zeros((80, 120, 3), np.uint8)
    answer = pipeline.infer(image)
    alone = build_pipeline(tiny.spec(), tiny.StandIn(rows)).infer(image).predictions
    np.testing.assert_array_equal(answer.predictions.parts["detection2d"].corners, alone.corners)
    mask = answer.predictions.parts["segmentation2d"]
    assert mask.labels.shape == (80, 120)
    assert (mask.labels == 2).all()
    assert (mask.margins == round(255 * 0.92)).all()
    assert list(answer.latency_ms) == ["letterbox", "yolox", "mask", "decode", "nms", "total"]
    assert answer.counters["boxes"] == len(alone)


def test_what_lies_beside_the_image_has_no_part() -> None:
    """The image is 96 x 48 in the upper half; below, where it is filled, another class is found."""
    given = one_label(1)
    given[:, 48:] = one_label(3)[:, 48:]
    for convention in ("awml", "autoware"):
        pipeline = build_pipeline(seg.spec(mask=convention), seg.StandIn(tiny.random_rows(0), given))
        mask = pipeline.infer(np.zeros((40, 80, 3), np.uint8)).predictions.parts["segmentation2d"]
        assert (mask.labels == 1).all()


def test_labels_of_the_image_are_interpolated_where_the_network_s_are_in_place() -> None:
    """Twice as wide as the network's image: between two of its pixels the surer one reaches further."""
    given = np.zeros((2, 96, 96), np.float32)
    given[0, :, ::2], given[1, :, ::2] = 0.999, 0.001
    given[0, :, 1::2], given[1, :, 1::2] = 0.4, 0.6
    placement = Placement(0.5, 0.5, 192, 192)
    awml, autoware = interpolated(given, placement, LETTERBOX), in_place(given, placement, LETTERBOX)
    assert autoware.labels[0, :8].tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    # A quarter of log 0.999 / 0.001 outweighs three of log 0.6 / 0.4; beyond the last pixel nothing is mixed.
    assert (awml.labels[:, :-1] == 0).all()
    assert (awml.labels[:, -1] == 1).all()


def test_a_certain_pixel_does_not_break_the_interpolation() -> None:
    given = np.zeros((3, 96, 96), np.float32)
    given[0, :, :48] = given[1, :, 48:] = 1.0
    mask = interpolated(given, Placement(1.0, 1.0, 96, 96), LETTERBOX)
    assert (mask.labels[:, :48] == 0).all()
    assert (mask.labels[:, 48:] == 1).all()
    assert (mask.margins == 255).all()


def test_a_request_goes_on_from_any_step_that_was_kept() -> None:
    pipeline = build_pipeline(seg.spec(), seg.StandIn(tiny.random_rows(3), probabilities()))
    assert isinstance(pipeline, HostPipeline)
    image = np.zeros((80, 120, 3), np.uint8)
    whole = pipeline.infer(image).predictions
    state = image
    for position, step in enumerate(pipeline.steps[1:], start=1):
        state = step.packing.unpack(step.packing.pack(step.run(state)))
        rest = state
        for later in pipeline.steps[position + 1 :]:
            rest = later.run(rest)
        for task in ("detection2d", "segmentation2d"):
            np.testing.assert_array_equal(rest.parts[task].labels, whole.parts[task].labels)


def test_raw_probabilities_are_compared_in_part() -> None:
    given = probabilities()
    pipeline = build_pipeline(seg.spec(), seg.StandIn(tiny.random_rows(3), given))
    outputs = pipeline.infer(np.zeros((80, 120, 3), np.uint8)).outputs
    compared = pipeline.comparable(outputs)
    assert list(compared) == ["output", "mask"]
    np.testing.assert_array_equal(compared["mask"][0], given[:, ::4, ::4])


def test_a_spec_whose_mask_has_other_classes_is_refused() -> None:
    session = seg.StandIn(tiny.random_rows(3), probabilities())
    spec = seg.spec()
    for classes in (spec.classes[:-1], spec.classes[1:]):
        with pytest.raises(ManifestError, match=r"classes make|should be a mask of"):
            build_pipeline(spec.model_copy(update={"classes": classes}), session)
    with pytest.raises(ManifestError, match=r"parameters\.mask\.convention"):
        build_pipeline(seg.spec(mask="mmseg"), session)


def test_a_mask_in_the_place_of_an_image_that_was_stretched_is_refused() -> None:
    stretched = {**tiny.parameters()["image"], "resize": "mmdet_stretched"}
    session = seg.StandIn(tiny.random_rows(3), probabilities())
    build_pipeline(seg.spec(image=stretched), session)
    with pytest.raises(ManifestError, match="keeps its shape"):
        build_pipeline(seg.spec(image=stretched, mask="autoware"), session)


def test_run_lengths_are_those_of_the_lines_one_after_another() -> None:
    runs = run_lengths(np.array([[3, 3, 1], [1, 1, 3]], np.uint8))
    assert runs.tolist() == [(3, 2), (1, 3), (3, 1)]
    # Label and count without a gap, the count as a little-endian int32: 5 bytes a run.
    assert runs.tobytes() == bytes([3, 2, 0, 0, 0, 1, 3, 0, 0, 0, 3, 1, 0, 0, 0])
    assert run_lengths(np.zeros((0, 4), np.uint8)).size == 0


@pytest.mark.parametrize("size", [(640, 360), (641, 359), (96, 96), (100, 333), (97, 1)])
def test_the_networks_labels_come_back_from_the_images(size: tuple[int, int]) -> None:
    width, height = size
    given = probabilities()
    mask = in_place(given, Placement(1, 1, width, height), LETTERBOX)
    scale = min(np.float32(96) / np.float32(width), np.float32(96) / np.float32(height))
    lines, columns = (max(1, int(np.float32(side) * scale)) for side in (height, width))
    np.testing.assert_array_equal(network_labels(mask.labels, LETTERBOX), given.argmax(axis=0)[:lines, :columns])


def test_messages_are_those_of_autowares_node() -> None:
    spec = seg.spec(mask="autoware")
    labels = np.repeat(np.arange(3, dtype=np.uint8), 100).reshape(3, 100).repeat(100, axis=0)
    labels[0, 0] = UNLABELED
    answers = Answers({"detection2d": Boxes2D.empty(), "segmentation2d": ClassMask.build(labels)})
    mask, color_mask = messages(spec, answers)
    assert (mask.topic, mask.encoding, mask.step) == ("mask", "mono8", mask.width)
    runs = np.frombuffer(mask.data, RUN)
    assert runs["label"].tolist() == [0, 1, 2]
    assert runs["count"].sum() == mask.height * mask.width
    picture = np.frombuffer(color_mask.data, np.uint8).reshape(color_mask.height, color_mask.step // 3, 3)
    assert (color_mask.encoding, picture.shape[1]) == ("bgr8", mask.width)
    colors = class_colors(len(seg.MASK_CLASSES))
    assert [tuple(picture[line, 0, ::-1].tolist()) for line in (0, -1)] == [colors[0], colors[2]]


def test_messages_that_the_node_would_not_send_are_refused() -> None:
    answers = Answers({"detection2d": Boxes2D.empty(), "segmentation2d": ClassMask.build(np.zeros((300, 300)))})
    with pytest.raises(UsageError, match=r"model\.options\.mask"):
        messages(seg.spec(mask="awml"), answers)
    small = Answers({"detection2d": Boxes2D.empty(), "segmentation2d": ClassMask.build(np.zeros((3, 3)))})
    with pytest.raises(UsageError, match="an image of 3 x 3 is smaller"):
        messages(seg.spec(mask="autoware"), small)
