# Training config of the demo YOLOX-ELAN: AWML's YOLOX-opt-ELAN, narrower, for the camera images of `demo/`.
#
# For:    the checkpoint models/yolox_elan_demo.pth and the demo of `make yolox-all`
# Train:  PYTHONPATH=. python -m exporter.models.yolox.demo --out models/yolox_elan_demo.pth
# Export: exporter export --config configs/yolox.yaml --work work/yolox
#
# Module types, activation (ReLU6), head and post-processing are those of AWML's yolox-s-opt-elan_960x960; channels are
# three eighths of its, the input is 640 x 640 (the rendered images are 480 x 300), and the classes are the demo's five.

# ruff: noqa: C408

class_names = ["car", "truck", "bus", "bicycle", "pedestrian"]
img_scale = (640, 640)
activation = "ReLU6"

custom_imports = dict(imports=["projects.YOLOX_opt_elan.yolox.models"], allow_failed_imports=False)

model = dict(
    type="YOLOX",
    data_preprocessor=dict(type="DetDataPreprocessor", pad_size_divisor=32),
    backbone=dict(
        type="ELANDarknet", deepen_factor=1, widen_factor=0.375, out_indices=(2, 3, 4), act_cfg=dict(type=activation)
    ),
    neck=dict(
        type="YOLOXPAFPN_ELAN",
        in_channels=[48, 96, 192],
        out_channels=40,
        num_elan_blocks=1,
        act_cfg=dict(type=activation),
    ),
    bbox_head=dict(
        type="YOLOXHead",
        num_classes=len(class_names),
        in_channels=40,
        feat_channels=40,
        act_cfg=dict(type=activation),
    ),
    train_cfg=dict(assigner=dict(type="SimOTAAssigner", center_radius=2.5)),
    test_cfg=dict(score_thr=0.01, nms=dict(type="nms", iou_threshold=0.65)),
)

test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=img_scale, keep_ratio=True),
    dict(type="Pad", pad_to_square=True, pad_val=dict(img=(114.0, 114.0, 114.0))),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
test_dataloader = dict(
    dataset=dict(
        type="T4Dataset",
        data_root="work/demo",
        ann_file="info/yolox_infos_eval.json",
        metainfo=dict(classes=class_names),
        pipeline=test_pipeline,
    )
)
