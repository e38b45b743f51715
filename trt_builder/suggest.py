"""Profiles from what a data set is really like: percentiles of what the runs in a workspace have counted."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from shared.config.write import to_yaml
from shared.errors import InputError
from shared.runs import Run
from shared.spec import AxisSizes, ModelSpec
from shared.workspace import Workspace
from trt_builder.profiles import axes_of, shapes_of

# Kernels are tuned for a size, not for an exact number; round figures say so.
_STEP = 1000


def counted_axes(spec: ModelSpec) -> dict[str, AxisSizes]:
    """The axes whose size differs from sample to sample, by name."""
    axes = [axes_of(component, spec).items() for component in spec.components]
    return {name: sizes for name, sizes in itertools.chain.from_iterable(axes) if sizes.counter is not None}


def sizes_in_runs(ws: Workspace) -> tuple[str, dict[str, list[int]]]:
    """Sizes of the counted axes in every sample of the run with the most samples, and that run's folder.

    What did not fit into the model is counted too.

    Raises:
        InputError: no axis of the model differs from sample to sample, or no run counted it yet.
    """
    counters = {name: str(sizes.counter) for name, sizes in counted_axes(ws.spec()).items()}
    if not counters:
        raise InputError(
            f"{ws.spec().model} has no inputs whose size differs from sample to sample",
            where=str(ws.root),
            hint="its profiles come from the model spec",
        )
    best: tuple[str, list[dict[str, int]]] = ("", [])
    for folder in sorted(ws.path("runs").glob("*")):
        samples = [sample for sample in Run.open(folder).counters if sample.keys() >= set(counters.values())]
        if len(samples) > len(best[1]):
            best = (folder.name, samples)
    if not best[1]:
        raise InputError(
            f"no run in this workspace has counted {', '.join(counters.values())}",
            where=str(ws.root),
            hint=f"run a backend over the data set first: runtime run --backend onnx --num-samples -1 --work {ws.root}",
        )
    run, samples = best
    return run, {
        name: [sample[counter] + sample.get(f"{counter}_dropped", 0) for sample in samples]
        for name, counter in counters.items()
    }


def suggest(
    sizes: Mapping[str, Sequence[int]], spec: ModelSpec, *, percentile: float, margin: float
) -> tuple[str, list[str]]:
    """Profiles for every component, as YAML for the deploy config, and what to know about them.

    Args:
        sizes: by counted axis, its size in every sample.
        spec: the model spec.
        percentile: the share of samples, in percent, that must fit.
        margin: room above that, as a factor, for scenes that the data set does not have.
    """
    suggested: dict[str, AxisSizes] = {}
    notes: list[str] = []
    for name, axis in counted_axes(spec).items():
        suggested[name], about = _suggest_axis(axis, sizes[name], percentile, margin)
        notes += about
    components = {}
    for component in spec.components:
        axes = {**axes_of(component, spec), **suggested}
        shapes = {
            tensor.name: shapes_of(tensor.shape, axes)
            for tensor in component.inputs
            if any(isinstance(size, str) for size in tensor.shape)
        }
        if shapes:
            components[component.name] = {
                "tensorrt_profile": {
                    name: {f"{kind}_shape": list(shape) for kind, shape in three._asdict().items()}
                    for name, three in shapes.items()
                }
            }
    return to_yaml({"components": components}), notes


def _suggest_axis(
    axis: AxisSizes, counts: Sequence[int], percentile: float, margin: float
) -> tuple[AxisSizes, list[str]]:
    """Sizes for an axis that has ``counts`` in the samples, and notes on them."""
    needed = math.ceil(float(np.percentile(counts, percentile)) * margin)
    largest = min(axis.max, _rounded_up(needed))
    tuned = min(largest, _rounded_up(int(np.median(counts))))
    what = str(axis.counter)
    notes = [
        f"{what} per sample: min {min(counts)}, median {int(np.median(counts))}, "
        f"p99 {int(np.percentile(counts, 99))}, max {max(counts)}, over {len(counts)} samples"
    ]
    if needed > axis.max:
        notes.append(f"the model takes {axis.max} {what} at most; {needed} would be needed")
    over = sum(count > largest for count in counts)
    if over:
        notes.append(f"{over} of {len(counts)} samples have more {what} than this profile takes")
    return AxisSizes(min=axis.min, opt=tuned, max=largest), notes


def _rounded_up(number: int) -> int:
    return max(1, math.ceil(number / _STEP) * _STEP)
