"""QATHook in mmengine's own Runner: what is trained, saved, resumed and left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.exporter

torch = pytest.importorskip("torch")
pytest.importorskip("mmengine")
pytest.importorskip("modelopt")

from mmengine.model import BaseModel  # noqa: E402
from mmengine.runner import Runner  # noqa: E402
from torch import nn  # noqa: E402

from exporter.quantize import hook  # noqa: E402
from exporter.quantize.checkpoint import load_ptq_model  # noqa: E402
from exporter.quantize.frozen import FixedQuantizer, quantized_layers  # noqa: E402
from shared.errors import ConfigError, TrainingError  # noqa: E402
from tests.support.quantizing import net  # noqa: E402


class Classifier(BaseModel):
    """The small network of the other tests, with a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, inputs: Any, labels: Any, mode: str = "tensor") -> Any:
        logits = self.net(inputs)
        return {"loss": nn.functional.cross_entropy(logits, labels)} if mode == "loss" else logits


def samples() -> list[dict[str, Any]]:
    """Images of noise, whose class is their tint."""
    generator = torch.Generator().manual_seed(3)
    tints = torch.randn(5, 3, 1, 1, generator=generator)
    return [
        {"inputs": tints[label] + 0.7 * torch.randn(3, 8, 12, generator=generator), "labels": label}
        for label in [number % 5 for number in range(24)]
    ]


def runner(work: Path, model: Any = None, epochs: int = 2, lr: float = 1e-3, **options: Any) -> Runner:
    """A Runner with the hook; ``hook`` holds the hook's own options."""
    settings = {"type": "QATHook", "calibration_batches": 4, **options.pop("hook", {})}
    data = options.pop("data", None) or samples()
    return Runner(
        model=model or Classifier(),
        work_dir=str(work),
        train_dataloader={
            "dataset": data, "batch_size": 4, "collate_fn": {"type": options.pop("collate", "default_collate")},
            "sampler": {"type": "DefaultSampler", "shuffle": True},
        },
        optim_wrapper={
            "optimizer": {"type": "AdamW", "lr": lr, "weight_decay": 0.01},
            "paramwise_cfg": {"norm_decay_mult": 0.0, "bias_lr_mult": 2.0},
        },
        param_scheduler={"type": "MultiStepLR", "milestones": options.pop("milestones", [1])},
        train_cfg={"by_epoch": True, "max_epochs": epochs},
        custom_hooks=[settings, *options.pop("more_hooks", [])],
        default_hooks={"checkpoint": {"type": "CheckpointHook", "interval": 1}},
        default_scope="mmengine",
        log_level="WARNING",
        randomness={"seed": 0},
        experiment_name=work.name,
        **options,
    )  # fmt: skip


def state(model: Any) -> dict[str, Any]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_training_ends_in_a_quantized_checkpoint_that_loads(tmp_path: Path) -> None:
    run = runner(tmp_path)
    before = state(run.model)
    run.train()
    trained = run.model.eval()
    fresh = Classifier()
    record = load_ptq_model(fresh, tmp_path / hook.CHECKPOINT)
    fresh.eval()
    assert record["mode"] == "qat"
    assert record["method"] == "mse"
    assert record["epochs"] == 2
    assert set(record["layers"]) == {"net.stem.0", "net.block.0", "net.up.0", "net.linear", "net.out"}
    inputs, labels = torch.randn(2, 3, 8, 12), torch.tensor([0, 1])
    torch.testing.assert_close(fresh(inputs, labels), trained(inputs, labels), rtol=0, atol=0)
    # Weights have learned, and their ranges with them.
    assert not torch.equal(trained.net.out.weight, before["net.out.weight"])
    sizes = trained.net.out.weight.detach().abs().amax(1)
    torch.testing.assert_close(trained.net.out.weight_quantizer.scale, sizes / 127)


def test_the_loss_falls(tmp_path: Path) -> None:
    model = Classifier()
    batch = {
        "inputs": torch.stack([sample["inputs"] for sample in samples()]),
        "labels": torch.tensor([sample["labels"] for sample in samples()]),
    }
    before = model(**batch, mode="loss")["loss"].item()
    runner(tmp_path, model, epochs=20, lr=1e-2, milestones=[18]).train()
    assert model.eval()(**batch, mode="loss")["loss"].item() < 0.75 * before


