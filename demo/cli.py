"""Command line of the scene generator: ``python -m demo generate`` and ``python -m demo hard-cases``."""

from __future__ import annotations

import time
from pathlib import Path

import click

from shared.cli import COUNT, FOLDER, SEED, tool_group

# Raise this whenever the same arguments give different bytes than before, so that existing data sets are regenerated.
GENERATOR_VERSION = 3

# The splits of demo.recording.SPLITS that `generate` offers; importing them would make --help wait for NumPy.
ORDINARY_SPLITS = ("train", "val", "eval")

cli = tool_group("demo", "Generate synthetic driving scenes in T4 form. The same seed gives the same data set.")


@cli.command()
@click.option("--out", type=FOLDER, required=True, help="Folder of the data set.")
@click.option(
    "--split", type=click.Choice(ORDINARY_SPLITS), default="eval", show_default=True, help="Split of the data set."
)
@click.option("--frames", type=COUNT, default=40, show_default=True, help="Number of key frames.")
@click.option("--seed", type=SEED, default=7, show_default=True, help="Seed of the data set.")
@click.option("--cameras/--no-cameras", default=True, show_default=True, help="Render the six cameras.")
@click.option("--labels", is_flag=True, help="Label every lidar point and pixel.")
@click.option(
    "--for", "config", metavar="NAME", help="The data of this package's deploy config, if they are no driving scenes."
)
def generate(out: Path, split: str, frames: int, seed: int, cameras: bool, labels: bool, config: str | None) -> None:
    """Generate lidar sweeps, images, labels, T4 tables and info files.

    The same arguments give the same bytes. An existing data set is checked and left alone.

    Example: python -m demo generate --out work/demo --split eval --frames 40 --seed 7
    """
    from demo.added_data import of_config, write_added
    from demo.recording import record_scene, scene_lengths
    from demo.t4_writer import write_dataset
    from shared.progress import track

    started = time.perf_counter()
    added = None if config is None else of_config(config)
    if added is not None:
        written = write_added(added, out, split, frames, seed)
        click.echo(f"{out}: {f'{time.perf_counter() - started:.1f} s' if written else 'up to date'}")
        return
    arguments = {
        "generator": GENERATOR_VERSION,
        "split": split,
        "frames": frames,
        "seed": seed,
        "cameras": cameras,
        **({"labels": True} if labels else {}),
    }
    lengths = scene_lengths(frames)
    recordings = (
        record_scene(seed, split, number, length, cameras=cameras, labels=labels)
        for number, length in track(list(enumerate(lengths)), "scenes", len(lengths))
    )
    written = write_dataset(out, split, recordings, arguments)
    click.echo(
        f"{out}: {frames} frames in {len(lengths)} scenes, {time.perf_counter() - started:.1f} s"
        if written
        else f"{out}: up to date"
    )


@cli.command("hard-cases")
@click.option("--out", type=FOLDER, required=True, help="Parent folder.")
@click.option("--case", "cases", multiple=True, help="Only this case. Repeatable. Default: all.")
@click.option("--seed", type=SEED, default=7, show_default=True, help="Seed of the data sets.")
def hard_cases(out: Path, cases: tuple[str, ...], seed: int) -> None:
    """Generate the hard cases, each a data set in a folder of its own.

    Cases: empty_frame, no_objects_in_range, zero_point_objects, million_points, nan_points, pillar_overflow,
    missing_camera.

    Example: python -m demo hard-cases --out work/hard-cases --case nan_points
    """
    from demo.hard_cases import HARD_CASES, SPLIT, hard_case
    from demo.t4_writer import write_dataset
    from shared.errors import UsageError

    unknown = [case for case in cases if case not in HARD_CASES]
    if unknown:
        raise UsageError(
            f"there is no hard case {unknown[0]!r}", where="--case", hint=f"known: {', '.join(HARD_CASES)}"
        )
    for case in cases or HARD_CASES:
        arguments = {"generator": GENERATOR_VERSION, "case": case, "seed": seed}
        written = write_dataset(out / case, SPLIT, (hard_case(c, seed) for c in [case]), arguments)
        click.echo(f"{out / case}: {'written' if written else 'up to date'}")
