"""Regular expressions that a user writes, in an option or in a config."""

from __future__ import annotations

import re

from shared.errors import ConfigError, UsageError


def error_at(where: str) -> type[ConfigError | UsageError]:
    """The kind of error for a wrong value of an option (``--skip``), or of a key."""
    return UsageError if where.startswith("--") else ConfigError


def compiled(pattern: str, where: str) -> re.Pattern[str]:
    """A regular expression.

    Args:
        pattern: as the user wrote it.
        where: the option or key that it comes from, for the error.

    Raises:
        UsageError: it comes from an option, and is none.
        ConfigError: it comes from a key, and is none.
    """
    try:
        return re.compile(pattern)
    # Numbers and nesting without end are refused by other errors.
    except (re.error, OverflowError, RecursionError) as error:
        raise error_at(where)(
            f"'{pattern}' is not a regular expression ({error})", where=where,
            hint="any text is '.*', a dot is '\\.', as in Python's re",
        ) from error  # fmt: skip
