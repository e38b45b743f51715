"""Classes that are suppressed together: what the head has built in for the data set of its ``test_cfg``."""

from __future__ import annotations

#: Data set to label and squared distance [m²] of the classes that are suppressed, each by itself. Others are not.
SUPPRESSED: dict[str, dict[int, float]] = {"nuScenes": {8: 0.175, 9: 0.175}, "Waymo": {0: 0.7, 1: 0.7, 2: 0.7}}
#: Boxes of a class that circle suppression keeps at most.
MOST_KEPT = 83
