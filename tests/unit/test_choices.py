"""Choices of precisions: their workspaces, what each asks the builder for, and that each is measured once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from shared.errors import BuildError, ConfigError, DeployError, EnvironmentLacks, InputError, ManifestError, UsageError
from shared.manifest import MANIFEST_NAME, Manifest, update_manifest
from shared.workspace import Workspace
from tests.support.choosing import quantized_workspace
from tests.support.trt_workspaces import ENCODER, HEAD, make_workspace
from trt_builder.build_plan import read_config
from trt_builder.choices.choice import Choice, uniform
from trt_builder.choices.measure import PARETO, RESULT, Bench
from trt_builder.choices.prepare import config_of, prepare
from trt_builder.choices.search import Limit
from trt_builder.choices.source import Source, skip_list
from trt_builder.choices.sweep import choices, sweep
from trt_builder.choices.tune import CONFIG, tune
from trt_builder.jobs import make_jobs

COMPONENTS = (ENCODER, HEAD)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source.open(quantized_workspace(tmp_path / "work").root)


def jobs_of(workspace: Workspace) -> dict[str, Any]:
    return {job.component: job.policy for job in make_jobs(workspace, read_config(workspace, ()))}


def in_backbone(source: Source) -> frozenset[str]:
    return frozenset(name for name in source.layers if "backbone" in name)


def test_a_float_choice_is_built_without_qdq_nodes(source: Source) -> None:
    jobs = jobs_of(prepare(source, uniform(COMPONENTS, "fp16"), backend="tensorrt"))
    assert {name: policy.policy.name for name, policy in jobs.items()} == {ENCODER: "fp16", HEAD: "fp16"}
    assert not jobs[HEAD].int8


def test_the_layers_of_a_choice_and_no_others_are_in_int8(source: Source) -> None:
    backbone = in_backbone(source)
    choice = Choice("mixed", {ENCODER: "fp32_tf32", HEAD: "fp16"}, int8=backbone)
    jobs = jobs_of(prepare(source, choice, backend="tensorrt"))
    assert jobs[ENCODER].policy.name == "fp32_tf32"
    in_int8 = {node for node, precision in jobs[HEAD].expected.items() if precision == "int8"}
    assert in_int8 == {source.layers[name].node for name in backbone}


def test_layers_that_stay_in_fp32_are_kept_there(source: Source) -> None:
    kept = frozenset(name for name in source.layers if name.endswith("heatmap.1"))
    choice = Choice("careful", dict.fromkeys(COMPONENTS, "fp16"), fp32=kept)
    jobs = jobs_of(prepare(source, choice, backend="tensorrt"))
    assert {node for node, reason in jobs[HEAD].keep.items() if reason == "keep_fp32"} == {
        source.layers[name].node for name in kept
    }


def test_what_is_known_of_large_tensors_holds_for_a_choice(source: Source) -> None:
    shared = source.layers["pts.head.shared"].node
    largest = {"/head/shared": 5e5}
    record = {"onnx_sha256": source.workspace.input_hash(f"onnx/{HEAD}.onnx"), "largest": largest}
    with source.workspace.stage("ranges", tool="runtime") as stage:
        stage.json_artifact(f"ranges/{HEAD}.json", "tensor-ranges", record)
    jobs = jobs_of(prepare(source, uniform(COMPONENTS, "fp16"), backend="tensorrt"))
    assert shared in jobs[HEAD].keep and jobs[HEAD].expected[shared] == "fp32"


def test_onnx_runtime_gets_a_graph_in_fp16(source: Source) -> None:
    workspace = prepare(source, uniform(COMPONENTS, "fp16"), backend="onnx")
    model = onnx.load(str(workspace.onnx(f"onnx/{HEAD}.onnx")))
    assert any(node.op_type == "Cast" for node in model.graph.node)
    assert all(value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for value in model.graph.output)


def test_a_choice_is_found_again_and_another_export_is_another_choice(source: Source, tmp_path: Path) -> None:
    choice = uniform(COMPONENTS, "fp16")
    first = prepare(source, choice, backend="tensorrt")
    before = (first.root / MANIFEST_NAME).stat().st_mtime_ns
    assert prepare(source, choice, backend="tensorrt").root == first.root
    assert (first.root / MANIFEST_NAME).stat().st_mtime_ns == before
    assert choice.key({"onnx/a.onnx": "1"}, "tensorrt") != choice.key({"onnx/a.onnx": "2"}, "tensorrt")


def test_a_layer_that_was_not_quantized_is_refused(source: Source) -> None:
    with pytest.raises(ConfigError, match="is no layer that the export quantized"):
        prepare(source, Choice("x", dict.fromkeys(COMPONENTS, "fp16"), int8=frozenset({"nothing"})), backend="onnx")


def test_plugins_that_came_with_a_workspace_are_not_taken_over(tmp_path: Path) -> None:
    library = tmp_path / "work" / "plugin.so"
    settings = {"tensorrt": {"plugin_libraries": [str(library)]}}
    source = Source.open(quantized_workspace(tmp_path / "work", settings).root)
    library.touch()
    with pytest.raises(ManifestError, match="is a plugin library in the workspace"):
        prepare(source, uniform(COMPONENTS, "fp16"), backend="tensorrt")


def test_a_choice_names_no_training_config(tmp_path: Path) -> None:
    settings = {"model": {"type": "centerpoint", "config": "train.py", "checkpoint": "model.pth"}}
    source = Source.open(quantized_workspace(tmp_path, settings).root)
    choice = uniform(COMPONENTS, "fp16")
    assert config_of(source, choice).model.config is not None, "the config that is written out has it"
    model = prepare(source, choice, backend="tensorrt").config()["model"]
    assert (model["config"], model["checkpoint"]) == (None, None)


def test_int8_of_a_float_model_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    source = Source.open(make_workspace(tmp_path).root)
    with pytest.raises(ConfigError, match="needs layers that the export quantized"):
        choices(source, ["fp16", "int8"], [])


def test_an_unknown_policy_is_refused(source: Source) -> None:
    with pytest.raises(UsageError, match="no policy 'int4'"):
        choices(source, ["int4"], [])


def test_skip_lists_are_read_from_configs_and_from_sensitivity(source: Source, tmp_path: Path) -> None:
    plain, config = tmp_path / "skip.yaml", tmp_path / "my_int8.yaml"
    plain.write_text("sensitive_layers: [pts.backbone]\n")
    config.write_text("quantization:\n  sensitive_layers: ['heatmap\\.1$']\n")
    assert skip_list(config) == [r"heatmap\.1$"]
    everything = tmp_path / "all_int8.yaml"
    everything.write_text("quantization:\n  enabled: true\n")
    assert skip_list(everything) == [], "a config without the list leaves nothing out"
    found = choices(source, ["int8"], [plain, config])
    assert [choice.label for choice in found] == ["int8, skip", "int8, my_int8"]
    assert found[0].int8 == frozenset(source.layers) - in_backbone(source)
    assert len(found[1].int8) == len(source.layers) - 1


def test_skip_lists_of_one_name_are_told_apart_by_their_folders(source: Source, tmp_path: Path) -> None:
    paths = [tmp_path / folder / "skip.yaml" for folder in ("a", "b", "c/b", "copy")]
    layers = ("pts.backbone", "heatmap", "pts.neck", "pts.backbone")
    for path, name in zip(paths, layers, strict=True):
        path.parent.mkdir(parents=True)
        path.write_text(f"sensitive_layers: [{name}]\n")
    found = choices(source, ["int8"], paths)
    names = f"{tmp_path.name}/b/skip", "c/b/skip"
    assert [choice.label for choice in found] == ["int8, a/skip", *(f"int8, {name}" for name in names)]
    assert found[0].int8 == frozenset(source.layers) - in_backbone(source)
    assert len({choice.int8 for choice in found}) == 3, "two equal files are one choice"


# -- measured once ----------------------------------------------------------------------------------------------------


class Tools:
    """Stands in for the commands: notes each call, and leaves what `runtime bench` and `evaluator pareto` would."""

    def __init__(self, broken: Sequence[str] = (), error: type[BaseException] = BuildError) -> None:
        self.calls: list[tuple[str, str]] = []
        self.broken, self.error = broken, error

    def __call__(self, tool: str, command: str, *arguments: str) -> str:
        workspace = Workspace(Path(arguments[arguments.index("--work") + 1]))
        self.calls.append((tool, command))
        if command == "bench":
            policy = workspace.config()["tensorrt"]["precision_policy"]
            if policy in self.broken:
                named = {"where": "runtime bench"} if issubclass(self.error, DeployError) else {}
                raise self.error("does not run", **named)
            stages = {ENCODER: {"median": 1.0}, HEAD: {"median": 2.0}, "total": {"median": 4.0}}

            def record(manifest: Manifest) -> None:
                manifest.results.setdefault("bench", {})["onnx-cpu"] = {"stages": stages}

            update_manifest(workspace.root / MANIFEST_NAME, record)
        if command == "pareto":
            key = arguments[arguments.index("--reference") + 1]
            found = {"key": key, "drop": 0.0, "drop_interval": None, "lowest_snr_db": None}
            with workspace.stage("pareto", tool="evaluator") as stage:
                stage.json_artifact(PARETO, "pareto", {"runs": {"onnx-cpu": [found]}})
        return "the table"


def bench_of(source: Source, tools: Tools, **options: Any) -> Bench:
    return Bench(source, "onnx", "cpu", num_samples=3, seconds=0.1, call=tools, **options)


def test_latency_is_the_sum_of_the_components(source: Source) -> None:
    bench = bench_of(source, Tools())
    choice = uniform(COMPONENTS, "fp16")
    assert bench.latency_ms(choice) == 3.0
    assert bench.workspace(choice).manifest().results[RESULT]["onnx-cpu"]["components_ms"] == {ENCODER: 1.0, HEAD: 2.0}


def test_what_was_measured_is_not_measured_again(source: Source) -> None:
    tools = Tools()
    sweep(bench_of(source, tools), ["fp32", "fp16"], [], metric=False)
    assert tools.calls.count(("runtime", "bench")) == 2
    again = Tools()
    assert "the table" in sweep(bench_of(source, again), ["fp32", "fp16"], [], metric=False)
    assert again.calls == [("evaluator", "pareto")]


def test_runs_are_spread_over_a_cluster_and_timing_is_not(source: Source) -> None:
    given: dict[str, tuple[str, ...]] = {}

    class Noting(Tools):
        def __call__(self, tool: str, command: str, *arguments: str) -> str:
            given[command] = arguments
            return super().__call__(tool, command, *arguments)

    bench = bench_of(source, Noting(), cluster="local:2")
    choice = uniform(COMPONENTS, "fp32")
    bench.latency_ms(choice)
    assert bench.score(choice, choice).drop == 0.0
    assert given["run"][-2:] == ("--cluster", "local:2")
    assert "--cluster" not in given["bench"] and "--cluster" not in given["evaluate"]


def test_other_settings_are_measured_again(source: Source) -> None:
    sweep(bench_of(source, Tools()), ["fp32"], [], metric=False)
    tools = Tools()
    sweep(bench_of(source, tools, overrides=["tensorrt.optimization_level=1"]), ["fp32"], [], metric=False)
    assert ("runtime", "bench") in tools.calls


def test_a_choice_that_fails_is_named_and_the_others_are_measured(source: Source) -> None:
    answer = sweep(bench_of(source, Tools(broken=["fp16"])), ["fp32", "fp16", "bf16"], [], metric=False)
    assert "left out: fp16: runtime bench: does not run" in answer
    assert answer.data["runs"]["onnx-cpu"][0]["drop"] == 0.0
    assert answer.data["left_out"] == ["fp16: runtime bench: does not run"]
    again = Tools(broken=["fp16"])
    assert "left out: " in sweep(bench_of(source, again), ["fp32", "fp16", "bf16"], [], metric=False)
    assert again.calls == [("evaluator", "pareto")], "a choice that failed is tried again only with --force"


def test_a_machine_that_lacks_something_ends_the_sweep(source: Source) -> None:
    with pytest.raises(EnvironmentLacks, match="does not run"):
        sweep(bench_of(source, Tools(["fp32"], EnvironmentLacks)), ["fp32", "fp16"], [], metric=False)


@pytest.mark.parametrize("error", [KeyboardInterrupt, EnvironmentLacks, InputError, UsageError])
def test_what_is_not_the_fault_of_a_choice_is_tried_again(source: Source, error: type[BaseException]) -> None:
    with pytest.raises(error):
        sweep(bench_of(source, Tools(["fp16"], error)), ["fp32", "fp16"], [], metric=False)
    again = Tools()
    assert sweep(bench_of(source, again), ["fp32", "fp16"], [], metric=False).data["left_out"] == []
    assert again.calls.count(("runtime", "bench")) == 1, "FP32 was measured before"


def test_tune_writes_nothing_where_the_reference_can_not_be_measured(source: Source) -> None:
    tools = Tools(["fp32"])
    with pytest.raises(BuildError, match="the reference, FP32, can't be built or run"):
        tune(bench_of(source, tools), Limit(max_drop=1.0), most=2)
    assert tools.calls == [("runtime", "bench")], "nothing can be compared with it"
    assert not (source.workspace.root / CONFIG).exists()


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("pts.bakcbone", "did you mean 'pts.backbone'"),
        ("heatmpa", "did you mean 'heatmap'"),
        (r"^nothing\d", "there are: pts.backbone, "),
    ],
)
def test_what_tune_is_to_keep_in_float_must_be_there(source: Source, pattern: str, hint: str) -> None:
    tools = Tools()
    with pytest.raises(UsageError, match="is no layer or block that the export quantized") as error:
        tune(bench_of(source, tools), Limit(max_drop=1.0), keep_float=["pts.neck", pattern], most=2)
    assert error.value.hint is not None and error.value.hint.startswith(hint)
    assert not tools.calls


@pytest.mark.parametrize("pattern", ["pts.encoder", "pts.encoder.0.linear", r"linear$"])
def test_what_is_in_float_already_may_be_kept_there(
    source: Source, pattern: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "choices"), pytest.raises(UsageError, match="'nothing' is no layer or block"):
        tune(bench_of(source, Tools()), Limit(max_drop=1.0), keep_float=[pattern, "nothing"], most=2)
    assert f"--keep-float {pattern}: in floating point already" in caplog.text


def test_weights_come_from_before_rounding(source: Source) -> None:
    name = next(iter(source.layers))
    cut = prepare(source, uniform(COMPONENTS, "fp32"), backend="onnx")
    tensor = next(
        tensor
        for tensor in onnx.load(str(cut.onnx(f"onnx/{HEAD}.onnx"))).graph.initializer
        if tensor.name == source.layers[name].weight
    )
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), source.weights()[f"{HEAD}/{tensor.name}"])
