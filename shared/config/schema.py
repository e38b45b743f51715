"""The deploy config as a whole, and the checks that need more than one section."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from shared import tasks
from shared.config.check_sections import BACKEND, Evaluation, Verification
from shared.config.gates_section import Gates
from shared.config.members import RECORDED
from shared.config.model_sections import Component, Data, Export, Model, TaskType
from shared.config.quantization_section import Quantization
from shared.config.section import DEVICE_PATTERN, Device, Name, Section
from shared.config.tensorrt_section import TensorRT
from shared.config.walk import KeyPath

Problem = tuple[KeyPath, Any, str]


class DeployConfig(Section):
    """Everything that the five tools need to know about one deployment."""

    task_type: TaskType = Field(
        default=tasks.DEFAULT,
        description="What the model does, which decides the metrics. Of a model of several tasks, their names with a "
        "plus between.",
    )
    model: Model = Field(description="The trained model.")
    devices: dict[Name, Device] = Field(
        default_factory=lambda: {"cpu": "cpu", "cuda": "cuda:0"},
        description="Aliases for devices, used by scenarios and backends: name to cpu, cuda or cuda:N.",
    )
    data: Data = Field(default=Data(), description="The data set.")
    export: Export = Field(default=Export(), description="PyTorch to ONNX.")
    components: dict[Name, Component] = Field(
        default_factory=dict, description="Component name to the settings that differ from the model's own."
    )
    tensorrt: TensorRT = Field(default=TensorRT(), description="ONNX to TensorRT engines.")
    verification: Verification = Field(default=Verification(), description="Numerical comparison of the backends.")
    evaluation: Evaluation = Field(default=Evaluation(), description="Metrics and latency.")
    gates: Gates = Field(default=Gates(), description="What `evaluator regress` calls a regression.")
    quantization: Quantization = Field(default=Quantization(), description="INT8.")

    @field_validator("components", mode="after")
    @classmethod
    def _name_the_files(cls, components: dict[str, Component]) -> dict[str, Component]:
        return {
            name: component.model_copy(
                update={
                    "onnx_file": component.onnx_file or f"{name}.onnx",
                    "engine_file": component.engine_file or f"{name}.engine",
                }
            )
            for name, component in components.items()
        }

    @model_validator(mode="after")
    def _fits_together(self, info: ValidationInfo) -> DeployConfig:
        problems = list(_cross_checks(self))
        if info.context != RECORDED:
            problems += _unknown_backends(self)
        if problems:
            raise PydanticCustomError("cross_field", "does not fit together", {"problems": problems})
        return self

    def device(self, alias: str) -> str:
        """The device (``cpu``, ``cuda:0``) that an alias, or a device itself, stands for.

        Raises:
            KeyError: neither an alias nor a device.
        """
        device = self.devices.get(alias, alias)
        if DEVICE_PATTERN.fullmatch(device) is None:
            raise KeyError(alias)
        return "cuda:0" if device == "cuda" else device


def json_schema() -> dict[str, Any]:
    """JSON Schema of the deploy config."""
    schema = DeployConfig.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "awml-deploy: deploy config"}


def _cross_checks(config: DeployConfig) -> Iterator[Problem]:
    """Contradictions between sections: key path, value, and what would be right."""
    yield from _unknown_devices(config)
    yield from _repeated_files(config)
    mode = config.export.mode
    if mode in ("onnx", "both") and config.export.onnx_path is not None:
        yield (
            ("export", "onnx_path"),
            str(config.export.onnx_path),
            f"export.mode {mode} makes the ONNX files itself; leave onnx_path out, or use mode trt or none",
        )
    verification = config.verification
    if verification.enabled and mode != "none" and not getattr(verification.scenarios, mode):
        yield (
            ("verification", "scenarios", mode),
            [],
            "verification.enabled with nothing to compare; add a scenario, or set verification.enabled: false",
        )


def _unknown_backends(config: DeployConfig) -> Iterator[Problem]:
    for name, _ in config.evaluation.backends:
        if (problem := BACKEND.problem(name)) is not None:
            yield ("evaluation", "backends", name), None, f"no such backend; {problem}"


def _devices_in_use(config: DeployConfig) -> Iterator[tuple[KeyPath, str, str]]:
    """Key path, backend and device of every place that names a device."""
    for mode, scenarios in config.verification.scenarios:
        for position, scenario in enumerate(scenarios):
            keys = ("verification", "scenarios", mode, position)
            if scenario.ref_backend != "framework":
                yield (*keys, "ref_device"), scenario.ref_backend, scenario.ref_device
            yield (*keys, "test_device"), scenario.test_backend, scenario.test_device
    for backend, settings in config.evaluation.backends:
        yield ("evaluation", "backends", backend, "device"), backend, settings.device


def _unknown_devices(config: DeployConfig) -> Iterator[Problem]:
    for keys, backend, device in _devices_in_use(config):
        if device not in config.devices and DEVICE_PATTERN.fullmatch(device) is None:
            close = difflib.get_close_matches(device, config.devices, n=1)
            guess = f"did you mean {close[0]}? " if close else ""
            aliases = ", ".join(config.devices)
            yield keys, device, f"no such device; {guess}use cpu, cuda, cuda:N or an alias of devices ({aliases})"
        elif backend == "tensorrt" and config.devices.get(device, device) == "cpu":
            yield keys, device, "TensorRT runs on CUDA devices only; use cuda or cuda:N"


def _repeated_files(config: DeployConfig) -> Iterator[Problem]:
    for key in ("onnx_file", "engine_file"):
        owners: dict[str, str] = {}
        for name, component in config.components.items():
            file = getattr(component, key)
            if file in owners:
                yield ("components", name, key), file, f"components.{owners[file]} has the same; give each its own"
            owners[file] = name
