"""The only module that knows that TensorRT versions differ.

Names are probed, never derived from a version number: `has` asks the installed package. `OPTIONAL` says where each
optional name is found, for messages and for the contract test, which checks it against the real bindings of
8.6.0 to 11.4 and of TensorRT for RTX. Code elsewhere uses only names that every version has. Version numbers are
compared for known bugs alone.

What differs, in short:

- 8.6 and 10.x are *weakly typed*: builder flags and layer precisions say what a layer may compute in. In 11.x and
  TensorRT for RTX they are gone: the types in the graph decide, so the precision is baked into it (`cast_graph`).
- 10.x and later show their progress and can be canceled.
- Stripped weights came with 10.0, editable timing caches with 10.9.
- TensorRT for RTX builds without a GPU and times nothing, so it has no use for a timing cache, and no inspector there.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal

from shared.errors import EnvironmentLacks

Flavor = Literal["tensorrt", "rtx"]

TITLES: dict[Flavor, str] = {"tensorrt": "TensorRT", "rtx": "TensorRT for RTX"}
MODULES: dict[Flavor, str] = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
INSTALL: dict[Flavor, str] = {
    "tensorrt": "pip install the tensorrt wheel that fits the driver, or use the trt_builder image",
    "rtx": "make setup-rtx",
}

# Optional name -> the TensorRT versions that have it. Everything else that builder and runtime use is in all of them.
OPTIONAL: dict[str, str] = {
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": "8.6 to 10.x",
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": "10.0 and newer",
    "BuilderFlag.FP16": "8.6 to 10.x",
    "BuilderFlag.INT8": "8.6 to 10.x",
    "BuilderFlag.BF16": "10.x",
    "BuilderFlag.OBEY_PRECISION_CONSTRAINTS": "8.6 to 10.x",
    "BuilderFlag.STRIP_PLAN": "10.0 and newer",
    "BuilderFlag.EDITABLE_TIMING_CACHE": "10.9 and newer",
    "BuilderFlag.ERROR_ON_TIMING_CACHE_MISS": "10.0 and newer",
    "BuilderFlag.DISABLE_COMPILATION_CACHE": "10.0 and newer",
    "DataType.BF16": "10.0 and newer",
    "ILayer.precision": "8.6 to 10.x",
    "ILayer.set_output_type": "8.6 to 10.x",
    "ITimingCache.queryKeys": "10.9 and newer",
    "ITimingCache.query": "10.9 and newer",
    "ITimingCache.update": "10.9 and newer",
    "IProgressMonitor": "10.0 and newer",
    "IBuilderConfig.progress_monitor": "10.0 and newer",
    "HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY": "10.9 and newer",
    "TacticSource.CUBLAS": "8.6 to 10.x",
    "TacticSource.CUBLAS_LT": "8.6 to 10.x",
    "TacticSource.CUDNN": "8.6 to 10.x",
    "ParserError.node_name": "10.0 and newer",
    "ParserError.node_operator": "10.0 and newer",
    "ICudaEngine.device_memory_size": "8.6 to 10.x",
    "ICudaEngine.device_memory_size_v2": "10.9 and newer",
    "ICudaEngine.create_serialization_config": "10.0 and newer",
    "ICudaEngine.serialize_with_config": "10.0 and newer",
    "ICudaEngine.create_execution_context_without_device_memory": "8.6 to 10.x",
    "IExecutionContext.set_device_memory": "10.9 and newer",
    "ExecutionContextAllocationStrategy": "10.0 and newer",
    "OnnxParserRefitter": "10.0 and newer",
    "SerializationFlag.EXCLUDE_WEIGHTS": "10.0 and newer",
    "SerializationFlag.INCLUDE_REFIT": "10.16 and newer",
}

# ONNX operators that only some TensorRTs run, and which do. EfficientNMS_TRT is a plugin, deprecated since 10.12.
OPERATORS: dict[str, str] = {
    "EfficientNMS_TRT": "TensorRT 8.6 to 10.11",
    "NonMaxSuppression": "TensorRT 8.6 and newer, not TensorRT for RTX,",
}


@dataclass(frozen=True)
class Known:
    """A TensorRT release that must not be used, or only with care.

    Attributes:
        reason: what it does wrong, with the public thread.
        refuse: whether the builder stops, or warns and goes on.
    """

    reason: str
    refuse: bool


KNOWN_BAD: dict[str, Known] = {
    "10.2.0": Known("builds wrong engines for common detectors (ultralytics issue 24367)", refuse=True),
    "10.3.0": Known("gave wrong outputs that 10.8 gives right (NVIDIA/TensorRT issue 4419)", refuse=False),
}


@dataclass(frozen=True)
class TensorRT:
    """An installed TensorRT.

    Attributes:
        flavor: ``tensorrt``, or ``rtx`` for TensorRT for RTX.
        trt: the imported module.
        version: its full version, for example ``8.6.0`` or ``1.7.1.116``.
    """

    flavor: Flavor
    trt: Any
    version: str

    @property
    def title(self) -> str:
        """Name and version, for messages."""
        return f"{TITLES[self.flavor]} {self.version}"

    @property
    def weakly_typed(self) -> bool:
        """Whether builder flags and layer precisions decide what a layer computes in, rather than the graph."""
        return has(self.trt, "BuilderFlag.FP16")

    @property
    def times_kernels(self) -> bool:
        """Whether it times kernels on a GPU while it builds, and so has a use for a timing cache."""
        return self.flavor == "tensorrt"


def load(flavor: Flavor) -> TensorRT:
    """Import TensorRT.

    Raises:
        EnvironmentLacks: not installed, its libraries don't load, or a release that is known to be broken.
    """
    name = MODULES[flavor]
    try:
        trt = importlib.import_module(name)
    except (ImportError, OSError) as error:
        # OSError: the wheel is there, a shared library that it loads is not.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EnvironmentLacks(
            f"no TensorRT: Python package '{name}' can't be imported ({reason})",
            hint=f"to install it: {INSTALL[flavor]}",
        ) from error
    installed = TensorRT(flavor, trt, str(trt.__version__))
    known = known_bad(installed)
    if known is not None and known.refuse:
        raise EnvironmentLacks(f"{installed.title} {known.reason}", hint="install another version")
    return installed


def known_bad(installed: TensorRT) -> Known | None:
    """What is known to be wrong with this release, if anything."""
    if installed.flavor == "rtx":
        return None
    return KNOWN_BAD.get(".".join(installed.version.split(".")[:3]))


def _look_up(trt: Any, name: str) -> Any | None:
    assert name in OPTIONAL, f"'{name}' is not in compat.OPTIONAL"
    value = trt
    for part in name.split("."):
        value = getattr(value, part, None)
    return value


def has(trt: Any, name: str) -> bool:
    """Whether this TensorRT has an optional name of the table, for example ``BuilderFlag.FP16``."""
    return _look_up(trt, name) is not None


def need(installed: TensorRT, name: str, what: str) -> Any:
    """An optional name of the table.

    Args:
        installed: the TensorRT.
        name: an entry of `OPTIONAL`.
        what: what the user asked for, for the error.

    Raises:
        EnvironmentLacks: this version has no such name.
    """
    value = _look_up(installed.trt, name)
    if value is None:
        raise EnvironmentLacks(
            f"{installed.title} has no {what}", hint=f"TensorRT {OPTIONAL[name]} has it; change the config or the image"
        )
    return value


def lacks_operator(installed: TensorRT, operator: str, *, where: str) -> EnvironmentLacks:
    """The error for an operator of `OPERATORS` that this TensorRT does not run."""
    return EnvironmentLacks(
        f"{installed.title} has no operator {operator}",
        where=where,
        hint=f"{OPERATORS[operator]} has it: build with that, or export the model without it",
    )


def refuse_operators(installed: TensorRT, operators: set[str], *, where: str) -> None:
    """What the parser takes although the builder has no kernel for it.

    Raises:
        EnvironmentLacks: there is such an operator.
    """
    if installed.flavor == "rtx" and "NonMaxSuppression" in operators:
        raise lacks_operator(installed, "NonMaxSuppression", where=where)


def tactic_source(installed: TensorRT, name: str) -> Any:
    """A library that kernels may come from, by its name in the config.

    Raises:
        EnvironmentLacks: this version has no such source.
    """
    full = f"TacticSource.{name.upper()}"
    if full in OPTIONAL:
        return need(installed, full, f"tactic source {name}")
    return getattr(installed.trt.TacticSource, name.upper())


def network_flags(installed: TensorRT, *, strongly_typed: bool) -> int:
    """Flags for `Builder.create_network`.

    Args:
        installed: the TensorRT.
        strongly_typed: the types in the graph decide. 11.x and TensorRT for RTX know nothing else; 8.6 has no such
            mode, there the builder sets every layer's precision from the graph instead.
    """
    names = ["NetworkDefinitionCreationFlag.EXPLICIT_BATCH"]
    if strongly_typed:
        names.append("NetworkDefinitionCreationFlag.STRONGLY_TYPED")
    flags = [_look_up(installed.trt, name) for name in names]
    return sum(1 << int(flag) for flag in flags if flag is not None)


def parser_error(trt: Any, error: Any) -> tuple[int, str, str, str]:
    """Position, name and operator of the node that a parser error is about, and the parser's words.

    Name and operator are empty on 8.6, which gives the position alone.
    """
    named = has(trt, "ParserError.node_name")
    return (
        int(error.node()),
        str(error.node_name()) if named else "",
        str(error.node_operator()) if named else "",
        str(error.desc()).strip(),
    )


def set_precision(installed: TensorRT, layer: Any, precision: Any, outputs: list[int]) -> None:
    """Make a layer of a weakly typed network compute in ``precision``, and give some of its outputs that type."""
    assert has(installed.trt, "ILayer.precision"), f"{installed.title} has no layer precisions"
    layer.precision = precision
    for index in outputs:
        layer.set_output_type(index, precision)


def watch(installed: TensorRT, config: Any, monitor: Any) -> None:
    """Give a build a progress monitor."""
    assert has(installed.trt, "IBuilderConfig.progress_monitor"), f"{installed.title} has no progress monitor"
    config.progress_monitor = monitor


def lacks_strong_typing(installed: TensorRT) -> bool:
    """Whether the types in a graph can't be made binding as a whole (8.6), only layer by layer."""
    return not has(installed.trt, "NetworkDefinitionCreationFlag.STRONGLY_TYPED")


