"""Files with a label for each point or pixel, in ids of the data set's own."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from shared.arrays import Int64, UInt8
from shared.data.labels import class_index
from shared.errors import InputError
from shared.lazy import lazy_import
from shared.regular_files import read_bytes

if TYPE_CHECKING:
    from shared.data.types import DataSource

pillow = lazy_import("PIL.Image", install="make setup")

Ids = npt.NDArray[Any]

#: Modes of images with one number a pixel: gray, palette (the index, not the color), one bit, 16 bits.
_ONE_NUMBER = ("L", "P", "1", "I;16", "I")
# Where a PNG file says how many bits a gray value has, of which Pillow makes all of 0 to 255.
_PNG_DEPTH = 24
# So many ids 16 bits hold.
_MOST_IDS = 1 << 16
_STRANGER = -2


@dataclass(frozen=True)
class LabelFile:
    """A file of labels.

    Attributes:
        path: the file; its suffix says what it is, see `read_ids`.
        ids: class, as an index into the data set's list, of each id that the file may hold; -1: not judged.

    Raises:
        ValueError: an id that 16 bits can't hold.
    """

    path: Path
    ids: Mapping[int, int]

    def __post_init__(self) -> None:
        if self.ids and not 0 <= min(self.ids) <= max(self.ids) < _MOST_IDS:
            raise ValueError(f"ids from {min(self.ids)} to {max(self.ids)} are no labels")

    def read(self, to_model: Int64) -> UInt8:
        """The labels (N,) of points or (H, W) of pixels; 255 (`shared.metrics.confusion.UNLABELED`)
        for what is not judged.

        Args:
            to_model: (L + 1,) for each class of the data set that of the model, -1 for none; the last is -1.

        Raises:
            InputError: the file is missing, not one of labels, or has an id that is not among ``ids``.
        """
        found = read_ids(self.path)
        table = np.full(_MOST_IDS, _STRANGER, np.int16)
        for number, label in self.ids.items():
            table[number] = to_model[label]
        labels = table[found]
        strangers = labels == _STRANGER
        if strangers.any():
            raise InputError(
                f"label {int(found[strangers][0])} is outside the list of {len(self.ids)}", where=str(self.path)
            )
        return labels.astype(np.uint8)  # -1 becomes 255


def class_of_ids(
    settings: DataSource, classes: Sequence[str], known: Iterable[tuple[int, str]], *, generalize: bool = False
) -> dict[int, int]:
    """For `LabelFile`, the class of each id: as ``data.label_ids`` says, or else as the data set does.

    Args:
        settings: of the data set.
        classes: of the data set. Names that are none of them are not judged.
        known: ids and names of the data set's own.
        generalize: a name that is no class stands for the next more general one, see `shared.data.labels`.
    """
    given = [(number, name) for name, numbers in settings.label_ids.items() for number in numbers]
    return {
        number: class_index(name, classes, settings.label_map, generalize=generalize) for number, name in given or known
    }


def read_ids(path: Path) -> Ids:
    """The ids in a file.

    ``.label``: SemanticKITTI's, 32 bits a point, of which the upper 16 number instances. ``.bin``: nuScenes' lidarseg
    and T4's, 8 bits a point. ``.png``: an image of one number a pixel.

    Returns:
        (N,) or (H, W) of unsigned integers below 65536.

    Raises:
        InputError: the file is missing, or is none of these.
    """
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise InputError(
            f"is no file of labels ('{path.suffix}')", where=str(path), hint=f"these are: {', '.join(_READERS)}"
        )
    return reader(path)


def _read_semantic_kitti(path: Path) -> Ids:
    content = read_bytes(path)
    if len(content) % 4:
        raise InputError(f"has {len(content)} bytes, which is no whole number of 32-bit labels", where=str(path))
    return np.frombuffer(content, "<u4").astype(np.uint16)  # the lower half


def _read_lidarseg(path: Path) -> Ids:
    return np.frombuffer(read_bytes(path), np.uint8)


def _read_mask(path: Path) -> Ids:
    where = str(path)
    content = read_bytes(path)
    bomb = pillow.DecompressionBombWarning
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", bomb)  # more pixels than any camera has
            with pillow.open(io.BytesIO(content), formats=["PNG"]) as image:
                mode = image.mode
                mask = np.asarray(image)
    except (OSError, ValueError, SyntaxError, bomb, pillow.DecompressionBombError) as error:
        raise InputError("can't be decoded as a PNG image", where=where) from error
    if mode not in _ONE_NUMBER:
        hint = "save the ids themselves, not their colors"
        raise InputError(f"has pixels of the kind {mode}, not one number each", where=where, hint=hint)
    if mode == "L" and content[_PNG_DEPTH] < 8:
        return mask // np.uint8(255 // ((1 << content[_PNG_DEPTH]) - 1))
    return mask.astype(np.uint8 if mask.dtype.itemsize == 1 else np.uint16)


_READERS: Mapping[str, Callable[[Path], Ids]] = {
    ".label": _read_semantic_kitti,
    ".bin": _read_lidarseg,
    ".png": _read_mask,
}
#: Suffixes of files with labels of points, and of pixels.
POINT_SUFFIXES, MASK_SUFFIXES = (".label", ".bin"), (".png",)
