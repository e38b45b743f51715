"""T4's 2D boxes: the key frames' camera images with what the table ``object_ann`` says of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.data.common import explain_malformed, files_part, settings_part
from shared.data.formats.t4.frames import ANNOTATION, Record, read_table, scene_folders, table_path
from shared.data.images import LabelCollector
from shared.data.paths import data_path
from shared.data.types import Dataset, DataSource, ImageLabels, ImageSample
from shared.errors import InputError

_TABLES = ("sample_data", "category", "object_ann", "calibrated_sensor", "sensor")
_MICROSECONDS = 1e6


def open_t4_images(settings: DataSource, folder: Path) -> Dataset[ImageSample]:
    """Data set of the key frames' images of the scene in a folder, or of all scenes under it.

    Images of a scene without the table ``object_ann`` have no labels.

    Raises:
        InputError: no scene or no images there, or a table is missing or malformed.
    """
    scenes = list(scene_folders(folder))
    if not scenes:
        raise InputError(
            "no T4 scene here", where=str(folder), hint="a scene has annotation/sample.json; check data.root"
        )
    tables = {scene: _tables(scene / ANNOTATION) for scene in scenes}
    images = [(scene, image) for scene in scenes for image in _key_images(scene, tables[scene])]
    if not images:
        raise InputError("the scenes have no camera images", where=str(folder))
    names = {str(category["name"]) for scene in scenes for category in tables[scene]["category"]}
    classes = tuple(settings.classes) or tuple(sorted(names))
    boxes: dict[Any, list[Record]] = defaultdict(list)
    for scene in scenes:
        for annotation in tables[scene].get("object_ann", ()):
            boxes[annotation["sample_data_token"]].append(annotation)

    def build(index: int) -> ImageSample:
        scene, image = images[index]
        where = f"{scene}: sample_data '{image['token']}'"
        with explain_malformed(where):
            return ImageSample(
                index=index,
                token=str(image["token"]),
                timestamp=float(image["timestamp"]) / _MICROSECONDS,
                scene=scene.relative_to(folder).as_posix(),
                image=data_path(scene, str(image["filename"]), where=where),
                width=int(image["width"]) or None,
                height=int(image["height"]) or None,
                labels=_labels(boxes[image["token"]], tables[scene], settings, classes),
            )

    return Dataset(
        name=folder.name,
        classes=classes,
        length=len(images),
        build=build,
        digest_parts=lambda: [
            "images",
            settings_part(settings, classes),
            files_part(folder, (table_path(scene / ANNOTATION, table) for scene in scenes for table in tables[scene])),
        ],
    )


def _tables(folder: Path) -> dict[str, list[Record]]:
    there = [table for table in _TABLES if table != "object_ann" or table_path(folder, table).is_file()]
    return {table: read_table(folder, table) for table in there}


def _key_images(scene: Path, tables: Mapping[str, list[Record]]) -> list[Record]:
    """Key frame records of cameras, by time and channel."""
    with explain_malformed(str(scene / ANNOTATION)):
        cameras = {sensor["token"]: sensor["channel"] for sensor in tables["sensor"] if sensor["modality"] == "camera"}
        mounts = {mount["token"]: mount["sensor_token"] for mount in tables["calibrated_sensor"]}
        images = [
            (int(record["timestamp"]), cameras[mounts[record["calibrated_sensor_token"]]], record)
            for record in tables["sample_data"]
            if record["is_key_frame"] and mounts[record["calibrated_sensor_token"]] in cameras
        ]
    return [record for *_, record in sorted(images, key=lambda image: image[:2])]


def _labels(
    annotations: list[Record], tables: Mapping[str, list[Record]], settings: DataSource, classes: tuple[str, ...]
) -> ImageLabels | None:
    if "object_ann" not in tables:
        return None
    names = {category["token"]: str(category["name"]) for category in tables["category"]}
    collector = LabelCollector(classes, settings, generalize=True)
    for annotation in annotations:
        collector.add(names[annotation["category_token"]], annotation["bbox"])
    return collector.labels()