def init_plugins(installed: TensorRT, logger: Any) -> None:
    """Register TensorRT's own plugins, where it has any."""
    # The bindings of TensorRT for RTX have the name, but its library has no plugins to register.
    if installed.flavor == "tensorrt":
        installed.trt.init_libnvinfer_plugins(logger, "")


def serialize_with_weights(installed: TensorRT, engine: Any) -> Any:
    """Serialize a refitted engine, weights included even when it came without."""
    trt = installed.trt
    if not has(trt, "ICudaEngine.serialize_with_config"):
        return engine.serialize()
    options = engine.create_serialization_config()
    options.clear_flag(need(installed, "SerializationFlag.EXCLUDE_WEIGHTS", "engines with weights"))
    if has(trt, "SerializationFlag.INCLUDE_REFIT"):
        options.set_flag(need(installed, "SerializationFlag.INCLUDE_REFIT", "engines that can be refitted again"))
    return engine.serialize_with_config(options)


def onnx_refitter(installed: TensorRT, refitter: Any, logger: Any) -> Any | None:
    """What refits an engine from an ONNX file, or None where it has to be done by layer and role (8.6)."""
    if not has(installed.trt, "OnnxParserRefitter"):
        return None
    return need(installed, "OnnxParserRefitter", "refits from ONNX files")(refitter, logger)


