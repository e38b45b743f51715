"""Training of the demo's models: one recipe for all. Nothing here is needed to export a model.

A model's ``demo.py`` makes the samples, computes the losses and judges the result (`DemoTraining`); the loop, the
schedule, the log and the checkpoint are here::

    PYTHONPATH=. python -m exporter.models.centerpoint.demo --out models/centerpoint_demo.pth

One pass over fresh scenes of split ``train``; held-out figures come from split ``eval`` with the demo's own seed, which
training never sees. The learning rate follows one cycle over the steps, or over the time allowed where that is shorter.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import io
import json
import logging
import math
import platform
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from exporter.checkpoints import load_weights
from exporter.training import one_cycle
from shared.arrays import UInt8

HELD_OUT_SEED, HELD_OUT_FRAMES = 7, 40  # what `python -m demo generate` makes by default, and the demo evaluates on


@dataclass(frozen=True)
class Recipe:
    """The settings of a model's training; the first five are defaults of options.

    Attributes:
        config: the training config.
        steps: of the optimizer.
        batch: samples a step.
        minutes: the training ends after this time at the latest.
        learning_rate: the greatest.
        betas, weight_decay: of AdamW.
        max_gradient_norm: gradients are scaled down to it.
        log_every: steps.
        significant_bits: of the weights in the checkpoint, `rounded`.
    """

    config: Path
    steps: int
    batch: int
    minutes: float
    learning_rate: float
    max_gradient_norm: float
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    log_every: int = 50
    significant_bits: int = 11


def initialize(model: Any) -> None:
    """Give a model of OpenMMLab the random weights that its config asks for, and let it learn all of them."""
    from mmengine.logging import MMLogger

    MMLogger.get_instance("mmengine").setLevel(logging.WARNING)  # it reports the initialization of every tensor
    model.requires_grad_(True)
    model.init_weights()


@dataclass(frozen=True)
class HeldOut:
    """How good a model is on samples that it was not trained on: lines for the log, and its metrics, as JSON."""

    lines: Sequence[str]
    metrics: Mapping[str, Any]


class DemoTraining(Protocol):
    """The training of one model."""

    @property
    def model(self) -> Any:
        """Of the framework, with random weights at first."""

    @property
    def classes(self) -> Sequence[str]:
        """Class names, in label order."""

    @property
    def unit(self) -> str:
        """What samples are called in the log, in the plural."""

    def sample(self, index: int) -> Any:
        """Sample ``index`` of the training, made when it is asked for: workers do that."""

    def collate(self, samples: list[Any]) -> Any:
        """Samples as a batch: tensors in tuples, lists and dicts."""

    def loss(self, batch: Any, progress: float) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss of a batch, and what the log shows of it.

        Args:
            batch: on the model's device.
            progress: share of the training that is done, 0 to 1.
        """

    def held_out(self) -> HeldOut:
        """How good the model is; leaves it in evaluation mode."""


class Samples(Dataset[Any]):
    """Sample i is what ``make(i)`` returns."""

    def __init__(self, make: Callable[[int], Any], count: int) -> None:
        self._make, self._count = make, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        return self._make(index)


@dataclass(frozen=True)
class Option:
    """An option that one model's training has beside the common ones."""

    name: str
    type: Callable[[str], Any]
    help: str
    default: Any = None


