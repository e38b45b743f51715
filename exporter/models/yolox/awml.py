"""What of AWML this model is: its projects and the module types of its packages, see `exporter.awml`."""

from __future__ import annotations

from exporter.awml import register_types
from shared.config.awml_models import Deployed, Tensors

DEPLOYED = Deployed(
    projects=("YOLOX", "YOLOX_opt", "YOLOX_opt_elan"),
    task="detection2d",
    components={"yolox": Tensors(("images",), ("output",))},
    batch_option="batch_size",
    assumed=True,
)


def _register_yolox_opt_elan() -> list[str]:
    from mmdet.registry import MODELS

    from exporter.models.yolox import elan

    return register_types(MODELS, {"ELANDarknet": elan.ELANDarknet, "YOLOXPAFPN_ELAN": elan.YOLOXPAFPN_ELAN})


# In AWML's first releases both detectors were in one package.
REGISTRATIONS = {"projects.YOLOX_opt_elan": _register_yolox_opt_elan, "projects.YOLOX_opt": _register_yolox_opt_elan}
