"""Which names of TensorRT our sources use: read from the code, without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMPAT = "trt_builder/compat.py"

# What our variables hold, in the modules that talk to TensorRT. A variable of another name can't be checked, so a
# module that talks to TensorRT must use these.
VARIABLES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "layer": "ILayer",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
    "cache": "ITimingCache",
    "refitter": "Refitter",
    "severity": "ILogger.Severity",
    "error": "ParserError",
}
TALKING = (
    "shared/engines.py",
    "trt_builder/compat.py",
    "trt_builder/builder_config.py",
    "trt_builder/engine.py",
    "trt_builder/network.py",
    "trt_builder/timing_cache.py",
    "trt_builder/inspector.py",
    "trt_builder/messages.py",
    "trt_builder/session.py",
    "trt_builder/weights.py",
    "trt_builder/reproducible.py",
    "runtime/backends/tensorrt.py",
    "runtime/engine_times.py",
)
# Not part of the bindings' shared object: functions of the Python package around it, in every release.
_PYTHON_NAMES = {"nptype", "__version__"}
# Functions of compat that ask whether a name is there.
_GUARDS = {"has", "need", "_look_up"}


@dataclass(frozen=True)
class Use:
    """A name of TensorRT in a source file.

    Attributes:
        name: ``BuilderFlag.TF32``.
        place: file and line.
        guards: optional names whose presence the same function asks for.
        probed: names that the same function looks up with ``getattr(…, name, None)``.
    """

    name: str
    place: str
    guards: frozenset[str]
    probed: frozenset[str]


def sources() -> dict[str, str]:
    """The sources that may use TensorRT, by path relative to the repository."""
    paths = [*ROOT.glob("trt_builder/**/*.py"), *ROOT.glob("runtime/**/*.py"), ROOT / "shared" / "engines.py"]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sorted(paths)}


def uses(files: Mapping[str, str]) -> Iterator[Use]:
    """Every use of a TensorRT name in ``files`` (path to source)."""
    for path, source in files.items():
        tree = ast.parse(source)
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                name = _name_of(node, talking=path in TALKING)
                if name is not None:
                    inside = [function for function in functions if _holds(function, node)]
                    guards = frozenset[str]().union(*(_literals_asked_for(function) for function in inside))
                    probed = frozenset[str]().union(*(_probed(function) for function in inside))
                    yield Use(name, f"{path}:{node.lineno}", guards, probed)


def guarded_names(source: str) -> set[str]:
    """Every literal that a source asks `compat` for."""
    return _literals_asked_for(ast.parse(source))


def is_in(claim: str, version: tuple[int, ...]) -> bool:
    """Whether a release, as major and minor, is one that a claim of `compat.OPTIONAL` names (``8.6 to 10.x``)."""
    if claim == "10.x":
        return version[0] == 10
    if claim == "8.6 to 10.x":
        return version[0] <= 10
    return version >= tuple(int(part) for part in claim.removesuffix(" and newer").split("."))


def _name_of(node: ast.Attribute, *, talking: bool) -> str | None:
    parts = [node.attr]
    value = node.value
    while isinstance(value, ast.Attribute):
        if value.attr == "trt":
            return _clean(".".join(reversed(parts)))
        parts.append(value.attr)
        value = value.value
    if not isinstance(value, ast.Name):
        return None
    if value.id == "trt":
        return _clean(".".join(reversed(parts)))
    if talking and value.id in VARIABLES and len(parts) == 1:
        return f"{VARIABLES[value.id]}.{parts[0]}"
    return None


def _clean(name: str) -> str | None:
    parts = name.split(".")
    return None if parts[0] in _PYTHON_NAMES or parts[-1] == "__init__" else name


def _holds(function: ast.FunctionDef, node: ast.Attribute) -> bool:
    return function.lineno <= node.lineno <= (function.end_lineno or 0)


def _probed(function: ast.FunctionDef) -> set[str]:
    """Names that a function looks up with a default: ``getattr(engine, "name", None)``."""
    found = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr" and len(node.args) == 3:
            owner, name = node.args[:2]
            if isinstance(owner, ast.Name) and isinstance(name, ast.Constant):
                prefix = VARIABLES.get(owner.id, "")
                found.add(f"{prefix}.{name.value}" if prefix else str(name.value))
    return found


def _literals_asked_for(tree: ast.AST) -> set[str]:
    asked = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            if name in _GUARDS:
                asked |= {
                    argument.value
                    for argument in node.args
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str) and "." in argument.value
                }
    return asked


def problems(
    files: Mapping[str, str], optional: Mapping[str, str], releases: Mapping[str, Mapping[str, set[str]]]
) -> list[str]:
    """What in ``files`` would fail on some release.

    Args:
        files: path to source.
        optional: the table of names that not every release has.
        releases: release to class name to the names of its members.
    """

    def having(name: str) -> set[str]:
        owner, _, member = name.rpartition(".")
        return {release for release, names in releases.items() if member in names.get(owner, set())}

    found = []
    for use in uses(files):
        there = having(use.name)
        if there == set(releases):
            continue
        if any(having(name) | there == set(releases) for name in use.probed):
            # One of two names is in every release, and the function looks for the other first.
            continue
        missing = f"{use.place}: {use.name} is not in {', '.join(sorted(set(releases) - there))}"
        if not use.place.startswith(COMPAT):
            found.append(f"{missing}; ask compat for it")
        elif use.name not in optional:
            found.append(f"{missing}, and not in compat.OPTIONAL")
        elif not any(guard in optional and having(guard) <= there for guard in use.guards):
            found.append(f"{missing}, and the function does not ask whether it is there")
    return found
