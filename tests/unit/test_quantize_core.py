"""Folding, choosing, calibrating, freezing and keeping a quantized model: the parts, on a toy network."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.exporter

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

from exporter.checkpoints import load_weights  # noqa: E402
from exporter.quantize.checkpoint import load_ptq_model, read_record, save_ptq_model  # noqa: E402
from exporter.quantize.frozen import FixedQuantizer, freeze, frozen_layers, quantized_layers, set_quantized  # noqa: E402
from exporter.quantize.fusion import fuse_model_bn, fused_pairs  # noqa: E402
from exporter.quantize.layers import matching, quantizable, select  # noqa: E402
from shared.errors import ConfigError, ExportError, InputError, ModelLoadError, UsageError  # noqa: E402
from tests.support.quantizing import images, net  # noqa: E402

pytest.importorskip("modelopt")
from exporter.quantize.calibrate import METHODS, CalibrationManager, calibrate, insert_quantizers  # noqa: E402

PAIRS = [("stem.0", "stem.1"), ("block.0", "block.1"), ("up.0", "up.1"), ("linear", "norm")]
LAYERS = ["stem.0", "block.0", "up.0", "linear", "out"]


def outputs(model: nn.Module) -> Any:
    with torch.no_grad():
        return torch.cat([model(image) for image in images(3, seed=5)])


def calibrated(layers: list[str] | None = None, method: Any = "max", count: int = 20) -> nn.Module:
    """Folded, with modelopt's quantizers and ranges."""
    model = net()
    fuse_model_bn(model, lambda: model(images(1)[0]))
    insert_quantizers(model, LAYERS if layers is None else layers)
    calibrate(model, model, images(count), method=method)
    return model


def frozen(layers: list[str] | None = None, method: Any = "max") -> nn.Module:
    model = calibrated(layers, method)
    freeze(model)
    return model


# -- folding -----------------------------------------------------------------------------------------------------------


def test_every_batch_norm_behind_a_layer_is_folded_and_the_outputs_stay() -> None:
    model = net()
    before = outputs(model)
    assert fuse_model_bn(model, lambda: model(images(1)[0])) == PAIRS
    assert fused_pairs(model) == PAIRS
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    torch.testing.assert_close(outputs(model), before, rtol=0, atol=1e-4)


class Awkward(nn.Module):
    """Batch norms that must stay: behind two layers in turn, behind a changed output, behind nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.shared, self.changed, self.alone = (nn.BatchNorm2d(3) for _ in range(3))

    def forward(self, image: Any) -> Any:
        both = self.shared(self.first(image)) + self.shared(self.second(image))
        return self.changed(self.third(image).relu_()) + self.alone(image) + both


def test_batch_norms_that_are_not_simply_behind_one_layer_stay() -> None:
    model = Awkward().eval()
    assert fuse_model_bn(model, lambda: model(images(1)[0])) == []


class Twice(nn.Module):
    """The convolution's output is also used without the norm: what hooks can't see."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.norm.running_var.fill_(4.0)

    def forward(self, image: Any) -> Any:
        raw = self.conv(image)
        return raw + self.norm(raw)


def test_folding_that_changes_the_outputs_is_an_error() -> None:
    model = Twice().eval()
    with pytest.raises(ExportError, match="outputs differ by"):
        fuse_model_bn(model, lambda: model(images(1)[0]))


# -- choosing ----------------------------------------------------------------------------------------------------------


def test_layers_are_chosen_by_name_block_or_regular_expression() -> None:
    model = net()
    assert list(quantizable(model)) == LAYERS
    assert select(model, ["stem", r"^(linear|out)$"]) == ["block.0", "up.0"]
    assert matching(model, "out") == ["out"]


def test_attention_stays_in_floating_point_whether_it_is_named_or_not() -> None:
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2), "out": nn.Linear(8, 4)})
    assert select(model, []) == select(model, ["attention"]) == ["out"]


def test_a_pattern_that_matches_nothing_names_near_ones() -> None:
    with pytest.raises(ConfigError, match=r"'steem' matches no layer\. did you mean stem"):
        select(net(), ["steem"])
    with pytest.raises(ConfigError, match="leaves no layer"):
        select(net(), ["."])


@pytest.mark.parametrize("pattern", ["*.conv1", "[", "a{99999999999}"])
def test_what_is_no_regular_expression_names_where_it_comes_from(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"^quantization\.sensitive_layers: '.*' is not a regular expression"):
        select(net(), [pattern])
    with pytest.raises(UsageError, match=r"^--skip: '.*' is not a regular expression"):
        select(net(), ["stem"], also=[pattern])


