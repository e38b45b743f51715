"""TensorRT made ready for the engines of one target: logger, plugins, builder, timing cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.errors import EnvironmentLacks
from trt_builder import compat, engine, timing_cache
from trt_builder.messages import Messages, make_logger
from trt_builder.settings import Options
from trt_builder.target import Target


@dataclass(frozen=True)
class Session:
    """What the engines of one target share: TensorRT takes one logger per process, and one builder will do."""

    target: Target
    options: Options
    messages: Messages
    logger: Any
    builder: Any
    cache: Path | None


def open_session(target: Target, options: Options, folder: Path) -> Session:
    """Start TensorRT.

    Args:
        target: the TensorRT and GPU.
        options: the plugins to load are in them.
        folder: ``tensorrt/`` of the workspace, where the timing cache is.

    Raises:
        EnvironmentLacks: TensorRT can't reach the GPU.
        InputError: a plugin library does not load.
    """
    messages = Messages()
    # Without a GPU no engine can be loaded, so the layers are read from what the builder logs.
    logger = make_logger(target.tensorrt.trt, messages, layers=target.gpu is None)
    engine.load_plugins(target.tensorrt, logger, sorted(options.plugins))
    builder = compat.make_builder(target.tensorrt, logger)
    if builder is None:
        raise EnvironmentLacks(
            f"{target.tensorrt.title} does not start: {' '.join(messages.problems()[-1:])}",
            hint="trt_builder doctor shows driver and versions",
        )
    cache = timing_cache.cache_path(folder, target) if target.tensorrt.times_kernels else None
    return Session(target, options, messages, logger, builder, cache)
