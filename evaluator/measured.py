"""What was measured of a model, small enough for git: a baseline, or a run of the benchmark suite.

One document for both, so that `evaluator regress` compares any two. Intervals of differences are paired by the
replicates of the metrics (`evaluator.bootstrap`): 400 numbers each, however many frames they are of. The JSON Schema in
``docs/measured.schema.json`` is generated from the models here.
"""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from evaluator.stored import Replicates
from shared.errors import InputError
from shared.files import write_json
from shared.json_reader import read_json
from shared.latency import CLOCKS, YARDSTICK

Finite = Annotated[float, Field(allow_inf_nan=False)]
Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Kind = Literal["metric", "latency", "size", "build time", "memory", "precision", "verification"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _unpacked(text: str) -> npt.NDArray[np.float64]:
    return np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float64)


def _as_replicates(text: str) -> str:
    if np.isinf(_unpacked(text)).any():
        raise ValueError("holds an infinite number")
    return text


def _with_numbers(conditions: dict[str, str]) -> dict[str, str]:
    for name in (YARDSTICK, *CLOCKS):
        if name in conditions and not 0 < float(conditions[name]) < math.inf:
            raise ValueError(f"{name} is no positive number")
    return conditions


class Bounds(_Part):
    """A 95 % interval."""

    low: Finite
    high: Finite


class Scores(_Part):
    """The headline metrics of a run."""

    task: str
    frames: str = Field(description="sha256 of what was drawn from; replicates of the same are of the same draws")
    samples: int = Field(ge=0)
    computed_with: dict[str, str] | str = Field(
        default={},
        description="By metric, which settings that it depends on are not the usual ones: with others it can't be "
        "compared. One text, as earlier files have it: of all metrics",
    )
    precision: str
    lower_is_better: list[str] = Field(description="The metrics that are errors")
    values: dict[str, Finite | None]
    intervals: dict[str, Bounds | None] = Field(description="95 % bootstrap intervals of the values")
    replicates: dict[str, Annotated[str, AfterValidator(_as_replicates)]] = Field(
        description="Per metric, its value in each draw: base64 of little-endian float32"
    )

    def settings(self) -> dict[str, str]:
        """``computed_with`` by metric, see `evaluator.stored.settings_by_number`."""
        if isinstance(self.computed_with, dict):
            return self.computed_with
        return dict.fromkeys(self.values, self.computed_with) if self.computed_with else {}

    def drawn(self) -> Replicates:
        """The replicates (B,) by metric."""
        return {name: _unpacked(text) for name, text in self.replicates.items()}


class Times(_Part):
    """Of the requests of one process, in milliseconds."""

    fastest: Milliseconds = Field(description="What one in twenty requests does not exceed")
    median: Milliseconds


class Round(_Part):
    """The requests of one process, as `shared.latency.round_of` gives them."""

    requests: int = Field(ge=1)
    disturbed: int | None = Field(default=None, description="How many other programs slowed down; null: not recorded")
    conditions: Annotated[dict[str, str], AfterValidator(_with_numbers)] = Field(
        description="Card and clocks, or processor and its speed; settings of the measurement"
    )
    stages: dict[str, Times] = Field(description="By stage, and of the whole request, the `total`")


class Quantity(_Part):
    """A number that is what it is: no interval."""

    kind: Kind
    subject: str = Field(description="An engine, a comparison, a run")
    name: str
    unit: str = ""
    better: Literal["lower", "higher"]
    value: Finite
    made_on: str | None = Field(default=None, description="Only numbers of the same machine can be compared; null: any")


class Machine(_Part):
    """Where it was measured."""

    host: str
    processor: str | None = None
    gpu: str | None = None
    driver: str | None = None


class Measured(_Part):
    """What was measured of a model."""

    format: Literal[1] = 1
    name: str
    created: str = Field(description="ISO 8601, UTC")
    note: str = ""
    model: str
    machine: Machine
    versions: dict[str, str]
    scores: dict[str, Scores] = Field(description="By run")
    latencies: dict[str, list[Round]] = Field(description="By run and how it was measured; one entry a process")
    quantities: list[Quantity]

    def is_empty(self) -> bool:
        """Whether nothing was measured."""
        return not (self.scores or self.latencies or self.quantities)


def packed(replicates: Replicates) -> dict[str, str]:
    """Replicates as `Scores` keeps them: 7 digits, which is more than an interval of them has."""
    return {name: base64.b64encode(values.astype("<f4").tobytes()).decode() for name, values in replicates.items()}


def read_measured(path: Path) -> Measured:
    """A file that `evaluator baseline export` or the benchmark suite wrote.

    Raises:
        InputError: it is none.
    """
    content = read_json(path)
    try:
        return Measured.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"is no baseline ({where}: {first['msg']})" if where else "is no baseline, which is an object",
            where=str(path),
            hint="write one with: evaluator baseline export NAME FILE",
        ) from error


def write_measured(path: Path, measured: Measured) -> None:
    """Write the file of a baseline, or of a suite."""
    write_json(path, measured.model_dump(mode="json"))


def json_schema() -> dict[str, Any]:
    """JSON Schema of such a file."""
    schema = Measured.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "awml-deploy: what was measured",
    }
