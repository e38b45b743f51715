"""Will an engine load here? Answered from its first bytes and the record beside it: no CUDA toolkit, no TensorRT.

Rules, from TensorRT's documentation: an engine loads with the very version that built it, on GPUs of the architecture
that it was built on. ``version_compatible`` engines also load with newer versions of the same major (and 10.x ones with
11.x), never with older ones; ``hardware_compatibility`` widens the GPUs. Engines of TensorRT for RTX know no other
version; they are finished on the GPU that loads them, which must be of compute capability 8.0, 8.6, 8.9, or 12.0 and
newer.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared import cuda
from shared.errors import InputError
from shared.json_reader import DATA_BYTES, read_json
from shared.plan import PlanHeader, flavor_of, read_header, version_mismatch
from trt_builder.compat import TITLES
from trt_builder.target import PORTABLE

# Distributions that carry TensorRT, newest naming first; the first that is installed counts.
_DISTRIBUTIONS = {
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu13-bindings", "tensorrt-cu12-bindings",
                 "tensorrt-bindings"),
    "rtx": ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx"),
}  # fmt: skip


# What an engine runs on that was built without naming a GPU (TensorRT for RTX's documentation, "CPU-only AOT").
_RTX_CAPABILITIES = (80, 86, 89)
_RTX_EVERY_ONE_FROM = 120


@dataclass(frozen=True)
class Machine:
    """A machine that an engine is to load on.

    Attributes:
        versions: ``tensorrt`` and ``rtx`` to the version that is installed; without those that are not.
        architecture: ``sm89``, or None without a GPU.
        gpu: its name, or None where it is not known.
    """

    versions: dict[str, str]
    architecture: str | None
    gpu: str | None


@dataclass(frozen=True)
class Verdict:
    """Whether an engine loads on a machine, and why.

    Attributes:
        loads: whether the engine will load.
        built: ``TensorRT 8.6.0 on sm90 (NVIDIA H200)``.
        here: the same of the machine.
        reasons: why it will not load.
        warnings: what to know although it loads.
        command: what builds one that loads; empty when nothing has to be, or can be here.
    """

    loads: bool
    built: str
    here: str
    reasons: list[str]
    warnings: list[str]
    command: str


def this_machine() -> Machine:
    """Versions and GPU of this machine; imports nothing but the driver's library."""
    versions = {}
    for flavor, names in _DISTRIBUTIONS.items():
        for name in names:
            try:
                versions[flavor] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
            break
    gpus = cuda.find_gpus()
    return Machine(versions, gpus[0].architecture if gpus else None, gpus[0].name if gpus else None)


def read_record(engine: Path) -> dict[str, Any] | None:
    """The record beside an engine, or None when it has none.

    Raises:
        InputError: it is there and can't be read.
    """
    path = engine.with_name(f"{engine.name}.json")
    if not path.is_file():
        return None
    value = read_json(path, most_bytes=DATA_BYTES)
    if not isinstance(value, dict) or not value.keys() >= {"tensorrt", "architecture", "bytes"}:
        raise InputError("is no record of an engine", where=str(path), hint="build the engine again")
    return value


def check(engine: Path, here: Machine, *, work: Path | None = None, known: dict[str, Any] | None = None) -> Verdict:
    """Whether an engine will load.

    Args:
        engine: the plan file; its record lies beside it as ``<name>.json``.
        here: where it is to load.
        work: the workspace it belongs to, for the command that fixes it.
        known: what the manifest says of it, for when the record is not there.

    Raises:
        InputError: not an engine, truncated, or not the one that the record describes.
    """
    header = read_header(engine)
    record = read_record(engine) or known
    size = engine.stat().st_size
    if record is not None and size != record["bytes"]:
        raise InputError(
            f"has {size} bytes, its record says {record['bytes']}: truncated or replaced",
            where=str(engine),
            hint=_command(header, work),
        )
    if record is None and header.length is not None and size < header.length:
        raise InputError(
            f"has {size} bytes, its header says {header.length}: truncated",
            where=str(engine),
            hint="copy or build it again",
        )
    verdict = judge(header, record, here, work=work)
    if record is None and header.length is None:
        verdict.warnings.append("its length is not known without the record: it may be cut short")
    return verdict


