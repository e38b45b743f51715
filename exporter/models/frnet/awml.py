"""What of AWML this model is: its project and the module types of its package, see `exporter.awml`."""

from __future__ import annotations

from exporter.awml import register_types
from shared.config.awml_models import Deployed, Tensors

DEPLOYED = Deployed(
    projects=("FRNet",),
    task="segmentation3d",
    components={
        "frnet": Tensors(
            ("points", "coors", "voxel_coors", "inverse_map"),
            ("pred_probs",),
            dtypes={"coors": "int64", "voxel_coors": "int64", "inverse_map": "int64"},
        )
    },
    assumed=True,
    options={"form": "scatter"},
    output_option="output",
    output_names=("pred_probs", "seg_logit"),
    opset_version=18,
)


def register_frnet() -> list[str]:
    """Register the types of the network; returns their names."""
    from mmdet3d.registry import MODELS

    from exporter.models.frnet import network

    types = (
        network.FRNet, network.FRHead, network.FRNetBackbone, network.FrustumFeatureEncoder,
        network.FrustumRangePreprocessor,
    )  # fmt: skip
    return register_types(MODELS, {each.__name__: each for each in types})


REGISTRATIONS = {"projects.FRNet": register_frnet}
