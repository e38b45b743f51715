"""What ``autoware_tensorrt_yolox`` publishes of a mask: its labels run by run, and in colors.

Not the boxes that the node draws into a mask with ``is_roi_overlap_segmentation``.
"""

from __future__ import annotations

import numpy as np

from runtime.messages import ImageMessage
from runtime.models.yolox_seg.mask import network_labels, run_lengths
from runtime.models.yolox_seg.parameters import SEGMENTATION, read_parameters
from shared.class_colors import class_colors
from shared.errors import UsageError
from shared.metrics.confusion import UNLABELED
from shared.several_tasks import Answers, classes_of
from shared.spec import ModelSpec


def messages(spec: ModelSpec, predictions: Answers) -> list[ImageMessage]:
    """``mask``, encoded ``mono8``, whose data are the runs, and ``color_mask``, ``bgr8``, in the bundle's colors.

    Raises:
        UsageError: masks are not by Autoware's convention, or the image is smaller than the network's input, whose
            pixels the answer does not have then.
    """
    parameters = read_parameters(spec)
    if parameters.mask.convention != "autoware":
        raise UsageError(
            f"masks are by '{parameters.mask.convention}', and the node's are by 'autoware'",
            where="model.options.mask",
            hint="export with --set model.options.mask=autoware, and run that",
        )
    labels = network_labels(predictions.parts[SEGMENTATION].labels, parameters.image)
    # The node's search for the best class starts at the first one, and none is above a probability that is NaN.
    labels = np.where(labels == UNLABELED, np.uint8(0), labels)
    height, width = labels.shape
    colors = np.array(class_colors(len(classes_of(SEGMENTATION, spec.classes))), np.uint8)[:, ::-1]
    return [
        ImageMessage("mask", "mono8", height, width, width, run_lengths(labels).tobytes()),
        ImageMessage("color_mask", "bgr8", height, width, 3 * width, colors[labels].tobytes()),
    ]
