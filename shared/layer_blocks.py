"""Blocks of a model by the names of its layers: what is put into another precision together."""

from __future__ import annotations

from collections.abc import Sequence

#: A block is the largest part of the model with at most so many layers.
BLOCK_SIZE = 6


def blocks_of(layers: Sequence[str], most: int = BLOCK_SIZE) -> dict[str, tuple[str, ...]]:
    """Blocks of a model: its parts by name, divided until they have at most ``most`` layers.

    Args:
        layers: names of layers, like ``pts_backbone.blocks.0.3``.
        most: layers in a block, at least 1.

    Returns:
        Layers by name of the block, in the order of ``layers``; every layer is in one. That of one layer has its name.
    """
    blocks: dict[str, tuple[str, ...]] = {}

    def divide(names: Sequence[str], depth: int) -> None:
        parts: dict[str, list[str]] = {}
        for name in names:
            parts.setdefault(".".join(name.split(".")[:depth]), []).append(name)
        for part, inside in parts.items():
            if len(inside) == 1:
                blocks[inside[0]] = tuple(inside)
            elif len(inside) <= most:
                blocks[part] = tuple(inside)
            else:
                divide(inside, depth + 1)

    divide(layers, 1)
    return blocks
