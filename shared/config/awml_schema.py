"""AWML's deploy config (``deploy_config.py``): its keys, types and defaults, the older forms included.

Facts only: which keys exist and their defaults. What becomes of each is in `shared.config.awml`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from shared.config.check_sections import SampleCount
from shared.config.model_sections import AxisIndex, Dtype, Mode, PrecisionPolicy, TaskType, Tensor, TensorShape
from shared.config.quantization_section import Calibration, Fusion
from shared.config.section import Bytes, Count, Device, FileName, Flag, Index, Name, Positive, Section

DynamicAxes = dict[Name, dict[AxisIndex, Name]]
Backend = Literal["pytorch", "onnx", "tensorrt"]
Opset = Annotated[int, Field(strict=True, ge=7, le=22)]
# A size of a tensor; -1 is any.
Size = Annotated[int, Field(strict=True, ge=-1)]


class AwmlExport(Section):
    """``export``; the keys from ``checkpoint_path`` on are older forms."""

    mode: Mode = "both"
    work_dir: str = "work_dirs"
    onnx_path: str | None = None
    sample_idx: Index | None = None
    checkpoint_path: str | None = None
    tensorrt_path: str | None = None
    device: Device | None = None
    cuda_device: Device | None = None
    verify: Flag | None = None


class AwmlTensor(Tensor):
    """An entry of ``components.<id>.io.inputs`` and ``outputs``; AWML reads no ``shape``."""

    shape: tuple[Size, ...] | None = None


class AwmlIo(Section):
    """``components.<id>.io``."""

    inputs: Annotated[tuple[AwmlTensor, ...], Field(min_length=1)]
    outputs: Annotated[tuple[AwmlTensor, ...], Field(min_length=1)]
    dynamic_axes: DynamicAxes | None = None


class AwmlProfile(Section):
    """``min_shape``, ``opt_shape`` and ``max_shape`` of an input; AWML fills missing ones from the sample."""

    min_shape: TensorShape | None = None
    opt_shape: TensorShape | None = None
    max_shape: TensorShape | None = None


class AwmlComponent(Section):
    """An entry of ``components``; with ``name``, the older form, the key is not the component's name."""

    name: Name | None = None
    onnx_file: FileName
    engine_file: FileName
    io: AwmlIo
    tensorrt_profile: dict[Name, AwmlProfile] | None = None


class AwmlRuntimeIo(Section):
    """``runtime_io``; all but ``info_file`` and ``sample_idx`` are older forms."""

    info_file: str = ""
    sample_idx: Index = 0
    info_pkl: str | None = None
    ann_file: str | None = None
    img_prefix: str | None = None
    onnx_file: str | None = None


class AwmlFormerComponent(Section):
    """An entry of the older ``onnx_config.components``."""

    name: Name
    onnx_file: FileName
    engine_file: FileName


class AwmlOnnx(Section):
    """``onnx_config``; the keys from ``type`` on are older forms."""

    opset_version: Opset = 17
    do_constant_folding: Flag = True
    export_params: Flag = True
    keep_initializers_as_inputs: Flag = False
    simplify: Flag = False
    type: Literal["onnx"] | None = None
    save_file: FileName | None = None
    multi_file: Flag = False
    components: dict[Name, AwmlFormerComponent] = Field(default_factory=dict)
    input_names: tuple[Name, ...] = ()
    output_names: tuple[Name, ...] = ()
    dynamic_axes: DynamicAxes | None = None
    input_shape: tuple[Count, ...] | None = None
    decode_in_inference: Flag | None = None
    visualize_qdq_values: Flag | None = None
    model_wrapper: dict[str, Any] | None = None
    verbose: Flag | None = None


class AwmlTensorRT(Section):
    """``tensorrt_config``, or the older ``backend_config.common_config``, whose own are the keys from ``fp16_mode``."""

    precision_policy: PrecisionPolicy | None = None
    max_workspace_size: Bytes = 1 << 30
    plugin_libraries: tuple[Name, ...] | None = None
    fp16_mode: Flag | None = None
    strongly_typed: Flag | None = None
    disable_optimizations: Flag | None = None
    max_batch_size: Count | None = None
    device_id: Index | None = None


class AwmlModelInput(Section):
    """An entry of ``backend_config.model_inputs``."""

    input_shapes: dict[Name, AwmlProfile] = Field(default_factory=dict)
    name: Name | None = None
    shape: Annotated[tuple[Size, ...], Field(min_length=1)] | None = None
    dtype: str | None = None


class AwmlBackend(Section):
    """``backend_config``, the older form of ``tensorrt_config``."""

    type: Literal["tensorrt", "onnxruntime"] | None = None
    common_config: AwmlTensorRT = AwmlTensorRT()
    model_inputs: tuple[AwmlModelInput, ...] | None = None


class AwmlAdditionalInput(Section):
    """An entry of ``model_io.additional_inputs``."""

    name: Name
    shape: tuple[int, ...] = ()
    dtype: str = "float32"


