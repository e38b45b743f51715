"""Messages of the frameworks behind the backends."""

from __future__ import annotations


def first_line(error: Exception) -> str:
    """What an exception says, in one line: the frameworks add pages of C++ frames."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
