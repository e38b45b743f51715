"""What of AWML this model is: its project and the module types of its packages, see `exporter.awml`."""

from __future__ import annotations

from exporter.awml import register_types
from shared.config.awml_models import Deployed, Tensors

DEPLOYED = Deployed(
    projects=("CenterPoint",),
    task="detection3d",
    components={
        "pts_voxel_encoder": Tensors(("input_features",), ("pillar_features",)),
        "pts_backbone_neck_head": Tensors(("spatial_features",)),
    },
    assumed=True,
)


def _register_centerpoint() -> list[str]:
    from mmdet3d.registry import MODELS, TASK_UTILS

    from exporter.models.centerpoint import awml_types, bev_resnet, bev_vovnet, multi_head, pillar_encoder

    models = {
        "BEVResNet": bev_resnet.BEVResNet,
        "BEVVoVNet": bev_vovnet.BEVVoVNet,
        "BackwardPillarFeatureNet": pillar_encoder.BackwardPillarFeatureNet,
        "CustomSeparateHead": awml_types.CustomSeparateHead,
        "MultiHeadCenterHead": multi_head.MultiHeadCenterHead,
        "MultiHeadSeparateHead": multi_head.MultiHeadSeparateHead,
        # mmdet3d's, with an argument for training.
        "CustomPillarFeatureNet": MODELS.get("PillarFeatureNet"),
        # Types that AWML's deployment puts into the configs it dumps: the same weights, another forward.
        "PillarFeatureNetONNX": MODELS.get("PillarFeatureNet"),
        "BackwardPillarFeatureNetONNX": pillar_encoder.BackwardPillarFeatureNet,
        "SeparateHeadONNX": MODELS.get("SeparateHead"),
        "CenterHeadONNX": MODELS.get("CenterHead"),
    }
    coders = {
        "CenterPointBBoxCoder": awml_types.CenterPointBBoxCoder,
        "MultiHeadCenterPointBBoxCoder": multi_head.MultiHeadCenterPointBBoxCoder,
    }
    return register_types(MODELS, models) + register_types(TASK_UTILS, coders)


def _register_convnext_pc() -> list[str]:
    from mmdet3d.registry import MODELS

    from exporter.models.centerpoint.convnext_pc import ConvNeXtPC

    return register_types(MODELS, {"ConvNeXt_PC": ConvNeXtPC})


REGISTRATIONS = {"projects.CenterPoint": _register_centerpoint, "projects.ConvNeXt_PC": _register_convnext_pc}
