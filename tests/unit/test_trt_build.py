"""What the builder asks of TensorRT for each policy and version, and what it makes of the answers (with doubles)."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import onnx
import pytest

from benchmarks.trt_engines import verdicts
from shared import cuda, engines
from shared.cast_graph import lower
from shared.config.tensorrt_section import TensorRT as Options
from shared.cuda import GpuInfo
from shared.errors import BuildError, DeployError, EnvironmentLacks, InputError, ManifestError
from shared.workspace import Workspace
from tests.support import tensorrt_double
from tests.support.opened import opened_files
from tests.support.qdq_graphs import Net
from tests.support.tensorrt_double import Behavior, Recorded
from tests.support.tensorrt_double.building import TimingCache
from tests.support.trt_workspaces import (
    ENCODER,
    HEAD,
    encoder,
    export,
    head,
    make_workspace,
    quantize,
    with_other_weights,
)
from trt_builder import compat, progress, timing_cache
from trt_builder import target as targets
from trt_builder.build import build_all
from trt_builder.build_plan import options_key
from trt_builder.compat import TensorRT
from trt_builder.messages import Messages, make_logger
from trt_builder.refit import refit_all
from trt_builder.session import open_session
from trt_builder.target import Target

ROOT = Path(__file__).resolve().parents[2]
H200 = GpuInfo(0, "NVIDIA H200", (9, 0), 132, 150 << 30)


class Machine:
    """A machine with a GPU and a TensorRT of a version."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.recorded = Recorded()
        self.behavior = Behavior()
        self._monkeypatch = monkeypatch

    def with_tensorrt(self, version: str) -> Target:
        trt = tensorrt_double.make(version, self.recorded, self.behavior)
        target = Target(TensorRT("tensorrt", trt, version), H200)
        self._monkeypatch.setattr(targets, "find", lambda wanted: target)
        self._monkeypatch.setattr(cuda, "use_gpu", lambda index: None)
        self._monkeypatch.setattr(engines, "layer_times", lambda trt, engine: {})
        return target


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def build(ws: Workspace, policy: str, *overrides: str, force: bool = False) -> None:
    build_all(ws.root, target="auto", overrides=[f"tensorrt.precision_policy={policy}", *overrides], force=force)


def achieved(ws: Workspace, target: Target, policy: str, component: str) -> dict[str, Any]:
    value: dict[str, Any] = ws.manifest().results["engines"][f"{target.name(policy)}/{component}"]["achieved"]
    return value


def test_benchmarks_note_a_proof_that_failed_and_go_on(machine: Machine, tmp_path: Path) -> None:
    machine.with_tensorrt("8.6.0")
    machine.behavior.precision_of = lambda name, asked: "FP32"
    ws = make_workspace(tmp_path, {HEAD: head()})
    with verdicts() as said:
        build(ws, "fp16")
    assert len(said) == 1
    assert said[0].startswith(f"{HEAD}: precision_policy fp16 was not met")
    with pytest.raises(BuildError, match="was not met"):
        build(ws, "fp16", force=True)


def test_tensorrt_gets_one_logger_that_tells_the_build_of_today() -> None:
    trt = tensorrt_double.make("8.6.0", Recorded(), Behavior())
    first, second = Messages(), Messages()
    logger = make_logger(trt, first, layers=False)
    assert make_logger(trt, second, layers=False) is logger
    logger.log(trt.ILogger.Severity.ERROR, "no kernel")
    assert (first.problems(), second.problems()) == ([], ["no kernel"])


@pytest.mark.parametrize(
    ("policy", "flags"),
    [
        ("auto", {"TF32"}),
        ("fp32", set()),
        ("fp32_tf32", {"TF32"}),
        ("fp16", {"TF32", "FP16", "OBEY_PRECISION_CONSTRAINTS"}),
    ],
)
@pytest.mark.parametrize("version", ["8.6.0", "10.9.0"])
def test_flags_and_precisions_of_a_weakly_typed_version(
    machine: Machine, tmp_path: Path, version: str, policy: str, flags: set[str]
) -> None:
    target = machine.with_tensorrt(version)
    ws = make_workspace(tmp_path, {HEAD: head()})
    build(ws, policy)
    assert machine.recorded.flags == flags
    assert machine.recorded.network_flags == 1
    asked = machine.recorded.precisions
    assert set(asked.values()) == ({"FP16"} if policy == "fp16" else set())
    assert len(asked) == (17 if policy == "fp16" else 0)
    assert achieved(ws, target, policy, HEAD)["share_of_matrix_layers"] == {"fp16" if policy == "fp16" else "fp32": 1.0}
    assert not list(ws.root.rglob("*.fp16.onnx"))


