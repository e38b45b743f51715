"""verifier bisect on real graphs in ONNX Runtime: faults are found by the name of their node; killed, it goes on."""

from __future__ import annotations

import gc
import json
import math
import pickle
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
from onnx import TensorProto, helper, numpy_helper

from runtime.trace import trace
from shared.arrays import read_arrays
from shared.errors import EnvironmentLacks, InferenceError, InputError, ModelLoadError, UsageError
from shared.journal import Journal
from shared.onnx_windows import Graph
from shared.work_path import WorkPath
from shared.workspace import Workspace
from tests.support import tiny_centerpoint as tiny
from tests.support.killed_at import killed_at
from tests.support.planted import planted, scale_weights
from verifier.bisect import runners
from verifier.bisect.recipe import bisect, find_nodes
from verifier.bisect.runners import CommandRunner, OnnxRunner, ServerRunner, runner_of
from verifier.bisect.windows import Case

LIMIT = 50.0
WIDTH = 16
DEPTH = 30
RUNNER = OnnxRunner(optimize=True)

SCRIPT = """
import sys
import numpy as np
import onnxruntime as ort

model, inputs, outputs = sys.argv[1:]
session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
names = [output.name for output in session.get_outputs()]
np.savez(outputs, **dict(zip(names, session.run(names, dict(np.load(inputs))))))
"""


SERVER = """
import json, os, sys, time
import numpy as np
import onnx
import onnxruntime as ort

def answer(code, message):
    print(json.dumps({"exit_code": code, "message": message}), flush=True)

open(STARTS, "a").write("start\\n")
for line in sys.stdin:
    files = json.loads(line)
    if any(node.op_type == "ArgMax" for node in onnx.load(files["model"]).graph.node):
        OVER_ARGMAX
    session = ort.InferenceSession(files["model"], providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    np.savez(files["outputs"], **dict(zip(names, session.run(names, dict(np.load(files["inputs"]))))))
    answer(0, "")
AT_END
"""


def server(folder: Path, over_argmax: str = "pass", at_end: str = "") -> str:
    """A command that stays, and writes into ``starts`` of the folder when it is started."""
    script = folder / "server.py"
    text = SERVER.replace("STARTS", repr(str(folder / "starts")))
    script.write_text(text.replace("OVER_ARGMAX", over_argmax).replace("AT_END", at_end))
    return shlex.join([sys.executable, str(script)])


def deep_model() -> Any:
    """60 nodes: a residual network of linear layers, a constant, a branch, whole numbers and an ``If``."""
    rng = np.random.default_rng(0)
    nodes, weights = [], []
    current = "x"
    for layer in range(DEPTH):
        weight = rng.normal(0, 1 / math.sqrt(WIDTH), (WIDTH, WIDTH)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [current, f"w{layer}"], [f"m{layer}"], name=f"/layer{layer}/MatMul"))
        if layer % 3 == 2:
            nodes.append(helper.make_node("Add", [f"m{layer}", current], [f"r{layer}"], name=f"/layer{layer}/Add"))
        else:
            nodes.append(helper.make_node("Tanh", [f"m{layer}"], [f"r{layer}"], name=f"/layer{layer}/Tanh"))
        current = f"r{layer}"
    half = numpy_helper.from_array(np.array(0.5, np.float32))
    nodes.append(helper.make_node("Constant", [], ["half"], name="/Constant", value=half))
    nodes.append(helper.make_node("Mul", [current, "half"], ["scaled"]))
    nodes.append(helper.make_node("ArgMax", ["scaled"], ["best"], name="/ArgMax", axis=1, keepdims=0))
    nodes.append(helper.make_node("ReduceMax", ["scaled"], ["top"], name="/ReduceMax", keepdims=0))
    nodes.append(helper.make_node("Greater", ["top", "half"], ["large"], name="/Greater"))

    def branch(name: str, kind: str) -> Any:
        # Takes `scaled` from outside.
        output = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(kind, ["scaled"], [name])], name, [], [output])

    branches = {"then_branch": branch("a", "Relu"), "else_branch": branch("b", "Abs")}
    nodes.append(helper.make_node("If", ["large"], ["y"], name="/If", **branches))
    graph = helper.make_graph(
        nodes,
        "deep",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH]),
            helper.make_tensor_value_info("best", TensorProto.INT64, ["n"]),
        ],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def samples(count: int = 2) -> list[dict[str, np.ndarray]]:
    """Inputs whose first axis differs."""
    rng = np.random.default_rng(1)
    return [{"x": rng.normal(size=(3 + index, WIDTH)).astype(np.float32)} for index in range(count)]