def test_a_wrong_option_is_not_blamed_on_the_config() -> None:
    with pytest.raises(UsageError, match=r"^--skip: 'nothere' matches no layer"):
        select(net(), ["stem"], also=["nothere"])
    with pytest.raises(UsageError, match=r"^--skip: leaves no layer"):
        select(net(), ["stem"], also=["."])
    assert select(net(), ["stem"], also=["^(linear|out)$"]) == ["block.0", "up.0"]


# -- calibrating and freezing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_the_frozen_model_computes_what_modelopt_computes(method: str) -> None:
    layers = ["out"] if method == "entropy" else LAYERS  # it takes seconds a layer
    model = calibrated(layers, method)
    expected, before = outputs(model), outputs(net())
    freeze(model)
    torch.testing.assert_close(outputs(model), expected, rtol=0, atol=1e-5)
    assert quantized_layers(model) == layers
    # Eight bits leave an error, and not a large one.
    error = (expected - before).abs().max() / before.abs().max()
    assert 1e-4 < error < 0.1, error
    assert not [type(module) for module in model.modules() if "modelopt" in type(module).__module__]


def test_where_rounding_is_exact_so_is_the_frozen_model() -> None:
    """Scales that are powers of two: multiplying and dividing by them rounds nothing."""
    model = calibrated()
    for layer in (model.get_submodule(name) for name in LAYERS):
        for quantizer in (layer.input_quantizer, layer.weight_quantizer):
            quantizer.amax = 127 * 2.0 ** torch.ceil(torch.log2(quantizer.amax / 127))
    expected = outputs(model)
    freeze(model)
    assert torch.equal(outputs(model), expected)


def test_scales_are_a_channel_of_weights_and_a_tensor_of_activations() -> None:
    model = frozen()
    scales = {name: tuple(module.weight_quantizer.scale.shape) for name, module in frozen_layers(model).items()}
    assert scales == {"stem.0": (8,), "block.0": (8,), "up.0": (), "linear": (6,), "out": (5,)}
    stem = frozen_layers(model)["stem.0"]
    largest = max(float(image.abs().max()) for image in images(20))
    assert float(stem.input_quantizer.scale) == pytest.approx(largest / 127)
    torch.testing.assert_close(stem.weight_quantizer.scale, stem.weight.detach().abs().amax((1, 2, 3)) / 127)


def test_the_histogram_holds_every_value_when_ranges_grow() -> None:
    from exporter.quantize.calibrate import _ActivationRange

    values, collected = torch.rand(5000) ** 3, _ActivationRange("percentile", 99.0)
    for scale in (0.001, 1.0, 0.1, 7.0):
        collected.collect(values * scale)
    assert int(collected.counts.sum()) == 20_000 and len(collected.counts) == 2048
    everything = torch.cat([values * scale for scale in (0.001, 1.0, 0.1, 7.0)])
    found = float(collected.compute_amax())
    assert found == pytest.approx(float(np.percentile(everything, 99.0)), abs=4 * collected.end / 2048)


def test_outliers_are_cut_by_every_method_but_max() -> None:
    from exporter.quantize.calibrate import _ActivationRange

    generator = torch.Generator().manual_seed(0)
    values = torch.cat([torch.randn(200_000, generator=generator), torch.tensor([40.0])])
    found = {}
    for method in METHODS:
        collected = _ActivationRange(method, 99.9)
        collected.collect(values)
        found[method] = float(collected.compute_amax())
    assert found["max"] == 40
    assert all(3 < found[method] < 20 for method in ("entropy", "mse", "percentile")), found


def test_layers_left_out_compute_in_float_and_can_be_switched() -> None:
    model = frozen(["block.0", "out"])
    assert quantized_layers(model) == ["block.0", "out"] and type(model.stem[0]) is nn.Conv2d
    everything = frozen()
    set_quantized(everything, ["block.0", "out"])
    torch.testing.assert_close(outputs(everything), outputs(model))
    set_quantized(everything, [])
    torch.testing.assert_close(outputs(everything), outputs(net()), rtol=0, atol=1e-4)
    with pytest.raises(ConfigError, match="stem have no scales"):
        set_quantized(everything, ["stem"])


