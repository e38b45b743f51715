"""The timing cache: what TensorRT measured about kernels, shared by all builds in a workspace.

One file per TensorRT version and GPU, since a cache is worth nothing elsewhere. Builds read it at their start; at their
end they lock, read again, combine, and replace it, so that two builds at once lose nothing. A line in front of
TensorRT's bytes holds their seal by the user's key: a cache that is corrupt or somebody else's is dropped, never given
to TensorRT, which trusts what is in it.
"""

from __future__ import annotations

import hashlib
import logging
import re
from typing import Any

from shared.errors import EnvironmentLacks, ManifestError
from shared.files import write_bytes
from shared.locks import Lock
from shared.trust import is_sealed, sealed
from shared.work_path import WorkPath
from trt_builder.target import Target

_log = logging.getLogger("timing cache")

_KIND = "timing-cache"
_TITLE = b"awml-deploy timing cache 2 seal "


def cache_path(folder: WorkPath, target: Target) -> WorkPath:
    """The cache file for a target.

    Args:
        folder: ``tensorrt/`` of the workspace.
        target: its TensorRT and GPU; kernels' times depend on both.
    """
    gpu = target.gpu
    hardware = f"{gpu.architecture}-{gpu.multiprocessors}sm-{gpu.name}" if gpu else target.architecture
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{target.tensorrt.version}-{hardware}").strip("-").lower()
    return folder / f"timing/{name}.cache"


def read(path: WorkPath) -> bytes:
    """TensorRT's bytes in a cache file; none when it is not there, corrupt, or of somebody else."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return b""
    except (OSError, ManifestError) as reason:
        _log.warning("%s can't be read (%s); starting anew", path, reason)
        return b""
    line, _, payload = content.partition(b"\n")
    if not is_sealed(_KIND, hashlib.sha256(payload).hexdigest(), line.removeprefix(_TITLE).decode("ascii", "replace")):
        _log.warning("%s was not made here, or is corrupt; starting anew", path)
        return b""
    return payload


def write(path: WorkPath, payload: bytes) -> None:
    """Replace a cache file, whole or not at all."""
    write_bytes(path, _TITLE + sealed(_KIND, hashlib.sha256(payload).hexdigest()).encode() + b"\n" + payload)


def use(config: Any, payload: bytes) -> Any:
    """Give a build the cache; returns it, and it must live as long as the build.

    Args:
        config: TensorRT's builder config.
        payload: what `read` gave.
    """
    cache = config.create_timing_cache(payload)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        _log.warning("TensorRT does not take the timing cache; starting anew")
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def save(path: WorkPath, config: Any) -> None:
    """Add what a build measured to the cache file. Where that fails, the next build takes longer; this one is done.

    Args:
        path: the cache file.
        config: TensorRT's builder config after the build.
    """
    try:
        with Lock(path.parent / f"{path.name.removesuffix('.cache')}.lock"):
            cache = config.get_timing_cache()
            others = read(path)
            if others:
                # Where both have measured the same kernel, either is right; ours is the newer one.
                newest = config.create_timing_cache(others)
                if newest is not None:
                    cache.combine(newest, ignore_mismatch=False)
            write(path, bytes(cache.serialize()))
    except (OSError, EnvironmentLacks) as error:
        _log.warning("kernel timings are not kept: %s", error)
