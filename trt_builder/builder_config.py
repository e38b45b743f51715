"""TensorRT's builder config: every option of the deploy config and the flags of a precision policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shared import cuda
from shared.config.tensorrt_section import TensorRT as Options
from shared.errors import EnvironmentLacks
from trt_builder import compat
from trt_builder.compat import TensorRT
from trt_builder.policies import Resolved
from trt_builder.profiles import Profile


def make_config(tensorrt: TensorRT, builder: Any, options: Options, profiles: Sequence[Profile], *, where: str) -> Any:
    """A builder config with every option but the precision.

    Args:
        tensorrt: the TensorRT.
        builder: its builder.
        options: section ``tensorrt`` of the deploy config.
        profiles: the optimization profiles.
        where: the component, for errors.

    Raises:
        EnvironmentLacks: an option that this TensorRT or machine does not have.
    """
    trt = tensorrt.trt
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.max_workspace_size)
    config.builder_optimization_level = options.optimization_level
    config.avg_timing_iterations = options.avg_timing_iterations
    # The inspector reports types and kernels of layers only when the engine keeps them.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.max_aux_streams is not None:
        config.max_aux_streams = options.max_aux_streams
    if options.tactic_sources is not None:
        config.set_tactic_sources(_tactic_sources(tensorrt, options.tactic_sources))
    if options.version_compatible:
        if tensorrt.flavor == "rtx":
            raise EnvironmentLacks(f"{tensorrt.title} has no version compatible engines", where=where)
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatibility != "none":
        config.hardware_compatibility_level = _hardware_level(tensorrt, options.hardware_compatibility)
    if (options.refittable or options.strip_weights) and tensorrt.flavor == "rtx" and not cuda.find_gpus():
        raise EnvironmentLacks(
            f"{tensorrt.title} builds engines for other weights (refittable, strip_weights) only where a GPU is",
            where=where,
            hint="leave the option out, or build on a machine with an RTX card",
        )
    if options.refittable:
        config.set_flag(trt.BuilderFlag.REFIT)
    if options.strip_weights:
        config.set_flag(compat.need(tensorrt, "BuilderFlag.STRIP_PLAN", "engines without weights (strip_weights)"))
    if options.dla_core is not None:
        _use_dla(tensorrt, builder, config, options, where=where)
    for shapes_by_input in profiles:
        profile = builder.create_optimization_profile()
        for name, shapes in shapes_by_input.items():
            profile.set_shape(name, shapes.min, shapes.opt, shapes.max)
        config.add_optimization_profile(profile)
    return config


def _tactic_sources(tensorrt: TensorRT, sources: Sequence[str]) -> int:
    return sum(1 << int(compat.tactic_source(tensorrt, source)) for source in sources)


def _hardware_level(tensorrt: TensorRT, level: str) -> Any:
    if level == "same_compute_capability":
        name = "HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY"
        return compat.need(tensorrt, name, "hardware compatibility 'same_compute_capability'")
    return tensorrt.trt.HardwareCompatibilityLevel.AMPERE_PLUS


def _use_dla(tensorrt: TensorRT, builder: Any, config: Any, options: Options, *, where: str) -> None:
    trt = tensorrt.trt
    cores = int(builder.num_DLA_cores)
    if options.dla_core is None or options.dla_core >= cores:
        raise EnvironmentLacks(
            f"dla_core is {options.dla_core}, but this machine shows {cores} DLA cores",
            where=where,
            hint="remove tensorrt.dla_core, or build on the Jetson that it is for",
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = options.dla_core
    if options.gpu_fallback:
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def set_precision_flags(tensorrt: TensorRT, config: Any, resolved: Resolved, types_in_graph: set[str]) -> None:
    """The policy's builder flags.

    Args:
        tensorrt: the TensorRT.
        config: builder config; changed.
        resolved: the policy.
        types_in_graph: ``fp16``, ``bf16`` when the graph has such tensors.

    Raises:
        EnvironmentLacks: this TensorRT has no such precision.
    """
    trt = tensorrt.trt
    if resolved.tf32 is not None:
        change = config.set_flag if resolved.tf32 else config.clear_flag
        change(trt.BuilderFlag.TF32)
    if not tensorrt.weakly_typed or (resolved.policy.typed and not compat.lacks_strong_typing(tensorrt)):
        return
    low = set(types_in_graph) | ({resolved.policy.low} if resolved.policy.low else set())
    if "fp16" in low:
        config.set_flag(compat.need(tensorrt, "BuilderFlag.FP16", "precision fp16"))
    if "bf16" in low:
        config.set_flag(compat.need(tensorrt, "BuilderFlag.BF16", "precision bf16"))
    if resolved.int8:
        config.set_flag(compat.need(tensorrt, "BuilderFlag.INT8", "INT8"))
    if resolved.policy.low is not None or resolved.policy.typed:
        config.set_flag(compat.need(tensorrt, "BuilderFlag.OBEY_PRECISION_CONSTRAINTS", "precision constraints"))
