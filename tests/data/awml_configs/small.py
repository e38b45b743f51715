"""A small network of the same types on a grid that is not square: what most tests export."""

_base_ = ["base_121m.py"]
point_cloud_range = [-30.72, -23.04, -3.0, 30.72, 23.04, 5.0]
grid_size = [256, 192, 1]
test_pipeline = [
    dict(type="LoadPointsFromFile", coord_type="LIDAR", load_dim=5, use_dim=5),
    dict(
        type="LoadPointsFromMultiSweeps",
        sweeps_num=1,
        load_dim=5,
        use_dim=[0, 1, 2, 4],
        pad_empty_sweeps=True,
        remove_close=True,
        test_mode=True,
    ),
    dict(type="PointsRangeFilter", point_cloud_range=point_cloud_range),
    dict(type="Pack3DDetInputs", keys=["points"]),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
model = dict(
    data_preprocessor=dict(voxel_layer=dict(point_cloud_range=point_cloud_range, max_voxels=(20000, 20000))),
    pts_voxel_encoder=dict(point_cloud_range=point_cloud_range),
    pts_middle_encoder=dict(output_shape=(192, 256)),
    pts_backbone=dict(out_channels=[32, 32, 64], layer_nums=[1, 1, 1]),
    pts_neck=dict(in_channels=[32, 32, 64], out_channels=[32, 32, 32]),
    pts_bbox_head=dict(in_channels=96, bbox_coder=dict(pc_range=point_cloud_range)),
)
