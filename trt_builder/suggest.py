"""Profiles from what a data set is really like: percentiles of the voxel counts of the runs in a workspace."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from shared.config.write import to_yaml
from shared.errors import InputError
from shared.runs import Run
from shared.spec import ModelSpec
from shared.workspace import Workspace
from trt_builder.profiles import Sizes, sizes_of_axes

# Kernels are tuned for a size, not for an exact number; round figures say so.
_STEP = 1000


def voxel_counts(ws: Workspace) -> tuple[str, list[int]]:
    """Voxels per sample, those that did not fit included, of the run with the most samples; and that run's folder.

    Raises:
        InputError: the model has no voxels, or no run counted them yet.
    """
    if "max_voxels" not in ws.spec().parameters:
        raise InputError(
            f"{ws.spec().model} takes no voxels, and only their number differs from sample to sample",
            where=str(ws.root),
            hint="its profiles come from the model spec",
        )
    best: tuple[str, list[int]] = ("", [])
    for folder in sorted(ws.path("runs").glob("*")):
        counters = Run.open(folder).counters
        counts = [sample["voxels"] + sample.get("voxels_dropped", 0) for sample in counters if "voxels" in sample]
        if len(counts) > len(best[1]):
            best = (folder.name, counts)
    if not best[1]:
        raise InputError(
            "no run in this workspace has counted voxels",
            where=str(ws.root),
            hint=f"run a backend over the data set first: runtime run --backend onnx --num-samples -1 --work {ws.root}",
        )
    return best


def suggest(counts: Sequence[int], spec: ModelSpec, *, percentile: float, margin: float) -> tuple[str, list[str]]:
    """Profiles for every component, as YAML for the deploy config, and what to know about them.

    Args:
        counts: voxels per sample.
        spec: the model spec.
        percentile: the share of samples, in per cent, whose voxels must fit.
        margin: room above that, as a factor, for scenes that the data set does not have.
    """
    limit = int(spec.parameters["max_voxels"])
    needed = math.ceil(float(np.percentile(counts, percentile)) * margin)
    largest = min(limit, _rounded_up(needed))
    tuned = min(largest, _rounded_up(int(np.median(counts))))
    notes = [
        f"voxels per sample: min {min(counts)}, median {int(np.median(counts))}, "
        f"p99 {int(np.percentile(counts, 99))}, max {max(counts)}, over {len(counts)} samples"
    ]
    if needed > limit:
        notes.append(f"the model takes {limit} voxels at most (max_voxels); {needed} would be needed")
    over = sum(count > largest for count in counts)
    if over:
        notes.append(f"{over} of {len(counts)} samples have more voxels than this profile takes")
    components = {}
    for component in spec.components:
        profile = {}
        for tensor in component.inputs:
            if any(isinstance(size, str) for size in tensor.shape):
                axes = sizes_of_axes(tensor.shape, spec)
                axes = [
                    Sizes(1, tuned, largest) if size == "num_voxels" else sizes
                    for size, sizes in zip(tensor.shape, axes, strict=True)
                ]
                profile[tensor.name] = {
                    f"{kind}_shape": [int(getattr(sizes, kind)) for sizes in axes] for kind in Sizes._fields
                }
        if profile:
            components[component.name] = {"tensorrt_profile": profile}
    return to_yaml({"components": components}), notes


def _rounded_up(number: int) -> int:
    return max(1, math.ceil(number / _STEP) * _STEP)
