# Training config of the demo calibration status classifier: AWML's resnet18_5ch, narrower, for the scenes of `demo/`.
#
# For:    the checkpoint models/calibration_demo.pth and the demo of `make calibration-all`
# Train:  PYTHONPATH=. python -m exporter.models.calibration.demo --out models/calibration_demo.pth
# Export: exporter export --config configs/calibration.yaml --work work/calibration
#
# Types and names are mmpretrain's, as in AWML's resnet18_5ch_1xb16-50e_j6gen2.py; without mmpretrain our own modules of
# the same weights stand in. AWML's width is 64 (leave stem_channels and base_channels out, head in_channels 512).
# Input: blue, green, red, depth, intensity, all / 255, at the camera's own resolution.

# ruff: noqa: C408

width = 16
max_depth = 128.0  # [m]
dilation_size = 1  # a point is painted 3 x 3

data_preprocessor = dict()  # nothing: the transform divides by 255 itself

model = dict(
    type="ImageClassifier",
    backbone=dict(
        type="ResNet",
        depth=18,
        in_channels=5,
        stem_channels=width,
        base_channels=width,
        num_stages=4,
        out_indices=(3,),
        frozen_stages=-1,
        style="pytorch",
        norm_cfg=dict(type="BN", requires_grad=True),
    ),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(
        type="LinearClsHead",
        num_classes=2,  # miscalibrated, calibrated
        in_channels=8 * width,
        loss=dict(type="LabelSmoothLoss", label_smooth_val=0.1),
        topk=(1,),
    ),
)

test_pipeline = [
    dict(
        type="CalibrationClassificationTransform",
        mode="test",
        max_depth=max_depth,
        dilation_size=dilation_size,
        undistort=True,
        data_root="work/demo",
    ),
    dict(type="PackInputs", input_key="fused_img"),
]
test_dataloader = dict(
    dataset=dict(
        type="T4CalibrationClassificationDataset",
        ann_file="work/demo/info/t4dataset_demo_calibration_infos_eval.pkl",
        data_root="work/demo",
        pipeline=test_pipeline,
    )
)
