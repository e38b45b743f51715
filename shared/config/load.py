"""Loads a `DeployConfig` from a file and overrides, and gives the forms of it that manifests and fingerprints hold."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from shared import plugins
from shared.config.members import RECORDED
from shared.config.problems import as_error, explain, place, unknown_key, value_text
from shared.config.schema import DeployConfig
from shared.config.section import ConfigPath, PathField
from shared.config.walk import KeyPath, field_types, key_text, map_items, shape_of, type_at
from shared.config.yaml_tree import Tree, line_of, parse_yaml, read_yaml
from shared.errors import ConfigError, ManifestError
from shared.text import check_text

log = logging.getLogger(__name__)

_KEY = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$(\{?)")


def load_config(path: Path, overrides: Sequence[str] = ()) -> DeployConfig:
    """Read and validate a deploy config.

    Args:
        path: YAML, an AWML deploy config in Python (``.py``, read without being executed), or the name of a config that
            another package brings.
        overrides: ``key.path=value`` each, the value as YAML; later ones win. Paths in them are relative to the current
            directory, those in the file to the file's folder.

    Raises:
        ConfigError: every problem on a line of its own: file, line, key, value, and what would be right.
        EnvironmentLacks: the package that brings the config can't be imported.
    """
    path = _of_a_package(path)
    if path.suffix == ".py":
        from shared.config.awml import NAME_THE_MODEL, read_awml

        converted = read_awml(path, _model_type_in(overrides))
        if "type" not in converted.value.get("model", {}):
            raise ConfigError("does not say which model it is for", where=str(path), hint=NAME_THE_MODEL)
        for note in converted.notes:
            log.log(logging.WARNING if note.changed else logging.INFO, "%s", note)
        tree = Tree(converted.value, converted.lines)
    else:
        tree = read_yaml(path)
    return build(tree, path, overrides)


def _of_a_package(path: Path) -> Path:
    """The file of the config that a package brings, where ``path`` is its name; else ``path``.

    Raises:
        ConfigError: a lone word that is neither a file nor the name of a config.
        EnvironmentLacks: the package can't be imported.
    """
    if path.suffix or len(path.parts) != 1 or path.exists():
        return path
    found = plugins.file_of(plugins.CONFIGS, path.name)
    if found is None:
        known = ", ".join(plugins.available(plugins.CONFIGS)) or "none"
        raise ConfigError(
            "is neither a file nor a config of an installed package",
            where=str(path),
            hint=f"configs of packages: {known}",
        )
    return found


def build(tree: Tree, path: Path, overrides: Sequence[str] = ()) -> DeployConfig:
    """Validate a document that has been read.

    Raises:
        ConfigError: as `load_config`.
    """
    problems: list[tuple[str, str]] = []
    sources: dict[KeyPath, str] = {}
    expand = _absolute_from(path.absolute().parent, problems, lambda keys: _where(keys, path, tree, {}))
    value = _with_paths(tree.value, DeployConfig, expand, ())
    for override in overrides:
        value = _apply(value, override, sources, problems)
    try:
        check_text(value)
    except ValueError as error:
        problems.append((str(path), str(error)))
        raise as_error(problems) from error
    try:
        config = DeployConfig.model_validate(value)
    except ValidationError as error:
        problems += [(_where(keys, path, tree, sources), text) for keys, text in explain(error)]
        raise as_error(problems) from error
    if problems:
        raise as_error(problems)
    return config


def resolved(config: DeployConfig) -> dict[str, Any]:
    """The config as JSON, defaults filled in and paths absolute: what the manifest records."""
    return config.model_dump(mode="json")


def from_resolved(value: Mapping[str, Any], where: str) -> DeployConfig:
    """The config that a manifest holds.

    Args:
        value: what `resolved` gave.
        where: the manifest, for the error.

    Raises:
        ManifestError: it does not fit this version's config.
    """
    try:
        return DeployConfig.model_validate(dict(value), context=RECORDED)
    except ValidationError as error:
        keys, text = explain(error)[0]
        raise ManifestError(
            f"its config does not fit this version: {key_text(keys)} {text}",
            where=where,
            hint="export again with this version: exporter export --force",
        ) from error


def part(config: DeployConfig, *sections: str) -> dict[str, Any]:
    """The named sections as JSON without paths, for a stage's fingerprint.

    The files behind a path enter a fingerprint by their hash, so moving a workspace or a data set does not change it.
    """
    dumped = resolved(config)
    return {name: _without_paths(dumped[name], field_types(DeployConfig)[name]) for name in sections}


def _without_paths(value: Any, annotation: Any) -> Any:
    section = shape_of(annotation).section
    if section is not None and isinstance(value, dict):
        value = {key: item for key, item in value.items() if not _holds_only_paths(field_types(section).get(key))}
    return map_items(value, annotation, lambda _, item, kind: _without_paths(item, kind))


def _holds_only_paths(annotation: Any) -> bool:
    shape = shape_of(annotation)
    return shape.kind == "path" or (shape.kind == "sequence" and shape_of(shape.item).kind == "path")


def _with_paths(value: Any, annotation: Any, expand: Callable[[str, PathField, KeyPath], str], keys: KeyPath) -> Any:
    """A copy of ``value``, found at key path ``keys``, with its paths expanded."""
    path = shape_of(annotation).path
    if path is not None and isinstance(value, str):
        return expand(value, path, keys)
    return map_items(value, annotation, lambda key, item, kind: _with_paths(item, kind, expand, (*keys, key)))


def _absolute_from(
    base: Path, problems: list[tuple[str, str]], where: Callable[[KeyPath], str]
) -> Callable[[str, PathField, KeyPath], str]:
    """Expands paths and makes them absolute from ``base``; what can't be expanded goes to ``problems``."""

    def expand(text: str, field: PathField, keys: KeyPath) -> str:
        try:
            return expand_path(text, field, base)
        except ConfigError as error:
            problems.append((where(keys), str(error)))
            return text

    return expand


