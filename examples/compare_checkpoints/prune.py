"""Makes a second checkpoint to compare with the first: the smallest weights of every layer set to 0.

python examples/compare_checkpoints/prune.py models/centerpoint_demo.pth work/pruned.pth --share 0.1
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch


def prune(weights: torch.Tensor, share: float) -> torch.Tensor:
    """A copy of ``weights`` in which the ``share`` of least magnitude is 0."""
    count = int(share * weights.numel())
    if count == 0:
        return weights.clone()
    limit = weights.abs().flatten().kthvalue(count).values
    return torch.where(weights.abs() > limit, weights, 0)


def main() -> None:
    """Prune the weights of convolutions and matrix products; biases and batch norms stay."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--share", type=float, default=0.1, help="of the weights of a layer (default: %(default)s)")
    arguments = parser.parse_args()
    checkpoint = torch.load(arguments.checkpoint, weights_only=True, map_location="cpu")
    checkpoint["state_dict"] = {
        name: prune(value, arguments.share) if value.is_floating_point() and value.ndim > 1 else value
        for name, value in checkpoint["state_dict"].items()
    }
    torch.save(checkpoint, arguments.out)


if __name__ == "__main__":
    main()
