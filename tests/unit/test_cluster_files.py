"""docker/cluster: manifests against the published schemas, Slurm's scripts with a Slurm of a few lines."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.support.kept import kept
from tests.support.kuberay_schema import closed

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker" / "cluster"
SCHEMAS = json.loads(kept("kuberay.json"))
MANIFESTS = sorted(FOLDER.glob("*.yaml"))


def _manifest(name: str) -> dict[str, Any]:
    value = yaml.safe_load((FOLDER / name).read_text())
    assert isinstance(value, dict)
    return value


def _check(value: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator({**SCHEMAS, "$ref": f"#/{value['kind']}"}).validate(value)


# -- Kubernetes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_a_manifest_is_what_kuberay_takes(path: Path) -> None:
    _check(_manifest(path.name))


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("rayVersion",), 2.6),
        (("workers",), 2),
        (("authOptions", "mode"), "none"),
        (("headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("headGroupSpec", "template", "spec", "containers"), {}),
        (("headGroupSpec", "template", "spec", "volume"), []),
    ],
)
def test_a_slip_in_a_manifest_is_found(where: tuple[str, ...], value: object) -> None:
    manifest = copy.deepcopy(_manifest("ray-cluster.yaml"))
    place = manifest["spec"]
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        _check(manifest)


def test_a_schema_of_a_resource_is_closed() -> None:
    node = {"type": "object", "description": "Words.", "properties": {"a": {"type": "string"}, "affinity": {}}}
    expected = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
    assert closed(node) == expected


def test_a_job_has_the_cluster_that_stays() -> None:
    assert _manifest("ray-job.yaml")["spec"]["rayClusterSpec"] == _manifest("ray-cluster.yaml")["spec"]


def test_a_cluster_on_kubernetes_has_the_ray_of_the_images_and_is_shut_in() -> None:
    spec = _manifest("ray-cluster.yaml")["spec"]
    locked = re.search(r"^ray==(\S+)", (ROOT / "requirements" / "lock" / "cluster.txt").read_text(), re.MULTILINE)
    assert locked is not None
    assert spec["rayVersion"] == locked[1]
    assert spec["authOptions"] == {"mode": "token"}
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert {mount["name"] for mount in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}


# -- Slurm ------------------------------------------------------------------------------------------------------------

SRUN = """#!/bin/sh
echo "$@" >> started
exec sleep 600
"""
RAY = """#!/bin/sh
[ -e healthy ] && [ "$(wc -l <started)" = 2 ] || { touch healthy; exit 1; }
"""
TOOL = """#!/bin/sh
echo "$@" > given
[ "$RAY_AUTH_MODE" = token ] && [ ${#RAY_AUTH_TOKEN} = 64 ] || exit 9
exit 6
"""


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """Variables of a job on the nodes n1 to n3, with commands of Slurm that only write down how they were called."""
    commands = tmp_path / "bin"
    commands.mkdir()
    files = {"srun": SRUN, "scontrol": "#!/bin/sh\nprintf 'n1\\nn2\\nn3\\n'\n", "ray": RAY, "runtime": TOOL}
    for name, text in files.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    return {
        "PATH": f"{commands}:{os.environ['PATH']}", "BIN": str(commands), "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NODELIST": "n[1-3]", "SLURM_CPUS_ON_NODE": "16", "SLURM_ARRAY_TASK_ID": "2",
        "SLURM_ARRAY_TASK_COUNT": "8",
    }  # fmt: skip


def _run(script: str, folder: Path, variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(FOLDER / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=variables, timeout=300)


def test_a_job_makes_a_cluster_of_its_nodes_and_ends_as_its_command(slurm: dict[str, str], tmp_path: Path) -> None:
    answer = _run("slurm-ray.sbatch", tmp_path, slurm, "runtime", "run", "--work", "a b")
    assert answer.returncode == 6, answer.stderr
    assert (tmp_path / "given").read_text() == "run --work a b --cluster n1:24711\n"
    head, others = sorted((tmp_path / "started").read_text().splitlines(), key=lambda line: "--head" not in line)
    assert "--nodes=1 " in head and "--nodelist=n1" in head and "--port=24711" in head
    assert "--nodes=2 " in others and "--exclude=n1" in others and "--address=n1:24711" in others
    assert "--num-cpus=16" in head and "--num-cpus=16" in others


def test_a_job_of_an_array_runs_its_shard(slurm: dict[str, str], tmp_path: Path) -> None:
    given = slurm | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    answer = _run("slurm-array.sbatch", tmp_path, given, "run", "--work", "work")
    assert answer.returncode == 6, answer.stderr
    assert (tmp_path / "given").read_text() == "run --work work --shard 2/8\n"


@pytest.mark.parametrize("script", ["slurm-ray.sbatch", "slurm-array.sbatch"])
def test_a_script_without_a_command_says_how_it_is_called(script: str, slurm: dict[str, str], tmp_path: Path) -> None:
    answer = _run(script, tmp_path, slurm)
    assert answer.returncode == 2
    assert answer.stderr.startswith("usage: sbatch ")
