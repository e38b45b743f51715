"""What of the tools' Python is public: names that keep their meaning, by page of docs/api/ and by module.

A name that is not here may change from one version to the next; one that is here changes with a line in CHANGELOG.md.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Page:
    """A page of docs/api/.

    Attributes:
        title: its heading.
        introduction: what stands before the names, Markdown.
        modules: by module, its public names, each with the version since when it is public.
    """

    title: str
    introduction: str
    modules: dict[str, dict[str, str]]


def _since(version: str, names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), version)


PAGES = {
    "contract": Page(
        "The contract library",
        """\
`shared`, which every tool imports and which imports none: the workspace and its manifest, the deploy config, the model
spec, data sets, recorded runs, errors. It needs NumPy and pydantic, no ML framework.
""",
        {
            "shared.workspace": _since("0.1", "Workspace"),
            "shared.manifest": _since("0.1", "Manifest Artifact Stage Attempt read_manifest update_manifest"),
            "shared.stages": _since("0.1", "StageRun"),
            "shared.spec": _since("0.1", "ModelSpec ComponentSpec TensorSpec AxisSizes"),
            "shared.config": _since("0.1", "load_config from_resolved resolved"),
            "shared.data": _since(
                "0.1",
                "open_dataset Dataset DataSettings Sample Sweep Camera PointFile ImageSample ImageLabels read_points "
                "load_points PointLoading",
            ),
            "shared.images": _since("0.1", "read_image"),
            "shared.data.labels": _since("0.1", "labels_in"),
            "shared.data.label_file": _since("0.1", "LabelFile"),
            "shared.data.camera_pairs": _since("0.1", "CameraPair"),
            "shared.data.crops": _since("0.1", "ImageCrop"),
            "shared.data.views": _since("0.1", "FormatModule Opener"),
            "shared.runs": _since("0.1", "Run RunWriter RunHeader"),
            "shared.table": _since("0.1", "Table"),
            "shared.answer": _since("0.1", "Answer"),
            "shared.errors": _since(
                "0.1",
                "DeployError UsageError ConfigError InputError ManifestError ModelLoadError EnvironmentLacks "
                "ExportError TrainingError BuildError InferenceError VerificationFailed GateFailed",
            ),
        },
    ),
    "exporters": Page(
        "Exporters",
        """\
From a training framework's model to files. A model is a module with the functions of `ExportableModel`
([extending.md](../extending.md)); its parts are `Component`s, each of which becomes an ONNX file and a `torch.export`
program that are compared with it.
""",
        {
            "exporter.export": _since("0.1", "export"),
            "exporter.models": _since("0.1", "ExportableModel find available"),
            "exporter.component": _since("0.1", "Component"),
            "exporter.training_config": _since("0.1", "TrainingConfig read_training_config"),
            "exporter.artifacts.onnx_export": _since("0.1", "export_onnx"),
            "exporter.artifacts.programs": _since("0.1", "export_program"),
            "exporter.artifacts.checks": _since("0.1", "check_onnx Agreement"),
        },
    ),
    "engines": Page(
        "Engines",
        """\
From ONNX files to TensorRT engines, built on the machine that runs them or for it ([tensorrt.md](../tensorrt.md)).
""",
        {
            "trt_builder.build": _since("0.1", "build_all"),
        },
    ),
    "pipelines": Page(
        "Pipelines",
        """\
From a sensor's arrays to results, on any backend. `Pipeline.infer` takes what the sensor gave:

| model | input | result |
| --- | --- | --- |
| `centerpoint` | (N, 4) float32 points: x, y, z [m] in the lidar frame, age [s] | `Boxes3D` |
| `yolox` | (H, W, 3) uint8 image of any size: blue, green, red | `Boxes2D` |
| `yolox_seg` | the same | `Answers` of `detection2d` and `segmentation2d` |
| `calibration` | a `CameraView` | `ClassScores` |
| `frnet` | (N, 4) float32 points: x, y, z [m], intensity | `PointClasses` |

