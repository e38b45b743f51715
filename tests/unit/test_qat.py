"""Fine-tuning of a frozen model: it learns, goes on after a kill as if none had been, stops where it diverges."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.exporter

torch = pytest.importorskip("torch")
pytest.importorskip("mmengine")
pytest.importorskip("modelopt")

from torch import nn  # noqa: E402

from exporter.quantize.calibrate import CalibrationManager  # noqa: E402
from exporter.quantize.checkpoint import load_ptq_model  # noqa: E402
from exporter.quantize.frozen import freeze, frozen_layers  # noqa: E402
from exporter.quantize.fusion import fuse_model_bn  # noqa: E402
from exporter.quantize.qat import Plan, Training, fine_tune  # noqa: E402
from shared.errors import InputError, TrainingError  # noqa: E402
from shared.work_path import WorkPath  # noqa: E402
from tests.support.quantizing import images, net  # noqa: E402

PLAN = Plan(steps=40, batch_size=2, learning_rate=1e-2)


class Samples:
    """Numbers of images; those below `useless` can't be trained on."""

    def __len__(self) -> int:
        return 10

    def sample(self, index: int) -> int:
        return index


def training(useless: int = 0, stop_at: int | None = None) -> tuple[Training, list[int]]:
    """The small network, which is to answer as another one does, and what it was trained on."""
    model, teacher = net(), net(seed=1)
    fuse_model_bn(model, lambda: model(images(1)[0]))
    CalibrationManager(model).calibrate(images(20), 20, "max")
    freeze(model)
    seen: list[int] = []

    def load(_model: Any, sample: int, _parameters: Any, _labels: Any, rng: Any) -> Any:
        seen.append(sample)
        noise = float(rng.normal()) * 0.01
        return None if sample < useless else images(1, seed=sample)[0] + noise

    def losses(_model: Any, items: Any) -> dict[str, Any]:
        if stop_at is not None and len(seen) >= stop_at:
            raise KeyboardInterrupt
        batch = torch.cat(list(items))
        return {"loss_answers": nn.functional.mse_loss(model(batch), teacher(batch).detach())}

    trainable: Any = SimpleNamespace(load=load, losses=losses)
    samples: Any = Samples()
    return Training(model, trainable, samples, {}, {}), seen


def test_it_learns_and_leaves_a_model_to_save(tmp_path: Path) -> None:
    task, seen = training()
    reports = fine_tune(task, PLAN, WorkPath(tmp_path, "state.pth"), {"key": "a"})
    assert reports[-1]["loss"] < 0.6 * reports[0]["loss"]
    assert [report["step"] for report in reports] == list(range(2, 41, 2))
    # Every epoch goes through all samples, each in an order of its own.
    assert all(sorted(seen[start : start + 10]) == list(range(10)) for start in range(0, 80, 10))
    assert seen[:10] != seen[10:20]
    assert not task.model.training
    assert not any(parameter.requires_grad for parameter in task.model.parameters())
    for layer in frozen_layers(task.model).values():
        range_end = 127 * float(layer.weight_quantizer.scale.max())
        assert range_end == pytest.approx(float(layer.weight.abs().max()), rel=1e-6)


def test_norms_that_could_not_be_folded_stay(tmp_path: Path) -> None:
    task, _ = training()
    lone = nn.BatchNorm2d(3).eval()
    task.model.stem.insert(0, lone)
    before = {name: value.clone() for name, value in lone.state_dict().items()}
    fine_tune(task, Plan(4, 2, 1e-2), WorkPath(tmp_path, "state.pth"), {"key": "a"})
    assert all(torch.equal(value, before[name]) for name, value in lone.state_dict().items())


def test_an_interrupted_training_ends_like_one_that_was_not(tmp_path: Path) -> None:
    whole, _ = training()
    reports = fine_tune(whole, PLAN, WorkPath(tmp_path, "whole.pth"), {"key": "a"})
    state = WorkPath(tmp_path, "state.pth")
    with pytest.raises(KeyboardInterrupt):
        fine_tune(training(stop_at=33)[0], PLAN, state, {"key": "a", "about": {"method": "max"}})
    # What it left behind is a quantized checkpoint, too.
    fresh = net()
    assert load_ptq_model(fresh, state.checked())["method"] == "max"
    again, seen = training()
    assert fine_tune(again, PLAN, state, {"key": "a", "about": {"method": "max"}}) == reports
    assert len(seen) == 80 - 32
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], value, rtol=0, atol=0, msg=name)


def test_the_state_of_another_training_is_not_taken_up(tmp_path: Path) -> None:
    state = WorkPath(tmp_path, "state.pth")
    fine_tune(training()[0], PLAN, state, {"key": "a"})
    for plan, key in ((PLAN, "b"), (Plan(6, 2, 1e-2), "a")):
        task, seen = training()
        fine_tune(task, plan, state, {"key": key})
        assert len(seen) == 2 * plan.steps


def test_samples_of_no_use_are_left_out(tmp_path: Path) -> None:
    reports = fine_tune(training(useless=9)[0], Plan(10, 1, 1e-3), WorkPath(tmp_path, "state.pth"), {"key": "a"})
    assert sum("loss" in report for report in reports) == 1
    with pytest.raises(InputError, match="not one sample"):
        fine_tune(training(useless=10)[0], Plan(10, 1, 1e-3), WorkPath(tmp_path, "state.pth"), {"key": "b"})


def test_divergence_stops_with_advice_and_without_a_state(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"step \d+: the loss or its gradient is (nan|inf).*lower the learning rate"
    ):
        fine_tune(training()[0], Plan(40, 2, 1e30), WorkPath(tmp_path, "state.pth"), {"key": "a"})
    assert TrainingError.exit_code == 5
