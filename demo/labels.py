"""What each ray hit, as a label: the classes of objects, then what is never labeled with a box."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from demo.elementary import mapped
from demo.objects import CLASSES
from demo.rays import GROUND
from demo.scene import CURB, Road, Snapshot

#: Labels index into this.
SEGMENTS = (*CLASSES, "road", "sidewalk", "structure", "sky")


def labels_of(met: NDArray[np.int32], places: NDArray[np.float64], snapshot: Snapshot, road: Road) -> NDArray[np.uint8]:
    """Label what rays met.

    Args:
        met: (...) as `rays.Hits.solids`.
        places: (..., 3) where, in base_link [m]; anything where nothing was met.
        snapshot: what the rays were cast into.
        road: its road, whose curb parts `road` from `sidewalk`.
    """
    of_solid = np.full(len(snapshot.solids), SEGMENTS.index("structure"), np.uint8)
    owned = snapshot.solids.owners >= 0
    of_solid[owned] = snapshot.annotations.labels[snapshot.solids.owners[owned]]
    labels = np.full(met.shape, SEGMENTS.index("sky"), np.uint8)
    labels[met >= 0] = of_solid[met[met >= 0]]
    ground = met == GROUND
    local = mapped(snapshot.ego2local[:2, :2], places[ground][:, :2]) + snapshot.ego2local[:2, 3]
    beside = np.abs(road.coordinates(local)[:, 1]) > CURB
    labels[ground] = np.where(beside, SEGMENTS.index("sidewalk"), SEGMENTS.index("road"))
    return labels
