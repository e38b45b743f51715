"""The workspace: the folder in which the tools meet."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from shared import onnx_graph
from shared.errors import ManifestError, ModelLoadError
from shared.files import explain_os_errors
from shared.locks import LOCKS
from shared.manifest import MANIFEST_NAME, Artifact, Manifest, read_manifest, update_manifest
from shared.onnx_external import external_files
from shared.spec import ModelSpec
from shared.stages import StageRun
from shared.staleness import command_here
from shared.work_path import WorkPath


class Workspace:
    """A workspace on disk. Holds no state but its root; the manifest is read again whenever the file has changed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @staticmethod
    def open(root: Path) -> Workspace:
        """The existing workspace at ``root``.

        Raises:
            ManifestError: there is none, or its manifest can't be read.
        """
        read_manifest(root / MANIFEST_NAME)
        return Workspace(root)

    @staticmethod
    def create(root: Path) -> Workspace:
        """The workspace at ``root``, made when it is not there yet.

        Raises:
            ManifestError: a manifest is there and can't be read.
            EnvironmentLacks: the folder can't be written.
        """
        with explain_os_errors(root):
            WorkPath(root, LOCKS).make_folder()
        if not (root / MANIFEST_NAME).exists():
            update_manifest(root / MANIFEST_NAME, lambda manifest: None)
        return Workspace.open(root)

    @staticmethod
    def root_of(path: Path) -> Path | None:
        """The folder of the workspace that a file lies in; None where it lies in none."""
        return next((folder for folder in path.resolve().parents if (folder / MANIFEST_NAME).is_file()), None)

    def manifest(self) -> Manifest:
        """The manifest as it is now. Not to be changed, see `shared.manifest.update_manifest`."""
        return read_manifest(self.root / MANIFEST_NAME)

    def path(self, relative: str) -> Path:
        """Where ``relative`` lies, to be read by its path; see `place` for everything else.

        Raises:
            ManifestError: the path leaves the workspace, or leads over a symbolic link.
        """
        return self.place(relative).checked()

    def place(self, relative: str) -> WorkPath:
        """The path ``relative`` of the workspace.

        Raises:
            ManifestError: it leaves the workspace.
        """
        return WorkPath(self.root, relative)

    def artifact(self, relative: str) -> Path:
        """The path of an artifact whose content is what the manifest says.

        Raises:
            ManifestError: not in the manifest, its stage did not finish, missing, or changed; says what rebuilds it.
        """
        manifest = self.manifest()
        record = self._record(manifest, relative)
        stage = manifest.stages.get(record.stage)
        path = self.path(relative)
        if stage is not None and stage.status != "done":
            reason = f" ({stage.reason}; mend that first)" if stage.reason else ""
            problem = f"stage '{record.stage}' that makes it is '{stage.status}', not 'done'{reason}"
        elif record.describes(path):
            return path
        elif path.is_file():
            problem = "differs from its hash in the manifest; not loaded"
        else:
            problem = "is in the manifest but not on disk"
        hint = f"run again: {_forced(stage.command, self.root)}" if stage else f"run stage '{record.stage}' again"
        if problem.endswith("not on disk"):
            hint = f"copy it here if another copy of the workspace has it, or {hint}"
        raise ManifestError(problem, where=f"{self.root}/{relative}", hint=hint)

    def onnx(self, relative: str) -> Path:
        """The path of an ONNX artifact, whose external data are artifacts as well: whoever loads it reads both.

        Raises:
            ManifestError: as `artifact`, of the file or of one that it names.
            ModelLoadError: not a whole ONNX file, or one that names others than artifacts.
        """
        path = self.artifact(relative)
        for artifact in self.external_data(relative).values():
            self.artifact(artifact)
        return path

    def external_data(self, relative: str) -> dict[str, str]:
        """Files that hold weights of an ONNX artifact: the artifact by its name in the ONNX file.

        Raises:
            ModelLoadError: not a whole ONNX file, or one of the files lies elsewhere or is not in the manifest.
        """
        artifacts = self.manifest().artifacts
        named = {}
        for name in external_files(self.path(relative)):
            named[name] = str(PurePosixPath(relative).parent / name)
            if ".." in name.split("/") or named[name] not in artifacts:
                raise ModelLoadError(
                    f"keeps weights in {name!r:.200}, which is not in the manifest; not loaded",
                    where=f"{self.root}/{relative}",
                    hint="export it again: files of the exporter are whole",
                )
        return named

    def result(self, kind: str, name: str, *, lists: Sequence[str]) -> dict[str, Any]:
        """A result that a stage recorded in the manifest.

        Args:
            kind, name: of the result.
            lists: keys whose values are lists.

        Raises:
            ManifestError: it is not there, or lacks one of ``lists``.
        """
        result = self.manifest().results.get(kind, {}).get(name, {})
        for key in lists:
            if not isinstance(result.get(key), list):
                raise ManifestError(
                    f"results.{kind}.{name}.{key} is missing",
                    where=str(self.root / MANIFEST_NAME),
                    hint="it was edited by hand: run the stage again, with --force",
                )
        return result

    def spec(self) -> ModelSpec:
        """The model spec.

        Raises:
            ManifestError: no model was exported here yet.
        """
        spec = self.manifest().spec
        if spec is None:
            raise ManifestError(
                "no model here yet", where=str(self.root), hint="export one: exporter export --config … --work …"
            )
        return spec

    def config(self) -> dict[str, Any]:
        """The resolved deploy config that the export recorded, as JSON.

        Raises:
            ManifestError: nothing was exported here yet.
        """
        config = self.manifest().config
        if config is None:
            raise ManifestError(
                "no config here yet", where=str(self.root), hint="export a model: exporter export --config … --work …"
            )
        return config

    def input_hash(self, relative: str) -> str:
        """Sha256 of an artifact as the manifest has it, for the key of a stage that uses it.

        Raises:
            ManifestError: not in the manifest.
        """
        return self._record(self.manifest(), relative).sha256

    def onnx_hash(self, relative: str) -> str:
        """Sha256 of what an ONNX artifact holds as the manifest has it, external data included.

        Raises:
            ManifestError: not in the manifest.
            ModelLoadError: as `external_data`.
        """
        beside = self.external_data(relative)
        return onnx_graph.content_hash(
            self.input_hash(relative), {name: self.input_hash(artifact) for name, artifact in beside.items()}
        )

    def _record(self, manifest: Manifest, relative: str) -> Artifact:
        if relative not in manifest.artifacts:
            hint = "run the stage that makes it first"
            raise ManifestError("not in the manifest", where=f"{self.root}/{relative}", hint=hint)
        return manifest.artifacts[relative]

    def stage(
        self,
        name: str,
        *,
        tool: str,
        config: dict[str, Any] | None = None,
        inputs: dict[str, str] | None = None,
        versions: dict[str, str] | None = None,
    ) -> StageRun:
        """A stage of this workspace, not begun yet.

        Args:
            name: name of the stage, for example ``export`` or ``run:onnx-cpu``.
            tool: the tool, and the package whose code the result depends on.
            config: the part of the config and command line that the result depends on, as JSON.
            inputs: sha256 of what it reads, by a name of the caller's choice.
            versions: versions of the packages that matter.
        """
        key = {"config": config or {}, "inputs": inputs or {}, "versions": versions or {}}
        return StageRun(self.root, name, tool, key)


def _forced(command: str, root: Path) -> str:
    """The command with ``--force``, once, for the workspace where it is now."""
    here = command_here(command, root)
    return here if "--force" in shlex.split(here) else f"{here} --force"
