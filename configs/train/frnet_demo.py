# Training config of the demo FRNet: AWML's network, narrower, for the synthetic scenes of `demo/`.
#
# For:    the checkpoint models/frnet_demo.pth and the demo of `make frnet-all`
# Train:  PYTHONPATH=. python -m exporter.models.frnet.demo --out models/frnet_demo.pth
# Export: exporter export --config configs/frnet.yaml --work work/frnet
#
# Module types and steps are those of AWML's frnet_1xb8_t4dataset-ot128-seg. The demo's lidar has 40 rings, from -25 to
# 12 degrees, of 1,080 columns: gaps are filled in an image of 1,024 columns, four of which are a frustum.

# ruff: noqa: C408

class_names = ["car", "truck", "bus", "bicycle", "pedestrian", "road", "sidewalk", "structure"]
ignore_index = 8
num_classes = 9  # and one for points that are not judged
lidar_h = 48
range_w = 1024
frustum_w = 256
fov_up = 13.0
fov_down = -26.0
norm_cfg = dict(type="BN", eps=1e-3, momentum=0.01)

model = dict(
    type="FRNet",
    data_preprocessor=dict(
        type="FrustumRangePreprocessor",
        H=lidar_h,
        W=frustum_w,
        fov_up=fov_up,
        fov_down=fov_down,
        ignore_index=ignore_index,
    ),
    voxel_encoder=dict(
        type="FrustumFeatureEncoder",
        in_channels=4,
        feat_channels=(16, 32, 32, 32),
        with_distance=True,
        with_cluster_center=True,
        norm_cfg=norm_cfg,
        with_pre_norm=True,
        feat_compression=8,
    ),
    backbone=dict(
        type="FRNetBackbone",
        in_channels=8,
        point_in_channels=48,
        output_shape=(lidar_h, frustum_w),
        depth=18,
        stem_channels=16,
        num_stages=4,
        out_channels=(16, 16, 16, 16),
        strides=(1, 2, 2, 2),
        dilations=(1, 1, 1, 1),
        fuse_channels=(16, 32),
        norm_cfg=norm_cfg,
        point_norm_cfg=norm_cfg,
        act_cfg=dict(type="HSwish", inplace=True),
    ),
    decode_head=dict(
        type="FRHead",
        in_channels=32,
        middle_channels=(32, 32, 32, 16),
        norm_cfg=norm_cfg,
        channels=16,
        num_classes=num_classes,
        ignore_index=ignore_index,
    ),
)

test_pipeline = [
    dict(type="LoadPointsFromFile", coord_type="LIDAR", load_dim=5, use_dim=4),
    dict(type="RangeInterpolation", H=lidar_h, W=range_w, fov_up=fov_up, fov_down=fov_down, ignore_index=ignore_index),
    dict(type="Pack3DDetInputs", keys=["points"], meta_keys=["num_points"]),
]
test_dataloader = dict(
    dataset=dict(
        type="T4SegDataset",
        data_root="work/demo-labels",
        metainfo=dict(classes=class_names),
        pipeline=test_pipeline,
    )
)
