"""What a metric leaves out for want of files that the digest of a data set says nothing of, points for example.

It is part of what an evaluation was made from: what was left out is made up for once the files are there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluator.metrics import Metric


def left_out(metric: Metric, samples: Iterable[Any]) -> list[str]:
    """Names of the parts of its result that a metric can't compute from what is here.

    Only a metric that reads such files has the function ``left_out``, which takes the samples.
    """
    tell = getattr(metric, "left_out", None)
    found: list[str] = [] if tell is None else tell(samples)
    return found
