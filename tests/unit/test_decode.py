"""Decoding of a center head against the framework's rules written out cell by cell."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.models.centerpoint.decode import count_nan, decode, undo_y_axis_reference
from runtime.models.centerpoint.parameters import CenterPointParameters
from tests.support import tiny_centerpoint


def decoding(**changes):
    """Parameters of a head; changes of the box coder go by their own names."""
    coder = {"max_num": 12, "score_threshold": 0.1, "post_center_range": (-8.0, -5.0, -2.0, 8.0, 5.0, 2.0)}
    coder = {name: changes.pop(name, value) for name, value in coder.items()}
    values = {
        **tiny_centerpoint.parameters(),
        "point_cloud_range": (-10.0, -6.0, -3.0, 10.0, 6.0, 3.0),
        "voxel_size": (0.25, 0.5, 6.0),
        "bbox_coder": coder,
    }
    return CenterPointParameters.model_validate({**values, **changes})


def outputs(classes=3, height=9, width=14, seed=0, velocity=True):
    rng = np.random.default_rng(seed)
    channels = {"heatmap": classes, "reg": 2, "height": 1, "dim": 3, "rot": 2, **({"vel": 2} if velocity else {})}
    values = {name: rng.normal(0, 1, (1, count, height, width)).astype(np.float32) for name, count in channels.items()}
    values["heatmap"] -= 1
    return values


def naive(out, rules):
    """Per class the best max_num, of those the best max_num, then threshold and range: plain Python."""
    heat = out["heatmap"][0]
    classes, height, width = heat.shape
    score = 1 / (1 + np.exp(-heat))
    per_class = []
    for label in range(classes):
        cells = sorted(range(height * width), key=lambda cell: (-score[label].flat[cell], cell))[
            : rules.bbox_coder.max_num
        ]
        per_class += [(score[label].flat[cell], label, cell) for cell in cells]
    best = sorted(per_class, key=lambda entry: (-entry[0], entry[1], entry[2]))[: rules.bbox_coder.max_num]
    boxes = []
    for value, label, cell in best:
        row, column = divmod(cell, width)
        pick = {name: array[0, :, row, column].astype(np.float64) for name, array in out.items()}
        x = (column + pick["reg"][0]) * rules.out_size_factor * rules.voxel_size[0] + rules.point_cloud_range[0]
        y = (row + pick["reg"][1]) * rules.out_size_factor * rules.voxel_size[1] + rules.point_cloud_range[1]
        center = (x, y, pick["height"][0])
        limits = rules.bbox_coder.post_center_range
        if rules.bbox_coder.score_threshold and not value > np.float32(rules.bbox_coder.score_threshold):
            continue
        if not all(limits[axis] <= center[axis] <= limits[axis + 3] for axis in range(3)):
            continue
        size = np.exp(pick["dim"]) if rules.norm_bbox else pick["dim"]
        boxes.append(
            (*center, *size, math.atan2(pick["rot"][0], pick["rot"][1]), *pick.get("vel", [np.nan] * 2), label, value)
        )
    return np.array(boxes).reshape(-1, 11)


def test_a_task_with_a_resolution_of_its_own():
    rules, maps = decoding(out_size_factor=2), outputs()
    finer = decode(maps, rules, 1)
    np.testing.assert_array_equal(as_rows(finer), as_rows(decode(maps, decoding(out_size_factor=1))))
    assert not np.array_equal(finer.centers, decode(maps, rules).centers)


def as_rows(boxes):
    return np.concatenate(
        [
            boxes.centers,
            boxes.sizes,
            boxes.yaws[:, None],
            boxes.velocities,
            boxes.labels[:, None],
            boxes.scores[:, None],
        ],
        axis=1,
    )


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    threshold=st.sampled_from([None, 0.0, 0.1, 0.35]),
    max_num=st.sampled_from([1, 12, 50, 1000]),
    norm=st.booleans(),
)
def test_equals_the_rules(seed, threshold, max_num, norm):
    out, rules = outputs(seed=seed), decoding(score_threshold=threshold, max_num=max_num, norm_bbox=norm)
    np.testing.assert_allclose(as_rows(decode(out, rules)), naive(out, rules), rtol=0, atol=2e-5)


def test_nothing_above_the_threshold():
    out = outputs()
    out["heatmap"][:] = -20
    assert len(decode(out, decoding())) == 0


def test_equal_scores_go_by_class_then_by_cell():
    out = outputs(classes=2, height=2, width=3)
    out["heatmap"][:] = 0.5
    out["reg"][:] = 0
    out["height"][:] = 0
    rules = decoding(max_num=8, post_center_range=(-99, -99, -99, 99, 99, 99))
    boxes = decode(out, rules)
    assert boxes.labels.tolist() == [0] * 6 + [1] * 2
    assert boxes.centers[:4, 0].tolist() == [-10.0, -9.5, -9.0, -10.0]


def test_saturated_scores_tie_although_their_logits_differ():
    out = outputs(classes=1, height=1, width=4)
    out["heatmap"][0, 0, 0] = [30, 40, 50, -9]
    out["reg"][:] = 0
    out["height"][:] = 0
    boxes = decode(out, decoding(max_num=2, post_center_range=(-99, -99, -99, 99, 99, 99)))
    assert boxes.scores.tolist() == [1.0, 1.0]
    assert boxes.centers[:, 0].tolist() == [-10.0, -9.5]


def test_no_velocity_head_means_unknown_velocity():
    boxes = decode(outputs(velocity=False), decoding())
    assert len(boxes) > 0
    assert np.isnan(boxes.velocities).all()


def test_the_y_axis_export_decodes_to_the_same_boxes():
    out = outputs()
    exported = {
        **out,
        "dim": np.ascontiguousarray(out["dim"][:, [1, 0, 2]]),
        "rot": np.ascontiguousarray(out["rot"][:, [1, 0]] * -1),
    }
    assert (
        as_rows(decode(exported, decoding(rot_y_axis_reference=True))).tobytes()
        == as_rows(decode(out, decoding())).tobytes()
    )
    dim, rot = undo_y_axis_reference(exported["dim"][0], exported["rot"][0])
    np.testing.assert_array_equal(dim, out["dim"][0])
    np.testing.assert_array_equal(rot, out["rot"][0])


def test_centers_on_the_border_of_the_range_stay():
    out = outputs(classes=1, height=1, width=1)
    for name in out:
        out[name][:] = 0
    rules = decoding(max_num=1, post_center_range=(-10, -6, 0, -10, -6, 0))
    assert decode(out, rules).centers.tolist() == [[-10.0, -6.0, 0.0]]


@pytest.mark.parametrize("threshold", [0.1, None])
def test_nan_is_never_chosen_and_is_counted(threshold):
    out = outputs()
    out["heatmap"][0, 1, 2, 3] = np.nan
    boxes = decode(out, decoding(score_threshold=threshold))
    assert np.isfinite(boxes.scores).all()
    assert count_nan(out["heatmap"]) == 1
    assert count_nan(outputs()["heatmap"]) == 0