def expand_path(text: str, field: PathField, base: Path) -> str:
    """A config path with its variables and ``~`` expanded, absolute unless it is relative to ``data.root``.

    Args:
        text: as written in the config; ``${NAME}`` is an environment variable, ``~`` the home folder.
        field: what it is relative to.
        base: folder that a relative path starts from.

    Raises:
        ConfigError: a variable that is not set, or a lone ``$``.
    """

    def variable(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            raise ConfigError(f"is {value_text(text)}; write an environment variable as ${{NAME}}")
        if name not in os.environ:
            raise ConfigError(
                f"is {value_text(text)}, but the environment variable {name} is not set; set it (export {name}=...), "
                "or write the path itself"
            )
        return os.environ[name]

    expanded = Path(_VARIABLE.sub(variable, text)).expanduser()
    if field.relative_to == "data":
        return str(expanded)
    return os.path.normpath(base / expanded)


def _where(keys: KeyPath, path: Path, tree: Tree, sources: dict[KeyPath, str]) -> str:
    """File, line and key of a problem, or the override that it came from."""
    for length in range(len(keys), 0, -1):
        if keys[:length] in sources:
            return f"{sources[keys[:length]]}: {key_text(keys)}"
    return place(path, line_of(tree.lines, keys), keys)


def split_key(text: str) -> KeyPath:
    """``a.b[0].c`` as ``("a", "b", 0, "c")``; empty when it is not a key path."""
    keys: list[str | int] = []
    position = 0
    while position < len(text):
        if keys and text[position] == ".":
            position += 1
        match = _KEY.match(text, position)
        if match is None or (match[2] is not None and not keys):
            return ()
        keys.append(match[1] if match[1] is not None else int(match[2]))
        position = match.end()
    return tuple(keys)


def _model_type_in(overrides: Sequence[str]) -> str | None:
    """The model type that overrides set, where AWML's file need not say it."""
    given = dict(override.split("=", 1) for override in overrides if "=" in override)
    return given.get("model.type")


def _apply(value: Any, override: str, sources: dict[KeyPath, str], problems: list[tuple[str, str]]) -> Any:
    """``value`` with one override set; what is wrong with the override goes to ``problems``."""
    name, separator, text = override.partition("=")
    source = f"--set {override}"
    keys = split_key(name.strip())
    if not separator or not keys:
        problems.append((source, "should be KEY=VALUE, for example --set export.mode=onnx"))
        return value
    for length in range(1, len(keys) + 1):
        if type_at(DeployConfig, keys[:length]) is None:
            problems.append((f"{source}: {key_text(keys[:length])}", unknown_key(keys[:length])))
            return value
    annotation = type_at(DeployConfig, keys)
    try:
        new = parse_yaml(text, source).value
    except ConfigError as error:
        problems.append((source, f"the value is not valid YAML ({error.message})"))
        return value
    shape = shape_of(annotation)
    if shape.path is not None and isinstance(new, (int, float)):
        new = text.strip()
    # On the command line every path starts from the current directory, even one that a file gives relative to
    # data.root.
    expand = _absolute_from(Path.cwd(), problems, lambda keys: place(source, None, keys))
    new = _with_paths(new, ConfigPath if shape.path is not None else annotation, expand, keys)
    try:
        changed = _with(value, keys, new)
    except ConfigError as error:
        problems.append((source, error.message))
        return value
    sources[keys] = source
    return changed


def _with(value: Any, keys: KeyPath, new: Any) -> Any:
    """A copy of ``value`` with ``new`` under ``keys``; missing mappings on the way are created.

    Raises:
        ConfigError: a position in a list that the file does not have.
    """
    if not keys:
        return new
    key, rest = keys[0], keys[1:]
    if isinstance(key, int) and not isinstance(value, dict):
        entries = list(value) if isinstance(value, (list, tuple)) else []
        if key >= len(entries):
            raise ConfigError(f"there is no entry [{key}]; the file has {len(entries)} entries")
        return [_with(item, rest, new) if at == key else item for at, item in enumerate(entries)]
    inner = value if isinstance(value, dict) else {}
    return {**inner, key: _with(inner.get(key), rest, new)}
