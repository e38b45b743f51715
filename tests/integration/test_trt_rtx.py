"""Engines built for real, without a GPU, by TensorRT for RTX: policies, proof, records, and what breaks."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import onnx
import pytest

from exporter.autoware.typed_onnx import write_typed_onnx
from shared import cuda
from shared.workspace import Workspace
from tests.support import trt_rtx
from tests.support.processor_time import fewest_seconds
from tests.support.qdq_graphs import residual_block
from tests.support.trt_rtx import trt_builder
from tests.support.trt_workspaces import (
    CHANNELS,
    ENCODER,
    HEAD,
    encoder,
    full_size_workspace,
    head,
    make_workspace,
    profile,
    quantize,
)


@pytest.fixture(autouse=True)
def _needs_rtx() -> None:
    trt_rtx.python()


def build(ws: Workspace, *arguments: str, policy: str | None = None) -> subprocess.CompletedProcess[str]:
    chosen = ("--set", f"tensorrt.precision_policy={policy}") if policy else ()
    return trt_builder("build", "--work", ws.root, "--target", "rtx", *chosen, *arguments)


def records(ws: Workspace, policy: str) -> dict[str, dict[str, Any]]:
    """Component to the record beside its engine."""
    found = {}
    for relative, artifact in ws.manifest().artifacts.items():
        if artifact.kind == "engine-record" and f"-{policy}/" in relative:
            record = json.loads(ws.artifact(relative).read_text(encoding="utf-8"))
            found[record["component"]] = record
    return found


@pytest.mark.parametrize(
    ("policy", "precision"),
    [("auto", "fp32"), ("fp32", "fp32"), ("fp32_tf32", "fp32"), ("fp16", "fp16"), ("bf16", "bf16"),
     ("strongly_typed", "fp32")],
)  # fmt: skip
def test_every_policy_is_met_with_dynamic_profiles(tmp_path: Path, policy: str, precision: str) -> None:
    ws = make_workspace(tmp_path, {ENCODER: encoder(), HEAD: head(None)})
    answer = build(ws, policy=policy)
    assert answer.returncode == 0, answer.stderr
    assert "can't run here" in answer.stderr
    found = records(ws, policy)
    assert set(found) == {ENCODER, HEAD}
    for component, record in found.items():
        assert record["achieved"]["share_of_matrix_layers"] == {precision: 1.0}, component
        assert record["achieved"]["not_as_asked"] == {}
        assert record["achieved"]["not_proven"] == []
        engine = ws.artifact(next(path for path in ws.manifest().artifacts if path.endswith(f"{component}.engine")))
        assert engine.read_bytes()[:4] == b"vtrt"
    assert found[ENCODER]["profiles"][0]["input_features"]["max"] == [200, 8, 11]


def test_the_workspaces_onnx_is_untouched_and_the_derived_graph_is_an_artifact(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path)
    before = {name: ws.input_hash(f"onnx/{name}.onnx") for name in (ENCODER, HEAD)}
    assert build(ws, policy="fp16").returncode == 0
    assert {name: ws.input_hash(f"onnx/{name}.onnx") for name in (ENCODER, HEAD)} == before
    for name in (ENCODER, HEAD):
        ws.artifact(f"onnx/{name}.onnx")
    derived = [path for path, record in ws.manifest().artifacts.items() if record.kind == "onnx-derived"]
    assert len(derived) == 2
    assert all(path.endswith(".fp16.onnx") for path in derived)


def test_a_file_typed_in_fp16_is_built_by_its_types(tmp_path: Path) -> None:
    """What `exporter package autoware --precision strongly-typed` writes, for nodes that build strongly typed."""
    image = {f"{kind}_shape": [1, CHANNELS, 16, 16] for kind in ("min", "opt", "max")}
    profiles = {ENCODER: profile(8, 1, 10, 20), HEAD: {"spatial_features": image}}
    config = {"components": {name: {"tensorrt_profile": value} for name, value in profiles.items()}}
    plain = make_workspace(tmp_path / "plain", {ENCODER: encoder(norm=True), HEAD: head()}, config)
    typed = {}
    for component in plain.spec().components:
        path = tmp_path / f"{component.name}.fp16.onnx"
        assert write_typed_onnx(plain.onnx(component.onnx), path, plain, component).fp32_nodes == {}
        typed[component.name] = onnx.load(path)
    ws = make_workspace(tmp_path / "typed", typed, config)
    answer = build(ws, policy="strongly_typed")
    assert answer.returncode == 0, answer.stderr
    for component, record in records(ws, "strongly_typed").items():
        assert record["achieved"]["share_of_matrix_layers"] == {"fp16": 1.0}, component


def test_keep_fp32_keeps_exactly_what_it_names(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path, {HEAD: head()}, {"components": {HEAD: {"keep_fp32": ["/head/.*"]}}})
    assert build(ws, policy="fp16").returncode == 0
    layers = records(ws, "fp16")[HEAD]["layers"]
    precisions = {node: layer["precision"] for layer in layers for node in layer["nodes"] if node.endswith("/Conv")}
    assert {value for node, value in precisions.items() if node.startswith("/head/")} == {"fp32"}
    assert {value for node, value in precisions.items() if node.startswith("/backbone/")} == {"fp16"}


def test_int8_runs_quantized_convolutions_in_int8_and_the_rest_in_fp16(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path, {HEAD: quantize(head())})
    answer = build(ws, policy="int8")
    assert answer.returncode == 0, answer.stderr
    achieved = records(ws, "int8")[HEAD]["achieved"]
    assert achieved["share_of_matrix_layers"]["int8"] > 0.9
    assert set(achieved["share_of_matrix_layers"]) == {"int8", "fp16"}


def test_int8_runs_a_component_without_qdq_in_fp16(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path, {ENCODER: encoder(), HEAD: quantize(head())})
    assert build(ws, policy="int8").returncode == 0
    found = records(ws, "int8")
    assert found[ENCODER]["achieved"]["share_of_matrix_layers"] == {"fp16": 1.0}
    assert found[HEAD]["achieved"]["share_of_matrix_layers"]["int8"] > 0.9
    # Asked for by name, it is a mistake.
    asked = build(ws, "--set", f"components.{ENCODER}.precision_policy=int8", policy="int8")
    assert asked.returncode == 2
    assert "needs Q/DQ nodes" in asked.stderr


def test_a_quantized_graph_builds_strongly_typed(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path, {HEAD: quantize(head(None), skip=[r"^/backbone/blocks\.0/"])})
    answer = build(ws, policy="strongly_typed")
    assert answer.returncode == 0, answer.stderr
    achieved = records(ws, "strongly_typed")[HEAD]["achieved"]
    assert set(achieved["share_of_matrix_layers"]) == {"int8", "fp32"}
    assert (achieved["not_as_asked"], achieved["reformat_layers"], achieved["qdq_not_fused"]) == ({}, 0, [])


@pytest.mark.parametrize("activation", ["Relu", "Clip"])
def test_a_quantized_skip_connection_joins_the_kernel_after_its_convolution(tmp_path: Path, activation: str) -> None:
    ws = make_workspace(tmp_path, {HEAD: residual_block(activation)})
    answer = build(ws, policy="int8")
    assert answer.returncode == 0, answer.stderr
    record = records(ws, "int8")[HEAD]
    assert record["achieved"]["share_of_matrix_layers"] == {"int8": 1.0}
    assert record["achieved"]["qdq_not_fused"] == []
    add = [layer for layer in record["layers"] if "add" in layer["nodes"]]
    assert len(add) == 1
    # It reads the skip connection as int8, and gives int8 to the next convolution: no kernel in between.
    assert "int8" in {dtype for _, dtype in add[0]["inputs"]}
    assert {dtype for _, dtype in add[0]["outputs"]} == {"int8"}
    assert {"activation1", "conv2/input.Q"} <= set(add[0]["nodes"])
    assert len(record["layers"]) == 7  # a Q, and three times a convolution and one kernel for what follows


def test_int8_without_qdq_ends_with_one_line(tmp_path: Path) -> None:
    answer = build(make_workspace(tmp_path, {HEAD: head()}), policy="int8")
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    assert "needs Q/DQ nodes" in answer.stderr


def test_a_policy_per_component_and_several_profiles(tmp_path: Path) -> None:
    config = {
        "components": {
            ENCODER: {
                "precision_policy": "fp32",
                "tensorrt_profile": profile(8, 1, 10, 20),
                "extra_tensorrt_profiles": [profile(8, 100, 150, 200)],
            }
        }
    }
    ws = make_workspace(tmp_path, config=config)
    answer = build(ws, policy="fp16")
    assert answer.returncode == 0, answer.stderr
    found = records(ws, "fp16")
    assert found[ENCODER]["precision_policy"] == "fp32"
    assert found[ENCODER]["achieved"]["share_of_matrix_layers"] == {"fp32": 1.0}
    assert found[HEAD]["achieved"]["share_of_matrix_layers"] == {"fp16": 1.0}
    assert [entry["input_features"]["max"][0] for entry in found[ENCODER]["profiles"]] == [20, 200]


def test_a_second_build_is_up_to_date_and_explain_says_what_would_change(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path)
    assert "it never ran" in build(ws, "--explain").stderr
    assert build(ws).returncode == 0
    assert "up to date" in build(ws).stderr
    assert "up to date" in build(ws, "--explain").stderr
    changed = build(ws, "--explain", "--set", "tensorrt.optimization_level=5")
    assert "config.options.optimization_level: 3 -> 5" in changed.stderr
    assert changed.stderr.count("would build") == 1
    profile_changed = build(
        ws, "--explain", "--set", f"components.{ENCODER}.tensorrt_profile={json.dumps(profile(8, 1, 2, 3))}"
    )
    assert f"config.components.{ENCODER}.profiles" in profile_changed.stderr


def test_another_onnx_file_is_a_reason_to_build(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path)
    assert build(ws).returncode == 0
    with ws.stage("export", tool="trt_builder") as stage, stage.artifact(f"onnx/{HEAD}.onnx", kind="onnx") as path:
        model = head()
        model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
        onnx.save(model, str(path))
        shutil.copy(ws.path(f"onnx/{ENCODER}.onnx"), tmp_path / "kept.onnx")
        stage.add_artifact(f"onnx/{ENCODER}.onnx", kind="onnx")
    answer = build(ws, "--explain")
    assert f"inputs.onnx:{HEAD}" in answer.stderr
    assert f"inputs.onnx:{ENCODER}" not in answer.stderr


def test_an_engine_that_was_changed_is_built_again(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path, {ENCODER: encoder()})
    assert build(ws).returncode == 0
    engine = next(ws.root.glob("tensorrt/*/*.engine"))
    engine.write_bytes(engine.read_bytes()[:-1] + b"x")
    assert build(ws).returncode == 0
    ws.artifact(engine.relative_to(ws.root).as_posix())


def test_an_unknown_operator_is_named_with_its_position(tmp_path: Path) -> None:
    model = head()
    node = model.graph.node[3]
    node.op_type, node.domain = "NoSuchOperator", "my.domain"
    model.opset_import.append(onnx.helper.make_opsetid("my.domain", 1))
    answer = build(make_workspace(tmp_path, {HEAD: model}))
    assert answer.returncode == 5
    assert f"{HEAD}: node 3 '{node.name}' (NoSuchOperator) can't be parsed" in answer.stderr
    assert "tensorrt.plugin_libraries" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tensorrt.version_compatible=true", "has no version compatible engines"),
        ("tensorrt.tactic_sources=[cudnn]", "has no tactic source cudnn"),
        ("tensorrt.dla_core=0", "shows 0 DLA cores"),
        ("tensorrt.refittable=true", "only where a GPU is"),
        ("tensorrt.strip_weights=true", "only where a GPU is"),
    ],
)
def test_an_option_that_this_tensorrt_lacks_ends_the_build(tmp_path: Path, override: str, message: str) -> None:
    if "where a GPU is" in message and cuda.find_gpus():
        pytest.skip("there is a GPU here")
    ws = make_workspace(tmp_path, {ENCODER: encoder()})
    answer = build(ws, "--set", override, policy="fp16")
    assert answer.returncode == 4, answer.stderr
    assert message in answer.stderr


def test_what_takes_a_choice_of_kernels_or_earlier_engines_says_that_there_is_none(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path, {ENCODER: encoder()})
    answer = build(ws, "--reproducible", "record")
    assert answer.returncode == 4
    assert "there is nothing to record" in answer.stderr
    answer = trt_builder("refit", "--work", ws.root, "--target", "rtx")
    assert answer.returncode == 3
    assert "there are no engines" in answer.stderr
    assert ws.manifest().stages.keys() == {"export"}


def test_a_missing_plugin_library_is_named(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path, {ENCODER: encoder()})
    answer = build(ws, "--set", f"tensorrt.plugin_libraries=[{tmp_path}/none.so]")
    assert answer.returncode == 3
    assert "none.so" in answer.stderr
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"no library")
    answer = build(ws, "--set", f"tensorrt.plugin_libraries=[{broken}]")
    assert answer.returncode == 3
    assert "this plugin library does not load" in answer.stderr


def test_a_truncated_onnx_file_is_refused(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path, {ENCODER: encoder()})
    path = ws.path(f"onnx/{ENCODER}.onnx")
    path.write_bytes(path.read_bytes()[:100])
    answer = build(ws)
    assert answer.returncode == 3
    assert "differs from its hash" in answer.stderr


def test_two_builds_at_once_both_end_well(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path)
    both = [trt_rtx.start("build", "--work", ws.root, "--target", "rtx") for _ in range(2)]
    said = []
    for process in both:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        said.append(errors)
    assert sum("up to date" in text for text in said) == 1
    for relative, artifact in ws.manifest().artifacts.items():
        if artifact.kind == "engine":
            ws.artifact(relative)


def test_two_targets_at_once_lose_nothing(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path)
    policies = ("fp32", "fp16", "auto")
    running = [
        trt_rtx.start("build", "--work", ws.root, "--target", "rtx", "--set", f"tensorrt.precision_policy={policy}")
        for policy in policies
    ]
    for process in running:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    for policy in policies:
        assert set(records(ws, policy)) == {ENCODER, HEAD}


def test_killed_at_any_moment_the_workspace_stays_whole(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path)
    assert build(ws, policy="fp32").returncode == 0
    seen = set()
    for step in range(8):
        process = trt_rtx.start("build", "--work", ws.root, "--target", "rtx", "--force", "--set",
                                "tensorrt.precision_policy=fp32")  # fmt: skip
        time.sleep(0.25 + 0.12 * step)
        process.kill()
        process.communicate(timeout=600)
        manifest = ws.manifest()
        stage = next(value for name, value in manifest.stages.items() if name.startswith("build:"))
        seen.add(stage.status)
        for relative, artifact in manifest.artifacts.items():
            path = ws.path(relative)
            assert path.is_file()
            assert path.stat().st_size == artifact.bytes
    assert seen <= {"running", "done"}
    assert build(ws, policy="fp32").returncode == 0
    assert not list(ws.root.rglob(".*partial*"))
    assert set(records(ws, "fp32")) == {ENCODER, HEAD}


def test_a_full_disk_ends_with_one_line_and_the_old_engines(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path, {HEAD: head()})
    assert build(ws).returncode == 0
    engine = next(ws.root.glob("tensorrt/*/*.engine"))
    before = engine.read_bytes()
    # A limit on the size of files: what a full disk does, without filling one.
    limited = subprocess.run(
        ["bash", "-c", f"ulimit -f 200; exec {trt_rtx.python()} -c \"from trt_builder.cli import cli; cli()\" "
         f"build --work {ws.root} --target rtx --force"],
        capture_output=True, text=True, check=False, timeout=600, env=trt_rtx.environment(),
    )  # fmt: skip
    assert limited.returncode == 4, limited.stderr
    assert "larger than the limit" in limited.stderr
    assert engine.read_bytes() == before
    assert not list(ws.root.rglob(".*partial*"))


def test_networks_of_full_size_build_in_fp32_and_fp16(tmp_path: Path) -> None:
    ws = full_size_workspace(tmp_path)
    for policy in ("fp32", "fp16"):
        answer = build(ws, policy=policy)
        assert answer.returncode == 0, answer.stderr
        for record in records(ws, policy).values():
            assert record["achieved"]["share_of_matrix_layers"] == {policy: 1.0}
    assert records(ws, "fp16")[HEAD]["bytes"] < 0.7 * records(ws, "fp32")[HEAD]["bytes"]


@pytest.mark.parametrize("name", ["squeezenet", "vgg19", "bvlc_alexnet", "zfnet512"])
def test_well_known_networks_run_in_fp16_all_through(tmp_path: Path, name: str) -> None:
    """Graphs that nobody here wrote: ONNX's own copies of them, whose weights are made by nodes (ConstantOfShape)."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    model = onnx.load(str(folder / f"light_{name}.onnx"))
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"/{node.op_type}_{index}"
    answer = build(make_workspace(tmp_path, {name: model}), policy="fp16")
    assert answer.returncode == 0, answer.stderr
    assert "100% fp16 of the matrix layers" in answer.stderr