def test_optimizer_holds_the_folded_layers_parameters_in_their_groups(tmp_path: Path) -> None:
    run = runner(tmp_path)
    run.train()
    groups = run.optim_wrapper.param_groups
    held = {id(parameter): group for group in groups for parameter in group["params"]}
    for name, parameter in run.model.named_parameters():
        assert id(parameter) in held, name
        assert run.optim_wrapper.optimizer.state[parameter]["step"] > 0
    # The bias of a folded layer has the settings of the norm's bias, whose place it took.
    assert held[id(run.model.net.stem[0].bias)]["weight_decay"] == 0.0
    assert held[id(run.model.net.stem[0].weight)]["weight_decay"] == 0.01


def test_resumed_training_equals_one_without_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # mmengine 0.10 resumes with PyTorch's own default, which from 2.6 on refuses the log in its checkpoints.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    whole = runner(tmp_path / "whole", epochs=3)
    whole.train()
    runner(tmp_path / "parts", epochs=2).train()
    resumed = runner(tmp_path / "parts", epochs=3, resume=True)
    resumed.train()
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, rtol=0, atol=0, msg=name)


def test_every_checkpoint_of_the_runner_is_a_quantized_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner(tmp_path, epochs=1).train()
    model = Classifier()
    record = load_ptq_model(model, tmp_path / "epoch_1.pth")
    assert record["layers"] == quantized_layers(model)
    # And it is what another training begins with.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    again = runner(tmp_path / "again", epochs=1, load_from=str(tmp_path / "epoch_1.pth"))
    again.train()
    assert torch.equal(again.model.net.stem[0].input_quantizer.scale, model.net.stem[0].input_quantizer.scale)


def test_a_runner_that_only_tests_loads_what_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runner(tmp_path / "trained", epochs=1)
    run.train()
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    tester = Runner(
        model=Classifier(), work_dir=str(tmp_path), load_from=str(tmp_path / "trained" / "epoch_1.pth"),
        custom_hooks=[{"type": "QATHook"}], default_scope="mmengine", log_level="ERROR", experiment_name="tester",
    )  # fmt: skip
    tester.load_or_resume()
    tester.load_checkpoint(str(tmp_path / "trained" / "epoch_1.pth"))  # once more: it has the form already
    inputs, labels = torch.randn(2, 3, 8, 12), torch.tensor([0, 1])
    expected = run.model.eval()(inputs, labels)
    torch.testing.assert_close(tester.model.eval()(inputs, labels), expected, rtol=0, atol=0)


def test_calibration_waits_for_its_epoch(tmp_path: Path) -> None:
    run = runner(tmp_path, epochs=2, hook={"calibration_epoch": 1, "sensitive_layers": ["net.linear"]})
    run.train()
    first = torch.load(tmp_path / "epoch_1.pth", weights_only=False)
    assert first["quantization"]["layers"] == []
    assert len(first["quantization"]["fused"]) == 4
    assert quantized_layers(run.model) == ["net.stem.0", "net.block.0", "net.up.0", "net.out"]
    with pytest.raises(ConfigError, match="calibration_epoch: is 5, and training ended before it"):
        runner(tmp_path / "late", epochs=1, hook={"calibration_epoch": 5}).train()


def test_norms_are_held_or_go_on_learning(tmp_path: Path) -> None:
    class Normed(Classifier):
        """A batch norm that follows no layer, and so can't be folded."""

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.BatchNorm2d(3)

        def forward(self, inputs: Any, labels: Any, mode: str = "tensor") -> Any:
            return super().forward(self.first(inputs), labels, mode)

    held, learning = Normed(), Normed()
    before = state(held.first)
    runner(tmp_path / "held", held).train()
    assert all(torch.equal(value, before[name]) for name, value in held.first.state_dict().items())
    runner(tmp_path / "learning", learning, hook={"freeze_bn": False}).train()
    assert not torch.equal(learning.first.running_mean, before["running_mean"])
    assert isinstance(learning.net.stem[1], nn.BatchNorm2d)
    load_ptq_model(Normed(), tmp_path / "learning" / hook.CHECKPOINT)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_gradients_pass_through_the_rounding_in_mixed_precision_too(kind: Any) -> None:
    quantizer = FixedQuantizer(torch.tensor(0.5), None)
    values = torch.tensor([0.7, -3.1, 90.0], dtype=kind, requires_grad=True)
    rounded = quantizer(values)
    assert rounded.tolist() == [0.5, -3.0, 63.5]
    assert rounded.dtype == kind
    torch.autograd.backward(rounded.sum())
    assert values.grad is not None
    assert values.grad.tolist() == [1, 1, 0]  # none where the value lies outside the range


