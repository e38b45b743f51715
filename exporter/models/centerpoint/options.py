"""Options of a CenterPoint's deploy config."""

from __future__ import annotations

from typing import Literal

from exporter.options import ModelOptions


class Options(ModelOptions):
    """``model.options`` of the deploy config.

    Attributes:
        rot_y_axis_reference: export boxes as w, l, h and the yaw as [-cos, -sin] (measured clockwise from the y axis),
            as Autoware's node expects; the runtime turns them back.
        nms_type: ``circle`` replaces a training config's rotated suppression, which the runtime does not have, by
            circle suppression with the config's own ``min_radius``.
    """

    rot_y_axis_reference: bool = False
    nms_type: Literal["circle"] | None = None
