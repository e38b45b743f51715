"""Short range, ConvNeXt_PC, 10 features."""

_base_ = ["t4dataset_base.py", "second_secfpn_base.py"]
custom_imports = dict(imports=["projects.CenterPoint.models"], allow_failed_imports=False)
custom_imports["imports"] += _base_.custom_imports["imports"]
custom_imports["imports"] += ["projects.ConvNeXt_PC"]
point_cloud_range = [-51.20, -51.20, -3.0, 51.20, 51.20, 5.0]
voxel_size = [0.16, 0.16, 8.0]
grid_size = [640, 640, 1]
sweeps_num = 1
out_size_factor = 4
point_load_dim = 5
lidar_sweep_dims = [0, 1, 2, 4]

test_pipeline = [
    dict(type="LoadPointsFromFile", coord_type="LIDAR", load_dim=point_load_dim, use_dim=point_load_dim),
    dict(
        type="LoadPointsFromMultiSweeps",
        sweeps_num=sweeps_num,
        load_dim=point_load_dim,
        use_dim=lidar_sweep_dims,
        pad_empty_sweeps=True,
        remove_close=True,
        test_mode=True,
    ),
    dict(type="PointsRangeFilter", point_cloud_range=point_cloud_range),
    dict(type="Pack3DDetInputs", keys=["points", "gt_bboxes_3d", "gt_labels_3d"]),
]
test_dataloader = dict(
    batch_size=2,
    dataset=dict(type=_base_.dataset_type, pipeline=test_pipeline, metainfo=_base_.metainfo, test_mode=True),
)
val_evaluator = dict(type="T4Metric", class_names={{_base_.class_names}})

model = dict(
    data_preprocessor=dict(
        voxel_layer=dict(
            max_num_points=32,
            voxel_size=voxel_size,
            point_cloud_range=point_cloud_range,
            max_voxels=(64000, 64000),
            deterministic=True,
        ),
    ),
    pts_voxel_encoder=dict(
        type="PillarFeatureNet",
        in_channels=4,
        feat_channels=[32, 32],
        with_distance=False,
        with_cluster_center=True,
        with_voxel_center=True,
        point_cloud_range=point_cloud_range,
        voxel_size=voxel_size,
        norm_cfg=dict(type="BN1d", eps=1e-3, momentum=0.01),
        legacy=False,
    ),
    pts_middle_encoder=dict(type="PointPillarsScatter", in_channels=32, output_shape=(grid_size[0], grid_size[1])),
    pts_backbone=dict(
        _delete_=True,
        type="ConvNeXt_PC",
        in_channels=32,
        out_channels=[32, 192, 192, 192, 192],
        depths=[3, 3, 2, 1, 1],
        out_indices=[2, 3, 4],
        drop_path_rate=0.4,
        layer_scale_init_value=1.0,
        gap_before_final_norm=False,
        with_cp=True,
    ),
    pts_neck=dict(
        type="SECONDFPN",
        in_channels=[192, 192, 192],
        out_channels=[128, 128, 128],
        upsample_strides=[1, 2, 4],
        norm_cfg=dict(type="BN", eps=1e-3, momentum=0.01),
        upsample_cfg=dict(type="deconv", bias=False),
        use_conv_for_no_stride=True,
    ),
    pts_bbox_head=dict(
        tasks=[dict(num_class=5, class_names=["car", "truck", "bus", "bicycle", "pedestrian"])],
        bbox_coder=dict(
            voxel_size=voxel_size,
            pc_range=point_cloud_range,
            post_center_range=[-200.0, -200.0, -10.0, 200.0, 200.0, 10.0],
            out_size_factor=out_size_factor,
        ),
        separate_head=dict(type="CustomSeparateHead", init_bias=-4.595, final_kernel=1),
        loss_cls=dict(type="mmdet.AmpGaussianFocalLoss", reduction="none", loss_weight=1.0),
        norm_bbox=True,
    ),
    train_cfg=dict(pts=dict(grid_size=grid_size, voxel_size=voxel_size, out_size_factor=out_size_factor)),
    test_cfg=dict(pts=dict(grid_size=grid_size, out_size_factor=out_size_factor, pc_range=point_cloud_range)),
)
