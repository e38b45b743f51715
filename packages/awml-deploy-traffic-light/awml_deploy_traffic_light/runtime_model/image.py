"""How an image becomes the network's input: the steps of a test pipeline, as the model spec keeps them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from runtime.parameters import Parameters

Size = Annotated[int, Field(gt=0)]
Three = tuple[float, float, float]
Library = Literal["cv2", "pillow"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "area", "lanczos"]


class Resize(Parameters):
    """Scale the image.

    Attributes:
        width, height: what it is scaled to, or fitted into [px].
        keep_ratio: fit it in: both sides are scaled alike.
        cut_off: of sizes between two pixels take the smaller one, as Autoware's node does; otherwise the nearest.
        library: which one scales: Pillow averages where it scales down, OpenCV takes the nearest pixels.
        interpolation: by the library's name.
    """

    step: Literal["resize"] = "resize"
    width: Size
    height: Size
    keep_ratio: bool = False
    cut_off: bool = False
    library: Library = "cv2"
    interpolation: Interpolation = "bilinear"

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of an image after the step."""
        if not self.keep_ratio:
            return self.width, self.height
        if self.cut_off:
            scale = min(self.width / width, self.height / height)
            return max(1, int(width * scale)), max(1, int(height * scale))
        # mmcv's order: the longer side of the image is fitted into the longer bound.
        longer, shorter = max(self.width, self.height), min(self.width, self.height)
        scale = min(longer / max(width, height), shorter / min(width, height))
        return max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))


class ResizeEdge(Parameters):
    """Scale one edge of the image to a length, and the other alike."""

    step: Literal["resize_edge"] = "resize_edge"
    edge: Literal["short", "long", "width", "height"] = "short"
    length: Size
    library: Library = "cv2"
    interpolation: Interpolation = "bilinear"

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of an image after the step."""
        of_width = {"short": width < height, "long": width > height, "width": True, "height": False}[self.edge]
        if of_width:
            return self.length, max(1, int(self.length * height / width))
        return max(1, int(self.length * width / height)), self.length


class CenterCrop(Parameters):
    """Keep the middle of the image; one that is smaller stays as it is."""

    step: Literal["center_crop"] = "center_crop"
    width: Size
    height: Size


class Pad(Parameters):
    """Fill the image up at its right and bottom.

    Attributes:
        width, height: that it has then [px]; left out: the longer of its sides.
        fill: of every channel.
    """

    step: Literal["pad"] = "pad"
    width: Size | None = None
    height: Size | None = None
    fill: int = Field(default=0, ge=0, le=255)


ImageStep = Annotated[Resize | ResizeEdge | CenterCrop | Pad, Field(discriminator="step")]


class ImageInput(Parameters):
    """From an image of blue, green, red to the network's input.

    Attributes:
        width, height: of the input [px].
        steps: in order.
        color: order of the input's channels.
        mean, std: subtracted, and divided by, in that order, on the scale of 0 to 255.
    """

    width: Size
    height: Size
    steps: tuple[ImageStep, ...]
    color: Literal["bgr", "rgb"] = "bgr"
    mean: Three = (0.0, 0.0, 0.0)
    std: Three = (1.0, 1.0, 1.0)

    @model_validator(mode="after")
    def _std_divides(self) -> ImageInput:
        if min(self.std) <= 0:
            raise ValueError("std is positive")
        return self