def found_in(test: Any, folder: Path, runner: Any = RUNNER, reference: Any = None) -> dict[str, Any]:
    case = Case(Graph(test), Graph(reference or deep_model()), samples(), runner, LIMIT)
    return find_nodes(case, Journal.open(WorkPath(folder, "journal"), "f", False), "deep")


def names_of(found: dict[str, Any]) -> list[list[str]]:
    return [window["nodes"] for window in found["responsible"]]


@pytest.mark.parametrize("layers", [[0], [13], [29], [4, 22], [4, 5, 6]])
def test_scaled_weights_are_found_by_name(tmp_path: Path, layers: list[int]) -> None:
    model = deep_model()
    for layer in layers:
        scale_weights(model, f"/layer{layer}/MatMul", 1.05)
    found = found_in(model, tmp_path)
    assert names_of(found) == [[f"/layer{layer}/MatMul"] for layer in layers]
    assert found["runs"] <= len(layers) * (math.ceil(math.log2(found["nodes"])) + 2) + 1
    for window in found["responsible"]:
        # 1.05 of a signal is 26 dB.
        assert next(iter(window["outputs"].values()))["snr_db"] == pytest.approx(26, abs=0.1)


def test_equal_graphs_take_one_run(tmp_path: Path) -> None:
    found = found_in(deep_model(), tmp_path)
    assert found["responsible"] == [] and found["runs"] == 1
    assert found["nodes"] == 2 * DEPTH + 5


def test_faults_of_every_other_kind(tmp_path: Path) -> None:
    """A wrong attribute, a wrong operator without a name, NaN, and whole numbers that differ."""
    model = deep_model()
    nodes = {node.name or node.op_type: node for node in model.graph.node}
    nodes["/ArgMax"].op_type = "ArgMin"
    nodes["/layer9/Tanh"].op_type = "Sigmoid"
    nodes["Mul"].op_type = "Sub"
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w20")
    values = numpy_helper.to_array(weight).copy()
    values[0, 0] = np.nan
    weight.CopyFrom(numpy_helper.from_array(values, "w20"))
    found = found_in(model, tmp_path)
    assert names_of(found) == [["/layer9/Tanh"], ["/layer20/MatMul"], ["Sub:scaled"], ["/ArgMax"]]


def test_a_fault_within_a_branch_is_that_of_its_node(tmp_path: Path) -> None:
    model = deep_model()
    branches = next(node for node in model.graph.node if node.name == "/If").attribute
    for attribute in branches:
        attribute.g.node[0].op_type = "Neg"
    assert names_of(found_in(model, tmp_path)) == [["/If"]]


def test_graphs_of_other_nodes_are_cut_where_tensors_have_the_same_names(tmp_path: Path) -> None:
    """As a graph whose middle runs in half precision: casts before and after, and the tensors between renamed."""
    model = deep_model()
    for node in model.graph.node:
        if node.name == "/layer9/MatMul":
            node.input[0], node.output[0] = "low_in", "low_out"
            weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w9")
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), "w9"))
    position = next(i for i, node in enumerate(model.graph.node) if node.name == "/layer9/MatMul")
    model.graph.node.insert(position, helper.make_node("Cast", ["r8"], ["low_in"], name="down", to=TensorProto.FLOAT16))
    model.graph.node.insert(
        position + 2, helper.make_node("Cast", ["low_out"], ["m9"], name="up", to=TensorProto.FLOAT)
    )
    assert found_in(model, tmp_path)["responsible"] == [], "half precision keeps 60 dB"
    case = Case(Graph(model), Graph(deep_model()), samples(), RUNNER, 90.0)
    found = find_nodes(case, Journal.open(WorkPath(tmp_path, "strict"), "f", False), "deep")
    assert names_of(found) == [["down", "/layer9/MatMul", "up"]]


def test_a_command_serves_as_another_backend(tmp_path: Path) -> None:
    script = tmp_path / "runner.py"
    script.write_text(SCRIPT)
    model = deep_model()
    scale_weights(model, "/layer13/MatMul", 1.05)
    command = shlex.join([sys.executable, str(script)]) + " {model} {inputs} {outputs}"
    assert names_of(found_in(model, tmp_path, CommandRunner(command))) == [["/layer13/MatMul"]]


def test_a_node_that_the_backend_can_not_run_is_named(tmp_path: Path) -> None:
    script = tmp_path / "runner.py"
    refuse = "import onnx; assert all(n.op_type != 'ArgMax' for n in onnx.load(sys.argv[1]).graph.node), 'no ArgMax'\n"
    script.write_text(SCRIPT.replace("import sys\n", "import sys\n" + refuse))
    command = shlex.join([sys.executable, str(script)]) + " {model} {inputs} {outputs}"
    found = found_in(deep_model(), tmp_path, CommandRunner(command))
    assert names_of(found) == [["/ArgMax"]]
    assert "no ArgMax" in found["responsible"][0]["reason"]


