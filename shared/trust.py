"""What may run: code that was made here, or by somebody whom the user trusts.

Loading a program or an engine runs what is in it, and a config names files to run. A stage that commits such records a
seal in the manifest: an HMAC by a key of this user that lies outside of every workspace. What comes from elsewhere has
no seal of ours until the user says ``--trust``, which seals what is in the workspace then.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from shared import provenance
from shared.errors import EnvironmentLacks, ManifestError
from shared.files import sha256_of_file, sha256_of_json
from shared.manifest import MANIFEST_NAME, Manifest, read_manifest, update_manifest
from shared.user_key import key_path, read_key, user_key

_log = logging.getLogger("trust")

#: Kinds of artifacts that run when they are loaded, or that TensorRT takes without a check (``tactics``).
CODE = ("engine", "program", "tactics")
_SUFFIXES = {".engine": "engine", ".pt2": "program"}
# Names of what has seals and is no artifact, whose path would be relative to the workspace.
_CONFIG = "/config"
_TRAINING_CONFIG = "/training-config"
_TITLES = {_CONFIG: "libraries that the config names", _TRAINING_CONFIG: "the training config that it names"}
# The stage that records the config.
_EXPORT = "export"
_MOST_BYTES_OF_TRAINING_CONFIG = 16 << 20
# Of as many users and machines is remembered that they trust a file.
_MOST_SEALS = 16
# Files by their sha256, in a process that works for a command and has no key: see `vouch_for`.
_vouched_for: set[str] = set()


class Code(NamedTuple):
    """Something in a workspace that runs.

    Attributes:
        name: path of the artifact; ``/config`` or ``/training-config``.
        kind: kind of the artifact; ``config`` or ``training-config``.
        sha256: of the artifact or training config, or of the config as JSON.
        stage: the stage that made it.
    """

    name: str
    kind: str
    sha256: str
    stage: str


def seal(manifest: Manifest, artifacts: Iterable[str] = (), *, config: bool = False) -> None:
    """Record that what this process made or was given may run here. Without a key it goes without, and says so.

    Args:
        manifest: to be changed.
        artifacts: paths of new artifacts; those that hold no code need no seal.
        config: the config too, and the training config that it names.
    """
    new = set(artifacts)
    made = [code for code in _artifacts(manifest) if code.name in new] + (_configs(manifest) if config else [])
    if not made:
        return
    try:
        key = user_key()
    except EnvironmentLacks as error:
        _log.warning("not sealed, so that loading it will need --trust: %s", error)
        return
    _add_seals(manifest, made, key)


def trust(work: Path) -> str:
    """Seal all code in the workspace ``work``, whoever made it.

    Returns:
        What may run from now on, in a line.

    Raises:
        ManifestError: there is no workspace.
        EnvironmentLacks: there is no key and none can be made, or the workspace can't be written.
    """
    read_manifest(work / MANIFEST_NAME)
    key = user_key()
    new: list[Code] = []

    def change(manifest: Manifest) -> None:
        new.extend(code for code in (*_artifacts(manifest), *_configs(manifest)) if not _is_sealed(manifest, code, key))
        _add_seals(manifest, new, key)

    manifest = update_manifest(work / MANIFEST_NAME, change)
    if not new:
        return f"{work}: nothing in it runs that is not trusted here already"
    return f"{work}: trusted from now on: {_described(manifest, new)}"


def require_artifact(work: Path, relative: str, kind: str | None) -> None:
    """Refuse an artifact that holds code and has no seal of ours.

    Args:
        work: the workspace.
        relative: path of the artifact.
        kind: what it is loaded as; None: what the manifest says, where nobody knows better.

    Raises:
        ManifestError: it holds code, and was neither made nor trusted here.
    """
    manifest = read_manifest(work / MANIFEST_NAME)
    record = manifest.artifacts[relative]
    kind = kind or record.kind
    if kind in CODE:
        _require(work, manifest, Code(relative, kind, record.sha256, record.stage))


def vouch_for(checked: Iterable[str]) -> None:
    """Let files run in this process that the command which started it, on another machine, has found sealed.

    Args:
        checked: sha256 of each; see `require_artifact`.
    """
    _vouched_for.update(checked)


def config_is_sealed(manifest: Manifest) -> bool:
    """Whether the config, and the training config where it is on this machine, were recorded or trusted here."""
    return all(_is_sealed_here(manifest, code) for code in _configs(manifest))


def require_plugins(work: Path, libraries: Iterable[Path]) -> None:
    """Refuse libraries that only the config of a workspace names: where it has no seal of ours, or they lie in it.

    Raises:
        ManifestError: the config was neither recorded nor trusted here, or what it names came with the workspace.
    """
    manifest = read_manifest(work / MANIFEST_NAME)
    for library in libraries:
        if library.resolve().is_relative_to(work.resolve()):
            raise ManifestError(
                "is a plugin library in the workspace, which may have come with it",
                where=str(library),
                hint=f"name it in the command: --set tensorrt.plugin_libraries='[{library}]'",
            )
        for code in _configs(manifest):
            if code.name == _CONFIG:
                _require(work, manifest, code, f"its config names {library}, which would be loaded")


def require_training_config(work: Path, path: Path) -> None:
    """Refuse to run the training config ``path`` that only the config of a workspace names.

    Raises:
        ManifestError: it is another file than the one that was exported or trusted here.
    """
    manifest = read_manifest(work / MANIFEST_NAME)
    sealed = [code.name for code in _configs(manifest) if _is_sealed_here(manifest, code)]
    if {_CONFIG, _TRAINING_CONFIG} - set(sealed):
        raise ManifestError(
            f"the training config {path} is not the one that was exported here, and would be run",
            where=str(work),
            hint=f"export again; or, if you trust its origin: {provenance.command_line()} --trust",
        )


def sealed(kind: str, sha256: str) -> str:
    """The seal of this user for a file that is no artifact; empty without a key."""
    try:
        return _seal(Code("", kind, sha256, ""), user_key())
    except EnvironmentLacks as error:
        _log.warning("not sealed, so that it will not be used again: %s", error)
        return ""


def is_sealed(kind: str, sha256: str, seal_there: str) -> bool:
    """Whether a file that is no artifact has the seal of this user."""
    try:
        path = key_path()
        return path.exists() and hmac.compare_digest(
            _seal(Code("", kind, sha256, ""), read_key(path)).encode(), seal_there.encode()
        )
    except EnvironmentLacks:
        return False


def seals_of(manifest: Manifest, *sources: Manifest) -> dict[str, list[str]]:
    """The seals that ``sources`` have on what is in ``manifest``, for which it was put together from them."""
    seals: dict[str, list[str]] = {}
    for source in sources:
        for name, theirs in source.seals.items():
            record = manifest.artifacts.get(name)
            same = manifest.config == source.config if record is None else record == source.artifacts.get(name)
            if same and (record is not None or name in _TITLES):
                seals[name] = list(dict.fromkeys([*seals.get(name, []), *theirs]))[-_MOST_SEALS:]
    return seals


def _require(work: Path, manifest: Manifest, code: Code, reason: str = "loading it runs code") -> None:
    if _is_sealed_here(manifest, code):
        return
    where = str(work) if code.name == _CONFIG else f"{work}/{code.name}"
    raise ManifestError(
        f"was not made here, and {reason} ({_described(manifest, [code])})",
        where=where,
        hint=f"if you trust its origin: {provenance.command_line()} --trust",
    )


def _artifacts(manifest: Manifest) -> list[Code]:
    """The artifacts that run: of whatever kind their stage says they are, a program is loaded as one."""
    kinds = {
        path: _SUFFIXES.get(PurePosixPath(path).suffix, record.kind) for path, record in manifest.artifacts.items()
    }
    return [
        Code(path, kinds[path], record.sha256, record.stage)
        for path, record in manifest.artifacts.items()
        if kinds[path] in CODE
    ]


def _configs(manifest: Manifest) -> list[Code]:
    """The config, and the training config that it names where that is on this machine."""
    if manifest.config is None:
        return []
    codes = [Code(_CONFIG, "config", sha256_of_json(manifest.config), _EXPORT)]
    model = manifest.config.get("model")
    named = model.get("config") if isinstance(model, dict) else None
    if isinstance(named, str):
        with contextlib.suppress(OSError, ValueError):  # elsewhere, or no path at all
            path = Path(named)
            if path.is_file() and path.stat().st_size <= _MOST_BYTES_OF_TRAINING_CONFIG:
                codes.append(Code(_TRAINING_CONFIG, "training-config", sha256_of_file(path), _EXPORT))
    return codes


def _described(manifest: Manifest, codes: Iterable[Code]) -> str:
    by_stage: dict[str, list[str]] = {}
    for code in codes:
        by_stage.setdefault(code.stage, []).append(_TITLES.get(code.name, code.name))
    parts = []
    for name, files in by_stage.items():
        stage = manifest.stages.get(name)
        origin = f"by {stage.tool} on {stage.host}, {stage.ended or stage.started}" if stage else "of unknown origin"
        parts.append(f"{', '.join(files)} {origin}")
    return "; ".join(parts)


# -- seals ------------------------------------------------------------------------------------------------------------


def _add_seals(manifest: Manifest, codes: Iterable[Code], key: bytes) -> None:
    known = {*manifest.artifacts, _CONFIG, _TRAINING_CONFIG}
    for name in manifest.seals.keys() - known:
        del manifest.seals[name]
    for code in codes:
        seals = [other for other in manifest.seals.get(code.name, []) if other != _seal(code, key)]
        manifest.seals[code.name] = [*seals, _seal(code, key)][-_MOST_SEALS:]


def _is_sealed_here(manifest: Manifest, code: Code) -> bool:
    if code.sha256 in _vouched_for:
        return True
    path = key_path()
    return path.exists() and _is_sealed(manifest, code, read_key(path))


def _is_sealed(manifest: Manifest, code: Code, key: bytes) -> bool:
    expected = _seal(code, key)
    return any(hmac.compare_digest(expected, other) for other in manifest.seals.get(code.name, []))


def _seal(code: Code, key: bytes) -> str:
    return hmac.new(key, f"awml-deploy\n{code.kind}\n{code.sha256}".encode(), hashlib.sha256).hexdigest()