class Log:
    """Lines that go to the screen and, at the end, into the log file."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        """Add a line."""
        self.lines.append(text)
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def run(
    module: str, doc: str, recipe: Recipe, training_of: Callable[[Any], DemoTraining], *own_options: Option
) -> None:
    """Train, round the weights to half precision, evaluate what was rounded, and save it with its log.

    Args:
        module: dotted name of the model's module, for the log and the digest of the sources.
        doc: its docstring, for ``--help``.
        recipe: the model's settings.
        training_of: makes the training, from the options.
        own_options: the model's own options.
    """
    options = _options(doc, recipe, own_options)
    torch.manual_seed(options.seed)
    torch.backends.cudnn.benchmark = True
    # Full single precision outside autocast: coordinates of 100 m, and the held-out figures.
    torch.backends.cudnn.allow_tf32 = False
    device = torch.device(options.device)
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"
    log = Log()
    log.line(f"command: python -m {module} " + " ".join(sys.argv[1:]))
    log.line(f"seed: {options.seed}  sources: {source_digest(module)}")
    log.line(f"torch {torch.__version__}, Python {platform.python_version()}, {hardware}, {options.workers} workers")
    training = training_of(options)
    model = training.model
    if options.start is not None:
        load_weights(model, options.start)
    model.to(device, memory_format=torch.channels_last)
    log.line(f"parameters: {sum(p.numel() for p in model.parameters())}")
    started = time.monotonic()
    steps = fit(training, recipe, options, log)
    log.line(f"trained {steps} steps of {options.batch} {training.unit} in {time.monotonic() - started:.0f} s")
    state = in_one_storage(rounded(model.state_dict(), recipe.significant_bits))
    model.load_state_dict({name: value.to(model.state_dict()[name].dtype) for name, value in state.items()})
    result = training.held_out()
    log.line(f"held out: split eval, seed {HELD_OUT_SEED}, {HELD_OUT_FRAMES} frames, weights in half precision")
    for line in result.lines:
        log.line(line)
    meta = {
        "seed": options.seed,
        "steps": steps,
        "classes": list(training.classes),
        "held_out": json.dumps(result.metrics),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_packed({"state_dict": state, "meta": meta}, options.out)
    options.out.with_suffix(".log").write_text("\n".join(log.lines) + "\n")


def _options(doc: str, recipe: Recipe, own: Sequence[Option]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=recipe.config)
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write; the log goes beside it (.log)")
    parser.add_argument("--seed", type=int, default=1, help="of scenes, weights and augmentation")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=recipe.steps)
    parser.add_argument("--batch", type=int, default=recipe.batch, help="samples a step")
    parser.add_argument("--minutes", type=float, default=recipe.minutes, help="end after this time at the latest")
    parser.add_argument("--workers", type=int, default=2, help="processes that generate samples")
    parser.add_argument("--rate", type=float, default=recipe.learning_rate, help="the greatest learning rate")
    parser.add_argument("--start", type=Path, help="checkpoint to go on from, with a smaller --rate and another --seed")
    for option in own:
        parser.add_argument(option.name, type=option.type, help=option.help, default=option.default)
    return parser.parse_args()


def fit(training: DemoTraining, recipe: Recipe, options: Any, log: Log) -> int:
    """Train in place; returns the number of steps done.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    device = torch.device(options.device)
    loader: DataLoader[Any] = DataLoader(
        Samples(training.sample, options.steps * options.batch),
        batch_size=options.batch,
        num_workers=options.workers,
        collate_fn=training.collate,
        worker_init_fn=one_thread,
        pin_memory=device.type == "cuda",
        prefetch_factor=2 if options.workers else None,
    )
    model = training.model
    optimizer = torch.optim.AdamW(model.parameters(), betas=recipe.betas, weight_decay=recipe.weight_decay)
    model.train()
    started = time.monotonic()
    step = 0
    for step, batch in enumerate(_on_device(loader, device), start=1):
        elapsed = time.monotonic() - started
        progress = max(step / options.steps, elapsed / (60 * options.minutes))
        rate = one_cycle(progress, options.rate)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, shown = training.loss(batch, progress)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), recipe.max_gradient_norm)
        optimizer.step()
        if step % recipe.log_every == 0 or step == 1 or progress >= 1.0:
            values = "  ".join(f"{name} {float(value.detach()):.4f}" for name, value in shown.items())
            log.line(f"step {step:6d}  {elapsed:6.1f} s  lr {rate:.2e}  {values}")
            if not math.isfinite(float(loss.detach())):
                raise FloatingPointError(f"the loss is not finite at step {step}; try another --seed")
        if progress >= 1.0:
            break
    return step


def _on_device(loader: DataLoader[Any], device: torch.device) -> Iterator[Any]:
    for batch in loader:
        yield _moved(batch, device)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {key: _moved(item, device) for key, item in value.items()}
    return type(value)(_moved(item, device) for item in value)


def rounded(state: Mapping[str, Tensor], significant_bits: int) -> dict[str, Tensor]:
    """Weights in float16, counters left as they are.

    Args:
        state: tensors by name.
        significant_bits: of kernels and matrices, 11 being all that float16 has: zeros in their place compress.
            Vectors (biases, statistics of norms) keep theirs.
    """
    small = {}
    for name, value in state.items():
        kept = value.detach().cpu()
        if kept.is_floating_point():
            if kept.ndim > 1:
                significand, exponent = torch.frexp(kept.float())
                kept = torch.ldexp((significand * 2**significant_bits).round() / 2**significant_bits, exponent)
            kept = kept.half()
        small[name] = kept
    return small


def in_one_storage(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors as views of one storage a type: a file has a member, with its headers, for every storage."""
    packed: dict[str, Tensor] = {}
    for dtype in {value.dtype for value in state.values()}:
        names = [name for name, value in state.items() if value.dtype == dtype]
        everything = torch.cat([state[name].reshape(-1) for name in names])
        parts = torch.split(everything, [state[name].numel() for name in names])
        packed |= {name: part.view(state[name].shape) for name, part in zip(names, parts, strict=True)}
    return {name: packed[name] for name in state}


def save_packed(content: Mapping[str, Any], path: Path) -> None:
    """Save as `torch.save` does, with the archive's members compressed: any PyTorch loads it, but can't map it."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for member in plain.infolist():
            packed.writestr(zipfile.ZipInfo(member.filename), plain.read(member), zipfile.ZIP_DEFLATED)


def source_digest(module: str) -> str:
    """Return the sha256 over the generator's, the trainings' and a demo module's sources, in order of their names."""
    here = Path(__file__).resolve().parent
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    own = module.rpartition(".")[0].replace(".", "/")
    sources = {
        "demo": (here.parent / "demo").glob("*.py"),
        "exporter": here.glob("demo_*.py"),
        own: Path(spec.origin).parent.glob("demo*.py"),
    }
    files = {f"{folder}/{path.name}": path for folder, paths in sources.items() for path in paths}
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(name.encode())
        digest.update(files[name].read_bytes())
    return digest.hexdigest()


def concatenated(samples: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Samples of several rows each as a batch: their first tensors joined, their second ones, and so on."""
    return tuple(torch.cat(parts) for parts in zip(*samples, strict=True))


def through_jpeg(image: UInt8, quality: int) -> UInt8:
    """An RGB image (H, W, 3) as a JPEG file has it."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def figures(values: Mapping[str, float]) -> str:
    """Metrics as the log has them, in one line."""
    return "  ".join(f"{name} {value:.4f}" for name, value in values.items())


def one_thread(_worker: int) -> None:
    """Initialize a worker process: one thread, there is one worker a core."""
    torch.set_num_threads(1)
