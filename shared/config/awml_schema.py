"""AWML's deploy config (``deploy_config.py``): its keys, types and defaults, the older forms included.

Facts only: which keys exist and their defaults. What becomes of each is in `shared.config.awml`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from shared.config.check_sections import SampleCount
from shared.config.model_sections import AxisIndex, Dtype, Mode, PrecisionPolicy, TaskType, Tensor, TensorShape
from shared.config.quantization_section import Quantization
from shared.config.section import Bytes, Count, Device, FileName, Flag, Index, Name, Positive, Section

DynamicAxes = dict[Name, dict[AxisIndex, Name]]
Backend = Literal["pytorch", "onnx", "tensorrt"]
Opset = Annotated[int, Field(strict=True, ge=16, le=20)]


class AwmlExport(Section):
    """``export``; ``checkpoint_path``, ``device`` and ``verify`` are the older form."""

    mode: Mode = "both"
    work_dir: str = "work_dirs"
    onnx_path: str | None = None
    checkpoint_path: str | None = None
    device: Device | None = None
    verify: Flag | None = None


class AwmlIo(Section):
    """``components.<id>.io``."""

    inputs: Annotated[tuple[Tensor, ...], Field(min_length=1)]
    outputs: Annotated[tuple[Tensor, ...], Field(min_length=1)]
    dynamic_axes: DynamicAxes | None = None


class AwmlProfile(Section):
    """``min_shape``, ``opt_shape`` and ``max_shape`` of an input; AWML fills missing ones from the sample."""

    min_shape: TensorShape | None = None
    opt_shape: TensorShape | None = None
    max_shape: TensorShape | None = None


class AwmlComponent(Section):
    """An entry of ``components``."""

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


class AwmlTensorRT(Section):
    """``tensorrt_config``, and the older ``backend_config.common_config``."""

    precision_policy: PrecisionPolicy = "auto"
    max_workspace_size: Bytes = 1 << 30
    plugin_libraries: tuple[Name, ...] = ()


class AwmlModelInput(Section):
    """An entry of ``backend_config.model_inputs``."""

    input_shapes: dict[Name, AwmlProfile] = Field(default_factory=dict)
    name: Name | None = None
    shape: TensorShape | None = None
    dtype: str | None = None


class AwmlBackend(Section):
    """``backend_config``, the older form of ``tensorrt_config``."""

    type: Literal["tensorrt"] | None = None
    common_config: AwmlTensorRT = AwmlTensorRT()
    model_inputs: tuple[AwmlModelInput, ...] = ()


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
    num_warmup: Index | None = None
    num_warmup_samples: Index | None = None


class AwmlConfig(Section):
    """A whole ``deploy_config.py``."""

    checkpoint_path: str | None = None
    deploy_log_path: str | None = "deployment.log"
    task_type: TaskType | None = None
    devices: dict[Name, Device | None] | None = None
    export: AwmlExport
    components: dict[Name, AwmlComponent] | None = None
    runtime_io: AwmlRuntimeIo = AwmlRuntimeIo()
    model_io: AwmlModelIo | None = None
    onnx_config: AwmlOnnx = AwmlOnnx()
    tensorrt_config: AwmlTensorRT | None = None
    backend_config: AwmlBackend | None = None
    codebase_config: dict[str, Any] | None = None
    verification: AwmlVerification = AwmlVerification()
    evaluation: AwmlEvaluation = AwmlEvaluation()
    quantization: Quantization | None = None
