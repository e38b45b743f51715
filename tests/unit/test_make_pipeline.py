"""The Makefile's pipeline with stand-ins for the tools: what runs after a stage that did not pass, and how it ends."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")


def _make(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    words = [*arguments, *(f"{name}={value}" for name, value in variables.items())]
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(["make", *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def _dry_make(target: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return _make("-n", target, "RUN=local", *arguments)


def _pipeline(*flags: str, **tools: str) -> subprocess.CompletedProcess[str]:
    variables = {
        "WORK": "w", "RUN": "local", "SETUP": "", "EXPORTER_TOOL": "true", "BUILDER_TOOL": "true",
        "RUNTIME_TOOL": "true", "VERIFIER_TOOL": "true", "EVALUATOR_TOOL": "echo",
    }  # fmt: skip
    return _make(*flags, "pipeline", **(variables | tools))


def test_the_report_comes_before_the_summary() -> None:
    answer = _pipeline()
    assert answer.returncode == 0
    assert [line.split()[0] for line in answer.stdout.splitlines()] == ["evaluate", "report", "summary"]


def test_a_verification_that_fails_is_reported_and_fails_the_job() -> None:
    answer = _pipeline(VERIFIER_TOOL="false")
    assert answer.returncode != 0
    assert [line.split()[0] for line in answer.stdout.splitlines()] == ["evaluate", "report", "summary"]


@pytest.mark.parametrize(
    ("code", "called"),
    [(0, []), (101, ["summary"]), (102, ["report", "summary"]), (103, ["evaluate", "report", "summary"]),
     (104, ["verify", "evaluate", "report", "summary"]),
     (1, ["run", "run", "run", "verify", "evaluate", "report", "summary"])],
)  # fmt: skip
def test_only_the_stages_that_are_left_are_called(code: int, called: list[str]) -> None:
    answer = _pipeline(ASK=f"(exit {code})", RUNTIME_TOOL="echo", VERIFIER_TOOL="echo")
    assert answer.returncode == 0, answer.stderr
    assert [line.split()[0] for line in answer.stdout.splitlines()] == called


def test_a_dry_run_shows_all_commands_and_calls_none(tmp_path: Path) -> None:
    called = tmp_path / "called"
    answer = _pipeline("-n", **{f"{tool}_TOOL": f"touch {called};" for tool in ("EXPORTER", "RUNTIME", "EVALUATOR")})
    assert answer.returncode == 0, answer.stderr
    assert not called.exists()
    assert "summary --work w" in answer.stdout and "run --work w --backend onnx" in answer.stdout


def test_engines_are_run_where_there_is_a_gpu_to_run_them_on() -> None:
    def runs(*arguments: str) -> list[str]:
        printed = _make("-n", "run", "SETUP=", *arguments).stdout
        return [line.strip() for line in printed.splitlines() if "--backend tensorrt" in line]

    assert runs("RUN=local")[0].endswith("--device cuda --if-available")
    assert "--device cuda:1" in runs("RUN=local", "DEVICE=cuda:1")[0]
    assert "runtime-tensorrt run" in runs("RUN=docker", "GPU=nvidia")[0]
    assert not runs("RUN=docker", "GPU=none")


@pytest.mark.parametrize("tool", ["EXPORTER_TOOL", "RUNTIME_TOOL"])
def test_nothing_is_judged_without_a_run(tool: str) -> None:
    answer = _pipeline(**{tool: "false"})
    assert answer.returncode != 0
    assert "report" not in answer.stdout


def test_yolox_nano_heeds_overrides_and_writes_a_report() -> None:
    arguments = ["ONNX=nano.onnx", "REAL_DATA=real", "SET=evaluation.num_samples=3 data.format=folder"]
    answer = _dry_make("yolox-nano", *arguments)
    assert f"--set export.onnx_path={ROOT / 'nano.onnx'}" in answer.stdout
    assert "--set evaluation.num_samples=3 --set data.format=folder" in answer.stdout
    assert "for command in evaluate report summary" in answer.stdout


def test_demo_data_is_made_for_a_config_that_reads_it(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(f"data:\n  root: {tmp_path}\n")
    assert "demo generate" not in _dry_make("centerpoint-all", "SETUP=", f"CONFIG={config}").stdout
    config.write_text(f"data:\n  root: {ROOT}/work/demo # the demo's\n")
    assert "demo generate --out work/demo" in _dry_make("centerpoint-all", "SETUP=", f"CONFIG={config}").stdout
    assert "demo generate" not in _dry_make("centerpoint-all", "SETUP=", f"CONFIG={config}", f"DATA={tmp_path}").stdout


def test_the_demo_is_read_where_it_was_put() -> None:
    folders = ["DEMO_DATA=/data/demo", "CALIBRATION_DATA=/data/other"]
    recipe = _dry_make("yolox-int8", "SETUP=", *folders).stdout
    assert "demo generate --out /data/demo\n" in recipe and "demo generate --out /data/other " in recipe
    quantize, export = (
        next(line for line in recipe.splitlines() if f"exporter {command} " in line)
        for command in ("quantize ptq", "export")
    )
    assert "--set data.root=/data/demo" in quantize and "--set data.root=/data/demo" in export
    assert "--set quantization.calibration.data.root=/data/other" in quantize
    nano = _dry_make("yolox-nano", "ONNX=nano.onnx", "REAL_DATA=real", *folders).stdout
    assert "/data/demo" not in nano


def test_migrate_check_writes_in_a_temporary_folder_only() -> None:
    """Every output is below the folder that a trap removes, whatever the user names."""
    for checkpoint in ([], ["CHECKPOINT=epoch.pth"]):
        recipe = _dry_make("migrate-check", "DEPLOY=deploy_config.py", "MODEL_CONFIG=config.py", *checkpoint).stdout
        assert "trap 'rm -rf \"$work\"' EXIT" in recipe
        written = re.findall(r"--(?:out|work) (\S+)", recipe[recipe.index("mktemp") : recipe.index("exported, and")])
        assert len(written) == (3 if checkpoint else 4)
        assert all(path.startswith(('"$work/', "$weights")) for path in written)
        assert ("weights=epoch.pth" in recipe) == bool(checkpoint)


def _refused(*arguments: str) -> tuple[int, str]:
    answer = _make("export", *arguments, RUN="local", SETUP="", EXPORTER_TOOL="echo")
    return answer.returncode, answer.stderr


def test_data_that_is_not_there_is_named(tmp_path: Path) -> None:
    code, errors = _refused(f"DATA={tmp_path}/nothing")
    assert (code, f"there is no {tmp_path}/nothing: DATA names" in errors) == (2, True)
    assert _refused(f"DATA={tmp_path}")[0] == 0


def test_a_model_of_ones_own_needs_a_checkpoint_of_its_own() -> None:
    code, errors = _refused("MODEL_CONFIG=mine.py")
    assert (code, "set CHECKPOINT to its weights" in errors) == (2, True)
    for given in ("CHECKPOINT=mine.pth", "SET=model.checkpoint=mine.pth", "CONFIG=mine.yaml"):
        assert _refused("MODEL_CONFIG=mine.py", given)[0] == 0, given


@pytest.mark.parametrize("target", ["sweep", "tune"])
def test_choices_are_measured_in_a_workspace_of_their_own(target: str) -> None:
    """Quantized in all layers but those that can't be, in both commands alike."""
    answer = _dry_make(f"centerpoint-{target}", "SETUP=", "DEVICE=cuda")
    assert answer.returncode == 0, answer.stderr
    ptq, export, *_, last = [line for line in answer.stdout.splitlines() if f"--work work/centerpoint-{target}" in line]
    layers = "--set quantization.sensitive_layers=[pts_voxel_encoder,pts_neck.deblocks.1,pts_neck.deblocks.2]"
    assert ptq.endswith(layers) and "quantize ptq" in ptq
    assert export.endswith(layers) and "exporter export" in export
    assert f"trt_builder {target}" in last and "--device cuda" in last and "--backend" not in last
    assert f"trt_builder {target} --work work/mine" in _dry_make(f"yolox-{target}", "SETUP=", "WORK=work/mine").stdout


