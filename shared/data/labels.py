"""From category names, as the data sets spell them, to the classes of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

IGNORED = -1

# Each name's next more general one. Followed until a class of the model is met: a motorcycle is a motorcycle for
# nuScenes' ten classes, and a bicycle for AWML's five; a trailer without a class of its own is a truck, as in AWML.
# Category names: nuScenes detection task, T4 (nuScenes' names, or plain ones), KITTI's 3D object task, Argoverse 2.
MORE_GENERAL: dict[str, str] = {
    # nuScenes categories -> detection classes
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.police_officer": "pedestrian",
    "movable_object.barrier": "barrier",
    "movable_object.trafficcone": "traffic_cone",
    "vehicle.bicycle": "bicycle",
    "vehicle.bus": "bus",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.car": "car",
    "vehicle.construction": "construction_vehicle",
    "vehicle.motorcycle": "motorcycle",
    "vehicle.trailer": "trailer",
    "vehicle.truck": "truck",
    # detection classes -> AWML's five
    "construction_vehicle": "truck",
    "motorcycle": "bicycle",
    "trailer": "truck",
    # AWML's classes -> COCO's
    "pedestrian": "person",
    # KITTI
    "Car": "car",
    "Van": "car",
    "Truck": "truck",
    "Pedestrian": "pedestrian",
    "Person_sitting": "pedestrian",
    "Cyclist": "bicycle",
    # Argoverse 2
    "REGULAR_VEHICLE": "car",
    "LARGE_VEHICLE": "truck",
    "TRUCK": "truck",
    "TRUCK_CAB": "truck",
    "BOX_TRUCK": "truck",
    "VEHICULAR_TRAILER": "trailer",
    "BUS": "bus",
    "SCHOOL_BUS": "bus",
    "ARTICULATED_BUS": "bus",
    "BICYCLE": "bicycle",
    "BICYCLIST": "bicycle",
    "MOTORCYCLE": "motorcycle",
    "MOTORCYCLIST": "motorcycle",
    "PEDESTRIAN": "pedestrian",
    "CONSTRUCTION_CONE": "traffic_cone",
}

# AWML's default classes, in its order: what a mixture of data sets is labelled with unless the config says otherwise.
COMMON_CLASSES = ("car", "truck", "bus", "bicycle", "pedestrian")


# Categories of nuScenes' info files whose class a model may have under a more general name.
_NUSCENES_CLASSES = ("trailer", "construction_vehicle", "motorcycle", "pedestrian")


def nuscenes_label_map(classes: Sequence[str]) -> dict[str, str]:
    """nuScenes' detection classes that are no class of the model, to the next more general one that is."""
    found = {}
    for name in _NUSCENES_CLASSES:
        label = class_index(name, classes, {}, generalise=True)
        if name not in classes and label != IGNORED:
            found[name] = classes[label]
    return found


def class_index(name: str, classes: Sequence[str], label_map: Mapping[str, str | None], *, generalise: bool) -> int:
    """Index of a category's class, or ``IGNORED``.

    ``label_map`` decides first (None: ignored); then the name itself; then, with ``generalise``, ``MORE_GENERAL``.
    """
    if name in label_map:
        mapped = label_map[name]
        return classes.index(mapped) if mapped is not None and mapped in classes else IGNORED
    while name not in classes:
        if not generalise or name not in MORE_GENERAL:
            return IGNORED
        name = MORE_GENERAL[name]
    return classes.index(name)


def labels_in(classes: Sequence[str], label_classes: Sequence[str]) -> npt.NDArray[np.int64]:
    """(L + 1,) for each label of ``label_classes`` that of its class in ``classes``, -1 where there is none.

    The last entry is -1 too: that of label -1.
    """
    return np.array([classes.index(name) if name in classes else -1 for name in label_classes] + [IGNORED], np.int64)
