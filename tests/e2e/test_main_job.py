"""`make centerpoint-all`, as a user types it: the demo model on the demo data, on the CPU."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from shared.manifest import Manifest, read_manifest, update_manifest
from shared.runs import Run
from tests.support.jobs import ROOT, make

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def manifest(main_job: tuple[Path, str]) -> Manifest:
    return read_manifest(main_job[0] / "manifest.json")


def test_every_stage_ends_well(manifest: Manifest) -> None:
    statuses = {name: stage.status for name, stage in manifest.stages.items()}
    build = [name for name in statuses if name.startswith("build")]
    assert len(build) == 1
    assert {name: status for name, status in statuses.items() if name not in build} == {
        "export": "done",
        "run:pytorch-cpu": "done",
        "run:onnx-cpu": "done",
        "verify": "done",
        "evaluate": "done",
        "report": "done",
    }


def test_tensorrt_is_skipped_with_the_reason(main_job: tuple[Path, str], manifest: Manifest) -> None:
    stage = next(stage for name, stage in manifest.stages.items() if name.startswith("build"))
    if stage.status == "done":
        pytest.skip("this machine has TensorRT and built the engines; run on one without to see the skip")
    assert stage.status == "skipped"
    assert stage.reason
    assert stage.reason.split(";")[0][:40] in " ".join(main_job[1].split())


def test_the_demo_model_is_good_enough(manifest: Manifest) -> None:
    """Held-out mAP (0-50 m) at least 0.65, orientation error under 0.5 rad, PyTorch = ONNX to 0.002."""
    metrics = manifest.results["metrics"]
    pytorch, onnx = metrics["pytorch-cpu"], metrics["onnx-cpu"]
    assert min(pytorch["mAP 0-50 m"], onnx["mAP 0-50 m"]) >= 0.65
    assert max(pytorch["AOE"], onnx["AOE"]) < 0.5
    for name in ("mAP", "mAP 0-50 m", "AOE"):
        assert pytorch[name] == pytest.approx(onnx[name], abs=0.002)


def test_both_backends_saw_the_same_samples(main_job: tuple[Path, str]) -> None:
    runs = [Run.open(main_job[0] / "runs" / name) for name in ("pytorch-cpu", "onnx-cpu")]
    assert runs[0].header.tokens == runs[1].header.tokens
    assert 35 <= len(runs[0]) <= 60
    assert sum(len(runs[0].boxes(index)) for index in range(len(runs[0]))) > 100


def test_the_report_shows_frames_of_both_backends(main_job: tuple[Path, str]) -> None:
    page = (main_job[0] / "report" / "index.html").read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="frames-data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    explored = json.loads(data[1])
    assert sorted(explored["runs"]) == ["onnx-cpu", "pytorch-cpu"]
    frames = explored["frames"]
    run = Run.open(main_job[0] / "runs" / "onnx-cpu")
    assert sorted(frame["token"] for frame in frames) == sorted(run.header.tokens)
    assert all(len(frame["runs"]) == 2 for frame in frames)
    assert all(frame["media"]["cloud"]["count"] for frame in frames)


def test_the_second_call_has_nothing_to_do(main_job: tuple[Path, str]) -> None:
    before = (main_job[0] / "manifest.json").read_bytes()
    answer = make("centerpoint-all", f"WORK={main_job[0]}")
    assert answer.returncode == 0, answer.stderr
    for stage in ("export", "run:pytorch-cpu", "run:onnx-cpu", "verify", "evaluate", "report"):
        assert f"{stage}: up to date" in answer.stderr
    assert (main_job[0] / "manifest.json").read_bytes() == before


def test_make_j_is_safe(main_job: tuple[Path, str]) -> None:
    answer = make("-j4", "export", "run", "verify", "evaluate", f"WORK={main_job[0]}")
    assert answer.returncode == 0, answer.stderr


def test_the_summary_names_metrics_and_the_place(main_job: tuple[Path, str]) -> None:
    work, output = main_job
    assert str(work) in output.replace("\n", "")
    assert re.search(r"mAP", output)
    assert "onnx-cpu" in output


def test_shards_in_copies_give_the_run_of_one_process(main_job: tuple[Path, str], tmp_path: Path) -> None:
    """What a scheduler does that knows nothing of us: two jobs, each with a copy; then what comes after a run."""
    done = read_manifest(main_job[0] / "manifest.json")
    work = Path(shutil.copytree(main_job[0], tmp_path / "work"))
    shutil.rmtree(work / "runs/onnx-cpu")
    update_manifest(work / "manifest.json", _without_onnx_run)
    copies = [Path(shutil.copytree(work, tmp_path / name)) for name in ("one", "two")]
    for number, copy in enumerate(copies, 1):
        run = ("runtime", "run", "--work", copy, "--backend", "onnx", "--num-samples", "-1")
        assert "done, samples" in tool(*run, "--shard", f"{number}/2")
    assert "commit    run onnx-cpu, from 2 shards" in tool("manifest", "merge", "--work", work, *copies)
    for path in done.stages["run:onnx-cpu"].outputs:
        if not path.endswith("samples.jsonl"):
            assert (work / path).read_bytes() == (main_job[0] / path).read_bytes(), path
    assert "up to date" in tool("runtime", "run", "--work", work, "--backend", "onnx", "--num-samples", "-1")
    assert "verification passed" in tool("verifier", "verify", "--work", work)
    tool("evaluator", "evaluate", "--work", work)
    merged = read_manifest(work / "manifest.json")
    assert merged.stages["run:onnx-cpu"].fingerprint == done.stages["run:onnx-cpu"].fingerprint
    assert merged.results["metrics"] == done.results["metrics"]


def _without_onnx_run(manifest: Manifest) -> None:
    for path in manifest.stages.pop("run:onnx-cpu").outputs:
        del manifest.artifacts[path]


def tool(*command: object) -> str:
    """What one of the tools prints; it must end well."""
    program, *arguments = map(str, command)
    answer = subprocess.run(
        [ROOT / ".venv/tools/bin" / program, *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def test_a_missing_checkpoint_ends_it_with_one_line(tmp_path: Path) -> None:
    answer = make("export", f"CHECKPOINT={tmp_path}/missing.pth", f"WORK={tmp_path}/work")
    assert answer.returncode == 2  # make's own code
    assert "Error 3" in answer.stderr
    assert "missing.pth" in answer.stderr
    assert "Traceback" not in answer.stderr
