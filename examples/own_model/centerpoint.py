"""The training config of a project: a CenterPoint with a backbone of the project's own."""

# ruff: noqa: C408

_base_ = "../../configs/train/centerpoint_demo.py"
custom_imports = dict(imports=["my_project.backbone"])
model = dict(
    pts_backbone=dict(_delete_=True, type="Trunk", in_channels=32, widths=[48, 96, 128], depths=[2, 4, 4]),
)
