"""Cards of the headline numbers with what each of them means."""

from __future__ import annotations

from collections.abc import Mapping

from evaluator.report.blocks import Cards
from evaluator.report.material import Material
from shared.table import number


def cards(material: Material, meanings: Mapping[str, str]) -> Cards:
    """A card for each headline number of the shown run that ``meanings`` explains, by its name."""
    headline = material.evaluations[material.shown]["headline"]
    return Cards(
        [(name, number(headline[name], 3), meaning, "") for name, meaning in meanings.items() if name in headline]
    )
