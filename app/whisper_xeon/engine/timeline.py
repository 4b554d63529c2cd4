"""Times of a recording out of which silence was cut: back to the recording's own clock, and onto the speech in it.

Everything here is in seconds.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from whisper_xeon.transcript import Transcript, Word

# What a word or segment lasts at least, Whisper's own resolution.
LEAST = 0.02


class Stretch(NamedTuple):
    """From `start` to `end`."""

    start: float
    end: float


class Timeline:
    """Where the parts that were joined lie in the recording. All of its functions are monotonic."""

    def __init__(self, parts: Sequence[Stretch]):
        """`parts` are in order, do not overlap, and are not empty."""
        self._parts = parts
        self._starts = [part.start for part in parts]
        self._offsets = [0.0, *itertools.accumulate(part.end - part.start for part in parts)][: len(parts)]

    def begin(self, time: float) -> float:
        """Return where something that begins at a time of the joined parts begins in the recording."""
        return self._place(bisect.bisect_right(self._offsets, time) - 1, time)

    def finish(self, time: float) -> float:
        """Return where something that ends then ends: at a joint this is before the cut, and `begin` after it."""
        return self._place(bisect.bisect_left(self._offsets, time) - 1, time)

    def joined(self, time: float) -> float:
        """Return the time of the joined parts for one of the recording; what was cut has that of the joint."""
        index = max(0, bisect.bisect_right(self._starts, time) - 1)
        part = self._parts[index]
        return self._offsets[index] + min(max(time, part.start), part.end) - part.start

    def _place(self, index: int, time: float) -> float:
        index = max(0, index)
        part = self._parts[index]
        return min(max(part.start + time - self._offsets[index], part.start), part.end)


class Speech:
    """The stretches of a recording in which somebody speaks."""

    def __init__(self, stretches: Sequence[Stretch]):
        """`stretches` are in order and do not overlap; there is at least one."""
        self._starts = [stretch.start for stretch in stretches]
        self._ends = [stretch.end for stretch in stretches]

    def trimmed(self, start: float, end: float) -> Stretch | None:
        """Return the times without silence at either end; None where they hold nothing else."""
        first = bisect.bisect_right(self._ends, start)
        last = bisect.bisect_left(self._starts, end) - 1
        if first > last:
            return None
        return Stretch(max(start, self._starts[first]), min(end, self._ends[last]))

    def nearest(self, time: float) -> float:
        """Return the time of speech that is closest to `time`."""
        following = bisect.bisect_left(self._ends, time)
        if following < len(self._starts) and self._starts[following] <= time:
            return time
        edges = [*self._ends[following - 1 : following], *self._starts[following : following + 1]]
        return min(edges, key=lambda edge: abs(edge - time))


def restored(transcript: Transcript, timeline: Timeline, speech: Speech, duration: float) -> Transcript:
    """Return the transcript of joined parts with the times of the recording, which lasts `duration`.

    Segments and words begin and end with speech and never overlap, and words lie within their segment. A segment in
    which no speech was found keeps its times: Whisper heard what the detection did not.
    """
    spans = [Stretch(timeline.begin(segment.start), timeline.finish(segment.end)) for segment in transcript.segments]
    spoken = [speech.trimmed(*span) for span in spans]
    segments = []
    for segment, trimmed, whole in zip(
        transcript.segments, spoken, apart([each or span for each, span in zip(spoken, spans)], Stretch(0, duration))
    ):
        times = [Stretch(timeline.begin(word.start), timeline.finish(word.end)) for word in segment.words]
        if trimmed:
            times = [speech.trimmed(*time) or _instant(speech.nearest((time.start + time.end) / 2)) for time in times]
        words = tuple(_placed(word, time) for word, time in zip(segment.words, apart(times, whole)))
        segments.append(replace(segment, start=whole.start, end=whole.end, words=words))
    return replace(transcript, duration=duration, segments=tuple(segments))


def apart(times: Sequence[Stretch], within: Stretch) -> list[Stretch]:
    """Return the times within others, such that each has a duration and ends before the next one begins.

    They begin in order. Each lasts `LEAST`, or less where there is no room for that.
    """
    least = min(LEAST, (within.end - within.start) / max(1, len(times)))
    result: list[Stretch] = []
    free = within.start
    for (start, end), following in zip(times, [*(each.start for each in times[1:]), within.end]):
        start = max(start, free)
        free = max(min(end, following), start + least)
        result.append(Stretch(start, free))
    free = within.end
    for index in range(len(result) - 1, -1, -1):
        start, end = result[index]
        if end <= free:
            break  # whatever lies before it ends earlier still
        result[index] = Stretch(max(within.start, min(start, free - least)), free)
        free = result[index].start
    return result


def _instant(time: float) -> Stretch:
    return Stretch(time, time)


def _placed(word: Word, stretch: Stretch) -> Word:
    return replace(word, start=stretch.start, end=stretch.end)