def test_bf16_needs_a_version_that_has_it(machine: Machine, tmp_path: Path) -> None:
    machine.with_tensorrt("8.6.0")
    ws = make_workspace(tmp_path, {ENCODER: encoder()})
    with pytest.raises(EnvironmentLacks, match=r"TensorRT 8.6.0 has no precision bf16. TensorRT 10.x has it"):
        build(ws, "bf16")
    machine.with_tensorrt("10.9.0")
    build(ws, "bf16")
    assert "BF16" in machine.recorded.flags


@pytest.mark.parametrize("version", ["8.6.0", "10.9.0"])
def test_keep_fp32_pins_layers_and_outputs_and_switches_tf32_off(
    machine: Machine, tmp_path: Path, version: str
) -> None:
    machine.with_tensorrt(version)
    ws = make_workspace(tmp_path, {HEAD: head()}, {"components": {HEAD: {"keep_fp32": ["/head/.*"]}}})
    build(ws, "fp16")
    asked = machine.recorded.precisions
    assert {value for name, value in asked.items() if name.startswith("/head/")} == {"FP32"}
    assert asked["/backbone/blocks.0/blocks.0.0/Conv"] == "FP16"
    assert set(machine.recorded.outputs.values()) == {"FLOAT"}
    assert "TF32" not in machine.recorded.flags


@pytest.mark.parametrize("version", ["8.6.0", "10.9.0"])
def test_int8_sets_both_flags_and_leaves_quantized_layers_to_their_qdq(
    machine: Machine, tmp_path: Path, version: str
) -> None:
    machine.with_tensorrt(version)
    machine.behavior.precision_of = lambda name, asked: asked or ("INT8" if name.endswith("/Conv") else "FP16")
    ws = make_workspace(tmp_path, {HEAD: quantize(head())})
    build(ws, "int8")
    assert {"INT8", "FP16"} <= machine.recorded.flags
    assert machine.recorded.precisions == {"/neck/deblocks.1/ConvTranspose": "FP16"}


def test_strongly_typed_is_a_network_flag_where_it_exists_and_layer_precisions_on_8_6(
    machine: Machine, tmp_path: Path
) -> None:
    model, _ = lower(encoder(), "fp16", keep={"/pfn/ReduceMax": "keep_fp32"})
    machine.behavior.precision_of = lambda name, asked: "FP16"
    ws = make_workspace(tmp_path, {ENCODER: model})
    machine.with_tensorrt("10.9.0")
    build(ws, "strongly_typed")
    assert machine.recorded.network_flags == 0b11
    assert machine.recorded.flags == {"TF32"}
    assert machine.recorded.precisions == {}
    machine.with_tensorrt("8.6.0")
    build(ws, "strongly_typed")
    assert machine.recorded.flags == {"TF32", "FP16", "OBEY_PRECISION_CONSTRAINTS"}
    assert machine.recorded.precisions["/pfn/linear/MatMul"] == "FP16"
    assert machine.recorded.precisions["/pfn/ReduceMax"] == "FP32"


@pytest.mark.parametrize("policy", ["fp16", "bf16"])
def test_without_precision_flags_the_graph_is_derived(machine: Machine, tmp_path: Path, policy: str) -> None:
    target = machine.with_tensorrt("11.1.0")
    machine.behavior.precision_of = lambda name, asked: policy.upper()
    ws = make_workspace(tmp_path, {ENCODER: encoder()})
    build(ws, policy)
    assert machine.recorded.flags == {"TF32"}
    assert machine.recorded.precisions == {}
    ws.artifact(f"tensorrt/{target.name(policy)}/{ENCODER}.{policy}.onnx")


