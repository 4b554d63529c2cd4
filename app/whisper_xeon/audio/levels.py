"""Reads how loud a recording's sides and their mix are, moment by moment, and decides what a mix would lose.

The standard library only: an hour has 180,000 moments, where it has 115 million samples.
"""

from __future__ import annotations

import array
import os
from collections.abc import Iterator, Sequence

LEVELS_PER_SECOND = 50
LEVEL_BYTES = 4 * 3 * LEVELS_PER_SECOND  # per second of audio

_SILENCE = 1e-9  # mean square: 90 dB below full scale
_QUIET = 1e-5  # … 50 dB below: whatever else is said here is about louder moments
_TURN = LEVELS_PER_SECOND // 5  # moments that are judged together about cancelling: 0.2 s
_CANCELLED_TURNS = 3
_CANCELLED = 0.1  # a mix with less of its sides' energy than this loses something
_SAME = 1e-3  # sides whose difference has less of their energy than this are the same
# Bleed: one side heard faintly on the other.
_HOLD = LEVELS_PER_SECOND // 10  # moments around each that count for it: an echo comes later
_ACTIVE = 1e-3  # of the loudest moment's energy: the other side is speaking
_USUAL = 0.25  # share of such moments in which a side that says nothing has bleed, or its own noise, and no more
_ABOVE_USUAL = 4.0  # a side with more energy than this many times the usual says something itself
_MUCH_QUIETER = 10**-0.9  # … and so does one that is less than 9 dB quieter


class Levels:
    """The mean squares of left, right and their mix in each fiftieth of a second."""

    def __init__(self, fd: int):
        """Read what the graphs of `graph` wrote to [levels]."""
        values = array.array("f")
        values.frombytes(os.pread(fd, os.fstat(fd).st_size // 12 * 12, 0))
        # The filter that averages may swing below zero.
        self._left, self._right, self._mix = ([max(0.0, value) for value in values[side::3]] for side in range(3))

    @property
    def silent(self) -> bool:
        """Whether there is no sound at all."""
        return max(max(self._left, default=0.0), max(self._right, default=0.0)) < _SILENCE

    @property
    def same_sides(self) -> bool:
        """Whether there is sound, and the same on both sides."""
        left, right, mixed = sum(self._left), sum(self._right), sum(self._mix)
        difference = (left + right) / 2 - mixed
        return not self.silent and difference < _SAME * mixed

    @property
    def cancels(self) -> bool:
        """Whether the mix loses sound because it is opposite on the two sides."""
        turns = 0
        for start in range(0, len(self._mix), _TURN):
            sides, mixed = self._sides(start)
            turns += sides > _QUIET and mixed < _CANCELLED * sides
        return turns >= _CANCELLED_TURNS

    def _sides(self, start: int) -> tuple[float, float]:
        """Return the energy of the sides and of the mix in one turn."""
        turn = slice(start, start + _TURN)
        mixed = self._mix[turn]
        return (sum(self._left[turn]) + sum(self._right[turn])) / 2 / len(mixed), sum(mixed) / len(mixed)

    def bleed(self, side: int) -> Iterator[tuple[int, int]]:
        """Yield the stretches, from moment to moment, in which `side` (0: left) has nothing but the other's bleed."""
        own, other = (_hold(levels) for levels in ((self._left, self._right), (self._right, self._left))[side])
        least = max(_QUIET, _ACTIVE * max(other, default=0.0))
        ratios = sorted(mine / theirs for mine, theirs in zip(own, other) if theirs > least)
        if not ratios:
            return
        most = min(_MUCH_QUIETER, _ABOVE_USUAL * ratios[int(_USUAL * len(ratios))])
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


def _hold(levels: Sequence[float]) -> list[float]:
    """Return the loudest moment around each moment."""
    return [max(levels[max(0, moment - _HOLD) : moment + _HOLD + 1]) for moment in range(len(levels))]
