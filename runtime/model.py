"""A model of a workspace, ready to run: what `run` and `bench` have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy.typing as npt

from runtime.backends import Compilable, Session, Tensors, artifact_kind, backend
from runtime.cuda.session import DeviceSession
from runtime.devices import Device, parse_device
from runtime.pipeline import Pipeline, build_pipeline
from shared import cuda, plugins
from shared.added import added_versions, data_members
from shared.config import from_resolved
from shared.data import open_dataset
from shared.data.types import Dataset
from shared.errors import InputError, UsageError
from shared.files import sha256_of_json
from shared.openmp import threads_for_images
from shared.provenance import package_versions
from shared.runs import RunHeader
from shared.spec import ModelSpec
from shared.stages import StageRun
from shared.trust import require_artifact
from shared.workspace import Workspace

if TYPE_CHECKING:
    from shared.config import DeployConfig
    from shared.config.model_sections import Data


class ModelOptions(TypedDict, total=False):
    """How a model is run, as the commands take it and hand it on to `open_model`."""

    data_root: Path | None
    threads: int | None
    target: str | None
    steps: str
    compiled: bool
    in_flight: int | None


@dataclass(frozen=True)
class Model:
    """What is to be run on what: names and hashes, nothing loaded yet.

    Attributes:
        workspace: where it lies.
        spec: the model.
        config: the deploy config that the export recorded.
        backend: name of the backend.
        device: where it runs.
        threads: threads within an operation, None for the backend's default.
        open_dataset: opens the samples.
        target: set of engines, None for the one that fits; the TensorRT backend has such.
        steps: where the pipeline's own steps run: ``auto``, the GPU where the backend and the pipeline can;
            ``engines``, likewise, and no kernel takes a component's place; or ``numpy``.
        compiled: components are compiled for this machine; PyTorch can.
        data_root: where the data set lies, when not where the config says.
        in_flight: requests that are under way at a time; None: several in a long run, where the backend takes them.
    """

    workspace: Workspace
    spec: ModelSpec
    config: DeployConfig
    backend: str
    device: Device
    threads: int | None
    open_dataset: Callable[[], Dataset[Any]]
    target: str | None = None
    steps: str = "auto"
    compiled: bool = False
    data_root: Path | None = None
    in_flight: int | None = None

    @cached_property
    def dataset(self) -> Dataset[Any]:
        """The samples, opened when they are first asked for: arrays of one's own need none.

        Raises:
            InputError: the data set can't be opened, or is empty.
        """
        return self.open_dataset()

    @property
    def name(self) -> str:
        """Name of a run of it, and of the run's folder: ``onnx-cpu``, ``onnx-cuda0``, ``tensorrt-cuda0-<target>``."""
        name = f"{self.backend}-{str(self.device).replace(':', '')}"
        return name if self.target is None else f"{name}-{self.target}"

    def inputs(self) -> dict[str, str]:
        """Hashes of everything that the results depend on, for the key of a stage."""
        artifacts = backend(self.backend).artifacts(self.workspace, self.spec, self.target)
        return {
            **{path: self.workspace.input_hash(path) for path in artifacts.values()},
            "spec": sha256_of_json(self.spec.model_dump(mode="json")),
            "dataset": self.dataset.digest(),
        }

    def versions(self) -> dict[str, str]:
        """Versions of the packages that the results depend on, those included that add something to this model."""
        members = [
            (plugins.PIPELINES, self.spec.model),
            (plugins.BACKENDS, self.backend),
            (plugins.TASKS, self.spec.task),
            *data_members(self.config.data),
        ]
        return {**package_versions(backend(self.backend).PACKAGES), **added_versions(members)}

    def require_trusted(self) -> dict[str, str]:
        """See that what is loaded may run here; sha256 of each file by its path in the workspace.

        Raises:
            ManifestError: a file holds code, was not made here, and is not trusted.
        """
        module = backend(self.backend)
        artifacts = module.artifacts(self.workspace, self.spec, self.target)
        for path in artifacts.values():
            require_artifact(self.workspace.root, path, artifact_kind(module))
        return {path: self.workspace.input_hash(path) for path in artifacts.values()}

    def lacking(self) -> str | None:
        """What is missing here to run it, in one line; None: nothing that can be told beforehand."""
        if not self.device.is_cpu and self.device.index >= len(cuda.find_gpus()):
            return f"there is no GPU '{self.device}' here"
        # Some are alternatives, as onnxruntime and onnxruntime-gpu are; every tool has NumPy.
        packages = [name for name in backend(self.backend).PACKAGES if name != "numpy"]
        if packages and not set(package_versions(packages)).intersection(packages):
            return f"Python package '{packages[0]}' is missing"
        try:
            backend(self.backend).artifacts(self.workspace, self.spec, self.target)
        except InputError as error:
            return error.message
        return None

    def load(self) -> tuple[Session, Pipeline]:
        """The session of the backend, and the pipeline on it.

        Raises:
            ManifestError: a file differs from its hash in the manifest, was not made here and is not trusted, or the
                spec is not one for the pipeline.
            EnvironmentLacks: package or device missing.
            ModelLoadError: a file can't be loaded.
            UsageError: it is to be compiled, and the backend does not compile.
        """
        module = backend(self.backend)
        artifacts = module.artifacts(self.workspace, self.spec, self.target)
        checked = self.workspace.onnx if artifact_kind(module) == "onnx" else self.workspace.artifact
        files: dict[str, Path] = {component: checked(path) for component, path in artifacts.items()}
        self.require_trusted()
        threads_for_images(self.threads)
        session = module.load(files, self.spec, self.device, self.threads)
        if self.compiled:
            if not isinstance(session, Compilable):
                raise UsageError("--compile", hint=f"{self.backend} does not compile; --backend pytorch does")
            session.compile()
        if self.steps == "numpy":
            session = HostOnly(session)
        if self.steps == "engines":
            if not isinstance(session, DeviceSession):
                raise UsageError(
                    "--steps engines", hint="only on a GPU do kernels take a component's place; leave it out"
                )
            session = session.as_built()
        return session, build_pipeline(self.spec, session)

    def stage(self, kind: str, settings: Mapping[str, Any], inputs: Mapping[str, str] | None = None) -> StageRun:
        """The stage ``<kind>:<name of the run>``.

        Args:
            kind: what is done with the model.
            settings: beside how it is run, for the key.
            inputs: hashes of what is read beside the model and its data.
        """
        config: dict[str, Any] = {"backend": self.backend, "device": str(self.device), "threads": self.threads}
        if self.steps != "auto":
            config["steps"] = self.steps
        if self.compiled:
            config["compile"] = True
        if self.in_flight is not None:
            config["in_flight"] = self.in_flight
        return self.workspace.stage(
            f"{kind}:{self.name}",
            tool="runtime",
            config={**config, **settings},
            inputs={**self.inputs(), **(inputs or {})},
            versions=self.versions(),
        )

    def header(
        self, samples: range, fingerprint: str, details: dict[str, Any], raw_samples: Sequence[int] = ()
    ) -> RunHeader:
        """The header of what a stage with this fingerprint records of ``samples``, positions in the data set."""
        return RunHeader(
            backend=self.backend,
            device=str(self.device),
            model=self.spec.model,
            task=self.spec.task,
            classes=list(self.spec.classes),
            dataset=self.dataset.digest(),
            tokens=[self.dataset.sample(index).token for index in samples],
            raw_samples=list(raw_samples),
            fingerprint=fingerprint,
            details=details,
        )