def judge(header: PlanHeader, record: dict[str, Any] | None, here: Machine, *, work: Path | None = None) -> Verdict:
    """Whether an engine that is whole will load.

    Args:
        header: what its first bytes say.
        record: its record, or None.
        here: where it is to load.
        work: the workspace it belongs to, for the command that fixes it.
    """
    of_hardware, warnings = _hardware_reasons(header, record, here)
    reasons = _version_reasons(header, record, here) + of_hardware
    # Building anew helps only where engines can be built: with TensorRT and a GPU.
    can_build = header.flavor in here.versions and here.architecture is not None
    return Verdict(
        loads=not reasons,
        built=_built(header, record),
        here=_describe_here(header, here),
        reasons=reasons,
        warnings=warnings,
        command=_command(header, work) if reasons and can_build else "",
    )


def judge_missing(record: dict[str, Any], here: Machine) -> Verdict:
    """Whether an engine of which only the record is left would load, were its file here."""
    # Where there is a record, its version counts: the header's has no room for all of it.
    return judge(PlanHeader(flavor_of(record), (0, 0, 0, 0)), record, here)


def _built_version(header: PlanHeader, record: dict[str, Any] | None) -> str:
    return str(record["tensorrt"]["version"]) if record else header.version_text


def _built(header: PlanHeader, record: dict[str, Any] | None) -> str:
    text = f"{TITLES[header.flavor]} {_built_version(header, record)}"
    if record is None:
        return f"{text} on an unknown GPU (no record beside it)"
    if record["architecture"] == PORTABLE:
        return f"{text} for any GPU that it runs on"
    name = f" ({record['gpu']['name']})" if record.get("gpu") else ""
    return f"{text} on {record['architecture']}{name}"


def _describe_here(header: PlanHeader, here: Machine) -> str:
    version = here.versions.get(header.flavor)
    text = f"{TITLES[header.flavor]} {version}" if version else f"no {TITLES[header.flavor]}"
    if here.architecture is None:
        return f"{text}, no GPU"
    return f"{text} on {here.architecture}" + (f" ({here.gpu})" if here.gpu else "")


def _version_reasons(header: PlanHeader, record: dict[str, Any] | None, here: Machine) -> list[str]:
    installed = here.versions.get(header.flavor)
    if installed is None:
        return [f"{TITLES[header.flavor]} is not installed here"]
    compatible = record is not None and bool(record.get("version_compatible"))
    reason = version_mismatch(_built_version(header, record), installed, version_compatible=compatible)
    return [] if reason is None else [reason]


def _hardware_reasons(header: PlanHeader, record: dict[str, Any] | None, here: Machine) -> tuple[list[str], list[str]]:
    if here.architecture is None:
        return ["there is no GPU here"], []
    have = int(here.architecture.removeprefix("sm"))
    if header.flavor == "rtx":
        runs = have in _RTX_CAPABILITIES or have >= _RTX_EVERY_ONE_FROM
        return ([] if runs else [f"TensorRT for RTX does not run on {here.architecture}"]), []
    if record is None:
        return [], ["no record beside the engine, so its GPU is not known"]
    built = str(record["architecture"])
    level = record.get("hardware_compatibility", "none")
    if built == here.architecture:
        name = (record.get("gpu") or {}).get("name")
        other = f"it was tuned on {name}, here is {here.gpu}: it may be slower than one built here"
        return [], ([other] if name and here.gpu and name != here.gpu else [])
    if level == "ampere_plus" and have >= 80:
        return [], []
    return [f"it was built on {built}, and the GPU here is {here.architecture}"], []


def _command(header: PlanHeader, work: Path | None) -> str:
    return f"trt_builder build --work {work or 'WORK'} --target {header.flavor} --force"
