"""Labels of autoware_perception_msgs/ObjectClassification, and the class names that mean them."""

from __future__ import annotations

from exporter.autoware.refusals import Refusals

# By number. Nodes know ANIMAL and HAZARD since autoware_core 1.9 (2026-06).
LABELS = (
    "UNKNOWN", "CAR", "TRUCK", "BUS", "TRAILER", "MOTORCYCLE", "BICYCLE", "PEDESTRIAN", "ANIMAL", "HAZARD",
)  # fmt: skip

# perception_eval and several nodes write it so.
_SYNONYMS = {"MOTORBIKE": "MOTORCYCLE"}


def label_of(class_name: str) -> str:
    """The label that a class name means; the name itself, in upper case, where it means none."""
    name = class_name.upper()
    return _SYNONYMS.get(name, name)


def labels_of(classes: list[str], refusals: Refusals) -> list[str]:
    """Labels of a model's classes, in their order; a class without one, UNKNOWN to the node, is refused."""
    labels = [label_of(name) for name in classes]
    unknown = [name for name in labels if name not in LABELS]
    refusals.unless(
        not unknown,
        f"it has no label for class {', '.join(unknown)}",
        hint=f"train or export it with classes of {', '.join(LABELS)}",
    )
    return labels
