"""One engine: builder config, build, and what TensorRT says about the result."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared.errors import EnvironmentLacks, InputError
from trt_builder import compat, gpu, reproducible, timing_cache
from trt_builder.compat import TensorRT
from trt_builder.messages import Messages, failure
from trt_builder.policies import Resolved
from trt_builder.profiles import Profile
from trt_builder.progress import Phases, make_monitor, run
from trt_builder.reproducible import Mode
from trt_builder.settings import Options


def load_plugins(tensorrt: TensorRT, logger: Any, libraries: Sequence[str]) -> None:
    """Load TensorRT's own plugins and the user's libraries.

    Raises:
        InputError: a library does not load.
    """
    for library in libraries:
        try:
            ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise InputError(
                f"this plugin library does not load ({error})",
                where=library,
                hint="it must be built for this TensorRT version and processor",
            ) from error
    compat.init_plugins(tensorrt, logger)


def make_config(tensorrt: TensorRT, builder: Any, options: Options, profiles: Sequence[Profile], *, where: str) -> Any:
    """A builder config with every option but the precision.

    Args:
        tensorrt: the TensorRT.
        builder: its builder.
        options: the options.
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
    # The inspector tells types and kernels of layers only when they were kept in the engine.
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
    if (options.refittable or options.strip_weights) and tensorrt.flavor == "rtx" and not gpu.find_gpus():
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


def build(
    tensorrt: TensorRT,
    builder: Any,
    network: Any,
    config: Any,
    messages: Messages,
    *,
    cache: Path | None,
    what: str,
    reproduce: tuple[Mode, bytes] | None = None,
) -> tuple[bytes, bytes]:
    """Build and serialize an engine.

    Args:
        tensorrt: the TensorRT.
        builder: its builder.
        network: the parsed network.
        config: the builder config.
        messages: where its logger puts what it says.
        cache: the timing cache file; None where there is none.
        what: the component, for progress and errors.
        reproduce: record the choice of kernels, or build with the recorded one (`reproducible`); the shared timing
            cache is left out then.

    Returns:
        The plan, and the recorded choice of kernels (empty unless ``reproduce``).

    Raises:
        BuildError: TensorRT failed, or chose other kernels than the recorded ones; says why, and what to do.
        EnvironmentLacks: this TensorRT has no reproducible builds.
        KeyboardInterrupt: the user stopped it.
    """
    phases = Phases()
    monitor = make_monitor(tensorrt, phases)
    if monitor is not None:
        compat.watch(tensorrt, config, monitor)
    chosen: dict[str, str] = {}
    # Whatever cache is used must live as long as the build.
    if reproduce is not None:
        kept, chosen = reproducible.prepare(tensorrt, config, *reproduce)
    else:
        kept = timing_cache.use(config, timing_cache.read(cache)) if cache is not None else None
    serialized = run(
        lambda: builder.build_serialized_network(network, config), what, phases, can_cancel=monitor is not None
    )
    if serialized is None:
        raise failure(what, messages.problems())
    plan = bytes(memoryview(serialized))
    if reproduce is None:
        if cache is not None and kept is not None:
            timing_cache.save(cache, config)
        return plan, b""
    if reproduce[0] == "verify":
        reproducible.compare(tensorrt, config, chosen, component=what)
        return plan, reproduce[1]
    return plan, bytes(config.get_timing_cache().serialize())
