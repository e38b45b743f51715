"""The sections on what is checked after the export: ``verification`` and ``evaluation``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, Strict, model_validator
from pydantic_core import PydanticCustomError

from shared import plugins
from shared.config.members import MemberOf
from shared.config.section import Count, Flag, Name, Positive, Section

#: Backends that every config may name, whichever tools are installed where it is read.
_ALWAYS = ("pytorch", "onnx", "tensorrt")
BACKEND = MemberOf(plugins.BACKENDS, also=_ALWAYS)
Backend = Annotated[str, BACKEND]


def _samples(value: int) -> int:
    if value == 0 or value < -1:
        raise PydanticCustomError("samples", "should be at least 1, or -1 for all samples")
    return value


SampleCount = Annotated[int, Field(strict=True), AfterValidator(_samples)]


Score = Annotated[float, Strict(), Field(ge=0, lt=1)]


class Scenario(Section):
    """One comparison: the test backend against the reference backend, on the same samples."""

    ref_backend: Annotated[str, MemberOf(plugins.BACKENDS, also=(*_ALWAYS, "framework"))] = Field(
        description="The reference: a backend, or `framework`, the training framework's results recorded at export."
    )
    ref_device: Name = Field(
        default="cpu",
        description="Its device: an alias of `devices`, or cpu, cuda, cuda:N. Left out: cuda for `tensorrt`, cpu for "
        "the others. Not used for `framework`.",
    )
    test_backend: Backend = Field(description="Backend under test.")
    test_device: Name = Field(default="cpu", description="Its device, in the same way.")
    tolerance: Positive | None = Field(
        default=None, description="Tolerance of this scenario where it differs from `verification.tolerance`."
    )
    optional: Flag = Field(
        default=False, description="true: skipped, with a note, if a run is missing. false: a missing run is a failure."
    )

    @model_validator(mode="before")
    @classmethod
    def _devices_by_backend(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        defaults = {f"{side}_device": "cuda" for side in ("ref", "test") if value.get(f"{side}_backend") == "tensorrt"}
        return {**defaults, **value}

    @model_validator(mode="after")
    def _two_things(self) -> Scenario:
        if self.ref_backend == self.test_backend and self.ref_device == self.test_device:
            raise PydanticCustomError("itself", "compares {backend} with itself", {"backend": self.test_backend})
        return self


_PYTORCH_ONNX = Scenario(ref_backend="pytorch", test_backend="onnx")
_ONNX_TENSORRT = Scenario(ref_backend="onnx", test_backend="tensorrt", test_device="cuda", optional=True)


class Scenarios(Section):
    """Scenarios by export mode: those of the config's `export.mode` run."""

    both: tuple[Scenario, ...] = Field(
        default=(_PYTORCH_ONNX, _ONNX_TENSORRT), description="Comparisons of mode `both`."
    )
    onnx: tuple[Scenario, ...] = Field(default=(_PYTORCH_ONNX,), description="Comparisons of mode `onnx`.")
    trt: tuple[Scenario, ...] = Field(default=(_ONNX_TENSORRT,), description="Comparisons of mode `trt`.")
    none: tuple[Scenario, ...] = Field(default=(), description="Comparisons of mode `none`.")


class Verification(Section):
    """Numerical comparison of the backends."""

    enabled: Flag = Field(default=True, description="Whether `verifier` compares at all.")
    num_verify_samples: Count = Field(
        default=3, description="How many samples, from the first, the export records and the verifier compares."
    )
    tolerance: Positive | None = Field(
        default=None,
        description="Largest absolute difference of any raw output that passes (logits: before the sigmoid). Left out: "
        "0.1 between runs in FP32, and no such limit in coarser precisions.",
    )
    output_tolerances: dict[Name, Positive] = Field(
        default_factory=dict, description="Output name to its own tolerance, for example `heatmap: 0.05`."
    )
    operating_score: Score | None = Field(
        default=None,
        description="Least score of results that are of use: in precisions coarser than FP32, their errors are judged. "
        "Left out: 0.35 for boxes, which is what Autoware's detectors keep.",
    )
    scenarios: Scenarios = Field(default=Scenarios(), description="What is compared with what, by export mode.")


class EvaluatedBackend(Section):
    """Whether and where a backend is run over the evaluation samples."""

    enabled: Flag = Field(default=True, description="Whether this backend is run and evaluated.")
    device: Name = Field(default="cpu", description="An alias of `devices`, or cpu, cuda, cuda:N.")


class EvaluatedTensorRT(EvaluatedBackend):
    """The same for TensorRT, which runs on CUDA devices only."""

    device: Name = Field(default="cuda", description="An alias of `devices`, or cuda, cuda:N.")


class Backends(Section):
    """The backends that are run and evaluated. Those that other packages add are keys too, with the keys of `onnx`."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, EvaluatedBackend] = Field(init=False)

    pytorch: EvaluatedBackend = Field(default=EvaluatedBackend(), description="The exported `torch.export` programs.")
    onnx: EvaluatedBackend = Field(default=EvaluatedBackend(), description="The ONNX files in ONNX Runtime.")
    tensorrt: EvaluatedTensorRT = Field(default=EvaluatedTensorRT(), description="The engines in TensorRT.")


class T4Metric(Section):
    """The T4 metric of 3D boxes, in the terms of perception_eval."""

    compat: Literal["none", "awml"] = Field(
        default="none",
        description="`awml`: repeat the mistakes of perception_eval and of AWML's calls of it: APH without the sign of "
        "yaw, length and width exchanged, bottoms taken for centers.",
    )
    label_policy: Literal["default", "allow_any"] = Field(
        default="default",
        description="Which boxes may match: those of one class, or (`allow_any`) all; a match counts for the class of "
        "the ground truth.",
    )
    min_points: dict[Name, Annotated[int, Field(ge=0, strict=True)]] = Field(
        default={},
        description="By class: fewest lidar points of ground truth that is to be found; 1 for classes not named.",
    )


class Evaluation(Section):
    """Accuracy and latency of the backends."""

    enabled: Flag = Field(default=False, description="Whether the backends are run over the data set and evaluated.")
    num_samples: SampleCount = Field(default=10, description="How many samples, from the first; -1 for all.")
    verbose: Flag = Field(default=False, description="Log every sample.")
    backends: Backends = Field(default=Backends(), description="Which backends, and on which devices.")
    t4: T4Metric = Field(default=T4Metric(), description="How the T4 metric is computed.")
