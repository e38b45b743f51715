"""Circle NMS against the definition, box by box."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from runtime.lidar.circle_nms import circle_nms


def naive(centers, scores, radius, post_max_size):
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    kept = []
    for i in order:
        if all(
            float((centers[i][0] - centers[j][0]) ** 2 + (centers[i][1] - centers[j][1]) ** 2) > radius for j in kept
        ):
            kept.append(i)
    return kept[:post_max_size]


@settings(max_examples=300)
@given(
    centers=hnp.arrays(
        np.float32,
        st.tuples(st.integers(0, 40), st.just(2)),
        elements=st.one_of(st.integers(-3, 3), st.floats(-4, 4, width=32)),
    ),
    radius=st.sampled_from([0.175, 0.85, 1.0, 4.0]),
    post_max_size=st.sampled_from([1, 5, 100]),
    data=st.data(),
)
def test_equals_the_definition(centers, radius, post_max_size, data):
    scores = data.draw(hnp.arrays(np.float32, len(centers), elements=st.floats(0, 1, width=16)))
    assert circle_nms(centers, scores, radius, post_max_size).tolist() == naive(centers, scores, radius, post_max_size)


def test_the_radius_is_a_squared_distance_and_belongs_to_the_circle():
    scores = np.float32([0.9, 0.8, 0.7])
    assert circle_nms(np.float32([[0, 0], [2, 0], [2.001, 0]]), scores, 4.0, 10).tolist() == [0, 2]


def test_a_suppressed_box_suppresses_nothing():
    centers = np.float32([[0, 0], [0.9, 0], [1.8, 0]])
    assert circle_nms(centers, np.float32([0.9, 0.8, 0.7]), 1.0, 10).tolist() == [0, 2]


def test_nothing_in_nothing_out():
    assert circle_nms(np.zeros((0, 2), np.float32), np.zeros(0, np.float32), 1.0, 10).tolist() == []


def test_at_most_as_many_as_asked_for_highest_scores_first():
    centers = np.arange(10, dtype=np.float32).repeat(2).reshape(10, 2) * 10
    scores = np.linspace(0.1, 0.9, 10, dtype=np.float32)
    assert circle_nms(centers, scores, 1.0, 3).tolist() == [9, 8, 7]