def test_fp16_asked_for_and_fp32_delivered_is_an_error_that_keeps_the_report(machine: Machine, tmp_path: Path) -> None:
    target = machine.with_tensorrt("8.6.0")
    machine.behavior.precision_of = lambda name, asked: "FP32" if "shared" in name else (asked or "FP32")
    ws = make_workspace(tmp_path, {HEAD: head()})
    with pytest.raises(BuildError, match=r"1 of 17 matrix nodes .*'/head/shared/Conv' in fp32, not fp16") as caught:
        build(ws, "fp16")
    assert caught.value.exit_code == 5
    assert ws.manifest().stages[f"build:{target.name('fp16')}"].status == "failed"
    assert ws.path(f"tensorrt/{target.name('fp16')}/{HEAD}.rejected.json").is_file()
    assert not [path for path, record in ws.manifest().artifacts.items() if record.kind == "engine"]
    machine.behavior.precision_of = lambda name, asked: asked or "FP32"
    build(ws, "fp16")
    assert not list(ws.root.rglob("*.rejected.json"))


def test_tf32_kernels_under_fp32_are_an_error(machine: Machine, tmp_path: Path) -> None:
    machine.with_tensorrt("10.9.0")
    machine.behavior.kernel = "sm80_xmma_tf32f32_nhwc"
    ws = make_workspace(tmp_path, {HEAD: head()})
    with pytest.raises(BuildError, match="run TF32 kernels"):
        build(ws, "fp32")
    build(ws, "fp32_tf32")


def test_a_build_reads_the_manifest_once_however_many_components(machine: Machine, tmp_path: Path) -> None:
    machine.with_tensorrt("10.9.0")
    ws = make_workspace(tmp_path, {ENCODER: encoder(), HEAD: head()})
    time.sleep(0.06)  # what was written this moment is not remembered
    with opened_files() as opened:
        build(ws, "fp32")
    assert opened["manifest.json"] <= 1


def test_options_reach_the_builder_config(machine: Machine, tmp_path: Path) -> None:
    machine.with_tensorrt("10.9.0")
    ws = make_workspace(tmp_path, {ENCODER: encoder()})
    build(
        ws, "fp32", "tensorrt.max_workspace_size=64 MiB", "tensorrt.tactic_sources=[cublas, jit_convolutions]",
        "tensorrt.version_compatible=true", "tensorrt.strip_weights=true",
    )  # fmt: skip
    assert machine.recorded.options["WORKSPACE"] == 64 << 20
    assert machine.recorded.tactic_sources == 0b110
    assert {"VERSION_COMPATIBLE", "STRIP_PLAN"} <= machine.recorded.flags
    assert machine.recorded.profiles == [{"input_features": ((1, 8, 11), (50, 8, 11), (200, 8, 11))}]
    build(ws, "fp32", "tensorrt.fixed_profile=true")
    assert machine.recorded.profiles == [{"input_features": ((200, 8, 11),) * 3}]


@pytest.mark.parametrize(
    ("version", "override", "message"),
    [
        (
            "8.6.0",
            "tensorrt.strip_weights=true",
            "TensorRT 8.6.0 has no engines without weights.*10.0 and newer has it",
        ),
        ("8.6.0", "tensorrt.hardware_compatibility=same_compute_capability", "8.6.0 has no hardware compatibility"),
        ("11.1.0", "tensorrt.tactic_sources=[cublas]", "11.1.0 has no tactic source cublas"),
    ],
)
def test_an_option_that_the_version_lacks_is_named(
    machine: Machine, tmp_path: Path, version: str, override: str, message: str
) -> None:
    machine.with_tensorrt(version)
    with pytest.raises(EnvironmentLacks, match=message):
        build(make_workspace(tmp_path, {ENCODER: encoder()}), "fp32", override)


@pytest.mark.parametrize("mistake", ["tensorrt.strip_weights=true", "tensorrt.dla_core=0", "reproduce"])
def test_what_the_version_lacks_does_not_cost_the_engines_that_are_there(
    machine: Machine, tmp_path: Path, mistake: str
) -> None:
    target = machine.with_tensorrt("8.6.0")
    ws = make_workspace(tmp_path, {ENCODER: encoder()})
    build(ws, "fp16")
    before = ws.manifest()
    overrides = ["tensorrt.precision_policy=fp16", *([mistake] if "=" in mistake else [])]
    with pytest.raises(EnvironmentLacks):
        build_all(ws.root, target="auto", overrides=overrides, reproduce="record" if mistake == "reproduce" else None)
    assert ws.manifest() == before
    ws.artifact(f"tensorrt/{target.name('fp16')}/{ENCODER}.engine")