def test_policies_and_lists_of_layers_are_choices_of_a_sweep() -> None:
    answer = _dry_make("yolox-sweep", "SETUP=", "POLICIES=fp16 int8", "LAYERS=a.yaml b.yaml")
    wanted = "--backend onnx --device cpu --policy fp16 --policy int8 --skip-from a.yaml --skip-from b.yaml"
    assert wanted in " ".join(answer.stdout.split())


@pytest.mark.parametrize("command", ["quantize sensitivity", "trt_builder tune"])
def test_a_search_runs_on_the_cluster(command: str) -> None:
    lines = _dry_make("yolox-tune", "SETUP=", "CLUSTER=local").stdout.splitlines()
    assert all("--cluster local" in line for line in lines if command in line) and any(
        command in line for line in lines
    )


def test_a_sweep_in_images_says_that_the_tools_must_be_together() -> None:
    answer = _make("sweep-of", "RUN=docker", "MODEL=centerpoint_int8", "WORK=w")
    assert answer.returncode != 0
    assert "this needs all tools together: RUN=local" in answer.stderr


def test_a_config_of_a_package_is_called_by_its_name_and_has_demo_data_of_its_own() -> None:
    commands = _dry_make("traffic-light-int8", "SETUP=").stdout
    assert "demo generate --out work/demo-traffic-light --for traffic_light\n" in commands
    assert "--out work/demo-calibration-traffic-light --split train --frames 64 --for traffic_light\n" in commands
    ptq = next(line for line in commands.splitlines() if "quantize ptq" in line)
    assert "--config traffic_light_int8 --work work/traffic-light-int8" in ptq
    assert "--set data.root=work/demo-traffic-light " in ptq
    assert "--set quantization.calibration.data.root=work/demo-calibration-traffic-light" in ptq


