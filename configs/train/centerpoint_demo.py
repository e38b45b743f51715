# Training config of the demo CenterPoint: AWML's 121 m model, smaller, for the synthetic scenes of `demo/`.
#
# For:    the checkpoint models/centerpoint_demo.pth and the demo of `make centerpoint-all`
# Train:  PYTHONPATH=. python -m exporter.models.centerpoint.demo --out models/centerpoint_demo.pth
# Export: exporter export --config configs/centerpoint.yaml --work work/centerpoint
#
# Module types are those of AWML's second_secfpn_8xb16_121m_base: PillarFeatureNet, PointPillarsScatter, SECOND,
# SECONDFPN, CenterHead with one task of five classes. Range +-121.6 m, so that all four range buckets of the evaluation
# (0-50, 50-90, 90-121, 0-121 m) mean something; pillars of 0.4 m and narrow layers, so that a frame takes well under a
# second on two CPU cores. Points are x, y, z and time lag (no intensity), one past sweep: 10 encoder features.

# ruff: noqa: C408

class_names = ["car", "truck", "bus", "bicycle", "pedestrian"]
point_cloud_range = [-121.6, -121.6, -3.0, 121.6, 121.6, 5.0]
voxel_size = [0.4, 0.4, 8.0]
grid_size = [608, 608, 1]
out_size_factor = 2
post_center_range = [-200.0, -200.0, -10.0, 200.0, 200.0, 10.0]

model = dict(
    type="CenterPoint",
    data_preprocessor=dict(
        type="Det3DDataPreprocessor",
        voxel=True,
        voxel_layer=dict(
            max_num_points=32,
            voxel_size=voxel_size,
            max_voxels=(40000, 40000),
            point_cloud_range=point_cloud_range,
            deterministic=True,
        ),
    ),
    pts_voxel_encoder=dict(
        type="PillarFeatureNet",
        in_channels=4,
        feat_channels=[32, 32],
        with_distance=False,
        voxel_size=voxel_size,
        point_cloud_range=point_cloud_range,
        norm_cfg=dict(type="BN1d", eps=1e-3, momentum=0.01),
        legacy=False,
    ),
    pts_middle_encoder=dict(type="PointPillarsScatter", in_channels=32, output_shape=(grid_size[0], grid_size[1])),
    pts_backbone=dict(
        type="SECOND",
        in_channels=32,
        out_channels=[48, 96, 128],
        layer_nums=[2, 4, 4],
        layer_strides=[2, 2, 2],
        norm_cfg=dict(type="BN", eps=1e-3, momentum=0.01),
        conv_cfg=dict(type="Conv2d", bias=False),
    ),
    pts_neck=dict(
        type="SECONDFPN",
        in_channels=[48, 96, 128],
        out_channels=[48, 48, 48],
        upsample_strides=[1, 2, 4],
        norm_cfg=dict(type="BN", eps=1e-3, momentum=0.01),
        upsample_cfg=dict(type="deconv", bias=False),
        use_conv_for_no_stride=True,
    ),
    pts_bbox_head=dict(
        type="CenterHead",
        in_channels=144,
        tasks=[dict(num_class=5, class_names=class_names)],
        common_heads=dict(reg=(2, 2), height=(1, 2), dim=(3, 2), rot=(2, 2), vel=(2, 2)),
        share_conv_channel=48,
        bbox_coder=dict(
            type="CenterPointBBoxCoder",
            pc_range=point_cloud_range[:2],
            post_center_range=post_center_range,
            max_num=500,
            score_threshold=0.1,
            out_size_factor=out_size_factor,
            voxel_size=voxel_size[:2],
            code_size=9,
        ),
        separate_head=dict(type="SeparateHead", head_conv=48, init_bias=-4.595, final_kernel=1),
        loss_cls=dict(type="mmdet.GaussianFocalLoss", reduction="mean"),
        loss_bbox=dict(type="mmdet.L1Loss", reduction="mean", loss_weight=0.25),
        norm_bbox=True,
    ),
    train_cfg=dict(
        pts=dict(
            grid_size=grid_size,
            voxel_size=voxel_size,
            point_cloud_range=point_cloud_range,
            out_size_factor=out_size_factor,
            dense_reg=1,
            gaussian_overlap=0.1,
            max_objs=200,
            min_radius=2,
            code_weights=[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2],
        )
    ),
    test_cfg=dict(
        pts=dict(
            grid_size=grid_size,
            out_size_factor=out_size_factor,
            pc_range=point_cloud_range[:2],
            voxel_size=voxel_size[:2],
            post_center_limit_range=post_center_range,
            nms_type="circle",
            min_radius=[1.0],
            post_max_size=100,
        )
    ),
)

test_pipeline = [
    dict(type="LoadPointsFromFile", coord_type="LIDAR", load_dim=5, use_dim=5),
    dict(
        type="LoadPointsFromMultiSweeps",
        sweeps_num=1,
        use_dim=[0, 1, 2, 4],
        pad_empty_sweeps=True,
        remove_close=True,
        test_mode=True,
    ),
    dict(type="PointsRangeFilter", point_cloud_range=point_cloud_range),
    dict(type="Pack3DDetInputs", keys=["points"]),
]
test_dataloader = dict(
    dataset=dict(
        type="T4Dataset",
        data_root="work/demo",
        ann_file="info/t4dataset_demo_infos_eval.pkl",
        metainfo=dict(classes=class_names),
        pipeline=test_pipeline,
    )
)
