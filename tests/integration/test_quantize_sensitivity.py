"""`exporter quantize sensitivity` and `auto` on a small trained model: results, resumption, what they refuse."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("modelopt")

import torch

from exporter.cli import cli
from exporter.models.calibration import adapter as calibration
from exporter.quantize.bench import fingerprint, open_metric_of
from exporter.quantize.session import open_session
from exporter.quantize.workers import require_same
from shared.errors import EnvironmentLacks, InputError
from tests.support.calibration_data import DEMO_INFO, make_demo

pytestmark = pytest.mark.exporter

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The demo's classifier on one frame of six cameras: some 50 ms a sample."""
    demo = make_demo(tmp_path_factory.mktemp("demo"))
    return [
        "--config", str(ROOT / "configs/calibration.yaml"),
        "--set", f"data.root={demo}",
        "--set", f"data.info_file={demo / DEMO_INFO}",
        "--set", "quantization.calibration.num_batches=2",
        "--num-samples", "3",
    ]  # fmt: skip


class Counter:
    """Counts how often the model is asked, and stops the command at the ``stop_at``th time as Ctrl-C does."""

    def __init__(self) -> None:
        self.asked = 0
        self.stop_at: int | None = None
        self._answer = calibration.answer

    def __call__(self, model: Any, model_input: Any) -> Any:
        self.asked += 1
        if self.asked == self.stop_at:
            raise KeyboardInterrupt
        return self._answer(model, model_input)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["quantize", *arguments])


