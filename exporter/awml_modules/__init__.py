"""AWML's module types, so that its configs and checkpoints load where AWML itself is not installed.

AWML derives its types from mmdet3d's and mmdet's. What matters here is that a config which names them builds, that the
names of the weights are AWML's, and that inference computes the same; training-only parts are left out. Each package of
AWML that a config imports (``custom_imports``) has its registrations here.
"""

from __future__ import annotations

from collections.abc import Callable


def _register_centerpoint() -> list[str]:
    """What ``projects.CenterPoint.models`` registers."""
    from mmdet3d.registry import MODELS, TASK_UTILS

    from exporter.models.centerpoint import awml_modules as centerpoint
    from exporter.models.centerpoint import pillar_encoder

    modules = {
        "BackwardPillarFeatureNet": pillar_encoder.BackwardPillarFeatureNet,
        "CustomSeparateHead": centerpoint.CustomSeparateHead,
        "SECOND": centerpoint.SECOND,
        "SECONDFPN": centerpoint.SECONDFPN,
        # Types that AWML's deployment puts into the configs it dumps: the same weights, another forward.
        "PillarFeatureNetONNX": MODELS.get("PillarFeatureNet"),
        "BackwardPillarFeatureNetONNX": pillar_encoder.BackwardPillarFeatureNet,
        "SeparateHeadONNX": MODELS.get("SeparateHead"),
        "CenterHeadONNX": MODELS.get("CenterHead"),
    }
    for name, module in modules.items():
        MODELS.register_module(name=name, module=module, force=True)
    TASK_UTILS.register_module(name="CenterPointBBoxCoder", module=centerpoint.CenterPointBBoxCoder, force=True)
    return [*modules, "CenterPointBBoxCoder"]


def _register_convnext_pc() -> list[str]:
    """What ``projects.ConvNeXt_PC`` registers."""
    from mmdet3d.registry import MODELS

    from exporter.models.centerpoint.convnext_pc import ConvNeXtPC

    MODELS.register_module(name="ConvNeXt_PC", module=ConvNeXtPC, force=True)
    return ["ConvNeXt_PC"]


def _register_yolox_opt_elan() -> list[str]:
    """What ``projects.YOLOX_opt_elan.yolox`` registers."""
    from mmdet.registry import MODELS

    from exporter.models.yolox import elan

    modules = {"ELANDarknet": elan.ELANDarknet, "YOLOXPAFPN_ELAN": elan.YOLOXPAFPN_ELAN}
    for name, module in modules.items():
        MODELS.register_module(name=name, module=module, force=True)
    return [*modules]


# Top-level packages of AWML. A config may import any module of them; for building a model only those below matter.
AWML_PACKAGES = ("projects", "autoware_ml")

_REGISTRATIONS: dict[str, Callable[[], list[str]]] = {
    "projects.CenterPoint": _register_centerpoint,
    "projects.ConvNeXt_PC": _register_convnext_pc,
    "projects.YOLOX_opt_elan": _register_yolox_opt_elan,
}


def stand_in_for(module: str) -> list[str]:
    """Register our own types for a module of AWML that can't be imported.

    Args:
        module: dotted name, as in ``custom_imports``.

    Returns:
        Names of the registered types; empty when the module holds nothing that a model is built of.
    """
    for package, register in _REGISTRATIONS.items():
        if module == package or module.startswith(package + "."):
            return register()
    return []
