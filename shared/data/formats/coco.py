"""COCO's annotation files: ``images``, ``categories`` and ``annotations`` with boxes as left, top, width, height.

Crowds (``iscrowd``) are ignored regions of their class. The area that COCO's size classes go by is the annotation's
own, which is that of the segmentation where there is one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.data.common import explain_malformed, info_file, load_info, settings_part
from shared.data.images import LabelCollector
from shared.data.paths import data_path
from shared.data.types import Dataset, DataSource, ImageSample
from shared.data.views import IMAGE
from shared.errors import InputError
from shared.files import sha256_of_file


def open_coco(settings: DataSource, folder: Path) -> Dataset[ImageSample]:
    """Data set of the images of a COCO file, in its order.

    Raises:
        ConfigError: no annotation file is named.
        InputError: the file is missing, malformed, or lists no images.
    """
    file = info_file(settings, folder)
    where, content = str(file), load_info(file)
    if not isinstance(content, Mapping) or "images" not in content:
        raise InputError("is no COCO file", where=where, hint="it has images, annotations and categories")
    with explain_malformed(where):
        images = list(content["images"])
        names = {int(category["id"]): str(category["name"]) for category in content.get("categories", ())}
        of_image: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
        for annotation in content.get("annotations", ()):
            of_image[annotation["image_id"]].append(annotation)
    if not images:
        raise InputError("lists no images", where=where, hint="was it made for another split?")
    classes = tuple(settings.classes) or tuple(names[number] for number in sorted(names))
    labeled = "annotations" in content
    prefix = settings.data_prefix.get("img", "")

    def build(index: int) -> ImageSample:
        image = images[index]
        place = f"{where}: images[{index}]"
        with explain_malformed(place):
            collector = LabelCollector(classes, settings, generalize=False)
            for annotation in of_image[image["id"]]:
                left, top, width, height = annotation["bbox"]
                collector.add(
                    names[int(annotation["category_id"])],
                    (left, top, left + width, top + height),
                    ignored=bool(annotation.get("iscrowd", 0)),
                    area=annotation.get("area"),
                )
            name = f"{prefix}/{image['file_name']}" if prefix else str(image["file_name"])
            return ImageSample(
                index=index,
                token=str(image["id"]),
                timestamp=0.0,
                scene=file.stem,
                image=data_path(folder, name, where=place, allow_absolute=settings.allow_absolute_paths),
                width=int(image["width"]) if "width" in image else None,
                height=int(image["height"]) if "height" in image else None,
                labels=collector.labels() if labeled else None,
            )

    return Dataset(
        name=file.stem,
        classes=classes,
        length=len(images),
        build=build,
        digest_parts=lambda: ["images", settings_part(settings, classes), sha256_of_file(file)],
    )


VIEWS = {IMAGE: open_coco}
