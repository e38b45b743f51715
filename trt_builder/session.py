"""TensorRT made ready for the engines of one target: logger, plugins, builder, timing cache."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared import engines
from shared.config.tensorrt_section import TensorRT as Options
from shared.errors import BuildError, EnvironmentLacks, InputError
from shared.work_path import WorkPath
from trt_builder import compat, timing_cache
from trt_builder.messages import Messages, make_logger
from trt_builder.target import Target


@dataclass(frozen=True)
class Session:
    """What the engines of one target share: TensorRT takes one logger per process, and one builder is enough.

    Attributes:
        target: the TensorRT and GPU.
        options: section ``tensorrt`` of the config.
        plugins: path of each plugin library to its sha256.
        messages: what the logger collects.
        logger: TensorRT's logger.
        builder: TensorRT's builder.
        cache: the timing cache file; None where kernels are not timed.
    """

    target: Target
    options: Options
    plugins: Mapping[str, str]
    messages: Messages
    logger: Any
    builder: Any
    cache: WorkPath | None

    @property
    def trt(self) -> Any:
        """The TensorRT module."""
        return self.target.tensorrt.trt

    def load(self, plan: bytes, *, component: str) -> Any:
        """The engine of a plan that this session built, or that was built with the same options.

        Raises:
            BuildError: TensorRT refuses it.
        """
        runtime = self.trt.Runtime(self.logger)
        engine = engines.deserialize(runtime, plan, version_compatible=self.options.version_compatible)
        if engine is None:
            raise BuildError(f"TensorRT does not load the engine: {self.messages.last()}", where=component)
        return engine


def open_session(target: Target, options: Options, plugins: Mapping[str, str], folder: WorkPath) -> Session:
    """Start TensorRT and load plugins.

    Args:
        target: the TensorRT and GPU.
        options: section ``tensorrt`` of the config.
        plugins: path of each plugin library to its sha256.
        folder: where the timing cache is, ``tensorrt/`` of the workspace as a rule.

    Raises:
        EnvironmentLacks: TensorRT can't reach the GPU.
        InputError: a plugin library does not load.
    """
    messages = Messages()
    # Without a GPU no engine can be loaded, so the layers are read from what the builder logs.
    logger = make_logger(target.tensorrt.trt, messages, layers=target.gpu is None)
    _load_plugins(target.tensorrt, logger, plugins)
    builder = compat.make_builder(target.tensorrt, logger)
    if builder is None:
        raise EnvironmentLacks(
            f"{target.tensorrt.title} does not start: {messages.last()}",
            hint="trt_builder doctor shows driver and versions",
        )
    cache = timing_cache.cache_path(folder, target) if target.tensorrt.times_kernels else None
    return Session(target, options, plugins, messages, logger, builder, cache)


def _load_plugins(tensorrt: compat.TensorRT, logger: Any, libraries: Mapping[str, str]) -> None:
    """TensorRT's own plugins and the user's libraries."""
    for library in sorted(libraries):
        try:
            ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise InputError(
                f"this plugin library does not load ({error})",
                where=library,
                hint="it must be built for this TensorRT version and processor",
            ) from error
    compat.init_plugins(tensorrt, logger)