class AwmlModelIo(Section):
    """``model_io``, the older form of ``components.<id>.io``."""

    input_name: Name = "input"
    input_shape: tuple[Count, ...] | None = None
    input_dtype: Dtype = "float32"
    additional_inputs: tuple[AwmlAdditionalInput, ...] = ()
    output_name: Name = "output"
    additional_outputs: tuple[Name, ...] = ()
    head_output_names: tuple[Name, ...] = ()
    batch_size: Count | None = None
    dynamic_axes: DynamicAxes | None = None


class AwmlScenario(Section):
    """An entry of ``verification.scenarios.<mode>``."""

    ref_backend: Backend
    ref_device: Name
    test_backend: Backend
    test_device: Name


class AwmlVerification(Section):
    """``verification``."""

    enabled: Flag = True
    num_verify_samples: Count = 3
    tolerance: Positive | None = None
    devices: dict[Name, Device] = Field(default_factory=dict)
    scenarios: dict[Mode, tuple[AwmlScenario, ...]] = Field(default_factory=dict)


class AwmlEvaluatedBackend(Section):
    """An entry of ``evaluation.backends``."""

    enabled: Flag = False
    device: Device | None = None
    model_dir: str | None = None
    engine_dir: str | None = None
    checkpoint: str | None = None


class AwmlEvaluation(Section):
    """``evaluation``."""

    enabled: Flag = False
    num_samples: SampleCount = 10
    verbose: Flag = False
    backends: dict[Backend, AwmlEvaluatedBackend] = Field(default_factory=dict)
    models: dict[Backend, str | None] = Field(default_factory=dict)
    models_to_evaluate: tuple[Backend, ...] = ()
    devices: dict[Name, Device] = Field(default_factory=dict)
    pytorch_device: Device | None = None
    onnx_device: Device | None = None
    tensorrt_device: Device | None = None
    num_warmup: Index | None = None
    num_warmup_samples: Index | None = None


class AwmlPtq(Section):
    """``quantization.ptq``: what AWML's tool calibrates, and on how many samples."""

    checkpoint: str | None = None
    calibrate_samples: Count | None = None
    batch_size: Count | None = None
    calib_seed: Index | None = None
    calib_shuffle: Flag | None = None


class AwmlQat(Section):
    """``quantization.qat``: what AWML's tool fine-tunes, and how."""

    train_cfg: str | None = None
    checkpoint: str | None = None
    epochs: Count | None = None
    lr: Positive | None = None
    calibrate_samples: Count | None = None
    calib_cache: str | None = None
    work_dir: str | None = None


class AwmlQuantization(Section):
    """``quantization``: ``calibration``, ``fusion`` of the seed documents, and what AWML's loaders read."""

    enabled: Flag = False
    mode: Literal["ptq", "qat"] = "ptq"
    calibration: Calibration | None = None
    fusion: Fusion | None = None
    sensitive_layers: tuple[Name, ...] = ()
    fuse_bn: Flag | None = None
    quant_voxel_encoder: Flag | None = None
    quant_backbone: Flag | None = None
    quant_neck: Flag | None = None
    quant_head: Flag | None = None
    quant_add: Flag | None = None
    quant_linear_backbone: Flag | None = None
    quant_ese_mul_identity: Flag | None = None
    quant_ese_pool_input: Flag | None = None
    quant_maxpool_input: Flag | None = None
    skip_backbone_first_stages: Annotated[int, Field(strict=True, ge=0, le=100)] | None = None
    skip_backbone_stages: tuple[Index, ...] | None = None
    skip_vovnet_stages: tuple[Index, ...] | None = None
    calib_cache_path: str | None = None
    ptq_checkpoint: Flag | None = None
    default_precision: Literal["int8"] | None = None
    keep_fp16: tuple[Name, ...] | None = None
    disable_recipes: tuple[Literal["add", "ese", "maxpool"], ...] | None = None
    ptq: AwmlPtq | None = None
    qat: AwmlQat | None = None


class AwmlConfig(Section):
    """A whole ``deploy_config.py``."""

    checkpoint_path: str | None = None
    model_cfg: str | None = None
    deploy_log_path: str | None = "deployment.log"
    output_path: str | None = None
    task_type: TaskType | None = None
    devices: dict[Name, Device | None] | None = None
    export: AwmlExport | None = None
    components: dict[Name, AwmlComponent] | None = None
    runtime_io: AwmlRuntimeIo = AwmlRuntimeIo()
    model_io: AwmlModelIo | None = None
    onnx_config: AwmlOnnx = AwmlOnnx()
    tensorrt_config: AwmlTensorRT | None = None
    backend_config: AwmlBackend | None = None
    codebase_config: dict[str, Any] | None = None
    custom_imports: dict[str, Any] | None = None
    class_names: tuple[Name, ...] | None = None
    data_root: str | None = None
    frame_id: str | None = None
    perception_evaluator_configs: dict[str, Any] | None = None
    critical_object_filter_config: dict[str, Any] | None = None
    frame_pass_fail_config: dict[str, Any] | None = None
    verification: AwmlVerification = AwmlVerification()
    evaluation: AwmlEvaluation = AwmlEvaluation()
    quantization: AwmlQuantization | None = None
