"""Engines of several policies, one after another and in the workers of a cluster: the same, whoever makes them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.cluster import Make, Need, Outcome, Workers
from shared.errors import BuildError, DeployError, EnvironmentLacks, InputError
from shared.manifest import MANIFEST_NAME, Manifest, update_manifest
from shared.workspace import Workspace
from tests.support.trt_workspaces import ENCODER, HEAD, encoder, head, make_workspace
from tests.unit.test_trt_build import Machine, machine
from trt_builder import build as recipe
from trt_builder.build import build_all
from trt_builder.build_plan import versions_of
from trt_builder.making import require_same

__all__ = ["machine"]
POLICIES = ["fp32", "fp16"]


class InThisProcess(Workers[Any, Any]):
    """Workers whose tasks are done here, the last given first, as on nodes of which some are faster."""

    asked: list[Any]

    def run(self, tasks: Iterable[Any]) -> Iterator[Outcome[Any, Any]]:
        work = self._make()
        InThisProcess.asked = list(tasks)
        for task in reversed(InThisProcess.asked):
            try:
                yield Outcome(task, "here", work(task))
            except DeployError as error:
                yield Outcome(task, "here", error=error)


class Cluster:
    @contextlib.contextmanager
    def workers(self, make: Make[Any, Any], need: Need) -> Iterator[InThisProcess]:
        assert need.check is not None
        need.check()
        yield InThisProcess(None, make, need)  # type: ignore[arg-type]  # no connection is asked for anything


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> str:
    @contextlib.contextmanager
    def connect(where: str) -> Iterator[Cluster]:
        assert where == "local"
        yield Cluster()

    monkeypatch.setattr(recipe, "connect", connect)
    return "local"


def _workspace(folder: Path) -> Workspace:
    return make_workspace(folder, {ENCODER: encoder(), HEAD: head()})


def _engines(ws: Workspace) -> dict[str, str]:
    manifest = ws.manifest()
    return {path: record.sha256 for path, record in manifest.artifacts.items() if record.kind != "engine-record"}


@pytest.mark.parametrize(("version", "policies"), [("8.6.0", POLICIES), ("11.1.0", ["fp16"])])
def test_engines_are_the_same_whoever_makes_them(
    machine: Machine, cluster: str, tmp_path: Path, version: str, policies: list[str]
) -> None:
    machine.with_tensorrt(version)
    if version == "11.1.0":
        machine.behavior.precision_of = lambda name, asked: "FP16"
    alone, together, spread = (_workspace(tmp_path / name) for name in ("alone", "together", "spread"))
    for policy in policies:
        build_all(alone.root, target="auto", overrides=[f"tensorrt.precision_policy={policy}"])
    build_all(together.root, target="auto", policies=policies)
    build_all(spread.root, target="auto", policies=policies, cluster=cluster)
    assert _engines(alone) == _engines(together) == _engines(spread)
    assert sum(path.endswith(".engine") for path in _engines(spread)) == 2 * len(policies)
    assert any(path.endswith(".fp16.onnx") for path in _engines(spread)) == (version == "11.1.0")
    done = {name: stage.status for name, stage in spread.manifest().stages.items() if name.startswith("build:")}
    assert list(done.values()) == ["done"] * len(policies)
    assert {name: stage.fingerprint for name, stage in alone.manifest().stages.items()} == {
        name: stage.fingerprint for name, stage in spread.manifest().stages.items()
    }
    assert not list((spread.root / "tensorrt").rglob("*.partial-*"))


def test_what_takes_longest_is_built_first(machine: Machine, cluster: str, tmp_path: Path) -> None:
    machine.with_tensorrt("8.6.0")
    ws = _workspace(tmp_path)
    build_all(ws.root, target="auto", policies=POLICIES, cluster=cluster)
    sizes = {name: (ws.root / "onnx" / f"{name}.onnx").stat().st_size for name in (ENCODER, HEAD)}
    largest = max(sizes, key=lambda name: sizes[name])
    first = [(order.component, order.policy) for order in InThisProcess.asked[:2]]
    assert first == [(largest, "fp16"), (largest, "fp32")], "more types are timed for FP16"


def test_a_build_that_took_long_comes_before_one_of_which_nothing_is_known(
    machine: Machine, cluster: str, tmp_path: Path
) -> None:
    machine.with_tensorrt("8.6.0")
    ws = _workspace(tmp_path)
    build_all(ws.root, target="auto", policies=["fp32"], cluster=cluster)

    def slow(manifest: Manifest) -> None:
        for name, seconds in ((ENCODER, 100.0), (HEAD, 1.0)):
            manifest.results["engines"][f"trt8.6.0-sm90-fp32/{name}"]["build_seconds"] = seconds

    update_manifest(ws.root / MANIFEST_NAME, slow)
    build_all(ws.root, target="auto", policies=["fp16", "fp32"], cluster=cluster, force=True)
    asked = [(order.component, order.policy) for order in InThisProcess.asked]
    assert asked.index((ENCODER, "fp32")) < asked.index((HEAD, "fp32")), "as last time"
    assert asked[-1] == (HEAD, "fp32"), "others take as long as both did for their size"


def test_an_engine_that_fails_is_named_and_the_other_policies_are_built(
    machine: Machine, cluster: str, tmp_path: Path
) -> None:
    machine.with_tensorrt("8.6.0")
    machine.behavior.precision_of = lambda name, asked: "FP32"
    ws = _workspace(tmp_path)
    message = rf"^{ENCODER} in fp16: precision_policy fp16 was not met.*2 of 4 failed"
    with pytest.raises(BuildError, match=message) as caught:
        build_all(ws.root, target="auto", policies=POLICIES, cluster=cluster)
    assert caught.value.exit_code == 5
    stages = {name.rpartition("-")[2]: stage for name, stage in ws.manifest().stages.items() if "build:" in name}
    assert (stages["fp32"].status, stages["fp16"].status) == ("done", "failed")
    assert "was not met" in (stages["fp16"].reason or "")
    assert {path.rpartition(".")[0] for path in _engines(ws) if path.endswith(".engine")} == {
        f"tensorrt/{stages_name}/{name}" for stages_name in ["trt8.6.0-sm90-fp32"] for name in (ENCODER, HEAD)
    }
    # The next call builds what is missing, and nothing else.
    machine.behavior.precision_of = lambda name, asked: asked or "FP32"
    build_all(ws.root, target="auto", policies=POLICIES, cluster=cluster)
    assert {order.policy for order in InThisProcess.asked} == {"fp16"}


@pytest.mark.parametrize(
    ("difference", "message"),
    [
        ({"tensorrt": "8.6.1"}, "^tensorrt 8.6.0, and 8.6.1 where the command runs"),
        ({"gpu": "NVIDIA L4"}, "^gpu NVIDIA H200, 132 SM.*, and NVIDIA L4 where the command runs"),
        ({"rtx": "1.7"}, "^rtx none, and 1.7 where the command runs"),
    ],
)
def test_a_node_that_would_build_other_engines_is_refused(
    machine: Machine, difference: dict[str, str], message: str
) -> None:
    here = versions_of(machine.with_tensorrt("8.6.0"))
    require_same("auto", here)
    with pytest.raises(EnvironmentLacks, match=message):
        require_same("auto", here | difference)


def test_a_file_that_changes_before_it_is_taken_in_is_refused(
    machine: Machine, cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.with_tensorrt("8.6.0")
    ws = _workspace(tmp_path)
    take_in = recipe.take_in

    def too_late(stage: Any, plan: Any, job: Any, folder: Any, files: Any) -> None:
        with (folder / "engine").open_file("ab") as file:
            file.write(b"more")
        take_in(stage, plan, job, folder, files)

    monkeypatch.setattr(recipe, "take_in", too_late)
    with pytest.raises(InputError, match="changed after it was built"):
        build_all(ws.root, target="auto", policies=["fp32"], cluster=cluster)
    assert not any(path.endswith(".engine") for path in ws.manifest().artifacts)
