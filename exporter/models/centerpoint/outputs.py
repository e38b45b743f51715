"""The outputs of the head: their names, their order, and the two conventions of size and yaw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from exporter.models.centerpoint.options import Options

# Autoware binds the head's outputs by position, in this order.
_OUTPUT_ORDER = ("heatmap", "reg", "height", "dim", "rot", "vel")


def output_names(model: Any) -> list[dict[str, str]]:
    """Per task: what an output means to its name. One task: plain names; several: with the task's number."""
    heads = model.pts_bbox_head.task_heads
    return [
        {kind: kind if len(heads) == 1 else f"{kind}_{task}" for kind in _OUTPUT_ORDER if kind in head.heads}
        for task, head in enumerate(heads)
    ]


def trained_on_y_axis(model: Any) -> bool:
    """Whether the network itself answers with w, l, h and the yaw from the y axis (AWML's box coder has a flag)."""
    return bool(vars(model.pts_bbox_head.bbox_coder).get("y_axis_reference", False))


def answers_on_y_axis(model: Any, options: Options) -> bool:
    """Whether the exported components answer so: trained to, or made to by `to_y_axis_reference`."""
    return options.rot_y_axis_reference or trained_on_y_axis(model)


def output_channels(model: Any) -> list[dict[str, int]]:
    """Per task: what an output means to its number of channels."""
    # Not from head.heads: built from a ConfigDict, all tasks share one, which says what the last task has.
    return [
        {kind: int(getattr(head, kind)[-1].out_channels) for kind in _OUTPUT_ORDER if kind in head.heads}
        for head in model.pts_bbox_head.task_heads
    ]


def ordered_outputs(tasks: Sequence[Mapping[str, Tensor]], to_y_axis: bool) -> Iterator[Tensor]:
    """The maps of every task in the order in which they are exported.

    Args:
        tasks: per task, map by name, (B, C, H, W) each.
        to_y_axis: convert them, see `to_y_axis_reference`.
    """
    for maps in tasks:
        converted = to_y_axis_reference(maps) if to_y_axis else maps
        yield from (converted[kind] for kind in _OUTPUT_ORDER if kind in converted)


def to_y_axis_reference(maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The head's maps with boxes as w, l, h and the yaw measured clockwise from the y axis.

    With l, w, h = dim and [sin, cos] = rot: dim becomes [w, l, h], rot becomes [-cos, -sin].

    Args:
        maps: by name, (B, C, H, W) each.
    """
    dim, rot = maps["dim"], maps["rot"]
    return {
        **maps,
        "dim": torch.cat([dim[:, 1:2], dim[:, 0:1], dim[:, 2:3]], dim=1),
        "rot": -torch.cat([rot[:, 1:2], rot[:, 0:1]], dim=1),
    }
