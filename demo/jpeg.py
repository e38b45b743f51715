"""Baseline JPEG in integers: the same bytes wherever it runs, whichever libraries are there.

ITU-T T.81 with the tables of its annex K, and colors at half resolution, as most encoders write by default. The cosine
transform is a product of matrices of whole numbers below 2^53 in float64, which is exact in any order of summation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo.elementary import sin_cos

Integers = NDArray[np.int64]

_BLOCK = 8
_UNIT = 2 * _BLOCK  # an interleaved unit: four blocks of brightness, one of each color
_CHANNELS_OF_UNIT = np.array([0, 0, 0, 0, 1, 2])
_BASIS_BITS = 13
# By channel: its number, blocks of a unit along both axes, quantization table.
_SAMPLING = (1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1)
_END_OF_BLOCK, _SIXTEEN_ZEROS = 0x00, 0xF0

# Tables K.1 and K.2 (quantization at quality 50, in zigzag order), K.3 to K.6 (numbers of codes by length, symbols).
_QUANTIZATION = (
    "100b0c0e0c0a100e0d0e1211101318281a181616183123251d283a333d3c3933383740485c4e404457453738506d51575f626768673e4d71797064"
    "785c656763",
    "1112121815182f1a1a2f634238426363636363636363636363636363636363636363636363636363636363636363636363636363636363636363"
    "636363636363",
)
_DIFFERENCES = (
    "00010501010101010100000000000000000102030405060708090a0b",
    "00030101010101010101010000000000000102030405060708090a0b",
)
_COEFFICIENTS = (
    "0002010303020403050504040000017d01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282090a161718"
    "191a25262728292a3435363738393a434445464748494a535455565758595a636465666768696a737475767778797a838485868788898a929394"
    "95969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4f5f6"
    "f7f8f9fa",
    "00020102040403040705040400010277000102031104052131061241510761711322328108144291a1b1c109233352f0156272d10a162434e125"
    "f11718191a262728292a35363738393a434445464748494a535455565758595a636465666768696a737475767778797a82838485868788898a92"
    "939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae2e3e4e5e6e7e8e9eaf2f3f4f5f6"
    "f7f8f9fa",
)


def encode(image: NDArray[np.uint8], quality: int = 90) -> bytes:
    """A file of an image.

    Args:
        image: (H, W, 3) RGB.
        quality: 1 to 100, as libjpeg scales the quantization.
    """
    height, width, _ = image.shape
    steps = [_quantization(table, quality) for table in _QUANTIZATION]
    blocks = _blocks_in_order(image)
    channels = np.tile(_CHANNELS_OF_UNIT, len(blocks) // len(_CHANNELS_OF_UNIT))
    colored = channels > 0
    coefficients = _quantized(blocks, np.where(colored[:, None], steps[1], steps[0]))
    return b"".join(
        [
            b"\xff\xd8",
            _segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"),
            *(_segment(0xDB, bytes([number, *table.tolist()])) for number, table in enumerate(steps)),
            _segment(
                0xC0, bytes([8, *divmod(height, 256), *divmod(width, 256), 3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1])
            ),
            *(
                _segment(0xC4, bytes([kind << 4 | number]) + bytes.fromhex(table))
                for number in (0, 1)
                for kind, table in ((0, _DIFFERENCES[number]), (1, _COEFFICIENTS[number]))
            ),
            _segment(0xDA, bytes([3, 1, 0x00, 2, 0x11, 3, 0x11, 0, 63, 0])),
            _entropy_coded(coefficients, channels),
            b"\xff\xd9",
        ]
    )


def _segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def _quantization(table: str, quality: int) -> Integers:
    """Steps (64,) in zigzag order."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((np.array(list(bytes.fromhex(table)), np.int64) * scale + 50) // 100, 1, 255)


def _blocks_in_order(image: NDArray[np.uint8]) -> Integers:
    """Blocks (n, 8, 8) of brightness and colors around 0, in the order of the file."""
    height, width, _ = image.shape
    margins = ((0, -height % _UNIT), (0, -width % _UNIT), (0, 0))
    red, green, blue = np.moveaxis(np.pad(image, margins, mode="edge").astype(np.int64), -1, 0)
    half = 1 << 15
    brightness = ((19595 * red + 38470 * green + 7471 * blue + half) >> 16) - 128
    colors = [
        (-11059 * red - 21709 * green + 32768 * blue + half) >> 16,
        (32768 * red - 27439 * green - 5329 * blue + half) >> 16,
    ]
    rows, columns = brightness.shape[0] // _UNIT, brightness.shape[1] // _UNIT
    units = np.empty((rows, columns, len(_CHANNELS_OF_UNIT), _BLOCK, _BLOCK), np.int64)
    quarters = brightness.reshape(rows, 2, _BLOCK, columns, 2, _BLOCK).transpose(0, 3, 1, 4, 2, 5)
    units[:, :, :4] = quarters.reshape(rows, columns, 4, _BLOCK, _BLOCK)
    for channel, values in enumerate(colors, 4):
        of_four = values[::2, ::2] + values[1::2, ::2] + values[::2, 1::2] + values[1::2, 1::2]
        small = (of_four + 2 >> 2).reshape(rows, _BLOCK, columns, _BLOCK)
        units[:, :, channel] = np.minimum(small, 127).transpose(0, 2, 1, 3)
    return units.reshape(-1, _BLOCK, _BLOCK)


