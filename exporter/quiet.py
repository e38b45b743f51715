"""Other packages' chatter, kept off the terminal while they work: what goes wrong there comes as an exception."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

_log = logging.getLogger("exporter")

# Loggers that report every pass over a graph, and packages that they would have liked to find.
_CHATTY = ("torch.onnx", "torch.fx.experimental.symbolic_shapes", "onnx_ir", "onnxscript")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back warnings, log lines below error, and printed text; the text goes to the debug log."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    printed = io.StringIO()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if printed.getvalue().strip():
            _log.debug("%s", printed.getvalue().strip())
