"""A deploy config in the form of AWML's CenterPoint, written from the list of its keys."""

import os

checkpoint_path = "work_dirs/centerpoint/epoch_50.pth"
deploy_log_path = "deployment.log"
devices = dict(cpu="cpu", cuda="cuda:0")

_ROOT = "work_dirs/centerpoint_deployment/"
_ONNX = os.path.join(str(_ROOT).rstrip("/"), "onnx")  # noqa: PTH118 (as such files write it)
_HEADS = ["heatmap", "reg"] + ["height", "dim", "rot", "vel"]
_MAP_AXES = {0: "batch_size", 2: "height", 3: "width"}
_GIB = 1 << 30

export = dict(mode="both", work_dir=_ROOT, onnx_path=_ONNX)

components = dict(
    pts_voxel_encoder=dict(
        onnx_file="pts_voxel_encoder.onnx",
        engine_file="pts_voxel_encoder.engine",
        io=dict(
            inputs=[dict(name="input_features", dtype="float32")],
            outputs=[dict(name="pillar_features", dtype="float32")],
            dynamic_axes={
                "input_features": {0: "num_voxels", 1: "num_max_points"},
                "pillar_features": {0: "num_voxels"},
            },
        ),
        tensorrt_profile=dict(
            input_features=dict(
                min_shape=[1000, 32, 11],
                opt_shape=[20000, 32, 11],
                max_shape=[96000, 32, 11],
            ),
        ),
    ),
    pts_backbone_neck_head=dict(
        onnx_file="pts_backbone_neck_head.onnx",
        engine_file="pts_backbone_neck_head.engine",
        io=dict(
            inputs=[dict(name="spatial_features", dtype="float32")],
            outputs=[
                dict(name=_HEADS[0], dtype="float32"),
                dict(name=_HEADS[1], dtype="float32"),
                dict(name=_HEADS[2], dtype="float32"),
                dict(name=_HEADS[3], dtype="float32"),
                dict(name=_HEADS[4], dtype="float32"),
                dict(name=_HEADS[5], dtype="float32"),
            ],
            dynamic_axes={
                "spatial_features": _MAP_AXES,
                **{"heatmap": _MAP_AXES, "reg": _MAP_AXES, "height": _MAP_AXES},
                **{"dim": _MAP_AXES, "rot": _MAP_AXES, "vel": _MAP_AXES},
            },
        ),
        tensorrt_profile=dict(
            spatial_features=dict(
                min_shape=[1, 32, 1020, 1020],
                opt_shape=[1, 32, 1020, 1020],
                max_shape=[1, 32, 1020, 1020],
            ),
        ),
    ),
)

runtime_io = dict(info_file="info/t4dataset_infos_test.pkl", sample_idx=5)

onnx_config = dict(
    opset_version=17,
    do_constant_folding=True,
    export_params=True,
    keep_initializers_as_inputs=False,
    simplify=False,
)

tensorrt_config = dict(precision_policy="fp16", max_workspace_size=2 * _GIB)

evaluation = dict(
    enabled=True,
    num_samples=-1,
    verbose=True,
    backends=dict(
        pytorch=dict(enabled=True, device=devices["cuda"]),
        onnx=dict(enabled=False, device=devices["cpu"], model_dir=_ONNX),
        tensorrt=dict(enabled=True, device=devices["cuda"], engine_dir=_ROOT + "tensorrt"),
    ),
)

verification = dict(
    enabled=True,
    num_verify_samples=1,
    tolerance=1,
    devices=devices,
    scenarios=dict(
        both=[
            dict(ref_backend="pytorch", ref_device="cpu", test_backend="onnx", test_device="cpu"),
            dict(ref_backend="onnx", ref_device="cuda", test_backend="tensorrt", test_device="cuda"),
        ],
        onnx=[dict(ref_backend="pytorch", ref_device="cpu", test_backend="onnx", test_device="cpu")],
        trt=[dict(ref_backend="onnx", ref_device="cuda", test_backend="tensorrt", test_device="cuda")],
        none=[],
    ),
)
