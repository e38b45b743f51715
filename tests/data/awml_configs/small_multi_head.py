"""AWML's MultiHeadCenterHead: a task a class, with convolutions and resolutions of their own."""

_base_ = ["small.py"]
out_size_factor = [4, 8, 2]
model = dict(
    pts_bbox_head=dict(
        type="MultiHeadCenterHead",
        tasks=[
            dict(num_class=1, class_names=["car"]),
            dict(num_class=2, class_names=["truck", "bus"]),
            dict(num_class=2, class_names=["bicycle", "pedestrian"]),
        ],
        share_conv_channel=16,
        freeze_shared_conv=True,
        detection_heads=[
            dict(
                separate_head=dict(type="MultiHeadSeparateHead", init_bias=-4.595, head_conv=16),
                reg=(2, [(2, 1, 3), (1, 0, 1)]),
                height=(1, [(2, 1, 3), (1, 0, 1)]),
                dim=(3, [(2, 1, 3), (1, 0, 1)]),
                rot=(2, [(2, 1, 3), (1, 0, 1)]),
                vel=(2, [(2, 1, 3), (1, 0, 1)]),
                heatmap=(1, [(2, 1, 3), (1, 0, 1)]),
            ),
            dict(
                separate_head=dict(type="MultiHeadSeparateHead", init_bias=-4.595, head_conv=16),
                reg=(2, [(4, 2, 5), (1, 0, 1)]),
                height=(1, [(4, 2, 5), (1, 0, 1)]),
                dim=(3, [(4, 2, 5), (1, 0, 1)]),
                rot=(2, [(4, 2, 5), (1, 0, 1)]),
                vel=(2, [(4, 2, 5), (1, 0, 1)]),
                heatmap=(2, [(4, 2, 5), (1, 0, 1)]),
            ),
            dict(
                separate_head=dict(type="MultiHeadSeparateHead", init_bias=-4.595, head_conv=16),
                reg=(2, [(1, 0, 1), (1, 0, 1)]),
                height=(1, [(1, 0, 1), (1, 0, 1)]),
                dim=(3, [(1, 0, 1), (1, 0, 1)]),
                rot=(2, [(1, 0, 1), (1, 0, 1)]),
                vel=(2, [(1, 0, 1), (1, 0, 1)]),
                heatmap=(2, [(1, 0, 1), (1, 0, 1)]),
            ),
        ],
        bbox_coder=dict(type="MultiHeadCenterPointBBoxCoder", out_size_factor=out_size_factor),
    ),
    train_cfg=dict(pts=dict(out_size_factor=out_size_factor)),
    test_cfg=dict(pts=dict(out_size_factor=out_size_factor, min_radius=[1.0, 4.0, 0.25])),
)
