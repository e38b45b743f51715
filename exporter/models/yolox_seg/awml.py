"""What of AWML this model is, see `exporter.awml`."""

from __future__ import annotations

from exporter.awml import register_types
from shared.config.awml_models import Deployed, Tensors

DEPLOYED = Deployed(
    projects=(),
    task="detection2d+segmentation2d",
    components={"yolox": Tensors(("images",), ("output", "mask"))},
    batch_option="batch_size",
    assumed=True,
)


def _register_yolox_multitask() -> list[str]:
    from mmdet.registry import MODELS

    from exporter.models.yolox_seg import network

    return register_types(MODELS, {"YOLOXSegHead": network.YOLOXSegHead, "YOLOXMultiTask": network.YOLOXMultiTask})


REGISTRATIONS = {"projects.YOLOX_opt_elan.yolox.models.yolox_multitask": _register_yolox_multitask}
