"""The inputs that YOLOX networks are trained on, where a model's own may be another than its config says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from runtime.doctor_input import Neighbor
from runtime.models.yolox.parameters import Three, YoloxParameters

# ImageNet's, in the order red, green, blue, on the scale of 0-255.
_MEAN: Three = (123.675, 116.28, 103.53)
_STD: Three = (58.395, 57.12, 57.375)

_Color = Literal["bgr", "rgb"]


def neighbors(parameters: Mapping[str, Any]) -> Iterator[Neighbor]:
    """Both orders of the channels; values 0-255, 0-1, and less ImageNet's mean, its channels in either order."""
    image = YoloxParameters.model_validate(parameters).image
    for color, values, mean, std in _inputs():
        other = image.model_copy(update={"color": color, "mean": mean, "std": std})
        if other != image:
            shown = "" if mean is None or std is None else f", mean: {list(mean)}, std: {list(std)}"
            yield Neighbor(
                f"{color}, {values}",
                {**parameters, "image": other.model_dump(mode="json")},
                f"model.options.image, or data_preprocessor of the training config: {{color: {color}{shown}}}",
            )


def _inputs() -> Iterator[tuple[_Color, str, Three | None, Three | None]]:
    orders: tuple[tuple[_Color, _Color], ...] = (("bgr", "rgb"), ("rgb", "bgr"))
    for color, other in orders:
        yield color, "0-255", None, None
        yield color, "0-1", (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)
        for order in (color, other):
            mean, std = (_MEAN, _STD) if order == "rgb" else (_MEAN[::-1], _STD[::-1])
            yield color, f"ImageNet's mean as {order}", mean, std