def _quantized(blocks: Integers, steps: Integers) -> Integers:
    """Coefficients (n, 64) of the cosine transform in zigzag order, in steps (n, 64), halves away from zero."""
    basis = _cosine_basis()
    exact = basis @ blocks.astype(np.float64) @ basis.T
    coefficients = exact.reshape(-1, _BLOCK * _BLOCK)[:, _zigzag()].astype(np.int64)
    whole = steps << 2 * _BASIS_BITS
    return np.asarray(np.sign(coefficients) * ((np.abs(coefficients) + (whole >> 1)) // whole), np.int64)


def _cosine_basis() -> NDArray[np.float64]:
    """(8, 8) the orthonormal cosine transform in whole numbers, 2^13 for 1."""
    frequency, place = np.arange(_BLOCK)[:, None], np.arange(_BLOCK)[None]
    _, cosine = sin_cos((2 * place + 1) * frequency * (np.pi / (2 * _BLOCK)))
    scale = np.sqrt(np.where(frequency == 0, 1.0, 2.0) / _BLOCK)
    return np.asarray(np.round(cosine * scale * (1 << _BASIS_BITS)))


def _zigzag() -> Integers:
    """(64,) positions in a block by rising frequency, along one diagonal upwards and the next one downwards."""
    cells = [(row, column) for row in range(_BLOCK) for column in range(_BLOCK)]
    cells.sort(key=lambda cell: (sum(cell), cell[sum(cell) % 2 == 0]))
    return np.array([row * _BLOCK + column for row, column in cells])


@dataclass(frozen=True)
class _Codes:
    """A Huffman table: codes (256,) and their lengths [bits] (256,) by symbol."""

    codes: Integers
    lengths: Integers

    @classmethod
    def of(cls, tables: tuple[str, str]) -> _Codes:
        """Those of brightness, then those of colors: (512,), symbols of colors from 256 on."""
        codes, lengths = np.zeros(512, np.int64), np.zeros(512, np.int64)
        for offset, table in zip((0, 256), tables, strict=True):
            content = bytes.fromhex(table)
            counts, symbols = content[:16], iter(content[16:])
            code = 0
            for length, count in enumerate(counts, 1):
                for _ in range(count):
                    symbol = offset + next(symbols)
                    codes[symbol], lengths[symbol] = code, length
                    code += 1
                code <<= 1
        return cls(codes, lengths)


def _entropy_coded(coefficients: Integers, channels: Integers) -> bytes:
    """The scan: for each block the step from the last one's mean, then runs of zeros and what ends them."""
    count = len(coefficients)
    means = coefficients[:, 0]
    steps = np.empty(count, np.int64)
    for channel in range(3):
        of_channel = channels == channel
        steps[of_channel] = np.diff(means[of_channel], prepend=0)
    tables = 256 * (channels > 0)

    block, place = np.nonzero(coefficients[:, 1:])
    place += 1
    first = np.diff(block, prepend=-1) != 0
    runs = place - np.where(first, 0, np.roll(place, 1)) - 1
    last = np.zeros(count, np.int64)
    last[block] = place  # the last of equal indices counts
    long, open_blocks = runs // 16, np.flatnonzero(last < 63)
    long_block, long_place = np.repeat(block, long), np.repeat(place, long)

    values = np.concatenate([steps, coefficients[block, place]])
    sizes = np.concatenate([_sizes(steps), _sizes(values[count:])])
    amplitudes = np.where(values < 0, values + (1 << sizes) - 1, values)
    differences, others = _Codes.of(_DIFFERENCES), _Codes.of(_COEFFICIENTS)
    symbols = (runs % 16 << 4 | sizes[count:]) + tables[block]
    zeros, ends = tables[long_block] + _SIXTEEN_ZEROS, tables[open_blocks] + _END_OF_BLOCK
    bits = np.concatenate(
        [
            differences.codes[tables + sizes[:count]] << sizes[:count] | amplitudes[:count],
            others.codes[symbols] << sizes[count:] | amplitudes[count:],
            others.codes[zeros],
            others.codes[ends],
        ]
    )
    lengths = np.concatenate(
        [
            differences.lengths[tables + sizes[:count]] + sizes[:count],
            others.lengths[symbols] + sizes[count:],
            others.lengths[zeros],
            others.lengths[ends],
        ]
    )
    # Within a block: the mean, then each place's sixteens of zeros before what it holds, then the end.
    order = np.concatenate(
        [
            128 * np.arange(count),
            128 * block + 2 * place + 1,
            128 * long_block + 2 * long_place,
            128 * open_blocks + 127,
        ]
    )
    sorting = np.argsort(order, kind="stable")
    return _packed(bits[sorting], lengths[sorting]).replace(b"\xff", b"\xff\0")


def _sizes(values: Integers) -> Integers:
    """How many bits each magnitude has: 0 for 0."""
    return np.asarray(np.frexp(np.abs(values).astype(np.float64))[1], np.int64)


def _packed(bits: Integers, lengths: Integers) -> bytes:
    """Numbers of so many bits one after another, the last byte filled with ones."""
    ends = np.cumsum(lengths)
    place = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    single = np.repeat(bits, lengths) >> (np.repeat(lengths, lengths) - 1 - place) & 1
    filled = np.concatenate([single, np.ones(-len(single) % 8, np.int64)])
    return np.packbits(filled.astype(np.uint8)).tobytes()