def test_a_dead_channel_stays_zero() -> None:
    quantizer = FixedQuantizer(torch.tensor([1.0, 0.01]), axis=0)
    assert quantizer(torch.tensor([[0.0, 0.0], [0.5, 0.004]])).tolist() == [[0, 0], [0.5, pytest.approx(0.0)]]
    model = net()
    model.block[0].weight.data[3] = 0
    insert_quantizers(model, ["block.0"])
    calibrate(model, model, images(3), method="max")
    freeze(model)
    assert bool(outputs(model).isfinite().all())


def test_float64_rounds_to_the_same_steps() -> None:
    quantizer, values = FixedQuantizer(torch.tensor(0.03), None), torch.randn(1000)
    torch.testing.assert_close(quantizer(values.double()).float(), quantizer(values), rtol=0, atol=1e-6)


def test_a_frozen_model_exports_as_a_program_and_by_both_onnx_exporters(tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    model, image = frozen(), images(1)[0]
    with torch.no_grad():
        expected = model(image)
        program = torch.export.export(model, (image,))
        torch.testing.assert_close(program.module()(image), expected, rtol=0, atol=1e-5)
        for dynamo in (False, True):
            path = tmp_path / f"{dynamo}.onnx"
            torch.onnx.export(
                model, (image,), path, dynamo=dynamo, opset_version=18 if dynamo else 17, verbose=False,
                **({"external_data": False} if dynamo else {}),
            )  # fmt: skip
            kinds = [node.op_type for node in onnx.load(path).graph.node]
            assert kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear") == 2 * len(LAYERS)
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            actual = session.run(None, {session.get_inputs()[0].name: image.numpy()})[0]
            torch.testing.assert_close(torch.from_numpy(actual), expected, rtol=0, atol=0.05)


def test_calibrating_on_nothing_zeros_or_nan_is_an_error() -> None:
    model = net()
    insert_quantizers(model, LAYERS)
    with pytest.raises(InputError, match="no sample to calibrate on"):
        calibrate(model, model, [], method="max")
    with pytest.raises(InputError, match=r"stem\.0: sees nothing but zeros"):
        calibrate(model, model, [torch.zeros(1, 3, 8, 12)], method="mse")
    with pytest.raises(InputError, match=r"calibration sample 1: .*NaN"):
        calibrate(model, model, [*images(1), torch.full((1, 3, 8, 12), math.nan)], method="max")


def test_few_samples_warn_with_the_number_wanted(caplog: pytest.LogCaptureFixture) -> None:
    assert CalibrationManager(net(), ["out"]).calibrate(images(1), 64, "max") == 1
    assert "calibration on 1 samples only" in caplog.text and "at least 16" in caplog.text


def test_progress_is_of_the_samples_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    from exporter.quantize import calibrate as module
    from exporter.quantize.ptq import quantize_ptq

    totals: list[int] = []

    def track(items: Any, _: str, total: int) -> Any:
        totals.append(total)
        return items

    monkeypatch.setattr(module, "track", track)
    manager = CalibrationManager(net(), ["out"])
    manager.calibrate(images(3), 100, "max")
    manager.calibrate(images(3), 2, "max")
    manager.calibrate(iter(images(3)), 100, "max", available=3)
    manager.calibrate((image for image in images(3)), 100, "max")  # nobody knows
    quantize_ptq(net(), images(3), 100, "max")
    assert totals == [3, 2, 3, 100, 3]


# -- cache and checkpoint ----------------------------------------------------------------------------------------------


def test_a_cache_gives_the_same_ranges_and_knows_its_model(tmp_path: Path) -> None:
    manager = CalibrationManager(net())
    manager.calibrate(images(20), 20, "mse")
    manager.save_calib_cache(tmp_path / "cache.json")
    again = CalibrationManager(net())
    again.load_calib_cache(tmp_path / "cache.json")
    assert again.about == {"method": "mse", "samples": 20, "percentile": 99.99}
    torch.testing.assert_close(outputs(again.model), outputs(manager.model), rtol=0, atol=0)

    with pytest.raises(InputError, match="of a model with other weights"):
        CalibrationManager(net(seed=1)).load_calib_cache(tmp_path / "cache.json")
    content = json.loads((tmp_path / "cache.json").read_text())
    del content["ranges"]["out"]
    (tmp_path / "less.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="has no range for 1 layers, out"):
        CalibrationManager(net()).load_calib_cache(tmp_path / "less.json")
    (tmp_path / "broken.json").write_text("{")
    for name, text in (("broken", "can't be read"), ("none", "No such file")):
        with pytest.raises(InputError, match=text):
            CalibrationManager(net()).load_calib_cache(tmp_path / f"{name}.json")


def test_a_checkpoint_reloads_strictly_in_a_fresh_process_without_modelopt(tmp_path: Path) -> None:
    model = frozen(["block.0", "up.0", "out"], "percentile")
    save_ptq_model(model, tmp_path / "ptq.pth", {"method": "percentile"})
    code = (
        "import sys, torch; from exporter.quantize.checkpoint import load_ptq_model; "
        "from tests.support.quantizing import images, net; model = net(9); "
        f"record = load_ptq_model(model, {str(tmp_path / 'ptq.pth')!r}); "
        "assert 'modelopt' not in sys.modules; "
        f"torch.save((torch.cat([model(x) for x in images(3, 5)]).detach(), record), {str(tmp_path / 'out.pt')!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    actual, record = torch.load(tmp_path / "out.pt")
    torch.testing.assert_close(actual, outputs(model), rtol=0, atol=0)
    assert (record["layers"], record["method"]) == (["block.0", "up.0", "out"], "percentile")
    assert [tuple(pair) for pair in record["fused"]] == PAIRS


def test_layers_that_were_switched_off_are_off_in_the_checkpoint_too(tmp_path: Path) -> None:
    model = frozen()
    kept = quantized_layers(model)[1:]
    set_quantized(model, kept)
    expected = outputs(model)
    save_ptq_model(model, tmp_path / "ptq.pth")
    again = net()
    load_ptq_model(again, tmp_path / "ptq.pth")
    assert quantized_layers(again) == kept
    torch.testing.assert_close(outputs(again.eval()), expected, rtol=0, atol=0)


def test_a_quantized_checkpoint_is_refused_where_it_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "ptq.pth"
    save_ptq_model(frozen(), path)
    # Without folding, a loader that is not strict would drop 4 biases, and the metric would be 0.
    with pytest.raises(ModelLoadError, match=r"stem\.1\.weight.*quantized checkpoint"):
        load_weights(net(), path)
    with pytest.raises(ModelLoadError, match="another model"):
        load_ptq_model(nn.Sequential(nn.Conv2d(3, 3, 1)), path)
    torch.save({"state_dict": net().state_dict()}, tmp_path / "float.pth")
    with pytest.raises(ModelLoadError, match="is no quantized checkpoint"):
        load_ptq_model(net(), tmp_path / "float.pth")
    with pytest.raises(ModelLoadError, match="no such checkpoint"):
        read_record(tmp_path / "none.pth")
    with pytest.raises(ExportError, match="no layer of the model is frozen"):
        save_ptq_model(net(), path)


def test_the_python_api_has_the_names_of_the_original(capsys: pytest.CaptureFixture[str]) -> None:
    from exporter import quantize

    assert all(callable(getattr(quantize, name)) for name in quantize.__all__)
    with pytest.raises(AttributeError, match="no attribute 'quantize'"):
        _ = quantize.quantize

    model = net()
    quantize.quant_conv_module(model, ["stem"])
    quantize.quant_linear_module(model, ["linear"])
    calibrate(model, model, images(3), method="max")
    quantized, plain = outputs(model), outputs(net())
    with quantize.disable_quantization(model.out):
        assert not torch.equal(outputs(model), quantized)
    assert torch.equal(outputs(model), quantized)
    quantize.disable_quantization(model).apply()
    torch.testing.assert_close(outputs(model), plain)
    quantize.print_quantizer_status(model)
    assert "block.0.input_quantizer  off  range" in capsys.readouterr().out
    quantize.enable_quantization(model).apply()
    quantize.freeze(model)
    assert quantized_layers(model) == ["block.0", "up.0", "out"] and isinstance(model.out, quantize.QuantLinear)
    quantize.disable_quantization(model).apply()
    torch.testing.assert_close(outputs(model), plain)


def test_one_call_quantizes_a_model() -> None:
    from exporter.quantize import quantize_ptq

    model = quantize_ptq(net(), iter(images(4)), 3, "max", skip_names=["stem"])
    assert quantized_layers(model) == LAYERS[1:] and fused_pairs(model) == PAIRS
    with pytest.raises(InputError, match="no sample to calibrate on"):
        quantize_ptq(net(), [])


def test_a_frozen_model_can_be_copied() -> None:
    model = frozen()
    twin = copy.deepcopy(model)
    set_quantized(twin, [])
    assert quantized_layers(model) == LAYERS and quantized_layers(twin) == []
