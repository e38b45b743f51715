"""Versions of the JSON that one tool writes and another reads. Raise one when the meaning of its content changes."""

from __future__ import annotations

#: ``verification/*.json`` and the manifest's result ``verification/summary``.
VERIFICATION = 4
#: ``evaluation/*.json``.
EVALUATION = 2
