# Training config of the demo YOLOX-ELAN with a mask head: AWML's YOLOXMultiTask, narrower, for the images of `demo/`.
#
# For:    the mask head in models/yolox_elan_demo.pth, and the demo of `make yolox-seg-all`
# Train:  PYTHONPATH=. python -m exporter.models.yolox_seg.demo --out models/yolox_elan_demo.pth
# Export: exporter export --config configs/yolox_seg.yaml --work work/yolox-seg
#
# The detector is that of yolox_elan_demo.py, as it was trained there. The head is AWML's of
# yolox-s-opt-elan-semseg_960x960_300e, narrower yet (`channels`, which AWML's head lacks).

# ruff: noqa: C408

_base_ = "yolox_elan_demo.py"

custom_imports = dict(
    imports=["projects.YOLOX_opt_elan.yolox.models", "projects.YOLOX_opt_elan.yolox.models.yolox_multitask"],
    allow_failed_imports=False,
)

segment_names = ["car", "truck", "bus", "bicycle", "pedestrian", "road", "sidewalk", "structure", "sky"]

model = dict(
    type="YOLOXMultiTask",
    mask_head=dict(
        type="YOLOXSegHead",
        in_channels=[40, 40, 40],
        channels=48,
        num_classes=len(segment_names),
        act_cfg=dict(type="ReLU6"),
    ),
)
