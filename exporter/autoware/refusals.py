"""Why a node can't run a model: every reason, each with what to do about it, in one error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from shared.errors import InputError
from shared.text import one_line

EXPORT_AGAIN = "export the model again, with"
_REFUSED = "Autoware's node can't run this model"
_WHERE = "model spec"


class Reason(NamedTuple):
    """A reason, and what to do about it."""

    what: str
    hint: str


class NodeRefuses(InputError):
    """The node would not load the model, or load it and answer wrongly.

    Attributes:
        reasons: at least one.
    """

    def __init__(self, reasons: Sequence[Reason]) -> None:
        self.reasons = tuple(reasons)
        if len(self.reasons) == 1:
            super().__init__(f"{_REFUSED}: {self.reasons[0].what}", where=_WHERE, hint=self.reasons[0].hint)
        else:
            told = "; ".join(f"({number}) {what}: {hint}" for number, (what, hint) in enumerate(self.reasons, 1))
            super().__init__(f"{_REFUSED}, for {len(self.reasons)} reasons: {told}", where=_WHERE)

    def lines(self) -> list[str]:
        """See `shared.errors.DeployError`: one line, or one for every reason."""
        if len(self.reasons) == 1:
            return super().lines()
        head = f"{_WHERE}: {_REFUSED}, for {len(self.reasons)} reasons"
        return [head, *(one_line(f"  {number}. {what}. {hint}") for number, (what, hint) in enumerate(self.reasons, 1))]


class Refusals:
    """Collects the reasons, so that who has six things to change does not learn of them one by one."""

    def __init__(self) -> None:
        self._reasons: list[Reason] = []

    def unless(self, condition: bool, what: str, *, hint: str) -> bool:
        """Note a reason unless ``condition`` holds; returns the condition."""
        if not condition:
            self._reasons.append(Reason(what, hint))
        return condition

    def raise_any(self) -> None:
        """Raises NodeRefuses if there is a reason."""
        if self._reasons:
            raise NodeRefuses(self._reasons)
