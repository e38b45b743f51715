"""The same engine twice: a build whose choice of kernels is recorded, and later builds that must choose the same.

``record`` keeps the timing cache of one build, in an editable form, beside the engine. ``verify`` builds from it alone:
nothing is timed, a kernel that the cache does not name is an error, and afterwards the choices are compared one by one
(11.0 was seen to time kernels in spite of the flag). Needs editable timing caches: TensorRT 10.9 and newer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from shared.errors import BuildError
from trt_builder import compat
from trt_builder.compat import TensorRT

Mode = Literal["record", "verify"]

# So many differing choices are named in an error.
_NAMED = 3


def prepare(tensorrt: TensorRT, config: Any, mode: Mode, recorded: bytes) -> tuple[Any, dict[str, str]]:
    """Set a build up, before it runs.

    Args:
        tensorrt: the TensorRT.
        config: builder config; changed.
        mode: what to do.
        recorded: the cache of the recorded build; empty to record one.

    Returns:
        The cache, which must live as long as the build, and the recorded choices.

    Raises:
        EnvironmentLacks: this TensorRT has no editable timing caches.
        BuildError: TensorRT does not take the recorded cache.
    """
    compat.set_reproducible_flags(tensorrt, config, verify=mode == "verify")
    cache = config.create_timing_cache(recorded)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise BuildError(
            "TensorRT does not take the recorded choice of kernels",
            hint="it is of another version or GPU; record it again: trt_builder build --reproducible record",
        )
    return cache, compat.replay_tactics(tensorrt, cache) if mode == "verify" else {}


def compare(tensorrt: TensorRT, config: Any, before: Mapping[str, str], *, component: str) -> None:
    """Whether a verified build chose the recorded kernels and no others.

    Raises:
        BuildError: it did not; says which choices were added, removed, changed.
    """
    after = compat.tactics(tensorrt, config.get_timing_cache())
    differences = [f"added {key}" for key in sorted(after.keys() - before.keys())]
    differences += [f"removed {key}" for key in sorted(before.keys() - after.keys())]
    differences += [
        f"changed {key}: {before[key]} -> {after[key]}"
        for key in sorted(after.keys() & before.keys())
        if before[key] != after[key]
    ]
    if differences:
        raise BuildError(
            f"the build chose other kernels than the recorded one, {len(differences)} of {len(before)}: "
            + "; ".join(differences[:_NAMED]),
            where=component,
            hint="record it again: trt_builder build --reproducible record --force",
        )