@pytest.mark.parametrize(
    ("said", "meaning", "advice"),
    [
        ("Unable to load library: libnvinfer_lean.so.8.6.0", "lean runtime", "tensorrt_lean"),
        ("Requested amount of GPU memory (99 bytes) could not be allocated", "out of GPU memory", "nvidia-smi"),
        ("10: Could not find any implementation for node {ForeignNode[/a.../b]}.", "no kernel for a node", "keep_fp32"),
        ("no tactics to implement the operation within workspace limit", "no kernel for a node", "max_workspace_size"),
        ("points to the node being incorrectly marked as an int8 node", "no INT8 kernel", "sensitive_layers"),
        ("CUDA initialization failure: CUDA driver version is insufficient", "the driver is older", "doctor"),
        ("something else broke", "TensorRT could not build the engine: something else broke", "--debug"),
    ],
)
def test_failures_are_told_apart(machine: Machine, tmp_path: Path, said: str, meaning: str, advice: str) -> None:
    machine.with_tensorrt("8.6.0")
    machine.behavior.fails = True
    machine.behavior.says = [("WARNING", "a note"), ("ERROR", said)]
    with pytest.raises(BuildError) as caught:
        build(make_workspace(tmp_path, {ENCODER: encoder()}), "fp32")
    text = str(caught.value)
    assert text.startswith(f"{ENCODER}: ")
    assert meaning in text
    assert said[:30] in text
    assert advice in text
    assert "\n" not in text


def test_the_layer_without_an_int8_kernel_is_named(machine: Machine, tmp_path: Path) -> None:
    machine.with_tensorrt("8.6.0")
    machine.behavior.fails = True
    machine.behavior.says = [("ERROR", "points to the node being incorrectly marked as an int8 node")]
    net = Net()
    net.node("GlobalAveragePool", "pool", net.node("Add", "add", net.conv("x", "conv0"), net.pair("x", "skip")))
    with pytest.raises(BuildError, match="behind 'conv0' be quantized"):
        build(make_workspace(tmp_path, {HEAD: net.model()}), "int8")


@pytest.mark.parametrize("version", ["8.6.0", "10.9.0"])
def test_a_parser_error_names_node_operator_and_position(machine: Machine, tmp_path: Path, version: str) -> None:
    machine.with_tensorrt(version)
    model = head()
    model.graph.node[3].op_type, model.graph.node[3].domain = "Strange", "my.domain"
    model.opset_import.append(onnx.helper.make_opsetid("my.domain", 1))
    ws = make_workspace(tmp_path, {HEAD: model})
    with pytest.raises(BuildError, match=f"node 3 '{model.graph.node[3].name}' .Strange. can't be parsed: Plugin not"):
        build(ws, "fp32")


def test_a_library_that_the_parser_misses_is_an_error_of_the_environment(machine: Machine, tmp_path: Path) -> None:
    machine.with_tensorrt("8.6.0")
    model = head()
    model.graph.node[3].op_type = "RoiAlign"
    with pytest.raises(EnvironmentLacks, match=r"head: .*can't parse the graph here: .*libnvinfer_vc_plugin"):
        build(make_workspace(tmp_path, {HEAD: model}), "fp32")


def test_a_graph_that_this_version_misreads_is_not_built(machine: Machine, tmp_path: Path) -> None:
    machine.with_tensorrt("8.6.0")
    model = head()
    node = model.graph.node[3]
    node.op_type = "ScatterND"
    node.attribute.append(onnx.helper.make_attribute("reduction", "max"))
    with pytest.raises(EnvironmentLacks, match=r"misreads node .*reduction='max'"):
        build(make_workspace(tmp_path, {HEAD: model}), "fp32")


def test_a_graph_whose_types_contradict_each_other_is_refused(machine: Machine, tmp_path: Path) -> None:
    machine.with_tensorrt("8.6.0")
    model = head()
    model.graph.node[3].domain = "domain.that.is.not.imported"
    with pytest.raises(InputError, match="the types in this graph can't be inferred"):
        build(make_workspace(tmp_path, {HEAD: model}), "fp32")