How many columns a CenterPoint's points have is `decoration.raw_features` of the parameters in the model spec.
""",
        {
            "runtime.model": _since("0.1", "open_model Model"),
            "runtime.run": _since("0.1", "run"),
            "runtime.bench": _since("0.1", "bench"),
            "runtime.pipeline": _since(
                "0.1",
                "Pipeline Inference PipelineInput Interface HostPipeline Step Packing component_step one_array "
                "dataclass_of_arrays predictions_of DevicePipeline build_pipeline available_pipelines",
            ),
            "runtime.models.calibration.steps": _since("0.1", "CameraView"),
            "runtime.backends": _since("0.1", "Session BackendModule backend available_backends"),
            "runtime.devices": _since("0.1", "Device parse_device"),
        },
    ),
    "tasks": Page(
        "Tasks",
        """\
What models answer with, and how two answers are paired and compared. A task is a module with a `Task`
([extending.md](../extending.md)).
""",
        {
            "shared.tasks": _since("0.1", "find available Task RowsTask Rows ErrorKind QuickMetric"),
            "shared.several_tasks": _since("0.1", "Answers SeveralTasks classes_of qualified_classes"),
            "shared.tasks.detection3d": _since("0.1", "Boxes3D Detection3D"),
            "shared.tasks.detection2d": _since("0.1", "Boxes2D Detection2D"),
            "shared.tasks.classification": _since("0.1", "ClassScores Classification softmax"),
            "shared.tasks.segmentation2d": _since("0.1", "ClassMask Segmentation2D"),
            "shared.tasks.segmentation3d": _since("0.1", "PointClasses Segmentation3D"),
            "shared.pairing": _since("0.1", "Pairing pair_nearest pair_by_position"),
        },
    ),
    "metrics": Page(
        "Metrics",
        """\
How good results are. `shared.metrics` takes boxes as they are at hand; the modules of `evaluator.metrics` take recorded
runs, and add ranges, tables and intervals. `Task.agreement` ([tasks](tasks.md)) is the quick number of every task.
""",
        {
            "shared.metrics.nuscenes": _since("0.1", "score_frames NuscenesScore ClassScore"),
            "shared.metrics.voc": _since("0.1", "match score mean_ap ClassMatches ClassScore"),
            "shared.metrics.confusion": _since("0.1", "confusion Counts mean"),
            "shared.metrics.average_precision": _since("0.1", "sampled_curve average_precision"),
            "evaluator.metrics": _since("0.1", "find_metric Metric Truth"),
            "evaluator.report.tasks": _since("0.1", "TaskReport"),
            "evaluator.score": _since("0.1", "Score Results"),
            "evaluator.bootstrap": _since("0.1", "draw replicate interval differences Draws"),
            "evaluator.evaluate": _since("0.1", "evaluate"),
        },
    ),
    "verification": Page(
        "Verification",
        """\
How far two answers to the same input are apart, and whether that is rounding or a fault
([verification.md](../verification.md)).
""",
        {
            "verifier.statistics": _since("0.1", "OutputStatistics"),
            "verifier.results": _since("0.1", "ResultStatistics"),
            "verifier.compare": _since("0.1", "compare_runs"),
            "verifier.tolerances": _since("0.1", "default_tolerance judge Tolerance TensorLimits ResultLimits"),
            "verifier.verify": _since("0.1", "verify"),
        },
    ),
    "quantization": Page(
        "Quantization",
        """\
INT8 by calibration or fine-tuning ([quantization.md](../quantization.md)). The names and defaults of
`exporter.quantize.calibrate` and `exporter.quantize.hook` are AWML's.
""",
        {
            "exporter.quantize.ptq": _since("0.1", "quantize_ptq ptq"),
            "exporter.quantize.qat": _since("0.1", "qat"),
            "exporter.quantize.hook": _since("0.1", "QATHook"),
            "exporter.quantize.calibrate": _since("0.1", "CalibrationManager quant_model"),
            "exporter.quantize.fusion": _since("0.1", "fuse_model_bn"),
            "exporter.quantize.frozen": _since("0.1", "freeze"),
            "exporter.quantize.switches": _since("0.1", "disable_quantization enable_quantization quantizer_status"),
            "exporter.quantize.layers": _since("0.1", "quantizable select"),
            "exporter.quantize.sensitivity": _since(
                "0.1", "build_sensitivity_profile get_sensitive_layers Sensitivity Measured"
            ),
        },
    ),
}
