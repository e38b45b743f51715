"""2D boxes in info files: AWML's ``yolox_infos_*.json`` (an entry an image), mmdet3d's ``.pkl`` (``cam_instances``).

In both a label indexes the file's own class list, and -1 means ignored: such boxes are left out. An ``ignore_flag`` of
1 marks a box as neither wanted nor wrong, as mmdet takes it.

An image's ``seg_map_path``, as mmsegmentation calls it, is a PNG file of a label for each pixel: an id of
``data.label_ids``, or an index into the ``segments`` of the file's metainfo; 255 is not judged unless it is a class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from shared.data.common import explain_malformed, files_part, info_file, label_path, load_info, settings_part
from shared.data.formats.info.frames import SAY_IDS, names_in, own_class_names
from shared.data.images import LabelCollector
from shared.data.label_file import LabelFile, class_of_ids
from shared.data.labels import IGNORED
from shared.data.paths import data_path
from shared.data.types import Dataset, DataSource, ImageLabels, ImageSample
from shared.errors import ConfigError, InputError
from shared.files import sha256_of_file
from shared.metrics.confusion import UNLABELED


def open_image_info(settings: DataSource, folder: Path) -> Dataset[ImageSample]:
    """Data set of the images of an info file.

    Raises:
        ConfigError: no info file is named, or it has labels and does not say of which classes.
        InputError: the file is missing, refused, malformed, or has no images.
    """
    file = info_file(settings, folder)
    where, content = str(file), load_info(file)
    if not isinstance(content, Mapping) or not isinstance(content.get("data_list"), Sequence):
        raise InputError(
            "is not an info file of AWML or mmdet3d",
            where=where,
            hint="it has metainfo and data_list; COCO: format coco",
        )
    with explain_malformed(f"{where}: metainfo"):
        own = own_class_names(content.get("metainfo", {}))
        segments = [str(name) for name in content.get("metainfo", {}).get("segments", ())]
    with explain_malformed(where):
        entries = [entry for frame in content["data_list"] for entry in _image_entries(frame)]
    if not entries:
        raise InputError("has no images", where=where, hint="was it made for another split, or without cameras?")
    if not own and any(entry.get("instances") for entry in entries):
        raise ConfigError("the info file does not name its classes", where=where, hint="list them in its metainfo")
    with explain_malformed(where):
        masks = [label_path(settings, folder, entry, "seg_map_path", "seg_map_path", where) for entry in entries]
    labeled = any(path is not None for path in masks)
    if labeled and not segments and not settings.label_ids:
        raise ConfigError("does not say which label is of which class", where=where, hint=SAY_IDS)
    classes = tuple(settings.classes) or names_in(own, [*segments, *settings.label_ids] if labeled else ())
    ids = {UNLABELED: IGNORED, **class_of_ids(settings, classes, enumerate(segments))}

    def build(index: int) -> ImageSample:
        place = f"{where}: image {index}"
        with explain_malformed(place):
            sample = _sample(index, entries[index], folder, settings, classes, own, place)
        path = masks[index]
        return sample if path is None else replace(sample, mask=LabelFile(path, ids))

    return Dataset(
        name=file.stem,
        classes=classes,
        length=len(entries),
        build=build,
        digest_parts=lambda: [
            "images",
            settings_part(settings, classes),
            sha256_of_file(file),
            *files_part(folder, sorted({path for path in masks if path is not None and path.is_file()})),
        ],
    )


def _image_entries(frame: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One entry per image: AWML's as it is, mmdet3d's frame split into its cameras."""
    if "img_path" in frame:
        path = str(frame["img_path"])
        # AWML's paths are <data base>/<scene>/<version>/data/<camera>/<file>.
        return [
            {
                **frame, "token": str(frame.get("img_id", path)), "timestamp": frame.get("timestamp", 0.0),
                "scene": path.split("/data/", maxsplit=1)[0] if "/data/" in path else "", "camera": "",
            }
        ]  # fmt: skip
    instances = frame.get("cam_instances")
    return [
        {
            **image,
            "token": f"{frame.get('token', frame.get('sample_idx'))}/{camera}",
            "timestamp": image.get("timestamp", frame.get("timestamp", 0.0)),
            "scene": str(frame.get("scene_token") or frame.get("scene_name") or ""),
            "camera": str(camera),
            **({} if instances is None else {"instances": instances.get(camera, [])}),
        }
        for camera, image in frame.get("images", {}).items()
        if image.get("img_path") is not None
    ]


def _sample(
    index: int,
    entry: Mapping[str, Any],
    root: Path,
    settings: DataSource,
    classes: tuple[str, ...],
    own: tuple[str, ...],
    where: str,
) -> ImageSample:
    prefix = settings.data_prefix.get(entry["camera"], settings.data_prefix.get("img", ""))
    name = f"{prefix}/{entry['img_path']}" if prefix else str(entry["img_path"])
    size = [entry.get(side) for side in ("width", "height")]
    return ImageSample(
        index=index,
        token=entry["token"],
        timestamp=float(entry["timestamp"]),
        scene=entry["scene"],
        image=data_path(root, name, where=where, allow_absolute=settings.allow_absolute_paths),
        width=None if size[0] is None else int(size[0]),
        height=None if size[1] is None else int(size[1]),
        labels=_labels(entry, settings, classes, own, where) if "instances" in entry else None,
    )


def _labels(
    entry: Mapping[str, Any], settings: DataSource, classes: tuple[str, ...], own: tuple[str, ...], where: str
) -> ImageLabels:
    collector = LabelCollector(classes, settings, generalize=False)
    for instance in entry["instances"]:
        label = int(instance["bbox_label"])
        if label == IGNORED:
            continue
        if not 0 <= label < len(own):
            raise InputError(f"has label {label}, but the file names {len(own)} classes", where=where)
        collector.add(own[label], instance["bbox"], ignored=bool(instance.get("ignore_flag", 0)))
    return collector.labels()
