"""Trains the network in about a minute on a CPU, on what ``python -m demo generate --split train`` writes."""

from __future__ import annotations

from pathlib import Path

import click
import torch

from clearance.geometry import nearest_boxes
from clearance.network import SectorNet, loss, polar_grid
from shared.data import DataSettings, open_dataset, read_points

_BATCH = 8


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="A folder of T4 scenes.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The checkpoint to write.")
@click.option("--channels", default=8, show_default=True, help="As the training config says.")
@click.option("--steps", default=600, show_default=True, help="Of 8 frames each.")
def main(data: Path, out: Path, channels: int, steps: int) -> None:
    """Train on the labeled frames of a data set, the same way each time."""
    torch.manual_seed(0)
    dataset = open_dataset(DataSettings("t4", data))
    samples = [dataset.sample(index) for index in range(len(dataset))]
    grids = torch.cat([polar_grid(read_points(sample.lidar)) for sample in samples])
    distances = torch.stack([torch.from_numpy(nearest_boxes(sample.ground_truth)) for sample in samples])
    model = SectorNet(channels)
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.03, total_steps=steps)
    for step in range(steps):
        batch = torch.randperm(len(samples))[:_BATCH]
        # What is around the vehicle may be turned and mirrored.
        turn, mirror = int(torch.randint(grids.shape[-1], ())), bool(torch.rand(()) < 0.5)
        inputs, wanted = grids[batch].roll(turn, -1), distances[batch].roll(turn, -1)
        value = loss(model(inputs.flip(-1) if mirror else inputs), wanted.flip(-1) if mirror else wanted)
        optimizer.zero_grad()
        torch.autograd.backward(value)
        optimizer.step()
        schedule.step()
        if (step + 1) % 100 == 0:
            click.echo(f"step {step + 1}: loss {value.item():.3f}")
    torch.save({"state_dict": model.state_dict()}, out)


if __name__ == "__main__":
    main()