@pytest.fixture(scope="module")
def stopped(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose search was stopped after some measurements."""
    work = tmp_path_factory.mktemp("stopped") / "work"
    counter = Counter()
    counter.stop_at = 30
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "answer", counter)
        assert run("sensitivity", *options, "--work", str(work)).exit_code != 0
    return work


@pytest.fixture(scope="module")
def finished(options: list[str], stopped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of it whose search went on."""
    work = tmp_path_factory.mktemp("finished") / "work"
    shutil.copytree(stopped, work)
    result = run("sensitivity", *options, "--work", str(work), "--output", str(work.parent / "copy.csv"))
    assert result.exit_code == 0, result.output
    return work


def journal_of(work: Path) -> list[str]:
    return (work / "quantized/search/journal.jsonl").read_text().splitlines()[1:]


def test_stopped_it_goes_on_and_both_commands_share_what_was_measured(
    options: list[str], stopped: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, lines = journal_of(stopped), journal_of(finished)
    assert len(kept) >= 3
    assert lines[: len(kept)] == kept  # none of them again
    assert len({json.loads(line)["key"] for line in lines}) == len(lines)

    rows = list(csv.DictReader((finished.parent / "copy.csv").open()))
    assert {"backbone.conv1", "head.fc", "backbone.layer1"} <= {row["name"] for row in rows}
    assert all(0 <= float(row["metric"]) <= 100 for row in rows)
    assert all(float(row["lowest_snr_db"]) > 0 for row in rows if row["kind"] == "layer")
    assert (finished / "quantized/sensitivity/picture.png").stat().st_size > 10_000
    skip = yaml.safe_load((finished / "quantized/sensitivity/skip.yaml").read_text())
    assert set(skip["sensitive_layers"]) <= {row["name"] for row in rows}

    counter = Counter()
    monkeypatch.setattr(calibration, "answer", counter)
    shutil.copytree(finished, tmp_path / "work")
    work = ["--work", str(tmp_path / "work")]
    again = run("sensitivity", *options, *work)
    assert "alone in int8" in again.output.lower()
    assert counter.asked <= 3  # folding batch norms looks at a sample
    following = shlex.split(again.output.splitlines()[-1])
    assert following[:4] == ["Next:", "exporter", "quantize", "ptq"]
    assert following[4:] == [
        *options[:2], *work, *options[2:-2], "--skip-from", f"{tmp_path}/work/quantized/sensitivity/skip.yaml"
    ]  # fmt: skip
    told = json.loads(run("sensitivity", *options, *work, "--json").stdout)
    assert [(entry["name"], entry["kind"]) for entry in told["ranking"]] == [(row["name"], row["kind"]) for row in rows]
    assert told["skip"] == skip["sensitive_layers"]

    found = run("auto", *options, *work, "--max-drop", "100", "--skip", "head.fc")
    assert found.exit_code == 0, found.output
    left_out = yaml.safe_load((tmp_path / "work/quantized/auto/skip.yaml").read_text())["sensitive_layers"]
    assert "head.fc" in left_out
    assert len(journal_of(tmp_path / "work")) - len(lines) <= 2
    nothing = run("auto", *options, *work, "--max-drop", "-200")
    assert nothing.exit_code == 6 and "no choice of INT8 blocks" in nothing.output


@pytest.mark.cluster
def test_on_a_cluster_it_goes_on_and_finds_the_same(
    options: list[str], stopped: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    work = tmp_path / "work"
    shutil.copytree(stopped, work)
    result = run("sensitivity", *options, "--work", str(work), "--cluster", "local:2")
    assert result.exit_code == 0, result.output
    for name in ("report.csv", "tables.txt", "skip.yaml"):
        path = f"quantized/sensitivity/{name}"
        assert (work / path).read_bytes() == (finished / path).read_bytes()
    kept, lines = journal_of(stopped), journal_of(work)
    assert lines[: len(kept)] == kept  # none of them again
    assert sorted(lines) == sorted(journal_of(finished))


@pytest.mark.cluster
def test_auto_on_a_cluster_finds_the_same(
    options: list[str], finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    alone, spread = tmp_path / "alone", tmp_path / "spread"
    for work, cluster in ((alone, []), (spread, ["--cluster", "local:2"])):
        shutil.copytree(finished, work)
        found = run("auto", *options, "--work", str(work), "--max-drop", "2", "--skip", "head.fc", *cluster)
        assert found.exit_code == 0, found.output
    for name in ("tables.txt", "skip.yaml"):
        path = f"quantized/auto/{name}"
        assert (spread / path).read_bytes() == (alone / path).read_bytes()
    # On the cluster, choices are measured ahead that the search alone does not come to.
    assert set(journal_of(finished)) < set(journal_of(alone)) <= set(journal_of(spread))


@pytest.mark.cluster
def test_a_cluster_that_is_not_there_is_told_before_any_work(options: list[str], tmp_path: Path) -> None:
    nowhere = run("auto", *options, "--work", str(tmp_path), "--cluster", "localhost:1", "--max-drop", "1")
    assert nowhere.exit_code == 4 and "there is no Ray cluster" in nowhere.output
    assert not (tmp_path / "quantized").exists()


def test_a_node_with_other_files_or_versions_is_refused(options: list[str], tmp_path: Path) -> None:
    root = Path(options[3].removeprefix("data.root="))
    overrides = options[3:8:2]
    session = open_session(ROOT / "configs/calibration.yaml", overrides)
    key = fingerprint(session, open_metric_of(session, 3), 2, "cpu")
    require_same(session.config, None, key["inputs"], key["versions"])
    with pytest.raises(EnvironmentLacks, match=r"^checkpoint: not the files that the command has"):
        require_same(session.config, None, key["inputs"] | {"checkpoint": "0" * 64}, key["versions"])
    with pytest.raises(EnvironmentLacks, match=r"^torch: not the version that the command has"):
        require_same(session.config, None, key["inputs"], key["versions"] | {"torch": "1.0"})
    with pytest.raises(InputError, match=r"missing|not there|no such"):
        require_same(session.config, tmp_path / root.name, key["inputs"], key["versions"])


def test_without_labels_it_says_so(tmp_path: Path) -> None:
    np.zeros((500, 5), np.float32).tofile(tmp_path / "0.bin")
    result = run(
        "sensitivity", "--config", str(ROOT / "configs/centerpoint.yaml"), "--work", str(tmp_path / "work"),
        "--set", "data.format=folder", "--set", f"data.root={tmp_path}", "--set", "data.num_features=5",
        "--set", "quantization.fusion.fuse_bn=false",
    )  # fmt: skip
    assert result.exit_code == 3
    assert "the detection3d metric needs them" in result.output
    assert not (tmp_path / "work").exists()


def test_a_model_that_scores_nothing_has_no_ranking(options: list[str], tmp_path: Path) -> None:
    """The only frame's label is what the model does not say: here, because its weights are random."""
    from exporter.training_config import random_weights, read_training_config

    model = calibration.build(
        read_training_config(ROOT / "configs/train/calibration_demo.py"), calibration.read_options({})
    )
    random_weights(model, seed=0)
    model.head.fc.bias.data = torch.tensor([-1e3, 1e3])  # never miscalibrated, which sample 0 is
    torch.save({"state_dict": model.state_dict()}, tmp_path / "random.pth")
    own = [*options[:-1], "1", "--set", f"model.checkpoint={tmp_path / 'random.pth'}"]
    result = run("sensitivity", *own, "--work", str(tmp_path / "work"))
    assert result.exit_code == 3 and "accuracy of the float model is 0" in result.output, result.output


def test_gpu_and_layers_that_are_not_there(options: list[str], tmp_path: Path) -> None:
    work = ["--work", str(tmp_path / "work")]
    result = run("sensitivity", *options, *work, "--device", "nowhere")
    assert result.exit_code == 2 and "no such device" in result.output
    result = run("sensitivity", *options, *work, "--gpu", "tpu")
    assert result.exit_code == 2 and "h200" in result.output
    assert not (tmp_path / "work").exists()  # said before anything is done
    result = run("auto", *options, *work, "--max-drop", "1", "--skip", "backbone.layer9")
    assert result.exit_code == 2 and "backbone.layer9" in result.output