def test_an_engine_that_does_not_load_is_an_error(machine: Machine, tmp_path: Path) -> None:
    machine.with_tensorrt("8.6.0")
    machine.behavior.refuses_to_load = True
    with pytest.raises(BuildError, match="does not load the engine"):
        build(make_workspace(tmp_path, {ENCODER: encoder()}), "fp32")


@pytest.mark.parametrize("version", ["8.6.0", "10.9.0", "11.1.0"])
def test_version_compatible_engines_load_where_they_are_built(machine: Machine, tmp_path: Path, version: str) -> None:
    target = machine.with_tensorrt(version)
    ws = make_workspace(tmp_path, {ENCODER: encoder()})
    build(ws, "fp32", "tensorrt.version_compatible=true")
    record = ws.manifest().results["engines"][f"{target.name('fp32')}/{ENCODER}"]
    assert record["version_compatible"] is True
    plan = ws.artifact(record["engine"]).read_bytes()
    for options, loads in (({"version_compatible": True}, True), ({}, False)):
        session = open_session(target, Options(**options), {}, tmp_path)
        with contextlib.nullcontext() if loads else pytest.raises(BuildError, match="engine_host_code_allowed"):
            session.load(plan, component=ENCODER)


def test_a_refit_with_other_options_than_the_build_s_is_refused(machine: Machine, tmp_path: Path) -> None:
    machine.with_tensorrt("8.6.0")
    ws = make_workspace(tmp_path, {ENCODER: encoder()})
    build(ws, "fp32", "tensorrt.refittable=true")
    export(ws, {ENCODER: with_other_weights(encoder())})
    overrides = ["tensorrt.precision_policy=fp32", "tensorrt.refittable=true", "tensorrt.version_compatible=true"]
    with pytest.raises(BuildError, match=r"built with other options \(tensorrt.version_compatible\)"):
        refit_all(ws.root, target="auto", overrides=overrides)


def test_the_key_of_a_stage_is_the_one_of_workspaces_written_before() -> None:
    assert options_key(
        Options(tactic_sources=("cudnn", "cublas"), fixed_profile=True), {"a.so": "22", "b.so": "11"}
    ) == {
        "max_workspace_size": 1 << 30,
        "optimization_level": 3,
        "avg_timing_iterations": 1,
        "max_aux_streams": None,
        "tactic_sources": ["cublas", "cudnn"],
        "version_compatible": False,
        "hardware_compatibility": "none",
        "strip_weights": False,
        "refittable": False,
        "dla_core": None,
        "gpu_fallback": True,
        "plugins": ["11", "22"],
    }


@pytest.mark.parametrize(
    ("policy", "override", "expected"),
    [
        ("fp16", [], {"type": "HALF", "layout": "HWC8"}),
        ("fp16", ["tensorrt.input_formats=rows"], {"type": "FLOAT", "layout": "LINEAR"}),
        ("fp16", ["tensorrt.fixed_profile=true"], {"type": "FLOAT", "layout": "LINEAR"}),
        ("fp16", [f"components.{HEAD}.keep_fp32=['/backbone.*']"], {"type": "FLOAT", "layout": "LINEAR"}),
        ("fp32", [], {"type": "FLOAT", "layout": "LINEAR"}),
    ],
)
def test_inputs_of_an_fp16_network_come_as_tensorrt_likes_them(
    machine: Machine, tmp_path: Path, policy: str, override: list[str], expected: dict[str, str]
) -> None:
    target = machine.with_tensorrt("8.6.0")
    ws = make_workspace(tmp_path, {ENCODER: encoder(), HEAD: head()})
    build(ws, policy, *override)
    engines = ws.manifest().results["engines"]
    formats = engines[f"{target.name(policy)}/{HEAD}"]["formats"]
    assert formats["spatial_features"] == expected
    outputs = [value for name, value in formats.items() if name != "spatial_features"]
    assert outputs == [{"type": "FLOAT", "layout": "LINEAR"}] * 6
    encoders = engines[f"{target.name(policy)}/{ENCODER}"]["formats"]["input_features"]
    assert encoders == {"type": "FLOAT", "layout": "LINEAR"}, "rows of points hold meters, which FP16 would round"


