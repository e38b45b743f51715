"""KITTI's left color images (``image_2``) with the 2D boxes of ``label_2``.

``DontCare`` regions are ignored for every class.
"""

from __future__ import annotations

from pathlib import Path

from shared.data.common import explain_malformed, files_part, settings_part
from shared.data.formats.kitti.frames import CLASSES, label_rows
from shared.data.images import LabelCollector
from shared.data.types import Dataset, DataSource, ImageLabels, ImageSample
from shared.errors import InputError

_DONT_CARE = "DontCare"
_BOX = slice(4, 8)  # columns of left, top, right, bottom


def open_kitti_images(settings: DataSource, folder: Path) -> Dataset[ImageSample]:
    """Data set of the frames that have an image, by number.

    Raises:
        InputError: no images there.
    """
    frames = sorted(file.stem for file in (folder / "image_2").glob("*.png"))
    if not frames:
        raise InputError("no image_2/*.png here", where=str(folder), hint="check data.root")
    classes = tuple(settings.classes) or CLASSES

    def label_file(frame: str) -> Path:
        return folder / "label_2" / f"{frame}.txt"

    def build(index: int) -> ImageSample:
        frame = frames[index]
        labels = label_file(frame)
        return ImageSample(
            index=index,
            token=frame,
            timestamp=0.0,
            scene="kitti",
            image=folder / "image_2" / f"{frame}.png",
            labels=_labels(labels, settings, classes) if labels.is_file() else None,
        )

    return Dataset(
        name=folder.name,
        classes=classes,
        length=len(frames),
        build=build,
        digest_parts=lambda: [
            "images",
            settings_part(settings, classes),
            frames,
            files_part(folder, (label_file(frame) for frame in frames if label_file(frame).is_file())),
        ],
    )


def _labels(file: Path, settings: DataSource, classes: tuple[str, ...]) -> ImageLabels:
    collector = LabelCollector(classes, settings, generalize=True)
    with explain_malformed(str(file)):
        for words in label_rows(file):
            corners = [float(word) for word in words[_BOX]]
            if words[0] == _DONT_CARE:
                collector.ignore_region(corners)
            else:
                collector.add(words[0], corners)
    return collector.labels()
