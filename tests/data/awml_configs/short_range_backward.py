"""Short range, SECOND, BackwardPillarFeatureNet, 9 features."""

_base_ = ["base_121m.py"]
point_cloud_range = [-51.20, -51.20, -3.0, 51.20, 51.20, 5.0]
voxel_size = [0.16, 0.16, 8.0]
grid_size = [640, 640, 1]
out_size_factor = 1
test_pipeline = _base_.test_pipeline
test_pipeline[2].update(point_cloud_range=point_cloud_range)
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
model = dict(
    data_preprocessor=dict(
        voxel_layer=dict(voxel_size=voxel_size, point_cloud_range=point_cloud_range, max_voxels=(32000, 60000)),
    ),
    pts_voxel_encoder=dict(type="BackwardPillarFeatureNet", point_cloud_range=point_cloud_range, voxel_size=voxel_size),
    pts_middle_encoder=dict(output_shape=(grid_size[0], grid_size[1])),
    pts_neck=dict(upsample_strides=[1, 2, 4]),
    pts_bbox_head=dict(
        bbox_coder=dict(voxel_size=voxel_size, pc_range=point_cloud_range, out_size_factor=out_size_factor),
    ),
    train_cfg=dict(pts=dict(grid_size=grid_size, voxel_size=voxel_size, out_size_factor=out_size_factor)),
    test_cfg=dict(pts=dict(grid_size=grid_size, out_size_factor=out_size_factor, pc_range=point_cloud_range)),
)
