"""``python -m tests.fuzz [READER …] --seconds N``: fuzz readers by hand, for hours; ``make fuzz`` calls it.

Findings are written to ``fuzz-findings/``: what becomes a test goes to ``tests/fuzz/corpus/READER``.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import click

from tests.fuzz.engine import fuzz
from tests.fuzz.readers import READERS

_FINDINGS = Path("fuzz-findings")


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(sorted(READERS)))
@click.option(
    "--seconds", default=60.0, show_default=True, type=click.FloatRange(min=0, min_open=True), help="For each."
)
@click.option("--first", default=0, show_default=True, help="The first seed number; another one gives other inputs.")
@click.option("--most", type=click.IntRange(min=1), help="How many inputs at most, for each.")
def main(names: tuple[str, ...], seconds: float, first: int, most: int | None) -> None:
    """Fuzz the readers called NAMES; all without names."""
    found = False
    for name in names or sorted(READERS):
        reader = READERS[name]
        outcome = fuzz(reader, seconds, first=first, most=most)
        click.echo(f"{name}: {outcome.inputs:,} inputs in {outcome.seconds:.0f} s, {len(outcome.findings)} findings")
        for what, content in outcome.findings.items():
            found = True
            _FINDINGS.mkdir(exist_ok=True)
            file = _FINDINGS / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}{reader.suffix}"
            file.write_bytes(content)
            click.echo(f"  {what}: {file}")
    sys.exit(found)


main()
