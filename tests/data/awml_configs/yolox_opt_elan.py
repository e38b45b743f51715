# AWML's YOLOX-opt-ELAN at full size, as its config has it, with the parts that only training needs.
img_scale = (960, 960)
activation = "ReLU6"
custom_imports = dict(
    imports=[
        "projects.YOLOX_opt_elan.yolox",
        "autoware_ml.detection2d.metrics",
        "projects.YOLOX_opt_elan.yolox.models",
    ],
    allow_failed_imports=False,
)
model = dict(
    type="YOLOX",
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        pad_size_divisor=32,
        batch_augments=[dict(type="BatchSyncRandomResize", random_size_range=(480, 800), size_divisor=32, interval=10)],
    ),
    backbone=dict(
        type="ELANDarknet", deepen_factor=2, widen_factor=1, out_indices=(2, 3, 4), act_cfg=dict(type=activation)
    ),
    neck=dict(
        type="YOLOXPAFPN_ELAN",
        in_channels=[128, 256, 512],
        out_channels=128,
        num_elan_blocks=2,
        act_cfg=dict(type=activation),
    ),
    bbox_head=dict(type="YOLOXHead", num_classes=8, in_channels=128, feat_channels=128, act_cfg=dict(type=activation)),
    train_cfg=dict(assigner=dict(type="SimOTAAssigner", center_radius=2.5)),
    test_cfg=dict(score_thr=0.01, nms=dict(type="nms", iou_threshold=0.65)),
)
test_pipeline = [
    dict(type="LoadImageFromFile", backend_args=None),
    dict(type="Resize", scale=img_scale, keep_ratio=True),
    dict(type="Pad", pad_to_square=True, pad_val=dict(img=(114.0, 114.0, 114.0))),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
test_dataloader = dict(
    dataset=dict(type="T4Dataset", ann_file="yolox_infos_val.json", test_mode=True, pipeline=test_pipeline)
)