@pytest.mark.parametrize(
    ("in_float", "expected"),
    [
        ([r"blocks\.0\.0"], {"type": "HALF", "layout": "HWC8"}),
        ([r"deblocks"], {"type": "FLOAT", "layout": "LINEAR"}),
    ],
)
def test_inputs_of_an_int8_network_do_so_where_its_first_layers_compute_in_fp16(
    machine: Machine, tmp_path: Path, in_float: list[str], expected: dict[str, str]
) -> None:
    target = machine.with_tensorrt("8.6.0")
    machine.behavior.precision_of = lambda name, asked: asked or ("INT8" if name.endswith("/Conv") else "FP16")
    ws = make_workspace(tmp_path, {HEAD: quantize(head(), skip=in_float)})
    build(ws, "int8")
    assert ws.manifest().results["engines"][f"{target.name('int8')}/{HEAD}"]["formats"]["spatial_features"] == expected


def test_another_choice_of_input_formats_is_another_build(machine: Machine, tmp_path: Path) -> None:
    machine.with_tensorrt("8.6.0")
    ws = make_workspace(tmp_path, {HEAD: head()})
    build(ws, "fp16")
    first = ws.manifest().results["engines"]
    build(ws, "fp16", "tensorrt.input_formats=rows")
    assert ws.manifest().results["engines"] != first


def test_the_timing_cache_grows_and_is_used(machine: Machine, tmp_path: Path) -> None:
    target = machine.with_tensorrt("8.6.0")
    ws = make_workspace(tmp_path)
    build(ws, "fp32")
    cache = timing_cache.cache_path(ws.place("tensorrt"), target)
    assert cache.name == "8.6.0-sm90-132sm-nvidia-h200.cache"
    assert len(TimingCache(timing_cache.read(cache)).choices) == 2
    build(ws, "fp32", force=True)
    assert len(TimingCache(machine.recorded.caches[-1]).choices) == 3
    assert len(TimingCache(timing_cache.read(cache)).choices) == 4


