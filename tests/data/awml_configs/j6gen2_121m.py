"""121 m with intensity, 11 features."""

_base_ = ["base_121m.py"]
custom_imports = dict(imports=_base_.custom_imports["imports"], allow_failed_imports=False)
custom_imports["imports"] += ["autoware_ml.samplers"]
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(use_dim=[0, 1, 2, 3, 4])
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
model = dict(pts_voxel_encoder=dict(in_channels=5))
