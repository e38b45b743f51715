"""What `exporter config init --ci` writes: files that are valid to the services, and a script, run with stand-ins."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ruamel.yaml import YAML

from exporter.pipelines import SERVICES, write_pipeline
from shared.errors import UsageError

ROOT = Path(__file__).parents[2]
TOOLS = ("runtime", "trt_builder", "verifier", "evaluator", "manifest")
# Says what it was called with, makes a workspace, and ends as ENDS says for one of its words.
STAND_IN = """#!/bin/sh
echo "$(basename "$0") $*" >>calls
case "$*" in
"config show"*) printf '  %s\\n' 'config: model.py' 'checkpoint: model.pth' "enabled: $QUANTIZED" 'mode: ptq' ;;
*--work*) mkdir -p work/mine work/mine-gpu && : >work/mine/manifest.json ;;
esac
for end in $ENDS; do
    case "$*" in *"${end%=*}"*) exit "${end#*=}" ;; esac
done
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a deploy config and all files of pipelines, and tools that only say how they were called."""
    folder = tmp_path / "a repository"
    folder.mkdir()
    text = (ROOT / "shared/config/templates/yolox.yaml").read_text()
    (folder / "mine.yaml").write_text(text)
    for service in SERVICES:
        write_pipeline(service, folder / "mine.yaml", folder, force=False)
    for tool in (*TOOLS, "exporter"):
        environment = "exporter" if tool == "exporter" else "tools"
        path = folder / f".awml-deploy/.venv/{environment}/bin/{tool}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(STAND_IN)
        path.chmod(0o755)
    return folder


def _deploy(repository: Path, *stages: str, **variables: str) -> tuple[int, list[str]]:
    """Exit code, and which tool was called with which command."""
    (repository / "calls").unlink(missing_ok=True)
    environment = {"PATH": os.environ["PATH"], "ENDS": "", "QUANTIZED": "false", **variables}
    command = ["sh", "ci/deploy.sh", *stages]
    answer = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)
    called = (repository / "calls").read_text().splitlines() if (repository / "calls").exists() else [answer.stderr]
    return answer.returncode, [call for call in called if "config show" not in call]


def _names(calls: list[str]) -> list[str]:
    return [" ".join(call.split()[:2]) for call in calls]


CPU = ["exporter inspect", "exporter export", "runtime run", "runtime run"]
JUDGED = ["verifier verify", "evaluator evaluate", "evaluator report", "evaluator summary"]


def test_all_stages_come_in_their_order(repository: Path) -> None:
    code, calls = _deploy(repository, "cpu")
    assert (code, _names(calls)) == (0, CPU + JUDGED)
    assert "exporter export --config mine.yaml --work work/mine" in calls
    assert "exporter inspect model.py --checkpoint model.pth" in calls
    assert "--fail-if mAP drop > 0.5% --junit work/results/mine/gates.xml" in calls[5]


def test_a_config_that_quantizes_does_so_before_the_export(repository: Path) -> None:
    code, calls = _deploy(repository, "export", QUANTIZED="true")
    assert (code, calls) == (
        0, ["exporter quantize ptq --config mine.yaml --work work/mine",
            "exporter export --config mine.yaml --work work/mine"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ends", "code", "called"),
    [
        ("inspect=2", 2, CPU[:1]),
        ("pytorch=5", 5, [*CPU[:3], *JUDGED[2:]]),
        ("verify=6", 6, CPU + JUDGED),
        ("evaluate=6", 6, CPU + JUDGED),
        ("verify=6 evaluate=3", 6, CPU + JUDGED),
        ("report=4", 4, (CPU + JUDGED)[:-1]),
    ],
)
def test_it_ends_as_the_first_tool_that_did_not_end_well(
    repository: Path, ends: str, code: int, called: list[str]
) -> None:
    ended, calls = _deploy(repository, "cpu", ENDS=ends)
    assert (ended, _names(calls)) == (code, called)


@pytest.mark.parametrize(("stage", "name"), [("cpu", "mine"), ("gpu", "mine-gpu")])
def test_what_an_earlier_job_judged_is_not_taken_for_this_ones(repository: Path, stage: str, name: str) -> None:
    earlier = repository / "work/results" / name / "verify.xml"
    earlier.parent.mkdir(parents=True)
    earlier.touch()
    assert _deploy(repository, stage, ENDS="inspect=2 build=4")[0] != 0
    assert not earlier.exists()


def test_a_baseline_is_compared_with_where_there_is_one(repository: Path) -> None:
    (repository / "baselines").mkdir()
    (repository / "baselines/mine.json").write_text("{}")
    code, calls = _deploy(repository, "cpu", ENDS="regress=6")
    assert code == 6
    assert calls[6].startswith("evaluator regress --work work/mine --baseline baselines/mine.json")
    assert _names(calls)[-2:] == JUDGED[2:]


def test_the_gpu_has_a_workspace_of_its_own_that_later_pipelines_add_to(repository: Path) -> None:
    _deploy(repository, "export")
    code, calls = _deploy(repository, "gpu")
    assert code == 0
    assert (repository / "work/mine-gpu/manifest.json").exists()
    assert calls[:2] == [
        "trt_builder build --work work/mine-gpu",
        "runtime run --work work/mine-gpu --backend tensorrt --device cuda",
    ]
    _, calls = _deploy(repository, "gpu")
    assert calls[0] == "manifest merge --work work/mine-gpu --prefer theirs work/mine"


def test_a_search_has_a_workspace_and_an_export_of_its_own(repository: Path) -> None:
    code, calls = _deploy(repository, "tune", QUANTIZED="true", DEPLOY_MAX_DROP="0.5")
    assert (code, calls) == (
        0, ["exporter quantize ptq --config mine.yaml --work work/mine-tune",
            "exporter export --config mine.yaml --work work/mine-tune",
            "trt_builder tune --work work/mine-tune --max-drop 0.5 --device cuda"],
    )  # fmt: skip
    code, (line,) = _deploy(repository, "tune", DOCKER_TARGET="x86-trt10.8")
    assert (code, "needs all tools together" in line) == (2, True)


def test_images_see_the_files_where_they_are(repository: Path) -> None:
    """What `docker` is called with; tests/docker has a real one."""
    stand_in = repository / "bin/docker"
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\necho "TARGET=$TARGET GPU=$GPU WORK=$WORK DATA=$DATA $AWML_UID docker $*" >>calls\n')
    stand_in.chmod(0o755)
    (repository / "data").mkdir()
    variables = {"PATH": f"{stand_in.parent}:{os.environ['PATH']}", "DOCKER_TARGET": "x86-trt10.8", "DATA_ROOT": "data"}
    code, (call,) = _deploy(repository, "run_engines", **variables)
    assert code == 0
    assert call.startswith(
        f"TARGET=x86-trt10.8 GPU=nvidia WORK={repository}/work DATA={repository}/data {os.getuid()} "
    )
    assert f"--volume {repository}:{repository}:ro --volume {repository}/work:{repository}/work" in call
    assert call.endswith("runtime-tensorrt run --work work/mine --backend tensorrt --device cuda")


def test_mistakes_are_told_in_a_line(repository: Path) -> None:
    code, (line,) = _deploy(repository, "deploy")
    assert (code, "there is no stage 'deploy'" in line) == (2, True)
    assert _deploy(repository)[0] == 2


def _schema(name: str) -> dict[str, Any]:
    """A schema that check-jsonschema brings along: SchemaStore's for GitHub, GitLab's own."""
    package = importlib.util.find_spec("check_jsonschema")
    assert package is not None and package.submodule_search_locations is not None, "run: make setup-dev"
    folder = Path(package.submodule_search_locations[0]) / "builtin_schemas/vendor"
    schema = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    assert isinstance(schema, dict)
    return schema


@pytest.mark.parametrize(
    ("file", "schema"),
    [(".github/workflows/deploy.yml", "github-workflows"), (".gitlab-ci.yml", "gitlab-ci")],
)
def test_files_are_what_the_services_publish(repository: Path, file: str, schema: str) -> None:
    text = (repository / file).read_text()
    assert "@" not in text.replace("actions/", "").replace("@v", "").replace("body@$", "")
    value = YAML(typ="safe").load(text)  # YAML 1.2, in which `on` is a text
    jsonschema.Draft7Validator(_schema(schema)).validate(value)
    value["jobs" if "jobs" in value else "cpu"]["nonsense"] = {"script": 3}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(_schema(schema)).validate(value)


def test_shells_find_nothing_wrong(repository: Path) -> None:
    workflow = yaml.safe_load((repository / ".github/workflows/deploy.yml").read_text())
    pipeline = yaml.safe_load((repository / ".gitlab-ci.yml").read_text())
    scripts = {"deploy.sh": ("sh", (repository / "ci/deploy.sh").read_text())}
    for name, job in workflow["jobs"].items():
        steps = [step["run"] for step in job["steps"] if "run" in step]
        scripts[f"github-{name}"] = ("bash", "\n".join(steps))
    for name, job in pipeline.items():
        if isinstance(job, dict) and "script" in job | {"after_script": None}:
            lines = [*job.get("script", []), *job.get("after_script", [])]
            scripts[f"gitlab-{name}"] = ("sh", "\n".join(lines))
    shellcheck = shutil.which("shellcheck") or str(ROOT / ".venv/tools/bin/shellcheck")
    for name, (shell, text) in scripts.items():
        command = [shellcheck, f"--shell={shell}", "--exclude=SC2148", "-"]
        answer = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, (name, answer.stdout)


def test_a_config_outside_of_the_repository_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text((ROOT / "shared/config/templates/yolox.yaml").read_text())
    (tmp_path / "repository").mkdir()
    with pytest.raises(UsageError, match=r"is not below .*/repository\. call this in the root"):
        write_pipeline("github", config, tmp_path / "repository", force=False)


def test_names_with_spaces_and_quotes_stay_words(tmp_path: Path, repository: Path) -> None:
    config = repository / "a 'model' $x.yaml"
    shutil.copy(repository / "mine.yaml", config)
    write_pipeline("script", config, repository, force=True)
    code, calls = _deploy(repository, "export")
    assert (code, calls) == (0, [f"exporter export --config {config.name} --work work/a--model---x"])