def set_reproducible_flags(installed: TensorRT, config: Any, *, verify: bool) -> None:
    """Flags for a build whose choice of kernels is recorded, or must be the recorded one.

    Raises:
        EnvironmentLacks: this version has no editable timing caches.
    """
    what = "reproducible builds (editable timing caches)"
    config.set_flag(need(installed, "BuilderFlag.EDITABLE_TIMING_CACHE", what))
    config.set_flag(need(installed, "BuilderFlag.DISABLE_COMPILATION_CACHE", what))
    if verify:
        config.set_flag(need(installed, "BuilderFlag.ERROR_ON_TIMING_CACHE_MISS", what))


def tactics(installed: TensorRT, cache: Any) -> dict[str, str]:
    """What an editable timing cache chose: key of a problem to hash of its kernel."""
    assert has(installed.trt, "ITimingCache.queryKeys"), f"{installed.title} has no editable timing caches"
    return {str(key): str(cache.query(key).tacticHash) for key in cache.queryKeys()}


def replay_tactics(installed: TensorRT, cache: Any) -> dict[str, str]:
    """Pin the kernels that a cache chose, so that a build takes these and no others; returns them."""
    assert has(installed.trt, "ITimingCache.update"), f"{installed.title} has no editable timing caches"
    for key in cache.queryKeys():
        cache.update(key, cache.query(key))
    return tactics(installed, cache)


def make_builder(installed: TensorRT, logger: Any) -> Any | None:
    """A builder, or None when TensorRT can't reach the GPU; the logger has the reason."""
    try:
        return installed.trt.Builder(logger)
    except TypeError:
        # The bindings' way to say that the library gave no builder.
        return None
