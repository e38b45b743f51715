"""From what the network says of each query to boxes, and suppression among them."""

from __future__ import annotations

import numpy as np

from awml_deploy_transfusion.names import BOXES, ROTATIONS, SCORES
from awml_deploy_transfusion.runtime_model.parameters import TransFusionParameters
from runtime.lidar.circle_nms import circle_nms
from runtime.pipeline import ArraysByName
from shared.tasks.detection3d import Boxes3D


def decode(outputs: ArraysByName, parameters: TransFusionParameters) -> Boxes3D:
    """Boxes in the order of the queries, which is that of their cells' scores.

    AWML's rules (``TransFusionBBoxCoder``): the best class, and of the boxes those whose center of the bottom face lies
    in ``post_center_range``, and whose score above the threshold.

    Args:
        outputs: (1, channels, Q) each: scores of the classes; x and y in cells of the map, z of the center of gravity
            [m], logarithms of l, w, h [m], and vx, vy [m/s] where the head has them; sine and cosine of the yaw.
        parameters: of the model.
    """
    by_class, values, rotation = (outputs[name][0].astype(np.float32) for name in (SCORES, BOXES, ROTATIONS))
    labels = by_class.argmax(axis=0)
    scores = np.take_along_axis(by_class, labels[None], axis=0)[0]
    low, size = (np.array(pair[:2], np.float32) for pair in (parameters.point_cloud_range, parameters.voxel_size))
    places = values[:2] * np.float32(parameters.out_size_factor) * size[:, None] + low[:, None]
    # A size that float32 can't hold is infinite, in the framework too.
    with np.errstate(over="ignore"):
        sizes = np.exp(values[3:6].astype(np.float64)).astype(np.float32)
    least, most = np.array(parameters.post_center_range, np.float32).reshape(2, 3, 1)
    bottoms = np.concatenate([places, values[2:3] - sizes[2:3] * np.float32(0.5)])
    kept = ((bottoms >= least) & (bottoms <= most)).all(axis=0)
    if parameters.score_threshold is not None:
        kept &= scores > np.float32(parameters.score_threshold)
    return Boxes3D.build(
        centers=np.concatenate([places, values[2:3]]).T,
        sizes=sizes.T,
        yaws=np.arctan2(rotation[0].astype(np.float64), rotation[1].astype(np.float64)),
        velocities=values[6:8].T if len(values) > 6 else None,
        labels=labels,
        scores=scores,
    ).select(np.flatnonzero(kept))


def suppressed(boxes: Boxes3D, parameters: TransFusionParameters) -> Boxes3D:
    """The boxes that circle suppression leaves, in their order; classes without any keep all of theirs."""
    kept = np.ones(len(boxes), np.bool_)
    for group in parameters.circle_nms:
        members = np.flatnonzero(boxes.labels == group.label)
        kept[members] = False
        centers, scores = boxes.centers[members, :2], boxes.scores[members]
        kept[members[circle_nms(centers, scores, group.radius, group.most)]] = True
    return boxes.select(np.flatnonzero(kept))