def test_a_command_that_stays_is_started_once(tmp_path: Path) -> None:
    model = deep_model()
    scale_weights(model, "/layer13/MatMul", 1.05)
    runner = runner_of(server(tmp_path))
    assert isinstance(runner, ServerRunner)
    assert names_of(found_in(model, tmp_path, runner)) == [["/layer13/MatMul"]]
    assert (tmp_path / "starts").read_text() == "start\n"
    # Another process has its own.
    assert len(pickle.loads(pickle.dumps(runner)).run(deep_model(), samples(1))) == 1
    assert (tmp_path / "starts").read_text() == 2 * "start\n"


@pytest.mark.parametrize("ending", ["sys.exit('no ArgMax')", "os.kill(os.getpid(), 11)", "sys.exit(0)"])
def test_a_command_that_stays_and_ends_over_a_node_is_started_again(tmp_path: Path, ending: str) -> None:
    found = found_in(deep_model(), tmp_path, ServerRunner(server(tmp_path, over_argmax=ending)))
    assert names_of(found) == [["/ArgMax"]]
    assert "ended with" in found["responsible"][0]["reason"]
    assert ("no ArgMax" in found["responsible"][0]["reason"]) is ("no ArgMax" in ending)
    assert 2 <= (tmp_path / "starts").read_text().count("start") <= found["runs"] + 1


@pytest.mark.parametrize(("code", "raised"), [(2, EnvironmentLacks), (4, EnvironmentLacks), (5, InferenceError)])
def test_what_a_command_that_stays_says_counts_as_how_others_end(tmp_path: Path, code: int, raised: type) -> None:
    runner = ServerRunner(server(tmp_path, over_argmax=f"answer({code}, 'no such thing'); continue"))
    with pytest.raises(raised, match="no such thing"):
        runner.run(deep_model(), samples(1))
    assert (tmp_path / "starts").read_text() == "start\n"


def test_a_command_that_does_not_answer_in_lines_of_json_is_refused(tmp_path: Path) -> None:
    for line in ("hello", "[]", '{"exit_code": null, "message": ""}'):
        with pytest.raises(EnvironmentLacks, match=r"answered '.*lines of JSON"):
            ServerRunner(shlex.join(["echo", line])).run(deep_model(), samples(1))
    with pytest.raises(EnvironmentLacks, match="can't be started"):
        ServerRunner("/no/such/command").run(deep_model(), samples(1))


def test_a_command_that_stays_ends_when_nobody_asks_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "_PATIENCE_SECONDS", 0.2)
    for more in ("", "time.sleep(60)"):
        runner = ServerRunner(server(tmp_path, at_end=more))
        runner.run(deep_model(), samples(1))
        process = runner._process
        assert process is not None
        ended = process._process
        del runner, process
        gc.collect()
        assert ended.returncode == (-9 if more else 0)


def test_bad_commands_and_graphs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no \{outputs\}"):
        runner_of("run {model} {inputs}")
    assert isinstance(runner_of("run {model} {inputs} {outputs}"), CommandRunner)
    with pytest.raises(EnvironmentLacks, match="can't be started"):
        CommandRunner("/no/such/command {model} {inputs} {outputs}").run(deep_model(), samples(1))
    # What the machine lacks is no fault of a node.
    lacking = shlex.join([sys.executable, "-c", "import sys; sys.exit('no GPU' and 4)"])
    with pytest.raises(EnvironmentLacks):
        found_in(deep_model(), tmp_path, CommandRunner(lacking + " {model} {inputs} {outputs}"))
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(ModelLoadError, match="no valid ONNX model"):
        Graph.load(tmp_path / "broken.onnx")
    other = deep_model()
    other.graph.output[0].name = other.graph.node[-1].output[0] = "z"
    with pytest.raises(InputError, match="has no tensor 'z'"):
        found_in(other, tmp_path)


# -- in a workspace ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    root = tmp_path_factory.mktemp("good")
    workspace = tiny.make_workspace(root / "work", tiny.write_frames(root / "frames", [900, 0, 700]))
    trace(workspace.root, "onnx", "cpu", num_samples=3)
    return workspace


def faulty(good: Workspace, folder: Path) -> tuple[Workspace, str]:
    """A copy of the workspace with scaled weights in the head, and the node's name."""
    node = next(
        node.name
        for node in onnx.load(good.path("onnx/pts_backbone_neck_head.onnx")).graph.node
        if node.op_type == "Conv" and "heads.3" in node.name
    )
    change = {"component": "pts_backbone_neck_head", "change": lambda model: scale_weights(model, node, 1.1)}
    return planted(good, folder, **change), node  # type: ignore[arg-type]