def test_choices_are_measured_for_a_config_of_a_package() -> None:
    """Quantized where the config says so, which the Makefile can't know; searched on frames that another seed gives."""
    swept, searched = (_dry_make(f"traffic-light-{target}", "SETUP=").stdout for target in ("sweep", "tune"))
    assert "sensitive_layers" not in swept and "--skip-from" not in swept
    assert "quantize ptq --config traffic_light_int8 --work work/traffic-light-sweep " in swept
    assert "trt_builder sweep --work work/traffic-light-sweep " in swept
    assert "demo generate --out work/demo-search-traffic-light --seed 8 --for traffic_light\n" in searched
    assert "info_file" not in searched and "--split val" not in searched
    for command in ("quantize sensitivity", "trt_builder tune"):
        called = [line for line in searched.splitlines() if command in line]
        assert called and all("--data work/demo-search-traffic-light " in line for line in called)
    given = _dry_make("traffic-light-sweep", "SETUP=", "NEVER_INT8=backbone.a head", "LAYERS=skip.yaml").stdout
    assert "quantization.sensitive_layers=[backbone.a,head]" in given and "--skip-from skip.yaml" in given


def test_data_of_ones_own_take_the_place_of_a_packages(tmp_path: Path) -> None:
    commands = _dry_make("traffic-light-all", "SETUP=", f"DATA={tmp_path}").stdout
    assert "demo generate" not in commands and "work/demo-" not in commands
    assert (
        f"--config traffic_light --work work/traffic-light   --set data.format=folder  --set data.root={tmp_path}"
        in commands
    )


def test_a_config_of_a_package_is_none_of_this_machine_s_files() -> None:
    commands = _make("-n", "export", "RUN=docker", "SETUP=", "MODEL=traffic_light").stdout
    assert "exporter export --config traffic_light --work /workspace/traffic-light " in commands
    assert ":ro" not in commands


def test_packages_of_this_repository_are_installed_unless_others_are_named() -> None:
    ours = sorted(f"packages/{path.parent.name}/" for path in (ROOT / "packages").glob("*/pyproject.toml"))
    assert f"install -q --disable-pip-version-check  {' '.join(ours)};" in _dry_make("plugins", "SETUP=").stdout
    assert "check  mine.whl;" in _dry_make("plugins", "SETUP=", "PLUGINS=mine.whl").stdout


@pytest.mark.parametrize(("model", "info"), [("frnet", None), ("yolox-seg", "info/yolox_infos_val.json")])
def test_a_model_of_labels_is_searched_on_labeled_frames(model: str, info: str | None) -> None:
    lines = _dry_make(f"{model}-tune", "SETUP=").stdout.splitlines()
    assert any("demo generate --out work/demo-search-labels --split val --frames 40 --labels" in line for line in lines)
    for command in ("quantize sensitivity", "trt_builder tune"):
        (called,) = (line for line in lines if command in line)
        assert "--data work/demo-search-labels" in called
        assert (f"work/demo-search-labels/{info}" in called) if info else "info_file" not in called
