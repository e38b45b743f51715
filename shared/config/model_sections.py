"""The sections on what is deployed and on which data: ``model``, ``data``, ``export``, ``components``."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import Field, Strict, field_validator, model_validator
from pydantic_core import PydanticCustomError

from shared import plugins
from shared.config.members import MemberOf
from shared.config.section import ConfigPath, Count, DataPath, FileName, Flag, Index, Name, Pattern, Positive, Section
from shared.several_tasks import PLUS

Mode = Literal["onnx", "trt", "both", "none"]
TaskType = Annotated[str, MemberOf(plugins.TASKS, joint=PLUS)]
PrecisionPolicy = Literal["auto", "fp32", "fp32_tf32", "fp16", "bf16", "int8", "explicit_int8", "strongly_typed"]
Dtype = Literal["float32", "float16", "int64", "int32", "uint8", "bool"]
DataFormat = Annotated[str, MemberOf(plugins.FORMATS, also=("concat",))]
TensorShape = Annotated[tuple[Count, ...], Field(min_length=1)]
LabelId = Annotated[int, Strict(), Field(ge=0, lt=1 << 16)]
AxisIndex = Annotated[int, Field(ge=0)]  # not strict: the manifest is JSON, whose keys are strings


class Model(Section):
    """The trained model."""

    type: Name = Field(
        description="Kind of model, for example `centerpoint`. `exporter models` lists those that are installed."
    )
    config: ConfigPath | None = Field(
        default=None, description="Training config of the model (mmengine Python file). Needed to export."
    )
    checkpoint: ConfigPath | None = Field(
        default=None,
        description="Weights. The one place that names them: export, reference and PyTorch backend all use this file.",
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Options of this kind of model, checked by its exporter. `centerpoint`: `rot_y_axis_reference` "
        "(true: boxes as Autoware's node needs them, w, l, h and yaw from the y axis; our runtime turns them back) and "
        "`nms_type` (`circle` replaces a training config's rotated suppression). `calibration`: "
        "`miscalibration_confidence_threshold` (by how much the logit of calibrated must be above the other one), "
        "`max_depth` (where the training config does not say it). "
        "`frnet`: `form`, `output`, `points_per_frustum`, `sensor_position`, `num_points`, `num_frustums` "
        "(docs/frnet.md). "
        "`yolox`: `batch_size`, `output`, `relu6_to_relu`, `nms`, `image`, `classes`; `yolox_seg` also: `mask`, "
        "`mask_classes` (docs/yolox.md).",
    )


class Miscalibration(Section):
    """Calibration status: how the miscalibrated samples are made, see `shared.data.miscalibration`."""

    preset: Literal["awml", "autoware_ml"] = Field(
        default="awml",
        description="Law and ranges. `awml`: rotation of 1 to 10 degrees about any axis and translation of 0.05 to "
        "0.2 m, on the lidar's side; `autoware_ml`: AWML's successor, an angle and an offset an axis of the camera.",
    )
    seed: Index = Field(default=0, description="With a sample's name, it determines that sample's disturbance.")


class Data(Section):
    """The data set that is traced, verified and evaluated on. `shared.data.open_dataset` takes this section."""

    format: DataFormat = Field(
        default="info",
        description="How the data set is stored. `info`: info file of mmdet3d or AWML (.pkl or .json); `t4`: a T4 "
        "scene's own tables; `kitti`; `semantickitti`; `argoverse2`; `nuscenes`: its own tables; `nuscenes_mini_val`; "
        "`coco`: COCO's annotation file (2D detection); `folder`: point files, or images, which may have masks; "
        "`concat`: several, one after another (`sources`); `crops`: labeled boxes of the images of `sources`, a sample "
        "each (classification); `real`: whatever of these lies under `root`; other packages may add theirs. What a "
        "format means depends on the task: docs/data.md.",
    )
    root: ConfigPath | None = Field(
        default=None,
        description="Folder of the data set, and what an info file's paths are relative to. `--data` of the tools "
        "takes its place, for example a mount.",
    )
    info_file: DataPath | None = Field(
        default=None, description="Format `info`, `coco`: the file, relative to `data.root`."
    )
    classes: tuple[Name, ...] = Field(
        default=(), description="Classes of the labels, in order. Empty: those of the data set itself."
    )
    label_map: dict[Name, Name | None] = Field(
        default_factory=dict,
        description="Category name of the source to class; null: boxes of this category are ignored.",
    )
    filter_attributes: tuple[tuple[Name, Name], ...] = Field(
        default=(),
        description="Format `t4`, `nuscenes`: pairs of category and attribute; such boxes are ignored, for example "
        "`[vehicle.bicycle, vehicle_state.parked]`.",
    )
    sources: tuple[Data, ...] = Field(default=(), description="Format `concat`, `crops`: the data sets, in order.")
    num_features: Count | None = Field(
        default=None, description="Columns of .bin and .npy point files where the format does not fix them."
    )
    pad_to: Count | None = Field(
        default=None, description="Present this many columns, the missing ones 0. Left out: as in the file."
    )
    intensity_scale: Positive = Field(
        default=1.0, description="Factor on column 3 of the points: 255 brings KITTI's 0-1 to the 0-255 of the others."
    )
    data_prefix: dict[Name, str] = Field(
        default_factory=dict,
        description="Format `info`, as in mmdet3d: folders for `pts`, `sweeps`, `img` or a camera's name. Given: only "
        "the file name of a sweep counts, as for nuScenes; empty: paths are taken whole, as AWML writes them. Format "
        "`kitti`: `pts` is the folder of the points (`velodyne`). `seg_map_path` and `pts_semantic_mask`: of masks and "
        "labels of points. Format `semantickitti`: `pts` is one sequence of several; `nuscenes`: `tables` is one "
        "version of several (`v1.0-mini`).",
    )
    label_ids: dict[Name, tuple[LabelId, ...]] = Field(
        default_factory=dict,
        description="Segmentation: the ids that a class has in files of labels, for example `{road: [24], car: [17, "
        "23]}`. Names that are no class are not judged; ids that stand nowhere are refused. Empty: those of the data "
        "set itself.",
    )
    img_suffix: str = Field(default="", description="Format `folder` with masks: how names of images end.")
    seg_map_suffix: str = Field(
        default=".png",
        description="Format `folder` with masks: what the mask's name has in place of `img_suffix`, or of the image's "
        "suffix.",
    )
    miscalibration: Miscalibration = Field(
        default=Miscalibration(), description="Calibration status: how the miscalibrated samples are made."
    )
    max_sweeps: Index = Field(
        default=10, description="Format `t4`, `nuscenes`: how many earlier frames a sample lists."
    )
    allow_absolute_paths: Flag = Field(default=False, description="Let an info file name files by absolute path.")
    sample_idx: Index = Field(default=0, description="Position of the sample that the export is traced with.")

    @field_validator("label_ids")
    @classmethod
    def _ids_of_one_class(cls, value: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        numbers = Counter(number for ids in value.values() for number in ids)
        for number, count in numbers.items():
            if count > 1:
                raise PydanticCustomError("label_ids", "gives id {number} to two classes", {"number": number})
        return value

    @model_validator(mode="after")
    def _format_has_what_it_needs(self) -> Data:
        if (self.format in ("concat", "crops")) != bool(self.sources):
            raise PydanticCustomError(
                "sources",
                "has format {format}; formats concat and crops need sources, and no other has them",
                {"format": self.format},
            )
        return self


class Export(Section):
    """PyTorch to ONNX."""

    mode: Mode = Field(
        default="both",
        description="`onnx`: PyTorch to ONNX; `trt`: engines from ONNX files that exist already (`onnx_path`, or those "
        "in the workspace); `both`: PyTorch to ONNX to TensorRT; `none`: run, verify and evaluate what the workspace "
        "holds.",
    )
    onnx_path: ConfigPath | None = Field(
        default=None,
        description="Mode `trt` and `none`: folder of ONNX files made elsewhere (one component: the file itself). They "
        "are checked against the model, which `model` must name, and taken into the workspace. Those that compute "
        "something else are refused, or in mode `none` kept with a warning, for `verifier bisect`.",
    )
    exporter: Literal["torchscript", "dynamo"] = Field(
        default="torchscript", description="Which of PyTorch's two ONNX exporters writes the graph."
    )
    opset_version: Annotated[int, Field(strict=True, ge=16, le=22)] = Field(
        default=17, description="ONNX opset of the exported files; TensorRT 8.6 knows those up to 17."
    )
    do_constant_folding: Flag = Field(default=True, description="Fold constants at export.")
    simplify: Literal["none", "onnxsim", "onnxslim", "polygraphy"] = Field(
        default="none",
        description="Tool that simplifies the graph (polygraphy: surgeon sanitize, it folds constants); its result is "
        "checked like any export.",
    )


class Tensor(Section):
    """An input or output of a component."""

    name: Name = Field(description="Name of the tensor in the ONNX file.")
    dtype: Dtype = Field(default="float32", description="Its type; an exported file with a different one is an error.")


class Io(Section):
    """Inputs and outputs of a component. What is left out is the model's own."""

    inputs: tuple[Tensor, ...] = Field(default=(), description="Inputs in order.")
    outputs: tuple[Tensor, ...] = Field(default=(), description="Outputs in order.")
    dynamic_axes: dict[Name, dict[AxisIndex, Name]] | None = Field(
        default=None,
        description="Tensor name to axis to axis name, for the axes whose size may change. `{}`: every axis is fixed.",
    )

    @model_validator(mode="after")
    def _names(self) -> Io:
        names = [tensor.name for tensor in (*self.inputs, *self.outputs)]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise PydanticCustomError("names", "names {repeated} more than once", {"repeated": ", ".join(repeated)})
        if self.inputs and self.outputs and self.dynamic_axes:
            for name in self.dynamic_axes:
                if name not in names:
                    raise PydanticCustomError(
                        "axes",
                        "dynamic_axes names '{name}', which is neither input nor output; there are {names}",
                        {"name": name, "names": ", ".join(names)},
                    )
        return self