def test_every_component_of_a_workspace(good: Workspace, tmp_path: Path) -> None:
    workspace, node = faulty(good, tmp_path)
    text = bisect(workspace.root, RUNNER, LIMIT, reference_work=good.root)
    assert "pts_voxel_encoder" in text and "agrees with the reference" in text
    assert f"\n{node}" in text
    results = workspace.manifest().results["bisect"]
    assert results["pts_backbone_neck_head"]["responsible"] == [node]
    assert results["pts_voxel_encoder"]["responsible"] == []
    assert bisect(workspace.root, RUNNER, LIMIT, reference_work=good.root) == text, "up to date"
    found = text.data["components"]
    assert [window["nodes"] for window in found["pts_backbone_neck_head"]["responsible"]] == [[node]]

    # The nodes are kept as a model of their own, with what enters them and what the right graph makes of it.
    kept = "bisect/pts_backbone_neck_head.0"
    window = onnx.load(workspace.artifact(f"{kept}.onnx"))
    assert [each.name for each in window.graph.node] == [node]
    given, expected = (read_arrays(workspace.artifact(f"{kept}.{kind}.npz")) for kind in ("inputs", "expected"))
    (answer,) = OnnxRunner(optimize=False).run(window, [given])
    assert answer.keys() == expected.keys()
    for name, values in answer.items():
        assert np.isfinite(expected[name]).all() and not np.allclose(values, expected[name], rtol=1e-2)


@pytest.mark.cluster
def test_on_a_cluster_it_finds_the_same(good: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    alone, node = faulty(good, tmp_path / "alone")
    spread = Workspace.open(shutil.copytree(alone.root, tmp_path / "spread"))
    text = bisect(alone.root, RUNNER, LIMIT, reference_work=good.root)

    # Ray keeps how it asks for tokens for as long as a process lives, and this one may have had a cluster already.
    def on_a_cluster(runner: CommandRunner | OnnxRunner, workers: int) -> str:
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            options = {"reference_work": good.root, "cluster": f"local:{workers}"}
            return process.submit(bisect, spread.root, runner, LIMIT, **options).result()

    assert on_a_cluster(RUNNER, 3) == text
    assert f"\n{node}" in text
    files = {path.name: path.read_bytes() for path in (alone.root / "bisect").iterdir()}
    assert {path.name: path.read_bytes() for path in (spread.root / "bisect").iterdir()} == files
    assert spread.manifest().results["bisect"] == alone.manifest().results["bisect"]

    def nowhere(path: Path) -> CommandRunner:
        return CommandRunner(f"{path} {{model}} {{inputs}} {{outputs}}")

    with pytest.raises(EnvironmentLacks, match=r"^node .*/nothing: can't be started"):
        on_a_cluster(nowhere(tmp_path / "nothing"), 1)


def test_killed_it_does_not_ask_again(good: Workspace, tmp_path: Path) -> None:
    workspace, node = faulty(good, tmp_path / "work")
    script = tmp_path / "runner.py"
    log = tmp_path / "log"
    count = f"import sys\nopen({str(log)!r}, 'a').write('run\\n')\n"
    script.write_text(SCRIPT.replace("import sys\n", count))
    runner = shlex.join([sys.executable, str(script)]) + " {model} {inputs} {outputs}"
    command = [
        *("bisect", "--work", str(workspace.root), "--reference-work", str(good.root)),
        *("--component", "pts_backbone_neck_head", "--runner-command", runner, "--num-samples", "1"),
    ]
    journal = workspace.root / "bisect" / "pts_backbone_neck_head.journal"
    killed_at("verifier.bisect.runners:CommandRunner.run", 4, "verifier", *command)
    answered = len(journal.read_text().splitlines()) - 1
    assert answered >= 2
    log.unlink()
    again = [sys.executable, "-c", "from verifier.cli import cli; cli()", *command]
    done = subprocess.run(again, capture_output=True, text=True, check=True)
    assert node in done.stdout
    found = json.loads(workspace.artifact("bisect/pts_backbone_neck_head.json").read_text())
    assert len(log.read_text().splitlines()) == found["runs"] - answered
    assert not journal.exists()


def test_what_can_not_be_bisected_is_said(good: Workspace, tmp_path: Path) -> None:
    workspace, _ = faulty(good, tmp_path)
    with pytest.raises(InputError, match="no current trace"):
        bisect(workspace.root, RUNNER, LIMIT)
    with pytest.raises(InputError, match="no component 'head'"):
        bisect(workspace.root, RUNNER, LIMIT, component="head", reference_work=good.root)
    with pytest.raises(InputError, match="no current trace 'pytorch-cpu'"):
        bisect(workspace.root, RUNNER, LIMIT, trace_name="pytorch-cpu", reference_work=good.root)