class HostOnly:
    """A session without its device memory: pipelines run their steps in NumPy on it."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def settings(self) -> dict[str, Any]:
        """See `Session`."""
        return {**self._session.settings, "steps": "numpy"}

    def run(self, component: str, inputs: Tensors) -> dict[str, npt.NDArray[Any]]:
        """See `Session`."""
        return self._session.run(component, inputs)


def open_model(
    work: Path,
    backend_name: str,
    device: str,
    data_root: Path | None = None,
    threads: int | None = None,
    *,
    target: str | None = None,
    steps: str = "auto",
    compiled: bool = False,
    in_flight: int | None = None,
) -> Model:
    """The model of a workspace, on a backend and a device. Nothing is loaded, and no data set opened.

    Args:
        work: the workspace.
        backend_name: name of the backend.
        device: cpu, cuda, cuda:N, or an alias of the config.
        data_root: where the data set lies, when not where the config says.
        threads, target, steps, compiled, in_flight: see `Model`.

    Raises:
        UsageError: no such backend or device.
        ManifestError: nothing was exported to the workspace.
    """
    backend(backend_name)
    workspace = Workspace.open(work)
    spec = workspace.spec()
    config = from_resolved(workspace.config(), where=str(work))
    parsed = parse_device(device, config.devices)
    return Model(
        *(workspace, spec, config, backend_name, parsed, threads, partial(_samples, config.data, data_root, spec.task)),
        target=target,
        steps=steps,
        compiled=compiled,
        data_root=data_root,
        in_flight=in_flight,
    )


def _samples(data: Data, root: Path | None, task: str) -> Dataset[Any]:
    dataset = open_dataset(data, root=root, task=task)
    if len(dataset) == 0:
        raise InputError("the data set has no samples", where=dataset.name, hint="check data.info_file of the config")
    return dataset
