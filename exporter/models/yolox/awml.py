"""What AWML's packages for YOLOX-opt register, see `exporter.awml`."""

from __future__ import annotations

from exporter.awml import register_types


def _register_yolox_opt_elan() -> list[str]:
    from mmdet.registry import MODELS

    from exporter.models.yolox import elan

    return register_types(MODELS, {"ELANDarknet": elan.ELANDarknet, "YOLOXPAFPN_ELAN": elan.YOLOXPAFPN_ELAN})


# In AWML's first releases both detectors were in one package.
REGISTRATIONS = {"projects.YOLOX_opt_elan": _register_yolox_opt_elan, "projects.YOLOX_opt": _register_yolox_opt_elan}
