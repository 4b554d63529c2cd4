"""Reads how loud a recording's sides and their mix are, moment by moment, and decides what a mix would lose.

The standard library alone can do that: an hour has 180,000 moments, and 115 million samples.
"""

from __future__ import annotations

import array
import math
import os
from collections.abc import Iterable, Iterator, Sequence

LEVELS_PER_SECOND = 50

_SILENCE = 1e-9  # mean square: 90 dB below full scale
_QUIET = 1e-5  # … 50 dB below: whatever else is said here is about louder moments
_TURN = LEVELS_PER_SECOND // 5  # moments that are judged together about cancelling: 0.2 s
_CANCELLED_TURNS = 3  # so many, or half of those that are loud enough, are no accident
_CANCELLED = 0.1  # a mix with less of its sides' energy than this loses something
_SAME = 1e-3  # sides whose difference, or sum, has so little of their energy are the same, or opposite
# Bleed: one side heard faintly on the other, a little later.
_AROUND = LEVELS_PER_SECOND // 10  # moments around each that count for it
_ECHO = LEVELS_PER_SECOND * 3 // 10  # … and before it, on the other side: bleed dies away
_ACTIVE = 1e-3  # of the loudest moment's energy: the other side is speaking
_QUIETER = 10**-0.6  # a side that is not 6 dB quieter than the other says something itself
_LEAST = 5  # tenths of a second that tell of bleed
_FOLLOWS = 0.5  # least correlation of the levels, in decibels, of bleed with what it comes from
_ABOVE_BLEED = 4.0  # a side with more energy than this many times its usual bleed says something itself


class Levels:
    """The mean squares of left, right and their mix in each fiftieth of a second."""

    def __init__(self, fd: int):
        """Read what the graphs of `graph` wrote to [levels]."""
        values = array.array("f")
        values.frombytes(os.pread(fd, os.fstat(fd).st_size // 12 * 12, 0))
        # The filter that averages may swing below zero.
        self._left, self._right, self._mix = (
            _floats(max(0.0, value) for value in values[side::3]) for side in range(3)
        )

    @property
    def silent(self) -> bool:
        """Whether there is no sound at all."""
        return max(max(self._left, default=0.0), max(self._right, default=0.0)) < _SILENCE

    @property
    def same_sides(self) -> bool:
        """Whether there is sound, and the same on both sides, or the opposite."""
        mixed = sum(self._mix)
        difference = (sum(self._left) + sum(self._right)) / 2 - mixed
        return not self.silent and min(mixed, difference) < _SAME * max(mixed, difference)

    @property
    def cancels(self) -> bool:
        """Whether the mix loses sound because it is opposite on the two sides."""
        loud = cancelled = 0
        for start in range(0, len(self._mix), _TURN):
            sides, mixed = self._sides(start)
            loud += sides > _QUIET
            cancelled += sides > _QUIET and mixed < _CANCELLED * sides
        return cancelled > 0 and cancelled >= min(_CANCELLED_TURNS, loud / 2)

    def _sides(self, start: int) -> tuple[float, float]:
        """Return the energy of the sides and of the mix in one turn."""
        turn = slice(start, start + _TURN)
        mixed = self._mix[turn]
        return (sum(self._left[turn]) + sum(self._right[turn])) / 2 / len(mixed), sum(mixed) / len(mixed)

    def bleed(self, side: int) -> Iterator[tuple[int, int]]:
        """Yield the stretches, from moment to moment, in which `side` (0: left) has nothing but the other's bleed."""
        own, other = ((self._left, self._right), (self._right, self._left))[side]
        own, other = _loudest(own, _AROUND), _loudest(other, _ECHO)
        least = max(_QUIET, _ACTIVE * max(other, default=0.0))
        # Some are enough: neighbours are hardly different.
        some = zip(own[::_AROUND], other[::_AROUND])
        quieter = [(mine, theirs) for mine, theirs in some if theirs > least and mine < _QUIETER * theirs]
        if len(quieter) < _LEAST or _correlation(quieter) < _FOLLOWS:
            return
        bleed = sorted(mine / theirs for mine, theirs in quieter)[len(quieter) // 2]
        most = min(_QUIETER, _ABOVE_BLEED * bleed)
        start = None
        for moment, (mine, theirs) in enumerate(zip(own, other)):
            bleeding = theirs > least and mine < most * theirs
            if bleeding and start is None:
                start = moment
            elif not bleeding and start is not None:
                yield start, moment
                start = None
        if start is not None:
            yield start, len(own)


def _loudest(levels: array.array[float], before: int) -> array.array[float]:
    """Return the loudest moment around each moment, from so many before it."""
    return _floats(max(levels[max(0, moment - before) : moment + _AROUND + 1]) for moment in range(len(levels)))


def _floats(values: Iterable[float]) -> array.array[float]:
    """Return numbers in four bytes each: as Python's own an hour of them takes 20 MB."""
    return array.array("f", values)


def _correlation(pairs: Sequence[tuple[float, float]]) -> float:
    """Return the correlation of two levels in decibels; 0 where one does not change."""
    decibels = [tuple(10 * math.log10(max(level, _SILENCE)) for level in pair) for pair in pairs]
    means = [sum(levels) / len(decibels) for levels in zip(*decibels)]
    x, y = ([level - mean for level in levels] for levels, mean in zip(zip(*decibels), means))
    spread = math.sqrt(sum(a * a for a in x) * sum(b * b for b in y))
    return sum(a * b for a, b in zip(x, y)) / spread if spread else 0.0
