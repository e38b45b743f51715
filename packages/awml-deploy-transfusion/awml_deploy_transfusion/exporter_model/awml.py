"""What of AWML this model is: its project, and the types that stand in for those of its packages."""

from __future__ import annotations

from awml_deploy_transfusion.names import COMPONENT, COORS, INPUTS, NUM_POINTS, OUTPUTS
from exporter.awml import register_types
from shared.config.awml_models import Deployed, Tensors

DEPLOYED = Deployed(
    projects=("TransFusion",),
    task="detection3d",
    components={COMPONENT: Tensors(INPUTS, OUTPUTS, dtypes={NUM_POINTS: "int32", COORS: "int32"})},
)


def _register() -> list[str]:
    from mmdet3d.registry import MODELS, TASK_UTILS

    from awml_deploy_transfusion.exporter_model import coder, decoder_layer, detector, head

    models = {
        "TransFusion": detector.TransFusion,
        "TransFusionHead": head.TransFusionHead,
        "TransformerDecoderLayer": decoder_layer.TransformerDecoderLayer,
    }
    coders = {"TransFusionBBoxCoder": coder.TransFusionBBoxCoder}
    return register_types(MODELS, models) + register_types(TASK_UTILS, coders)


REGISTRATIONS = {"projects.TransFusion": _register}