def test_a_loss_that_is_not_finite_stops_with_advice(tmp_path: Path) -> None:
    run = runner(tmp_path, lr=1e30)
    with pytest.raises(TrainingError, match=r"epoch 0, iteration.*lower the learning rate"):
        run.train()
    assert not (tmp_path / hook.CHECKPOINT).exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"amax_method": "median"}, "'median' is unknown.*use max"),
        ({"calibration_batches": 0}, "must be at least 1"),
        ({"sensitive_layers": ["net.stam"]}, "matches no layer.*net.stem"),
    ],
)
def test_wrong_arguments(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        runner(tmp_path, hook=options).train()


def test_averaged_copies_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="EMAHook"):
        runner(tmp_path, more_hooks=[{"type": "EMAHook"}]).train()


def test_mmdet3ds_centerpoint(tmp_path: Path) -> None:
    from tests.support.exporting import SMALL, built, points

    config = tmp_path / "small.py"
    config.write_text(
        f"_base_ = [{str(SMALL)!r}]\n"
        "model = dict(pts_bbox_head=dict(loss_cls=dict(type='mmdet.GaussianFocalLoss', reduction='mean')),\n"
        "    train_cfg=dict(pts=dict(grid_size=[256, 192, 1], code_weights=[1.0] * 10,\n"
        "        point_cloud_range=[-30.72, -23.04, -3.0, 30.72, 23.04, 5.0])))\n"
    )
    model, _, _ = built(config)
    model.requires_grad_(True)
    # After the model was built: that provides mmcv's operators.
    from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
    from mmengine.structures import InstanceData

    frames = []
    for x in (5.0, -7.0):
        sample = Det3DDataSample(metainfo={"box_type_3d": LiDARInstance3DBoxes})
        boxes = LiDARInstance3DBoxes(torch.tensor([[x, 2, 0, 4, 2, 1.5, 0.3, 1, 0]]), box_dim=9)
        sample.gt_instances_3d = InstanceData(bboxes_3d=boxes, labels_3d=torch.tensor([0]))
        frames.append({"inputs": {"points": points(4)}, "data_samples": sample})
    run = runner(
        tmp_path, model, epochs=1, lr=1e-4, data=frames, collate="pseudo_collate",
        hook={"sensitive_layers": ["pts_voxel_encoder", r"task_heads\.\d+\.\w+\.1$"], "calibration_batches": 1},
    )  # fmt: skip
    before = state(model)
    run.train()
    fresh = built(config)[0]
    record = load_ptq_model(fresh, tmp_path / hook.CHECKPOINT)
    assert len(record["fused"]) > 10
    assert "pts_backbone.blocks.0.0" in record["layers"]
    assert not any(name.startswith("pts_voxel_encoder") for name in record["layers"])
    head = "pts_bbox_head.task_heads.0.heatmap.1.weight"
    assert not torch.equal(fresh.state_dict()[head], before[head])


def test_mmdets_yolox(tmp_path: Path) -> None:
    from tests.support import tiny_yolox

    text = tiny_yolox.TRAINING_CONFIG.replace(
        "test_cfg=", "train_cfg=dict(assigner=dict(type='SimOTAAssigner')),\n    test_cfg="
    )
    model, _, _ = tiny_yolox.built(tmp_path, text=text)
    model.requires_grad_(True)
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    images = []
    for number in range(2):
        sample = DetDataSample(metainfo={"img_shape": (96, 96), "scale_factor": (1.0, 1.0)})
        sample.gt_instances = InstanceData(bboxes=torch.tensor([[10.0, 20, 60, 70]]), labels=torch.tensor([number]))
        pixels = torch.randint(0, 255, (3, 96, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(number))
        images.append({"inputs": pixels, "data_samples": sample})
    runner(tmp_path, model, epochs=1, lr=1e-4, data=images, collate="pseudo_collate").train()
    record = load_ptq_model(tiny_yolox.built(tmp_path, text=text)[0], tmp_path / hook.CHECKPOINT)
    assert len(record["layers"]) > 20
