"""Random draws that are the same with every NumPy: PCG64's raw bits, which NumPy guarantees, and all else made here.

What NumPy's generator makes of the bits may change with any version (NEP 19). The methods here follow what it makes of
them in versions 1.17 to 2.4, so that a seed gives the scenes it always gave.

Normal and exponential draws are by the ziggurat method (G. Marsaglia and W. W. Tsang, "The ziggurat method for
generating random variables", 2000), with 256 layers of equal area under the density.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demo.elementary import Floats, exp, log

T = TypeVar("T")
_LAYERS = 256
_UINT32 = (1 << 32) - 1


@dataclass(frozen=True)
class _Ziggurat:
    """Layers under a falling density with f(0) = 1; the first is the base, with the tail.

    widths (256,): width of a layer per step of the raw integer. inside (256,) uint64: integers below are under the
    density whatever the height. heights (256,): density at the right edge.
    """

    tail: float
    widths: Floats
    inside: NDArray[np.uint64]
    heights: Floats
    density: Callable[[ArrayLike], Floats]

    @classmethod
    def of(
        cls,
        tail: float,
        area: float,
        bits: int,
        density: Callable[[ArrayLike], Floats],
        inverse: Callable[[Floats], Floats],
    ) -> _Ziggurat:
        """The ziggurat of a density, from where its tail begins and the area of a layer."""
        base = area / float(density(tail))
        edges = [tail]
        while len(edges) < _LAYERS - 1:
            edges.append(float(inverse(density(edges[-1]) + area / edges[-1])))
        edges.reverse()  # from the top layer, 1, to the last, 255
        steps = float(1 << bits)
        inside = [tail / base * steps, 0.0]
        inside += [above / edge * steps for above, edge in pairwise(edges)]
        return cls(
            tail,
            np.array([base, *edges]) / steps,
            np.array([int(each) for each in inside], np.uint64),
            np.array([1.0, *density(edges)]),
            density,
        )


def _bell(x: ArrayLike) -> Floats:
    values = np.asarray(x, np.float64)
    return exp(-0.5 * values * values)


def _bell_edge(heights: Floats) -> Floats:
    return np.asarray(np.sqrt(-2.0 * log(heights)))


def _decay(x: ArrayLike) -> Floats:
    return exp(-np.asarray(x, np.float64))


def _decay_edge(heights: Floats) -> Floats:
    return -log(heights)


_NORMAL = _Ziggurat.of(3.6541528853610088, 0.00492867323397465519, 52, _bell, _bell_edge)
_EXPONENTIAL = _Ziggurat.of(7.69711747013104972, 0.0039496598225815572, 53, _decay, _decay_edge)


#: From raw numbers (n,) and the widths of the layers to layers (n,), steps (n,) and values (n,).
_Candidates = Callable[[NDArray[np.uint64], Floats], tuple[NDArray[np.uint64], NDArray[np.uint64], Floats]]
_Tail = Callable[[int, Callable[[], float]], float]


def _normal_candidates(
    raw: NDArray[np.uint64], widths: Floats
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], Floats]:
    layers, steps = raw & np.uint64(255), raw >> np.uint64(9) & np.uint64((1 << 52) - 1)
    values = steps * widths[layers]
    return layers, steps, np.where(raw >> np.uint64(8) & np.uint64(1), -values, values)


def _exponential_candidates(
    raw: NDArray[np.uint64], widths: Floats
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], Floats]:
    layers, steps = raw >> np.uint64(3) & np.uint64(255), raw >> np.uint64(11)
    return layers, steps, steps * widths[layers]


def _fractions(raw: NDArray[np.uint64]) -> Floats:
    """The upper 53 bits of raw numbers, in [0, 1)."""
    return np.asarray((raw >> np.uint64(11)) * 2.0**-53)


class Draws:
    """One stream of random numbers.

    Args:
        seed: what the stream is of; streams of different seeds are independent.
    """

    def __init__(self, seed: int | Sequence[int]) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(seed))
        self._half: int | None = None

    def random(self) -> float:
        """A draw from [0, 1)."""
        return float(self.randoms((1,))[0])

    def randoms(self, shape: tuple[int, ...]) -> Floats:
        """Draws from [0, 1)."""
        return _fractions(self._raw(int(np.prod(shape)))).reshape(shape)

    def uniform(self, low: float, high: float) -> float:
        """A draw from [low, high)."""
        return low + (high - low) * self.random()

    def uniforms(self, low: float, high: float, shape: tuple[int, ...]) -> Floats:
        """Draws from [low, high)."""
        return low + (high - low) * self.randoms(shape)

    def below(self, count: int) -> int:
        """A whole number from 0 to ``count`` - 1, for counts up to 2^32, without bias (D. Lemire, 2019)."""
        if count == 1:
            return 0
        product = self._uint32() * count
        if product & _UINT32 < count:
            threshold = ((1 << 32) - count) % count
            while product & _UINT32 < threshold:
                product = self._uint32() * count
        return product >> 32

    def choice(self, options: Sequence[T], shares: Sequence[float] | None = None) -> T:
        """One of the options, all alike or by their shares, which add up to 1."""
        if shares is None:
            return options[self.below(len(options))]
        sums = np.cumsum(shares)
        return options[int(np.searchsorted(sums / sums[-1], self.random(), side="right"))]

    def normal(self, middle: float, deviation: float) -> float:
        """A draw from a normal distribution."""
        return float(middle + deviation * self.normals((1,))[0])

    def normals(self, shape: tuple[int, ...]) -> Floats:
        """Draws from the standard normal distribution."""
        return self._ziggurat(_NORMAL, int(np.prod(shape)), _normal_candidates, self._normal_tail).reshape(shape)

    def exponential(self, mean: float) -> float:
        """A draw from an exponential distribution."""
        return float(mean * self._ziggurat(_EXPONENTIAL, 1, _exponential_candidates, self._exponential_tail)[0])

    def _raw(self, count: int) -> NDArray[np.uint64]:
        return np.asarray(self._bits.random_raw(count), np.uint64)

    def _uint32(self) -> int:
        """The lower half of a raw number, then its upper half."""
        if self._half is not None:
            half, self._half = self._half, None
            return half
        raw = int(self._raw(1)[0])
        self._half = raw >> 32
        return raw & _UINT32

    def _ziggurat(self, ziggurat: _Ziggurat, count: int, candidates: _Candidates, tail: _Tail) -> Floats:
        """``count`` draws. One raw number each as a rule; where it does not decide, the next ones do."""
        parts: list[Floats] = []
        while missing := count - sum(map(len, parts)):
            parts += self._ziggurat_of(self._raw(missing), ziggurat, candidates, tail)
        return np.concatenate(parts) if parts else np.zeros(0)

    def _ziggurat_of(
        self, raw: NDArray[np.uint64], ziggurat: _Ziggurat, candidates: _Candidates, tail: _Tail
    ) -> list[Floats]:
        """Draws in order, one for each raw number that is not needed to decide about another, nor rejected."""
        parts: list[Floats] = []
        layers, steps, values = candidates(raw, ziggurat.widths)
        position = 0

        def more() -> float:
            nonlocal position
            number = raw[position : position + 1] if position < len(raw) else self._raw(1)
            position += 1
            return float(_fractions(number)[0])

        unsure = np.flatnonzero(steps >= ziggurat.inside[layers])
        densities = ziggurat.density(values[unsure])
        for place, layer, density in zip(unsure.tolist(), layers[unsure].tolist(), densities, strict=True):
            if place < position:
                continue  # it was taken to decide about the one before
            parts.append(values[position:place])
            position = place + 1
            if layer == 0:
                parts.append(np.array([tail(int(raw[place]), more)]))
            else:
                bottom = ziggurat.heights[layer]
                if (ziggurat.heights[layer - 1] - bottom) * more() + bottom < density:
                    parts.append(values[place : place + 1])
        return [*parts, values[position:]]

    @staticmethod
    def _normal_tail(raw: int, more: Callable[[], float]) -> float:
        """A value beyond the last edge (G. Marsaglia, 1964)."""
        while True:
            beyond, height = -float(log(1.0 - more())) / _NORMAL.tail, -float(log(1.0 - more()))
            if 2 * height > beyond * beyond:
                break
        # The sign is another bit of the raw number than elsewhere, in NumPy too.
        return -(_NORMAL.tail + beyond) if raw >> 17 & 1 else _NORMAL.tail + beyond

    @staticmethod
    def _exponential_tail(_raw: int, more: Callable[[], float]) -> float:
        return _EXPONENTIAL.tail - float(log(1.0 - more()))
