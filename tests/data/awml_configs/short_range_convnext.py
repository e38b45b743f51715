"""Short range, ConvNeXt_PC, 10 features."""

_base_ = ["short_range_backward.py"]
custom_imports = dict(imports=_base_.custom_imports["imports"], allow_failed_imports=False)
custom_imports["imports"] += ["projects.ConvNeXt_PC"]
out_size_factor = 4
model = dict(
    data_preprocessor=dict(voxel_layer=dict(max_voxels=(64000, 64000))),
    pts_voxel_encoder=dict(type="PillarFeatureNet"),
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
    pts_neck=dict(in_channels=[192, 192, 192]),
    pts_bbox_head=dict(bbox_coder=dict(out_size_factor=out_size_factor)),
    train_cfg=dict(pts=dict(out_size_factor=out_size_factor)),
    test_cfg=dict(pts=dict(out_size_factor=out_size_factor)),
)
