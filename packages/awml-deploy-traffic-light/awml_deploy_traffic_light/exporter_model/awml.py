"""What of AWML the model is: its project. Its types are mmpretrain's, which `network` has."""

from __future__ import annotations

from collections.abc import Callable

from awml_deploy_traffic_light.names import COMPONENT, INPUT, OUTPUT
from shared.config.awml_models import Deployed, Tensors

DEPLOYED = Deployed(
    projects=("MobileNetv2",),
    task="classification",
    components={COMPONENT: Tensors((INPUT,), (OUTPUT,))},
    batch_option="batch_size",
)
REGISTRATIONS: dict[str, Callable[[], list[str]]] = {}