@pytest.mark.parametrize("content", [b"", b"rubbish", b"awml-deploy timing cache 1 sha256 00\n{}"])
def test_a_corrupt_timing_cache_is_rebuilt(
    machine: Machine, tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    target = machine.with_tensorrt("8.6.0")
    ws = make_workspace(tmp_path, {ENCODER: encoder()})
    cache = timing_cache.cache_path(ws.place("tensorrt"), target)
    cache.parent.make_folder()
    cache.unchecked.write_bytes(content)
    build(ws, "fp32")
    assert "corrupt; starting anew" in caplog.text
    assert machine.recorded.caches == [b""]
    assert len(TimingCache(timing_cache.read(cache)).choices) == 1


def test_a_timing_cache_that_can_be_neither_read_nor_written_is_not_fatal(
    machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = machine.with_tensorrt("8.6.0")
    ws = make_workspace(tmp_path, {ENCODER: encoder()})
    timing_cache.cache_path(ws.place("tensorrt"), target).make_folder()
    build(ws, "fp32")
    assert "can't be read" in caplog.text
    assert "kernel timings are not kept" in caplog.text
    assert ws.manifest().stages[f"build:{target.name('fp32')}"].status == "done"


def test_a_cache_that_tensorrt_refuses_is_not_fatal(
    machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    machine.with_tensorrt("8.6.0")
    ws = make_workspace(tmp_path, {ENCODER: encoder()})
    build(ws, "fp32")
    machine.behavior.takes_cache = False
    build(ws, "fp32", force=True)
    assert "does not take the timing cache" in caplog.text


def test_a_long_build_shows_that_it_lives_and_the_next_one_how_long_it_took(
    machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = machine.with_tensorrt("8.6.0")
    shown = f"{ENCODER}: building for "
    machine.behavior.goes_on = lambda: caplog.text.count(shown) < 2
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.6)
    caplog.set_level(logging.INFO)
    ws = make_workspace(tmp_path, {ENCODER: encoder()})
    build(ws, "fp32")
    lines = [message for message in caplog.messages if message.startswith(shown)]
    assert all(re.fullmatch(r"[1-9]\d* s", line.removeprefix(shown)) for line in lines), lines
    assert not [message for message in caplog.messages if "the last time" in message or message.endswith(" ")]
    took = ws.manifest().results["engines"][f"{target.name('fp32')}/{ENCODER}"]["build_seconds"]
    assert took > 1.2
    machine.behavior.goes_on = lambda: False
    build(ws, "fp32", force=True)
    assert f"{ENCODER}: building; the last time took {took:.0f} s" in caplog.messages


@pytest.mark.parametrize("version", ["8.6.0", "10.9.0"])
def test_ctrl_c_stops_the_build_and_records_it(
    machine: Machine, tmp_path: Path, version: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = machine.with_tensorrt(version)
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    caplog.set_level(logging.INFO)
    interrupted, over = threading.Event(), threading.Event()

    def goes_on() -> bool:
        if "building for" in caplog.text and not interrupted.is_set():
            interrupted.set()
            os.kill(os.getpid(), signal.SIGINT)
        return not over.is_set()

    machine.behavior.goes_on = goes_on
    ws = make_workspace(tmp_path, {ENCODER: encoder()})
    with pytest.raises(KeyboardInterrupt):
        build(ws, "fp32")
    over.set()
    assert ws.manifest().stages[f"build:{target.name('fp32')}"].status == "failed"
    assert not [path for path, record in ws.manifest().artifacts.items() if record.kind == "engine"]


@pytest.mark.parametrize(("version", "refused"), [("10.2.0.19", True), ("10.3.0", False), ("10.9.0", False)])
def test_known_bad_versions(monkeypatch: pytest.MonkeyPatch, version: str, refused: bool) -> None:
    trt = tensorrt_double.make(version, Recorded())
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    if refused:
        with pytest.raises(EnvironmentLacks, match=r"10.2.0.19 builds wrong engines"):
            compat.load("tensorrt")
    else:
        known = compat.known_bad(compat.load("tensorrt"))
        assert (known is not None) == (version == "10.3.0")


def test_the_key_covers_version_gpu_and_driver(machine: Machine, tmp_path: Path) -> None:
    ws = make_workspace(tmp_path, {ENCODER: encoder()})
    target = machine.with_tensorrt("8.6.0")
    build(ws, "fp32")
    key = ws.manifest().stages[f"build:{target.name('fp32')}"].key
    assert key["versions"]["tensorrt"] == "8.6.0"
    assert key["versions"]["gpu"].startswith("NVIDIA H200, 132 SM")
    assert key["config"]["components"][ENCODER]["policy"] == "fp32"
    assert key["config"]["options"]["max_workspace_size"] == 1 << 30


def test_a_recorded_build_is_repeated_and_a_deviation_is_named(machine: Machine, tmp_path: Path) -> None:
    target = machine.with_tensorrt("10.9.0")
    ws = make_workspace(tmp_path, {ENCODER: encoder()})
    with pytest.raises(ManifestError, match="no recorded build to verify against"):
        build_all(ws.root, target="auto", reproduce="verify")
    machine.behavior.chooses = lambda before: before or {"conv": 1, "gemm": 2}
    build_all(ws.root, target="auto", reproduce="record")
    assert {"EDITABLE_TIMING_CACHE", "DISABLE_COMPILATION_CACHE"} <= machine.recorded.flags
    assert "ERROR_ON_TIMING_CACHE_MISS" not in machine.recorded.flags
    relative = f"tensorrt/{target.name('auto')}/{ENCODER}.tactics"
    recorded = ws.artifact(relative).read_bytes()
    build_all(ws.root, target="auto", reproduce="verify")
    assert "ERROR_ON_TIMING_CACHE_MISS" in machine.recorded.flags
    assert machine.recorded.caches[-1] == recorded
    assert ws.artifact(relative).read_bytes() == recorded
    machine.behavior.chooses = lambda before: {"conv": 7, "new": 3}
    with pytest.raises(BuildError, match="3 of 2: added new; removed gemm; changed conv: 1 -> 7"):
        build_all(ws.root, target="auto", reproduce="verify")


def test_reproducible_builds_need_10_9(machine: Machine, tmp_path: Path) -> None:
    machine.with_tensorrt("8.6.0")
    with pytest.raises(EnvironmentLacks, match=r"8.6.0 has no reproducible builds .*10.9 and newer has it"):
        build_all(make_workspace(tmp_path, {ENCODER: encoder()}).root, target="auto", reproduce="record")


def test_tensorrt_that_does_not_start_says_why(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = machine.with_tensorrt("8.6.0")

    def no_builder(logger: Any) -> Any:
        logger.log(target.tensorrt.trt.ILogger.Severity.WARNING, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(target.tensorrt.trt, "Builder", no_builder)
    with pytest.raises(EnvironmentLacks, match=r"TensorRT 8.6.0 does not start: CUDA initialization failure"):
        build(make_workspace(tmp_path, {ENCODER: encoder()}), "fp32")


def test_every_failure_is_a_deploy_error(machine: Machine, tmp_path: Path) -> None:
    machine.with_tensorrt("8.6.0")
    ws = make_workspace(tmp_path, {ENCODER: encoder()}, {"components": {"no_such": {}}})
    with pytest.raises(DeployError, match=r"the model has no component 'no_such'. it has pts_voxel_encoder"):
        build(ws, "fp32")


_COMMAND = """
import sys
from tests.support.tensorrt_double import Behavior, Recorded, make
from trt_builder import target as targets
from trt_builder.cli import cli
from trt_builder.compat import TensorRT
from shared.cuda import GpuInfo
from trt_builder.messages import Messages, make_logger
version, work = sys.argv[1:]
def goes_on():
    print("building", flush=True)
    return True
trt = make(version, Recorded(), Behavior(goes_on=goes_on))
gpu = GpuInfo(0, "GPU", (9, 0), 132, 1 << 30)
targets.find = lambda wanted: targets.Target(TensorRT("tensorrt", trt, version), gpu)
cli(["build", "--work", work])
"""


@pytest.mark.parametrize("version", ["8.6.0", "10.9.0"])
def test_ctrl_c_ends_the_command_with_130_at_once(tmp_path: Path, version: str) -> None:
    ws = make_workspace(tmp_path, {ENCODER: encoder()})
    process = subprocess.Popen(
        [sys.executable, "-c", _COMMAND, version, str(ws.root)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "building\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert ws.manifest().stages[f"build:trt{version}-sm90-auto"].status == "failed"


def record_ranges(ws: Workspace, value: float, onnx_sha256: str | None = None) -> None:
    with ws.stage("ranges", tool="runtime") as stage:
        recorded = {
            "samples": 1,
            "onnx_sha256": onnx_sha256 or ws.input_hash(f"onnx/{ENCODER}.onnx"),
            "largest": {"input_features": value, "linear": 1.0},
        }
        with stage.artifact(f"ranges/{ENCODER}.json", kind="tensor-ranges") as path:
            path.write_text(json.dumps(recorded))


def test_recorded_ranges_keep_nodes_out_of_fp16(machine: Machine, tmp_path: Path) -> None:
    target = machine.with_tensorrt("8.6.0")
    ws = make_workspace(tmp_path, {ENCODER: encoder()})
    for value, kept in ((1.0, set()), (2e4, {"/pfn/linear/MatMul"})):
        record_ranges(ws, value)
        build(ws, "fp16")
        record = ws.manifest().results["engines"][f"{target.name('fp16')}/{ENCODER}"]
        assert set(record["kept_in_fp32"]) & {"/pfn/linear/MatMul"} == kept
        assert machine.recorded.precisions["/pfn/linear/MatMul"] == ("FP32" if kept else "FP16")


def test_ranges_of_another_export_are_left_out_with_a_warning(
    machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    machine.with_tensorrt("8.6.0")
    ws = make_workspace(tmp_path, {ENCODER: encoder()})
    record_ranges(ws, 2e4, onnx_sha256="0" * 64)
    build(ws, "fp16")
    assert machine.recorded.precisions["/pfn/linear/MatMul"] == "FP16"
    assert "is of an earlier export" in caplog.text


def test_islands_of_int8_are_warned_of_before_they_are_built(
    machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    machine.with_tensorrt("8.6.0")
    ws = make_workspace(tmp_path, {HEAD: quantize(head(), skip=[r"blocks\.0", r"/head/shared", r"/head/\w+\.1"])})
    build_all(ws.root, target="tensorrt", overrides=["tensorrt.precision_policy=int8"], explain=True)
    assert "INT8 is likely no faster than FP16" in caplog.text
    assert not [name for name in ws.manifest().stages if name.startswith("build")]
