"""Makes ``tests/data/kuberay.json.gz`` from KubeRay's resource definitions: which fields there are, and of which type.

    python -m tests.support.kuberay_schema rayclusters.yaml rayjobs.yaml | gzip -9n > tests/data/kuberay.json.gz

The arguments are ``ray-operator/config/crd/bases/ray.io_*.yaml`` of a KubeRay release: 1.7.0 (Apache-2.0). Kept are the
parts that ``docker/cluster`` can use; a field that is not in them is refused, as Kubernetes would.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

# Parts of a pod that are large, and that the manifests don't use.
_LEFT_OUT = {
    "affinity", "ephemeralContainers", "initContainers", "topologySpreadConstraints", "lifecycle", "livenessProbe",
    "readinessProbe", "startupProbe", "status", "networkPolicy", "historyServerOptions", "autoscalerOptions",
    "gcsFaultToleranceOptions", "submitterPodTemplate", "deletionStrategy", "headService", "scaleStrategy",
}  # fmt: skip
_VOLUMES = {"name", "persistentVolumeClaim", "emptyDir", "secret", "nfs", "hostPath"}
_KEPT = {
    "type", "properties", "items", "required", "enum", "additionalProperties", "pattern", "minimum", "maximum",
    "minLength", "maxLength", "minItems", "anyOf", "default",
}  # fmt: skip


def closed(node: Any, name: str = "") -> Any:
    """A schema of a resource definition as JSON schema that takes no other fields."""
    if not isinstance(node, dict):
        return node
    kept = {key: value for key, value in node.items() if key in _KEPT}
    if "properties" in kept:
        wanted = _VOLUMES if name == "volumes" else kept["properties"].keys() - _LEFT_OUT
        kept["properties"] = {
            key: closed(value, key) for key, value in sorted(kept["properties"].items()) if key in wanted
        }
        kept.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if key in kept:
            kept[key] = closed(kept[key], name)
    return kept


def main(paths: list[str]) -> None:
    """Print the schemas by kind."""
    schemas = {}
    for path in paths:
        definition = yaml.safe_load(Path(path).read_text(encoding="utf-8"))["spec"]
        version = next(each for each in definition["versions"] if each["name"] == "v1")
        schema = closed(version["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"type": "object"}
        schemas[definition["names"]["kind"]] = schema
    job = schemas["RayJob"]["properties"]["spec"]["properties"]
    cluster = schemas["RayCluster"]["properties"]["spec"]
    assert job["rayClusterSpec"] == cluster
    job["rayClusterSpec"] = {"$ref": "#/RayCluster/properties/spec"}
    json.dump(schemas, sys.stdout, indent=None, separators=(",", ":"), sort_keys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