class Profile(Section):
    """The sizes of one input that an engine is built for."""

    min_shape: TensorShape = Field(description="Smallest shape.")
    opt_shape: TensorShape = Field(description="Shape that the engine is tuned for.")
    max_shape: TensorShape = Field(description="Largest shape.")

    @model_validator(mode="after")
    def _ordered(self) -> Profile:
        ranks = {len(self.min_shape), len(self.opt_shape), len(self.max_shape)}
        if len(ranks) > 1:
            raise PydanticCustomError("rank", "min_shape, opt_shape and max_shape should have equally many axes")
        for axis, sizes in enumerate(zip(self.min_shape, self.opt_shape, self.max_shape, strict=True)):
            if list(sizes) != sorted(sizes):
                raise PydanticCustomError(
                    "order",
                    "axis {axis} has min {low}, opt {middle}, max {high}; each should be at least the one before",
                    {"axis": axis, "low": sizes[0], "middle": sizes[1], "high": sizes[2]},
                )
        return self


class Component(Section):
    """One exported part of the model: its files, tensors and engine settings. The key is the component's name."""

    onnx_file: FileName = Field(
        default="", validate_default=False, description="File under `onnx/` in the workspace; by default `<name>.onnx`."
    )
    engine_file: FileName = Field(
        default="",
        validate_default=False,
        description="File under `tensorrt/<target>/` in the workspace; by default `<name>.engine`.",
    )
    io: Io = Field(default=Io(), description="Inputs, outputs and dynamic axes; by default the model's own.")
    tensorrt_profile: dict[Name, Profile] = Field(
        default_factory=dict,
        description="Input name to its sizes. A dynamic input that is missing here gets those of the model spec.",
    )
    extra_tensorrt_profiles: tuple[dict[Name, Profile], ...] = Field(
        default=(), description="More profiles for the same engine, in order; each names every dynamic input."
    )
    precision_policy: PrecisionPolicy | None = Field(
        default=None, description="Policy of this component where it differs from `tensorrt.precision_policy`."
    )
    keep_fp32: tuple[Pattern, ...] = Field(
        default=(),
        description="Regular expressions on ONNX node names (`/head/.*`, matched from the start): these stay in FP32.",
    )

    @model_validator(mode="after")
    def _profiles_name_inputs(self) -> Component:
        inputs = [tensor.name for tensor in self.io.inputs]
        for profile in (self.tensorrt_profile, *self.extra_tensorrt_profiles):
            for name in profile:
                if inputs and name not in inputs:
                    raise PydanticCustomError(
                        "profile",
                        "has a profile for '{name}', which is not an input; inputs are {inputs}",
                        {"name": name, "inputs": ", ".join(inputs)},
                    )
        return self
