"""Quantizers of nvidia-modelopt put into a model, and their ranges found by running it on samples.

Weights: one range a channel of the output (ConvTranspose2d: one in all, which is what TensorRT takes), the largest
absolute value. Activations: one range a tensor, by one of four methods: ``max``, the largest absolute value;
``percentile``, what holds that share of the values that are not 0; ``mse``, the least squared error; ``entropy``, the
least Kullback-Leibler divergence between the values' histogram and its quantized form.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from operator import length_hint
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from exporter.quantize.frozen import QMAX, QMIN, FloatLayer, plain_like
from exporter.quantize.layers import select
from shared.errors import InputError
from shared.files import write_text
from shared.json_reader import DATA_BYTES, read_json
from shared.lazy import lazy_import
from shared.progress import track
from shared.work_path import WorkPath

mtq_nn = lazy_import("modelopt.torch.quantization.nn")
mtq_calib = lazy_import("modelopt.torch.quantization.calib")

Method = Literal["max", "entropy", "mse", "percentile"]
METHODS: tuple[Method, ...] = get_args(Method)
DEFAULT_PERCENTILE = 99.99

CACHE_FORMAT = "awml-deploy calibration 1"
_BINS = 2048
# Fewer samples than this don't show what a model meets on the road.
FEWEST_SAMPLES = 16

_log = logging.getLogger("exporter")


class _ActivationRange:
    """Collects what one quantizer sees, and chooses its range.

    modelopt's own collector counts in float32, which stops at 2**24 (one BEV map has more cells), and grows without
    bound when the first sample is a quiet one. This one counts whole numbers in a fixed number of bins, and doubles
    their width when a value does not fit. Zeros are left out: int8 holds them exactly, and most cells of a map are 0.
    """

    def __init__(self, method: Method, percentile: float) -> None:
        self.method, self.percentile = method, percentile
        self.reset()

    def reset(self) -> None:
        self.largest, self.end = 0.0, 0.0
        self.counts = torch.zeros(_BINS, dtype=torch.int64)

    def collect(self, values: Tensor) -> None:
        sizes = values.detach().abs().float()
        largest = float(sizes.max())
        if not math.isfinite(largest):
            raise _NotFiniteError
        self.largest = max(self.largest, largest)
        if self.method == "max" or largest == 0:
            return
        self.end = self.end or largest
        while self.end < largest:
            self.counts = torch.cat([self.counts.reshape(-1, 2).sum(1), self.counts.new_zeros(_BINS // 2)])
            self.end *= 2
        self.counts += torch.histc(sizes[sizes > 0], bins=_BINS, min=0, max=self.end).cpu().long()

    def compute_amax(self, *_arguments: Any, **_options: Any) -> Tensor | None:
        if self.method == "max" or self.largest == 0:
            return torch.tensor(self.largest)
        edges = torch.linspace(0, self.end, _BINS + 1)
        if self.method == "percentile":
            below = self.counts.cumsum(0) >= self.counts.sum() * (self.percentile / 100)
            return edges[1:][below][0].clamp(max=self.largest)
        if self.method == "mse":
            return _least_squares(self.counts, edges).clamp(max=self.largest)
        histogram = mtq_calib.HistogramCalibrator(num_bits=8, axis=None, unsigned=False)
        histogram._calib_hist, histogram._calib_bin_edges = self.counts.numpy(), edges.numpy()
        return cast(Tensor, histogram.compute_amax("entropy")).clamp(max=self.largest)


def _least_squares(counts: Tensor, edges: Tensor) -> Tensor:
    """The range with the least squared error over a histogram.

    Not modelopt's: that of 0.47.0 hands its arguments on in the wrong order, and always finds the smallest range.
    """
    centers, ends = (edges[1:] + edges[:-1]) / 2, edges[QMAX + 1 :]
    scales = ends[:, None] / QMAX
    errors = torch.clamp(torch.round(centers / scales), QMIN, QMAX) * scales - centers
    return ends[(errors.square().double() @ counts.double()).argmin()]


class _NotFiniteError(Exception):
    """A quantizer was given NaN or infinity."""


def insert_quantizers(model: nn.Module, layers: Sequence[str]) -> None:
    """Make quantized layers of modelopt out of these layers, in place; they have no ranges yet.

    Args:
        model: a float model, or one with other quantized layers.
        layers: names of Conv2d, ConvTranspose2d and Linear layers.
    """
    registry = mtq_nn.QuantModuleRegistry
    for name in layers:
        module = model.get_submodule(name)
        if module not in registry:
            # A subclass like mmcv's, which only handles empty inputs for PyTorch versions of old.
            module = plain_like(cast(FloatLayer, module))
            model.set_submodule(name, module)
        layer = cast(Any, registry.convert(module))
        layer.input_quantizer.set_from_attribute_config({"num_bits": 8, "axis": None, "calibrator": "max"})
        axis = None if isinstance(layer, nn.ConvTranspose2d) else 0
        layer.weight_quantizer.set_from_attribute_config({"num_bits": 8, "axis": axis, "calibrator": "max"})


def quant_model(model: nn.Module, skip_names: Sequence[str] = ()) -> None:
    """Insert quantizers into all layers that can be quantized but the skipped ones, in place.

    Args:
        model: a float model.
        skip_names: names of layers or blocks, or regular expressions.

    Raises:
        ConfigError: a name matches nothing, or nothing is left.
    """
    insert_quantizers(model, select(model, skip_names, "skip_names"))


def quant_conv_module(model: nn.Module, skip_names: Sequence[str] = ()) -> None:
    """`quant_model` for convolutions, transposed ones included, alone."""
    _insert_some(model, skip_names, (nn.Conv2d, nn.ConvTranspose2d))


def quant_linear_module(model: nn.Module, skip_names: Sequence[str] = ()) -> None:
    """`quant_model` for linear layers alone."""
    _insert_some(model, skip_names, (nn.Linear,))


def _insert_some(model: nn.Module, skip_names: Sequence[str], kinds: tuple[type[nn.Module], ...]) -> None:
    chosen = select(model, skip_names, "skip_names")
    insert_quantizers(model, [name for name in chosen if isinstance(model.get_submodule(name), kinds)])


def calibrate(
    model: nn.Module,
    forward: Callable[[Any], Any],
    batches: Iterable[Any],
    *,
    method: Method,
    percentile: float = DEFAULT_PERCENTILE,
) -> int:
    """Find the ranges of a model's quantizers.

    Args:
        model: with quantizers (`insert_quantizers`), in evaluation mode.
        forward: runs the model on one batch.
        batches: the samples.
        method: how an activation's range is chosen; see the module.
        percentile: for the method ``percentile``.

    Returns:
        How many batches there were.

    Raises:
        InputError: no batch; the model gives NaN; or a layer sees nothing but zeros.
    """
    quantizers = _quantizers(model)
    for layer in quantizers.values():
        layer.input_quantizer._calibrator = _ActivationRange(method, percentile)
        for quantizer in (layer.input_quantizer, layer.weight_quantizer):
            quantizer.reset_amax()
            quantizer.disable_quant()
        layer.input_quantizer.enable_calib()
    count = 0
    with torch.no_grad():
        for batch in batches:
            try:
                forward(batch)
            except _NotFiniteError:
                raise InputError(
                    "the model computes NaN or infinity from it", where=f"calibration sample {count}",
                    hint="check the sample and the checkpoint",
                ) from None  # fmt: skip
            count += 1
        if not count:
            raise InputError("there is no sample to calibrate on", where="calibration data", hint=_WANTED)
        for name, layer in quantizers.items():
            amax = layer.input_quantizer._calibrator.compute_amax()
            if not float(amax) > 0:
                raise InputError(
                    f"sees nothing but zeros in {count} samples, so its range is unknown", where=name,
                    hint="calibrate on other samples, or leave the layer out with quantization.sensitive_layers",
                )  # fmt: skip
            layer.input_quantizer.amax = amax
            layer.weight_quantizer.amax = _weight_range(layer)
            _in_use(layer)
    return count


_WANTED = f"give at least {FEWEST_SAMPLES}; 64 or more of what the vehicle meets are wanted"


def _weight_range(layer: Any) -> Tensor:
    weight = layer._parameters["weight"].detach().abs()
    axis = layer.weight_quantizer.axis
    return cast(
        Tensor, weight.max() if axis is None else weight.flatten(1).amax(1).reshape(-1, *[1] * (weight.dim() - 1))
    )


def _in_use(layer: Any) -> None:
    for quantizer in (layer.input_quantizer, layer.weight_quantizer):
        quantizer.disable_calib()
        quantizer.enable_quant()


def _quantizers(model: nn.Module) -> dict[str, Any]:
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, mtq_nn.QuantModule) and "weight_quantizer" in dict(module.named_children())
    }


# -- the cache --------------------------------------------------------------------------------------------------------


def weights_digest(model: nn.Module) -> str:
    """sha256 of a model's float parameters, whatever its quantizers: what a calibration belongs to."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class CalibrationManager:
    """Calibration of a model's layers, and its cache.

    Args:
        model: in evaluation mode; quantizers are inserted where it has none.
        layers: names of the layers to quantize; None: all.
        forward: runs the model on one batch; None: ``model(batch)``.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[str] | None = None, forward: Callable[[Any], Any] | None = None
    ) -> None:
        self.model = model
        self._forward = forward or model
        self._digest = weights_digest(model)
        self._about: dict[str, Any] = {}
        wanted = select(model, ()) if layers is None else list(layers)
        insert_quantizers(model, [name for name in wanted if name not in _quantizers(model)])

    def calibrate(
        self,
        batches: Iterable[Any],
        num_batches: int,
        method: Method = "mse",
        *,
        percentile: float = DEFAULT_PERCENTILE,
        available: int | None = None,
    ) -> int:
        """Find the ranges on the first ``num_batches`` batches; with fewer there, warns and takes these.

        Args:
            batches: what ``forward`` takes.
            num_batches: how many are wanted.
            method: see the module.
            percentile: for the method ``percentile``.
            available: how many there are, for the progress; None: what they say of their length, if anything.

        Returns:
            How many there were.

        Raises:
            InputError: as `calibrate`.
        """
        there = length_hint(batches, num_batches) if available is None else available
        some = track(islice(batches, num_batches), "calibration", min(there, num_batches))
        count = calibrate(self.model, self._forward, some, method=method, percentile=percentile)
        if count < FEWEST_SAMPLES:
            _log.warning("calibration on %d samples only: %s", count, _WANTED)
        elif count < num_batches:
            _log.warning("calibration on %d samples: the data set has no %d", count, num_batches)
        self._about = {"method": method, "samples": count, "percentile": percentile}
        return count

    def save_calib_cache(self, path: Path | str | WorkPath) -> None:
        """Write the ranges found, as JSON."""
        ranges = {
            name: {
                "input": float(layer.input_quantizer.amax),
                "weight": layer.weight_quantizer.amax.flatten().tolist(),
            }
            for name, layer in _quantizers(self.model).items()
        }
        content = {"format": CACHE_FORMAT, "weights": self._digest, **self._about, "ranges": ranges}
        write_text(Path(path) if isinstance(path, str) else path, json.dumps(content, indent=1) + "\n")

    def load_calib_cache(self, path: Path | str) -> None:
        """Take the ranges of a cache instead of calibrating.

        Raises:
            InputError: no such cache, of another model, or without one of the layers.
        """
        content, where = _read_cache(Path(path)), str(path)
        if content["weights"] != self._digest:
            raise InputError(
                "is the calibration of a model with other weights", where=where,
                hint="calibrate again (without --load-cache), or give the checkpoint that it was made with",
            )  # fmt: skip
        quantizers = _quantizers(self.model)
        if missing := [name for name in quantizers if name not in content["ranges"]]:
            raise InputError(
                f"has no range for {len(missing)} layers, {missing[0]} for one", where=where,
                hint="skip these layers, or calibrate again",
            )  # fmt: skip
        for name, layer in quantizers.items():
            layer.input_quantizer.amax = torch.tensor(content["ranges"][name]["input"])
            layer.weight_quantizer.amax = _weight_range(layer)
            _in_use(layer)
        self._about = {key: content[key] for key in ("method", "samples", "percentile") if key in content}

    @property
    def about(self) -> dict[str, Any]:
        """Method, number of samples and percentile of the ranges in use."""
        return dict(self._about)


def _read_cache(path: Path) -> dict[str, Any]:
    content = read_json(path, most_bytes=DATA_BYTES)
    if not isinstance(content, dict) or content.get("format") != CACHE_FORMAT:
        raise InputError(f"is no calibration cache ('{CACHE_FORMAT}')", where=str(path))
    return content
