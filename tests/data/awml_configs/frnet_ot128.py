# FRNet for a lidar of 128 rings, in the form of AWML's T4 configs: 26 classes and one to be ignored.


custom_imports = dict(
    imports=["projects.FRNet.frnet.datasets.transforms", "projects.FRNet.frnet.models", "autoware_ml.hooks"],
    allow_failed_imports=False,
)
ignore_index = 26
names = [f"class_{number}" for number in range(ignore_index)]
norm_cfg = dict(type="SyncBN", eps=1e-3, momentum=0.01)
fov = dict(fov_up=15.0, fov_down=-25.0, ignore_index=ignore_index)
model = dict(
    type="FRNet",
    data_preprocessor=dict(type="FrustumRangePreprocessor", H=128, W=1024, **fov),
    voxel_encoder=dict(
        type="FrustumFeatureEncoder", in_channels=4, feat_channels=(64, 128, 256, 256), with_distance=True,
        with_cluster_center=True, norm_cfg=norm_cfg, with_pre_norm=True, feat_compression=16,
    ),
    backbone=dict(
        type="FRNetBackbone", in_channels=16, point_in_channels=384, output_shape=(128, 1024), depth=34,
        norm_cfg=norm_cfg, point_norm_cfg=norm_cfg, act_cfg=dict(type="HSwish", inplace=True),
    ),
    decode_head=dict(
        type="FRHead", in_channels=128, middle_channels=(128, 256, 128, 64), norm_cfg=norm_cfg, channels=64,
        num_classes=ignore_index + 1, ignore_index=ignore_index, dropout_ratio=0, conv_seg_kernel_size=1,
        loss_ce=dict(type="mmdet.CrossEntropyLoss", use_sigmoid=False, class_weight=None, loss_weight=1.0),
    ),
    auxiliary_head=[
        dict(type="FrustumHead", channels=128, num_classes=ignore_index + 1, loss_boundary=dict(type="BoundaryLoss")),
    ],
)  # fmt: skip
test_pipeline = [
    dict(type="LoadPointsWithIdentifierFromFile", coord_type="LIDAR", load_dim=5, use_dim=4, backend_args=None),
    dict(type="LoadSegAnnotationsWithIdentifier3D", with_bbox_3d=False, with_label_3d=False, with_seg_3d=True),
    dict(type="RangeInterpolation", H=128, W=4096, **fov),
    dict(type="Pack3DDetInputs", keys=["points"], meta_keys=["num_points", "lidar_path", "num_pts_feats"]),
]
test_dataloader = dict(dataset=dict(type="T4SegDataset", metainfo=dict(classes=names), pipeline=test_pipeline))
