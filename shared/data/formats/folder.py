"""A bare folder of point files or images: every file that ``read_points`` or OpenCV knows.

Images may have masks in a folder of their own, named alike: ``data_prefix: {img: ..., seg_map_path: ...}``, and
``img_suffix`` and ``seg_map_suffix``, as mmsegmentation calls the ends of their names. What lies below these folders
counts, too.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from shared.data.common import files_part, point_file, settings_part
from shared.data.images import image_files
from shared.data.label_file import LabelFile, class_of_ids
from shared.data.labels import IGNORED
from shared.data.paths import by_number, data_path
from shared.data.points import ARGOVERSE_COLUMNS, POINT_SUFFIXES
from shared.data.types import Dataset, DataSource, ImageSample, Sample
from shared.data.views import IMAGE, LIDAR_FRAME
from shared.errors import ConfigError, InputError
from shared.images import IMAGE_SUFFIXES
from shared.metrics.confusion import UNLABELED

_MASKS = "seg_map_path"  # key of data_prefix
# Columns of the formats that bring their own names.
_FEATURES = {".npz": len(ARGOVERSE_COLUMNS), ".pcd": len(ARGOVERSE_COLUMNS)}


def open_folder(settings: DataSource, folder: Path) -> Dataset[Sample]:
    """Data set of the point files directly in a folder.

    Raises:
        InputError: no point files there.
        ConfigError: ``num_features`` is not given, and a file (.bin, .npy) does not name its columns.
    """
    files = sorted((file for file in folder.iterdir() if file.suffix.lower() in POINT_SUFFIXES), key=by_number)
    if not files:
        raise InputError("no point files here", where=str(folder), hint=_expected(folder, POINT_SUFFIXES))

    def features(file: Path) -> int:
        known = settings.num_features or _FEATURES.get(file.suffix.lower())
        if known is None:
            raise ConfigError(
                f"how many columns of {file.name} to read is not known",
                where="data.num_features",
                hint="set it: 4 for KITTI, 5 for nuScenes and T4",
            )
        return known

    columns = [features(file) for file in files]

    def build(index: int) -> Sample:
        file = files[index]
        return Sample(
            index=index,
            token=file.name,
            timestamp=0.0,
            scene=folder.name,
            lidar=point_file(settings, folder, file, columns[index]),
        )

    return Dataset(
        name=folder.name,
        classes=tuple(settings.classes),
        length=len(files),
        build=build,
        digest_parts=lambda: [settings_part(settings, settings.classes), [[f.name, f.stat().st_size] for f in files]],
    )


def _expected(folder: Path, suffixes: Collection[str]) -> str:
    """What was expected in ``folder``, or the format that its subfolders are of."""
    kitti = next((root for root in (folder, folder / "training") if (root / "velodyne").is_dir()), None)
    if kitti is not None:
        return (
            f"this is KITTI's layout: set data.format=kitti, data.root={kitti} (with make: SET='data.format=kitti …')"
        )
    return f"expected {', '.join(suffixes)}"


def open_image_folder(settings: DataSource, folder: Path) -> Dataset[ImageSample]:
    """Data set of the images directly in a folder, without labels; or with masks.

    Raises:
        InputError: no images there, or no mask of any.
        ConfigError: masks, and no classes.
    """
    if _MASKS in settings.data_prefix:
        return _open_masks(settings, folder)
    files = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise InputError("no images here", where=str(folder), hint=_expected(folder, IMAGE_SUFFIXES))
    return image_files(folder.name, folder, sorted(files, key=by_number), settings)


def _open_masks(settings: DataSource, folder: Path) -> Dataset[ImageSample]:
    if not settings.classes:
        raise ConfigError("masks don't name their classes", where="data.classes", hint="list them, and data.label_ids")
    where = "data.data_prefix"
    images = data_path(folder, settings.data_prefix.get("img", "."), where=where)
    masks = data_path(folder, settings.data_prefix[_MASKS], where=where)
    endings = (settings.img_suffix,) if settings.img_suffix else IMAGE_SUFFIXES
    found = sorted(file for file in images.rglob("*") if file.name.lower().endswith(tuple(map(str.lower, endings))))
    ids = {UNLABELED: IGNORED, **class_of_ids(settings, settings.classes, enumerate(settings.classes))}

    def mask_of(file: Path) -> Path:
        stem = file.name[: -len(settings.img_suffix)] if settings.img_suffix else file.stem
        return masks / file.parent.relative_to(images) / f"{stem}{settings.seg_map_suffix}"

    # Masks may lie among the images: below them in a folder of their own, or beside them.
    apart = masks != images and masks.is_relative_to(images)
    of_others = {mask for file in found if (mask := mask_of(file)) != file}
    files = [file for file in found if file not in of_others and not (apart and file.is_relative_to(masks))]
    if not files:
        raise InputError("no images here", where=str(images), hint=f"expected names that end in {', '.join(endings)}")
    labeled = {file: mask for file in files if (mask := mask_of(file)).is_file()}
    if not labeled:
        raise InputError(f"has no mask of {files[0].name}", where=str(masks), hint=f"expected {mask_of(files[0])}")
    bare = image_files(folder.name, images, files, settings)

    def build(index: int) -> ImageSample:
        mask = labeled.get(files[index])
        return replace(bare.build(index), mask=None if mask is None else LabelFile(mask, ids))

    return replace(
        bare,
        build=build,
        digest_parts=lambda: [*bare.digest_parts(), files_part(folder, labeled.values())],
    )


VIEWS = {LIDAR_FRAME: open_folder, IMAGE: open_image_folder}
