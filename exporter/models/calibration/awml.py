"""What of AWML this model is, see `exporter.awml`: its project. Its network has mmpretrain's types only."""

from __future__ import annotations

from collections.abc import Callable

from shared.config.awml_models import Deployed, Tensors

DEPLOYED = Deployed(
    projects=("CalibrationStatusClassification",),
    task="classification",
    components={"end2end": Tensors(("input",), ("output",))},
    assumed=True,
)
REGISTRATIONS: dict[str, Callable[[], list[str]]] = {}
