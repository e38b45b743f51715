"""A checkpoint of random weights for any training config that can be exported: enough to build engines and measure.

The seed alone decides the weights. A checkpoint of the same config and seed that is there already is kept.
"""

from __future__ import annotations

import logging
from pathlib import Path

import click

from exporter.inspection import build_untrained
from exporter.training_config import random_weights, read_training_config
from shared.cli import SEED, tool_group
from shared.files import atomic_path
from shared.lazy import lazy_import

torch = lazy_import("torch")

_log = logging.getLogger("random_checkpoint")

cli = tool_group("random_checkpoint", __doc__ or "")


@cli.command()
@click.option("--config", type=click.Path(path_type=Path, exists=True), required=True, help="mmengine training config.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The checkpoint to write.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Decides the weights.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="As for exporter inspect. Repeatable.")
def write(config: Path, out: Path, seed: int, overrides: tuple[str, ...]) -> None:
    """Write the checkpoint.

    Example: python -m exporter.random_checkpoint write --config my_model.py --out my_model_random.pth
    """
    training = read_training_config(config)
    origin = {"random_weights": {"config": training.digest, "seed": seed}}
    if out.is_file() and torch.load(out, weights_only=True, map_location="cpu").get("meta") == origin:
        _log.info("%s: up to date", out)
        return
    model = build_untrained(config, overrides)
    random_weights(model, seed)
    with atomic_path(out) as temporary:
        torch.save({"meta": origin, "state_dict": model.state_dict()}, temporary)
    _log.info("%s: random weights of seed %d", out, seed)


if __name__ == "__main__":
    cli()
