"""Random tables of ground truth and predictions that look like a detector's output."""

from __future__ import annotations

import numpy as np

from shared.metrics.box_table import NO_ATTRIBUTE, BoxTable

CLASSES = ["car", "truck", "bus", "bicycle", "pedestrian"]
_SIZES = np.array([[4.4, 1.85, 1.6], [8.0, 2.5, 3.2], [11.0, 2.6, 3.3], [1.8, 0.6, 1.6], [0.7, 0.6, 1.7]])
_SHARES = np.array([0.5, 0.1, 0.05, 0.1, 0.25])


def random_tables(
    seed: int, frames: int, truths: int = 40, predictions: int = 100, reach: float = 121.0, classes: int = 5
) -> tuple[BoxTable, BoxTable]:
    """Predictions and ground truth: part hits with noise, part clutter, scores loosely tied to being right.

    Args:
        seed: the random seed.
        frames: number of frames.
        truths, predictions: boxes a frame.
        reach: half width [m] of the square that the boxes lie in.
        classes: use the first so many classes.
    """
    rng = np.random.default_rng(seed)
    shares = _SHARES[:classes] / _SHARES[:classes].sum()
    truth = _random_boxes(rng, frames, truths, reach, shares)
    count = frames * predictions
    hits = int(min(truths, predictions) * 0.8)
    # The first `hits` predictions of a frame stand on a ground truth of the same frame, the rest anywhere.
    guess = _random_boxes(rng, frames, predictions, reach, shares)
    position = np.arange(count) % predictions
    source = (np.arange(count) // predictions) * truths + position
    on_truth = position < hits
    rows, picked = np.flatnonzero(on_truth), source[on_truth]
    centers, sizes, yaws, velocities = guess.centers, guess.sizes, guess.yaws, guess.velocities
    centers[rows] = truth.centers[picked] + rng.normal(0, 0.7, (len(rows), 3))
    sizes[rows] = truth.sizes[picked] * rng.uniform(0.8, 1.25, (len(rows), 3))
    yaws[rows] = truth.yaws[picked] + rng.normal(0, 0.3, len(rows))
    velocities[rows] = truth.velocities[picked] + rng.normal(0, 1.0, (len(rows), 2))
    labels = guess.labels
    labels[rows] = np.where(rng.random(len(rows)) < 0.95, truth.labels[picked], labels[rows])
    scores = np.where(on_truth, rng.beta(4, 2, count), rng.beta(1.5, 5, count))
    shuffled = np.lexsort((rng.random(count), guess.frames))
    table = BoxTable(
        guess.frames, labels, centers, sizes, yaws, velocities, scores, np.zeros(count, np.int64), guess.attributes
    )
    return table.select(shuffled), truth


def _random_boxes(rng: np.random.Generator, frames: int, each: int, reach: float, shares: np.ndarray) -> BoxTable:
    count = frames * each
    labels = rng.choice(len(shares), count, p=shares).astype(np.int64)
    velocities = rng.normal(0, 5, (count, 2))
    velocities[rng.random(count) < 0.1] = np.nan
    return BoxTable(
        frames=np.repeat(np.arange(frames, dtype=np.int64), each),
        labels=labels,
        centers=np.column_stack([rng.uniform(-reach, reach, (count, 2)), rng.normal(0, 1, count)]),
        sizes=_SIZES[labels] * rng.uniform(0.8, 1.2, (count, 3)),
        yaws=rng.uniform(-np.pi, np.pi, count),
        velocities=velocities,
        scores=np.ones(count),
        num_points=rng.integers(1, 200, count),
        attributes=np.full(count, NO_ATTRIBUTE, np.int64),
    )