def test_check_and_inspect_read_what_was_built(tmp_path: Path) -> None:
    ws = make_workspace(tmp_path)
    assert build(ws, policy="fp16").returncode == 0
    assert fewest_seconds(lambda: trt_builder("check", "--work", ws.root), enough=1.0) < 1.0
    answer = trt_builder("check", "--work", ws.root)
    assert answer.returncode == 4
    assert "TensorRT for RTX" in answer.stdout
    assert "there is no GPU here" in answer.stdout or "TensorRT for RTX does not run on" in answer.stdout
    assert trt_builder("check", "--work", ws.root, "--arch", "sm89").returncode == 0
    assert "does not run on sm90" in trt_builder("check", "--work", ws.root, "--arch", "sm90").stdout
    assert "1.5.0 is installed here" in trt_builder("check", "--work", ws.root, "--tensorrt", "1.5.0").stdout
    engine = next(ws.root.glob(f"tensorrt/*/{HEAD}.engine"))
    shown = trt_builder("inspect", engine)
    assert "share of matrix layers: fp16 100.0%" in shown.stdout
    assert "input spatial_features: float32 ['batch_size', 16, 16, 16]" in shown.stdout
    assert "output heatmap: float32 ['batch_size', 3, 16, 16]" in shown.stdout
    assert json.loads(trt_builder("inspect", engine, "--json").stdout)["component"] == HEAD
    no_times = trt_builder("inspect", engine, "--picture", tmp_path / "x.svg")
    assert no_times.returncode == 3
    assert "no times in its record" in no_times.stderr
    engine.write_bytes(engine.read_bytes()[:-10])
    truncated = trt_builder("check", engine)
    assert truncated.returncode == 3
    assert "truncated or replaced" in truncated.stderr


def test_plugin_libraries_load_where_the_config_was_recorded_and_where_the_command_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "plugin.so"
    library.write_bytes(b"no library, so that loading it ends with an error")
    ws = make_workspace(tmp_path / "work", {ENCODER: encoder()}, {"tensorrt": {"plugin_libraries": [str(library)]}})
    assert "does not load" in build(ws).stderr
    monkeypatch.setenv("AWML_DEPLOY_KEY", str(tmp_path / "key-of-somebody-else"))
    answer = build(ws)
    assert answer.returncode == 3
    assert f"its config names {library}, which would be loaded" in answer.stderr
    assert "does not load" in build(ws, "--set", f"tensorrt.plugin_libraries=['{library}']").stderr
    assert "does not load" in build(ws, "--trust").stderr
    assert "does not load" in build(ws).stderr
