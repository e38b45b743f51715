"""Gray PNG files, the same bytes everywhere: nothing is compressed, since what compresses differs between libraries."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_MOST_STORED = 0xFFFF  # bytes of a stored block of deflate


def encode(image: NDArray[np.uint8]) -> bytes:
    """Return an image (H, W) uint8 as a PNG file of 8 bits a pixel (W3C, "Portable Network Graphics")."""
    height, width = image.shape
    lines = np.zeros((height, width + 1), np.uint8)  # each begins with its filter, 0: none
    lines[:, 1:] = image
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", _stored(lines.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, content) for name, content in chunks)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _stored(content: bytes) -> bytes:
    """A zlib stream of stored blocks (RFC 1950 and 1951)."""
    blocks = [content[start : start + _MOST_STORED] for start in range(0, len(content), _MOST_STORED)]
    stored = [
        struct.pack("<BHH", number == len(blocks), len(block), len(block) ^ 0xFFFF) + block
        for number, block in enumerate(blocks, start=1)
    ]
    return b"\x78\x01" + b"".join(stored) + struct.pack(">I", zlib.adler32(content))
