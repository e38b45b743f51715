"""A bare folder of point files or images, without labels: every file that ``read_points`` or OpenCV knows."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from shared.data.common import point_file, settings_part
from shared.data.images import image_files
from shared.data.paths import by_number
from shared.data.points import ARGOVERSE_COLUMNS, POINT_SUFFIXES
from shared.data.types import Dataset, DataSource, ImageSample, Sample
from shared.data.views import IMAGE, LIDAR_FRAME
from shared.errors import ConfigError, InputError
from shared.images import IMAGE_SUFFIXES

# Columns of the formats that bring their own names.
_FEATURES = {".npz": len(ARGOVERSE_COLUMNS), ".pcd": len(ARGOVERSE_COLUMNS)}


def open_folder(settings: DataSource, folder: Path) -> Dataset[Sample]:
    """Data set of the point files directly in a folder.

    Raises:
        InputError: no point files there.
        ConfigError: ``num_features`` is not given, and a file (.bin, .npy) does not say how many columns it has.
    """
    files = sorted((file for file in folder.iterdir() if file.suffix.lower() in POINT_SUFFIXES), key=by_number)
    if not files:
        raise InputError("no point files here", where=str(folder), hint=_expected(folder, POINT_SUFFIXES))

    def features(file: Path) -> int:
        known = settings.num_features or _FEATURES.get(file.suffix.lower())
        if known is None:
            raise ConfigError(
                f"how many columns {file.name} has is not in the file",
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
    """Data set of the images directly in a folder, without labels.

    Raises:
        InputError: no images there.
    """
    files = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise InputError("no images here", where=str(folder), hint=_expected(folder, IMAGE_SUFFIXES))
    return image_files(folder.name, folder, sorted(files, key=by_number), settings)


VIEWS = {LIDAR_FRAME: open_folder, IMAGE: open_image_folder}
