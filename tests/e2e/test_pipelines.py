"""A model's repository in the pipelines that `exporter config init --ci` writes, job by job, as the services run them.

The tools are the real ones; on the machine with a GPU, TensorRT is the double, and kernels run on the processor.
"""

from __future__ import annotations

import http.server
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared import __version__
from shared.manifest import read_manifest
from tests.support.ci_services import GitHub, GitLab, Outcome, Runner
from tests.support.cuda_on_cpu import KEPT
from tests.support.junit_schema import checked, verdicts

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".venv/tools/bin"
pytestmark = pytest.mark.e2e

MAKEFILE = """
setup:
	@mkdir -p .venv/tools .venv/exporter && ln -sfn {bin} .venv/tools/bin && ln -sfn {exporter} .venv/exporter/bin
	@echo "set up"
"""
# A tool of the stand-in environment: engines are built and run by the double.
WRAPPER = """#!/bin/sh
case "$*" in *tensorrt*|"build "*) exec {python} -m tests.support.tools_on_cpu {tool} "$@" ;; esac
exec {tools}/{tool} "$@"
"""


def _git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=me", "-c", "user.email=me@localhost", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def _init(folder: Path, *options: str) -> str:
    command = [TOOLS / "python", "-m", "exporter", "config", "init", "calibration", "--out", "deploy.yaml", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, env=environment).stdout


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in place of this one: `make setup` links environments that are there."""
    root = tmp_path_factory.mktemp("awml-deploy")
    bin_folder, repository = root / "bin", root / "repository"
    bin_folder.mkdir()
    repository.mkdir()
    for tool in ("trt_builder", "runtime", "verifier", "evaluator", "manifest"):
        wrapper = bin_folder / tool
        wrapper.write_text(WRAPPER.format(python=TOOLS / "python", tools=TOOLS, tool=tool))
        wrapper.chmod(0o755)
    (repository / "Makefile").write_text(MAKEFILE.format(bin=bin_folder, exporter=ROOT / ".venv/exporter/bin"))
    _git(repository, "init")
    _git(repository, "add", ".")
    _git(repository, "commit", "-m", "tools")
    _git(repository, "tag", f"v{__version__}")
    return repository


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tools: Path) -> Path:
    """The repository of the demo's classifier, with a frame of data and both pipelines."""
    folder = tmp_path_factory.mktemp("model")
    generate = [TOOLS / "python", "-m", "demo", "generate", "--out", folder / "data", "--frames", "1"]
    subprocess.run(generate, check=True, cwd=ROOT, capture_output=True)
    (folder / "model.py").write_bytes((ROOT / "configs/train/calibration_demo.py").read_bytes())
    (folder / "model.pth").write_bytes((ROOT / "models/calibration_demo.pth").read_bytes())
    (folder / ".gitignore").write_text("work/\n.awml-deploy/\n")
    _init(folder)
    text = (folder / "deploy.yaml").read_text()
    for before, after in (
        ("resnet18_5ch.py", "model.py"),
        ("resnet18_5ch.pth", "model.pth"),
        ("data/t4dataset", "data"),
        ("t4dataset_gen2_base_infos_test.pkl", "t4dataset_demo_calibration_infos_eval.pkl"),
        ("num_verify_samples: 4", "num_verify_samples: 1"),
        ("precision_policy: fp16", "precision_policy: fp32"),
        ("[1, 5, 1860, 2880]", "[1, 5, 300, 480]"),
        ("[1, 5, 1080, 1920]", "[1, 5, 300, 480]"),
    ):
        assert before in text
        text = text.replace(before, after)
    (folder / "deploy.yaml").write_text(text)
    _init(folder, "--ci", "github")
    _init(folder, "--ci", "gitlab")
    for file in (".github/workflows/deploy.yml", ".gitlab-ci.yml"):
        written = (folder / file).read_text()
        address = re.search(r"AWML_DEPLOY_URL: (\S+)", written)
        assert address is not None
        (folder / file).write_text(written.replace(address[1], str(tools)))
    _git(folder, "init")
    _git(folder, "add", ".")
    _git(folder, "commit", "-m", "model")
    return folder


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables of a runner: no others of this process reach a job."""
    return {
        "PATH": f"{TOOLS}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(tmp_path_factory.mktemp("home")),
        "PYTHONPATH": str(ROOT),
        "KERNELS": str(KEPT),
        "OMP_NUM_THREADS": "1",
        "AWML_DEPLOY_KEY": os.environ["AWML_DEPLOY_KEY"],
    }


@pytest.fixture(scope="module")
def cpu_runner(tmp_path_factory: pytest.TempPathFactory, model: Path, machine: dict[str, str]) -> Runner:
    return Runner(tmp_path_factory.mktemp("cpu") / "model", model, machine)


@pytest.fixture(scope="module")
def github(tmp_path_factory: pytest.TempPathFactory) -> GitHub:
    return GitHub({"GPU_RUNNER": "true"}, {"event_name": "push"}, tmp_path_factory.mktemp("github"))


@pytest.fixture(scope="module")
def github_cpu(github: GitHub, cpu_runner: Runner) -> Outcome:
    outcome = github.run(cpu_runner, "cpu")
    assert outcome is not None
    return outcome


def test_github_shows_on_an_ordinary_runner_what_a_processor_can(github: GitHub, github_cpu: Outcome) -> None:
    assert github_cpu.code == 0, github_cpu.log
    stages = re.findall(r"^== (\w+) of deploy$", github_cpu.log, re.MULTILINE)
    assert stages == ["setup", "cpu", "inspect", "export", "run", "verify", "evaluate", "regress", "summary"]
    artifact = github.artifacts / "deploy"
    assert set(verdicts(checked(artifact / "results/deploy/verify.xml")).values()) >= {("passed", "")}
    assert verdicts(checked(artifact / "results/deploy/gates.xml")) == {
        ("onnx-cpu", "accuracy drop > 0.5%"): ("passed", "")
    }
    assert (artifact / "deploy/report/index.html").is_file()
    assert "| run:onnx-cpu | done |" in github_cpu.summary
    assert "### Gates: a run fails if" in github_cpu.summary
    (key,) = github.caches
    assert re.fullmatch(rf"awml-deploy-v{__version__}-3\.\d+\.\d+", key)


def test_github_builds_on_a_runner_with_a_gpu_and_goes_on_after_a_kill(
    github: GitHub, github_cpu: Outcome, model: Path, machine: dict[str, str], tmp_path: Path
) -> None:
    runner = Runner(tmp_path / "gpu" / "model", model, {**machine, "SAMPLES": "2"})
    work = runner.folder / "work/deploy-gpu"
    killer = threading.Thread(target=_kill_when, args=(runner, work, 2), daemon=True)
    killer.start()
    killed = github.run(runner, "gpu")
    killer.join(60)
    assert killed is not None and killed.code == -signal.SIGKILL, killed
    runner.environment = machine
    outcome = github.run(runner, "gpu")
    assert outcome is not None and outcome.code == 0, outcome
    assert re.search(r"build:\S+: up to date", outcome.log)
    assert re.search(r"goes on at sample 2, 2 of 12 are done", outcome.log), outcome.log
    manifest = read_manifest(work / "manifest.json")
    assert {"run:pytorch-cpu", "run:onnx-cpu", "run:tensorrt-cuda0"} <= manifest.stages.keys()
    ends = verdicts(checked(github.artifacts / "deploy-gpu/results/deploy-gpu/gates.xml"))
    assert ends.keys() == {(f"{run}", "accuracy drop > 0.5%") for run in ("onnx-cpu", "tensorrt-cuda0")}
    assert "| run:tensorrt-cuda0 | done |" in outcome.summary


def _kill_when(runner: Runner, work: Path, samples: int) -> None:
    """Kill the run on the GPU once it has so many samples."""
    end = time.monotonic() + 800
    while time.monotonic() < end:
        for journal in work.glob("runs/.tensorrt-*.attempt-*/journal.jsonl"):
            if len(journal.read_text().splitlines()) >= samples:
                runner.kill()
                return
        time.sleep(0.02)


def test_a_strangers_change_does_not_reach_the_gpu(model: Path, tmp_path: Path) -> None:
    def reaches(repository: str, variables: dict[str, str]) -> bool:
        event = {"event_name": "pull_request", "event": {"pull_request": {"head": {"repo": {"full_name": repository}}}}}
        return GitHub(variables, event, tmp_path).runs(model, "gpu")

    assert reaches("me/model", {"GPU_RUNNER": "true"})
    assert not reaches("somebody/model", {"GPU_RUNNER": "true"})
    assert not reaches("me/model", {})


def test_make_names_the_code_of_a_gate_and_goes_on_after_a_kill(
    github_cpu: Outcome, cpu_runner: Runner, machine: dict[str, str], tools: Path, tmp_path: Path
) -> None:
    work = Path(shutil.copytree(cpu_runner.folder / "work/deploy", tmp_path / "deploy"))
    bin_folder = tools.parent / "bin"
    tool = {"BUILDER_TOOL": "trt_builder", "RUNTIME_TOOL": "runtime", "EVALUATOR_TOOL": "evaluator"}
    words = [f"{name}={bin_folder / program}" for name, program in tool.items()]
    make = Runner(ROOT, ROOT, machine, tmp_path / "script")
    command = shlex.join(["make", "RUN=local", "SETUP=", f"WORK={work}", *words])
    killer = threading.Thread(target=_kill_when, args=(make, work, 2), daemon=True)
    killer.start()
    assert make.run(["bash"], f"{command} build run", {"SAMPLES": "2"}).returncode == -signal.SIGKILL
    killer.join(60)
    again = make.run(["bash"], f"{command} build run", {})
    assert again.returncode == 0, again.stdout
    assert re.search(r"goes on at sample 2, 2 of 12 are done", again.stdout), again.stdout

    gate = make.run(["bash"], f"{command} evaluate GATE='accuracy < 1.1'", {})
    assert gate.returncode == 2
    assert "Error 6" in gate.stdout and "(3 of 3 gates failed)" in gate.stdout


@pytest.fixture
def comments() -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """GitLab's interface: its address, and of each comment that it got the place, the token and the text."""
    received: list[tuple[str, str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            received.append((self.path, self.headers["PRIVATE-TOKEN"], form["body"][0]))
            self.send_response(201)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/api/v4", received
        server.shutdown()


def test_gitlab_comments_and_fails_where_a_gate_does(
    github_cpu: Outcome,
    cpu_runner: Runner,
    model: Path,
    machine: dict[str, str],
    comments: tuple[str, list[tuple[str, str, str]]],
    tmp_path: Path,
) -> None:
    """Its first job has a machine that kept the workspace of the last pipeline: an export takes half a minute."""
    file = model / "baselines/deploy.json"
    baseline = ["baseline", "set", "--work", cpu_runner.folder / "work/deploy", "v1", "--export", file]
    subprocess.run([TOOLS / "evaluator", *baseline], check=True, capture_output=True, env=machine)
    _git(model, "add", ".")
    _git(model, "commit", "-m", "baseline")
    address, received = comments
    variables = {
        "GPU_RUNNER": "true", "CI_PIPELINE_SOURCE": "merge_request_event", "CI_MERGE_REQUEST_IID": "7",
        "CI_PROJECT_ID": "42", "CI_API_V4_URL": address, "GITLAB_TOKEN": "secret",
    }  # fmt: skip
    kept = {"GIT_CLEAN_FLAGS": "-ffdx --exclude=work/"}
    outcome = GitLab(variables | kept, tmp_path / "artifacts").run(cpu_runner, "cpu")
    assert outcome is not None and outcome.code == 0, outcome
    for stage in ("export", "run:pytorch-cpu", "run:onnx-cpu", "verify", "evaluate"):
        assert f"{stage}: up to date" in outcome.log
    lines = verdicts(checked(cpu_runner.folder / "work/results/deploy/regress.xml"))
    assert lines["onnx-cpu", "metric accuracy"] == ("skipped", "too few frames for an interval")
    assert ("passed", "") in lines.values() and "failure" not in {kind for kind, _ in lines.values()}
    ((place, token, text),) = received
    assert (place, token) == ("/api/v4/projects/42/merge_requests/7/notes", "secret")
    assert "### Verification" in text and "| run:onnx-cpu | done |" in text and "Against v1 of " in text

    failing = GitLab(variables | {"DEPLOY_GATE": "accuracy < 1.1"}, tmp_path / "artifacts")
    runner = Runner(tmp_path / "gpu" / "model", model, machine)
    outcome = failing.run(runner, "gpu")
    assert outcome is not None and outcome.code == 6, outcome
    assert re.search(r"^error: gates: onnx-cpu: accuracy < 1\.1, the value is [01]\.\d{4} ", outcome.log, re.MULTILINE)
    stages = re.findall(r"^== (\w+) of deploy", outcome.log, re.MULTILINE)
    assert stages[-4:] == ["verify", "evaluate", "regress", "summary"]
    ends = verdicts(checked(failing.artifacts / "gpu/work/results/deploy-gpu/gates.xml"))
    assert ends["tensorrt-cuda0", "accuracy < 1.1"][0] == "failure"
    assert "FAILED" in received[1][2]


def test_gitlab_leaves_the_gpu_alone_where_there_is_none(cpu_runner: Runner, tmp_path: Path) -> None:
    pushed = {"CI_PIPELINE_SOURCE": "push", "CI_COMMIT_BRANCH": "main", "CI_DEFAULT_BRANCH": "main"}
    assert GitLab(pushed, tmp_path).run(cpu_runner, "gpu") is None
    other = pushed | {"CI_COMMIT_BRANCH": "try", "GPU_RUNNER": "true"}
    assert GitLab(other, tmp_path).run(cpu_runner, "gpu") is None
