"""Asked for and delivered: the share of layers per precision, and whether the policy was met."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from shared.errors import BuildError
from trt_builder.layers import Layer, sums_in_half
from trt_builder.policies import Resolved

_log = logging.getLogger("build")

# So many offending nodes are named in an error; the record holds them all.
_NAMED = 3


def summary(layers: Sequence[Layer], resolved: Resolved, times: Mapping[str, float] | None = None) -> dict[str, Any]:
    """What an engine is made of, as JSON for the manifest.

    Args:
        layers: its layers.
        resolved: the policy that it was built under.
        times: mean milliseconds per layer from a profiled run, where there was one.
    """
    of_nodes = _layers_of_nodes(layers, resolved)
    matrix = [layer for layer in layers if any(layer in inside for inside in of_nodes.values())]
    wrong, unproven = compare(layers, resolved)
    answer: dict[str, Any] = {
        "layers": len(layers),
        "share_of_layers": _shares(Counter(layer.precision or "none" for layer in layers)),
        "matrix_layers": len(matrix),
        "share_of_matrix_layers": _shares(Counter(layer.precision or "none" for layer in matrix)),
        "reformat_layers": sum(layer.is_reformat for layer in layers),
        "qdq_not_fused": [layer.name for layer in layers if layer.is_scale],
        "tf32_kernels": sum("tf32" in layer.tactic.lower() for layer in layers),
        "fp16_accumulating_kernels": sum(sums_in_half(layer.tactic) for layer in layers),
        "not_as_asked": wrong,
        "not_proven": unproven,
        "opaque_layers": sum(layer.is_opaque for layer in layers),
    }
    if times:
        by_precision: defaultdict[str, float] = defaultdict(float)
        for layer in layers:
            by_precision[layer.precision or "none"] += times.get(layer.name, 0.0)
        answer["share_of_time"] = _shares(by_precision)
    return answer


def _shares(amounts: Mapping[str, float]) -> dict[str, float]:
    total = sum(amounts.values())
    return {name: round(amount / total, 4) for name, amount in sorted(amounts.items())} if total else {}


def compare(layers: Sequence[Layer], resolved: Resolved) -> tuple[dict[str, str], list[str]]:
    """Matrix nodes against the policy.

    Returns:
        Nodes that run in something else, with what that is; and nodes that no layer of the engine names, because
        TensorRT merged them into a larger kernel that it says nothing about.
    """
    wrong: dict[str, str] = {}
    unproven: list[str] = []
    for node, inside in _layers_of_nodes(layers, resolved).items():
        got = {layer.precision for layer in inside}
        if not got:
            unproven.append(node)
        elif resolved.expected[node] not in got:
            wrong[node] = "/".join(sorted(got))
    return wrong, unproven


def _layers_of_nodes(layers: Sequence[Layer], resolved: Resolved) -> dict[str, list[Layer]]:
    """Per matrix node, the layers that compute it: matrix kernels, or else the fused kernels that hold it."""
    by_node: dict[str, list[Layer]] = {}
    for layer in layers:
        if layer.precision and not layer.is_reformat and not layer.is_opaque:
            for node in layer.nodes:
                by_node.setdefault(node, []).append(layer)
    of_nodes = {}
    for node in resolved.expected:
        inside = by_node.get(node, [])
        of_nodes[node] = [layer for layer in inside if layer.is_matrix] or inside
    return of_nodes


def require(summarized: Mapping[str, Any], resolved: Resolved, *, component: str) -> None:
    """End the build when the policy was not met.

    Raises:
        BuildError: nodes run in another precision; FP32 was to be free of TF32 and is not; or nothing can be proven.
    """
    name = resolved.policy.name
    wrong: Mapping[str, str] = summarized["not_as_asked"]
    if wrong:
        some = ", ".join(
            f"'{node}' in {got}, not {resolved.expected[node]}" for node, got in list(wrong.items())[:_NAMED]
        )
        raise BuildError(
            f"precision_policy {name} was not met: {len(wrong)} of {len(resolved.expected)} matrix nodes run in "
            f"another precision: {some}",
            where=component,
            hint="name them in keep_fp32 if that is intended, or choose another policy",
        )
    if resolved.tf32 is False and summarized["tf32_kernels"]:
        raise BuildError(
            f"precision_policy {name} was not met: {summarized['tf32_kernels']} layers run TF32 kernels",
            where=component,
        )
    not_proven = summarized["not_proven"]
    if not_proven and summarized["opaque_layers"]:
        _log.warning(
            "%s: %d matrix nodes are inside regions whose precision TensorRT does not report: %s",
            component,
            len(not_proven),
            ", ".join(not_proven[:_NAMED]),
        )
    elif resolved.expected and len(not_proven) == len(resolved.expected):
        raise BuildError(
            f"precision_policy {name} can't be proven: the engine's report names none of the "
            f"{len(resolved.expected)} matrix nodes",
            where=component,
            hint="trt_builder inspect shows the report",
        )
