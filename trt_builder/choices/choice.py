"""A choice: the precision of every component, and of the layers in it that have one of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.files import sha256_of_json


@dataclass(frozen=True)
class Choice:
    """Precisions of a model. Two with other labels and the same precisions are equal.

    Attributes:
        label: what it is called in tables; another label makes no other choice.
        policies: precision policy by component; ``int8`` is what ``int8`` below follows, and never stands here.
        int8: names of the layers in INT8.
        fp32: names of the layers that stay in FP32 under ``fp16``.
    """

    label: str = field(compare=False)
    policies: Mapping[str, str]
    int8: frozenset[str] = field(default_factory=frozenset)
    fp32: frozenset[str] = field(default_factory=frozenset)

    def __hash__(self) -> int:
        return hash((frozenset(self.policies.items()), self.int8, self.fp32))

    def as_json(self) -> dict[str, Any]:
        """What makes the choice, without its label."""
        return {
            "policies": dict(sorted(self.policies.items())),
            "int8": sorted(self.int8),
            "fp32": sorted(self.fp32 - self.int8),
        }

    def key(self, inputs: Mapping[str, str], backend: str) -> str:
        """A short name that says which choice of which files it is.

        Args:
            inputs: sha256 of the files that it is made from, by path.
            backend: what it is measured on.
        """
        return sha256_of_json({**self.as_json(), "inputs": dict(sorted(inputs.items())), "backend": backend})[:12]


def uniform(components: Iterable[str], policy: str, label: str | None = None) -> Choice:
    """One float policy for all components."""
    return Choice(label or policy, dict.fromkeys(components, policy))
