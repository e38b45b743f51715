"""Checkpoints: loaded whole or refused, with a line that says why; nothing in them is ever run."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from unittest.mock import Mock

import pytest

from shared.errors import ModelLoadError
from tests.support.exporting import CONFIGS, SMALL, built, save_checkpoint

pytestmark = pytest.mark.exporter


@pytest.fixture(scope="module")
def model():
    return built(SMALL)[0]


def load(path):
    """Load a checkpoint into a fresh small model."""
    from exporter.checkpoints import load_weights

    fresh = built(SMALL)[0]
    for value in fresh.state_dict().values():
        value.zero_()
    load_weights(fresh, path)
    return fresh


def test_weights_arrive_unchanged(model, tmp_path):
    loaded = load(save_checkpoint(model, tmp_path / "model.pth"))
    for name, value in model.state_dict().items():
        assert value.equal(loaded.state_dict()[name]), name


def test_half_precision_weights_are_cast(model, tmp_path):
    import torch

    halves = {name: v.half() if v.is_floating_point() else v for name, v in model.state_dict().items()}
    torch.save({"state_dict": halves}, tmp_path / "half.pth")
    for name, value in load(tmp_path / "half.pth").state_dict().items():
        assert value.dtype == model.state_dict()[name].dtype
        assert value.equal(halves[name].to(value.dtype)), name


def test_a_compressed_archive(model, tmp_path):
    from exporter.demo_training import save_packed

    path = tmp_path / "packed.pth"
    save_packed({"state_dict": model.state_dict()}, path)
    assert path.stat().st_size < 0.95 * save_checkpoint(model, tmp_path / "plain.pth").stat().st_size
    assert all(value.equal(model.state_dict()[name]) for name, value in load(path).state_dict().items())


def test_tensors_in_one_storage_are_the_same_and_take_less(model, tmp_path):
    from exporter.demo_training import in_one_storage, save_packed

    state = model.state_dict()
    together = in_one_storage(state)
    assert list(together) == list(state)
    assert all(value.equal(state[name]) and value.dtype == state[name].dtype for name, value in together.items())
    for name, content in (("apart", state), ("together", together)):
        save_packed({"state_dict": content}, tmp_path / f"{name}.pth")
    assert (tmp_path / "together.pth").stat().st_size < (tmp_path / "apart.pth").stat().st_size
    assert all(value.equal(state[name]) for name, value in load(tmp_path / "together.pth").state_dict().items())


def test_fewer_significant_bits_are_rounded_to_nearest():
    import torch

    from exporter.demo_training import rounded

    weights = torch.tensor([[1.0, -1.1, 0.3, 0.0, 3e-5]])
    kept = rounded({"weight": weights, "bias": weights[0], "steps": torch.tensor(3)}, 4)
    assert kept["weight"].tolist() == [[1.0, -1.125, 0.3125, 0.0, 2**-15]]
    assert kept["bias"].equal(weights[0].half()) and kept["steps"] == 3


def test_bare_state_dict_and_prefix_of_distributed_training(model, tmp_path):
    import torch

    torch.save({f"module.{name}": value for name, value in model.state_dict().items()}, tmp_path / "bare.pth")
    loaded = load(tmp_path / "bare.pth")
    assert all(value.equal(model.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_file_of_before_pytorch_1_6(model, tmp_path):
    import torch

    path = tmp_path / "old.pth"
    torch.save({"state_dict": model.state_dict()}, path, _use_new_zipfile_serialization=False)
    load(path)


def test_training_log_of_mmengine_is_no_obstacle(model, tmp_path):
    import numpy as np
    from mmengine.logging import MessageHub

    hub = MessageHub("test_training_log")
    hub.update_scalar("train/loss", np.float32(0.5))
    hub.update_scalar("train/loss", np.float64(0.25))
    hub.update_info("iter", 3)
    load(save_checkpoint(model, tmp_path / "logged.pth", message_hub=hub.state_dict()))


def test_missing_file(tmp_path):
    with pytest.raises(ModelLoadError, match=r"nothing.pth: no such checkpoint"):
        load(tmp_path / "nothing.pth")


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_truncated_file(model, tmp_path, kept):
    path = save_checkpoint(model, tmp_path / "model.pth")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(ModelLoadError, match="not a whole PyTorch checkpoint"):
        load(path)


def test_file_that_may_not_be_read(model, tmp_path, monkeypatch):
    path = save_checkpoint(model, tmp_path / "model.pth")
    refused = PermissionError(errno.EACCES, "Permission denied", str(path))
    monkeypatch.setattr("exporter.checkpoints._load", Mock(side_effect=refused))
    with pytest.raises(ModelLoadError, match=r"model\.pth: no permission to read it"):
        load(path)


def test_further_heads_are_left_out_whatever_they_are_called(model, tmp_path):
    """Unless the model has no head of the checkpoint's at all: then it is another model's."""
    import torch

    state = model.state_dict()
    torch.save({"state_dict": {**state, "img_aux_head.0.weight": torch.ones(1)}}, tmp_path / "more.pth")
    assert all(value.equal(state[name]) for name, value in load(tmp_path / "more.pth").state_dict().items())
    renamed = {name.replace("pts_bbox_head.", "dense_head."): value for name, value in state.items()}
    torch.save({"state_dict": renamed}, tmp_path / "other.pth")
    with pytest.raises(ModelLoadError, match=r"are unknown to the model: dense_head\."):
        load(tmp_path / "other.pth")


def test_file_of_another_kind(tmp_path):
    (tmp_path / "notes.pth").write_text("these are notes, not weights")
    with pytest.raises(ModelLoadError, match=r"notes.pth: is not a PyTorch checkpoint"):
        load(tmp_path / "notes.pth")


def test_a_pointer_of_git_lfs_in_place_of_the_file(tmp_path):
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    (tmp_path / "model.pth").write_text(pointer)
    with pytest.raises(ModelLoadError, match=r"model.pth: is a Git LFS pointer.*git lfs pull"):
        load(tmp_path / "model.pth")


class _Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_malicious_checkpoint_is_refused_and_not_run(model, tmp_path):
    target = tmp_path / "made by the checkpoint"
    path = save_checkpoint(model, tmp_path / "evil.pth", extra=_Payload(target))
    with pytest.raises(ModelLoadError, match="refused"):
        load(path)
    assert not target.exists()


def test_checkpoint_of_the_model_with_intensity(tmp_path):
    other = built(CONFIGS / "small_intensity.py")[0]
    with pytest.raises(ModelLoadError, match=r"\(16, 11\) instead of \(16, 10\).*intensity") as caught:
        load(save_checkpoint(other, tmp_path / "intensity.pth"))
    assert caught.value.exit_code == 3


def test_checkpoint_of_another_architecture(tmp_path):
    import torch

    torch.save({"state_dict": torch.nn.Linear(3, 3).state_dict()}, tmp_path / "linear.pth")
    with pytest.raises(ModelLoadError, match=r"weights are missing: .*and \d+ more.*bias.*another model"):
        load(tmp_path / "linear.pth")


def test_missing_and_unexpected_weights_are_listed(model, tmp_path):
    import torch

    state = dict(model.state_dict())
    state["pts_neck.extra.weight"] = state.pop("pts_neck.deblocks.0.0.weight")
    torch.save({"state_dict": state}, tmp_path / "renamed.pth")
    with pytest.raises(ModelLoadError) as caught:
        load(tmp_path / "renamed.pth")
    assert "1 weights are missing: pts_neck.deblocks.0.0.weight" in str(caught.value)
    assert "1 are unknown to the model: pts_neck.extra.weight" in str(caught.value)


def test_fused_batch_norms_are_recognized(model, tmp_path):
    import torch

    fused = {}
    for name, value in model.state_dict().items():
        if "pts_backbone" in name and ".1." in name.replace("blocks.1.", "blocks.x."):
            continue
        fused[name] = value
        if name == "pts_backbone.blocks.0.0.weight":
            fused["pts_backbone.blocks.0.0.bias"] = torch.zeros(len(value))
    torch.save({"state_dict": fused}, tmp_path / "fused.pth")
    with pytest.raises(ModelLoadError, match="batch norms look fused"):
        load(tmp_path / "fused.pth")


def test_diverged_weights_are_refused(model, tmp_path):
    import torch

    state = {name: value.clone() for name, value in model.state_dict().items()}
    state["pts_neck.deblocks.0.0.weight"][0] = float("nan")
    torch.save({"state_dict": state}, tmp_path / "nan.pth")
    with pytest.raises(ModelLoadError, match=r"1 weights are NaN or infinite: pts_neck.deblocks.0.0.weight"):
        load(tmp_path / "nan.pth")


def test_something_that_is_no_state_dict(tmp_path):
    import torch

    torch.save({"epoch": 3, "name": "x"}, tmp_path / "meta.pth")
    with pytest.raises(ModelLoadError, match="holds no state dict"):
        load(tmp_path / "meta.pth")


def test_a_folder_is_no_checkpoint(tmp_path: Path):
    with pytest.raises(ModelLoadError, match="no such checkpoint"):
        load(tmp_path)


@pytest.mark.parametrize("kind", ["integer key", "sparse", "meta", "quantized", "complex", "list", "empty"])
def test_what_is_not_a_plain_tensor_is_refused(tmp_path, kind):
    import torch

    weight = torch.ones(2, 2)
    state = {
        "integer key": {1: weight, "a": weight},
        "sparse": {"a": weight.to_sparse()},
        "meta": {"a": weight.to("meta")},
        "quantized": {"a": torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8)},
        "complex": {"a": weight.to(torch.complex64)},
        "list": {"a": [weight]},
        "empty": {},
    }[kind]
    torch.save({"state_dict": state}, tmp_path / "model.pth")
    with pytest.raises(ModelLoadError, match=r"model\.pth: "):
        load(tmp_path / "model.pth")


def test_an_array_with_fewer_values_than_its_shape_says_is_refused(tmp_path, model):
    """NumPy ends in a segmentation fault."""
    import numpy as np
    import torch

    class Short:
        def __reduce__(self):
            reconstruct, arguments, _state = np.zeros(1, dtype=object).__reduce__()
            return reconstruct, arguments, (1, (1000,), np.dtype("O"), False, [])

    torch.save({"state_dict": model.state_dict(), "log": Short()}, tmp_path / "model.pth")
    with pytest.raises(ModelLoadError, match=r"not a whole PyTorch checkpoint|refused"):
        load(tmp_path / "model.pth")
