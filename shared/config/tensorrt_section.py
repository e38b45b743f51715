"""Section ``tensorrt``: how engines are built from the ONNX files."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from shared.config.model_sections import PrecisionPolicy
from shared.config.section import Bytes, ConfigPath, Count, Flag, Index, Section


class TensorRT(Section):
    """ONNX to TensorRT engines."""

    precision_policy: PrecisionPolicy = Field(
        default="auto",
        description="What layers compute in. `auto`: the types in the graph (FP32 with TF32 where the GPU has it); "
        "`fp32`: FP32 with TF32 off; `fp32_tf32`: FP32 with TF32; `fp16`, `bf16`: convolutions and matrix products in "
        "this, the rest in this or FP32; `int8`, `explicit_int8`: nodes between Q/DQ nodes in INT8, the rest as "
        "`fp16`; `strongly_typed`: the types in the graph, exactly. Whether it was met is proven after the build.",
    )
    max_workspace_size: Bytes = Field(
        default=1 << 30, description="The most scratch memory that a layer may use: bytes, or a string such as `2 GiB`."
    )
    optimization_level: Annotated[int, Field(strict=True, ge=0, le=5)] = Field(
        default=3, description="How long TensorRT searches for faster kernels, from 0 to 5."
    )
    avg_timing_iterations: Count = Field(default=1, description="How often each candidate kernel is timed.")
    max_aux_streams: Index | None = Field(
        default=None, description="Most additional streams that one request may use; TensorRT decides when left out."
    )
    tactic_sources: (
        tuple[Literal["cublas", "cublas_lt", "cudnn", "edge_mask_convolutions", "jit_convolutions"], ...] | None
    ) = Field(default=None, description="Libraries that kernels may come from; by default TensorRT's set.")
    input_formats: Literal["fast", "rows"] = Field(
        default="fast",
        description="How an engine takes its inputs. `fast`: images that a component reads in FP16, in FP16 and in "
        "the layout that TensorRT finds the fastest; `rows`: as the graph has them, in rows, for engines that "
        "another program loads, as Autoware's nodes do: with `fixed_profile` it is so in any case. The engine's record "
        "says what was chosen.",
    )
    fixed_profile: Flag = Field(
        default=False,
        description="Build for one size per input: min and opt are set to `max_shape`, as Autoware's nodes do.",
    )
    version_compatible: Flag = Field(
        default=False, description="Engines that later minor versions of the same TensorRT major version load too."
    )
    hardware_compatibility: Literal["none", "ampere_plus", "same_compute_capability"] = Field(
        default="none", description="Engines that other GPUs load too: from Ampere on, or of the same architecture."
    )
    strip_weights: Flag = Field(
        default=False, description="Engines without weights, which are refitted from the ONNX file where they run."
    )
    refittable: Flag = Field(
        default=False, description="Engines whose weights `trt_builder refit` replaces, in seconds instead of a build."
    )
    plugin_libraries: tuple[ConfigPath, ...] = Field(
        default=(), description="Shared libraries with TensorRT plugins, loaded before the build and before every run."
    )
    dla_core: Index | None = Field(default=None, description="Jetson: DLA core that runs the layers it supports.")
    gpu_fallback: Flag = Field(
        default=True, description="With `dla_core`: the GPU runs the layers that the DLA does not support."
    )

    @property
    def frees_inputs(self) -> bool:
        """Whether TensorRT may choose types and layouts of inputs."""
        return self.input_formats == "fast" and not self.fixed_profile

    @model_validator(mode="after")
    def _combinations(self) -> TensorRT:
        if self.dla_core is not None and self.precision_policy not in ("fp16", "int8", "explicit_int8"):
            raise PydanticCustomError(
                "dla",
                "dla_core needs precision_policy fp16, int8 or explicit_int8, since a DLA has no other precision; it "
                "is {policy}",
                {"policy": self.precision_policy},
            )
        return self
