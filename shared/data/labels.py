"""From category names, as the data sets spell them, to the classes of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

IGNORED = -1

# The next more general name of each category, followed until a class of the model is reached: a motorcycle is a
# motorcycle for nuScenes' ten classes, and a bicycle for AWML's five. Category names: nuScenes, T4 (nuScenes' names, or
# plain ones, as AWML's data set configs map them), KITTI's 3D object task, Argoverse 2.
_MORE_GENERAL: Mapping[str, tuple[str, ...]] = {
    "car": (
        *("vehicle.car", "vehicle.ambulance", "vehicle.police", "vehicle.emergency (ambulance & police)"),
        *("ambulance", "forklift", "kart", "police_car", "Car", "Van", "REGULAR_VEHICLE"),
    ),
    "truck": (
        *("vehicle.truck", "vehicle.fire", "construction_vehicle", "trailer", "fire_truck", "tractor_unit", "Truck"),
        *("LARGE_VEHICLE", "TRUCK", "TRUCK_CAB", "BOX_TRUCK"),
    ),
    "bus": (
        *("vehicle.bus", "vehicle.bus.bendy", "vehicle.bus.rigid", "vehicle.bus (bendy & rigid)"),
        *("BUS", "SCHOOL_BUS", "ARTICULATED_BUS"),
    ),
    "bicycle": ("vehicle.bicycle", "motorcycle", "Cyclist", "BICYCLE", "BICYCLIST"),
    "motorcycle": ("vehicle.motorcycle", "MOTORCYCLE", "MOTORCYCLIST"),
    "pedestrian": (
        *("human.pedestrian.adult", "human.pedestrian.child", "human.pedestrian.construction_worker"),
        *("human.pedestrian.police_officer", "pedestrian.adult", "pedestrian.child", "pedestrian.construction_worker"),
        *("pedestrian.personal_mobility", "pedestrian.police_officer", "pedestrian.stroller", "pedestrian.wheelchair"),
        *("construction_worker", "personal_mobility", "police_officer", "stroller", "wheelchair"),
        *("Pedestrian", "Person_sitting", "PEDESTRIAN"),
    ),
    "person": ("pedestrian",),  # COCO's name
    "trailer": ("vehicle.trailer", "semi_trailer", "VEHICULAR_TRAILER"),
    "construction_vehicle": ("vehicle.construction",),
    "barrier": ("movable_object.barrier",),
    "traffic_cone": ("movable_object.trafficcone", "movable_object.traffic_cone", "CONSTRUCTION_CONE"),
    "driveable_surface": ("flat.driveable_surface",),
    "sidewalk": ("flat.sidewalk",),
    "terrain": ("flat.terrain",),
    "other_flat": ("flat.other",),
    "manmade": ("static.manmade",),
    "vegetation": ("static.vegetation",),
}
MORE_GENERAL = {name: general for general, names in _MORE_GENERAL.items() for name in names}

# AWML's default classes, in its order: what a mixture of data sets is labeled with unless the config says otherwise.
COMMON_CLASSES = ("car", "truck", "bus", "bicycle", "pedestrian")


# Categories of nuScenes' info files whose class a model may have under a more general name.
_NUSCENES_CLASSES = ("trailer", "construction_vehicle", "motorcycle", "pedestrian")


def nuscenes_label_map(classes: Sequence[str]) -> dict[str, str]:
    """nuScenes' detection classes that the model does not have, to the next more general one that it has."""
    label_map = {}
    for name in _NUSCENES_CLASSES:
        label = class_index(name, classes, {}, generalize=True)
        if name not in classes and label != IGNORED:
            label_map[name] = classes[label]
    return label_map


def class_index(name: str, classes: Sequence[str], label_map: Mapping[str, str | None], *, generalize: bool) -> int:
    """Index of a category's class, or ``IGNORED``.

    ``label_map`` decides first (None: ignored); then the name itself; then, with ``generalize``, ``MORE_GENERAL``.
    """
    if name in label_map:
        mapped = label_map[name]
        return classes.index(mapped) if mapped is not None and mapped in classes else IGNORED
    while name not in classes:
        if not generalize or name not in MORE_GENERAL:
            return IGNORED
        name = MORE_GENERAL[name]
    return classes.index(name)


def labels_in(classes: Sequence[str], label_classes: Sequence[str]) -> npt.NDArray[np.int64]:
    """(L + 1,) for each label of ``label_classes``, the label of the same class in ``classes``, -1 if there is none.

    The last entry is -1, too, so that label -1 stays -1.
    """
    return np.array([classes.index(name) if name in classes else -1 for name in label_classes] + [IGNORED], np.int64)
