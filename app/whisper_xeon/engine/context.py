"""How much of its window the encoder computes for a clip that does not fill it, and when that was too little.

Whisper was trained on windows of 30 s: a clip of five seconds is filled up with silence, of which little is needed.
What remains beside the clip, and what is decoded again with all of the window, was measured: docs/performance.md.
"""

from __future__ import annotations

import math
from dataclasses import replace

from whisper_xeon.audio.decode import SAMPLE_RATE
from whisper_xeon.engine.decoding import compression_ratio
from whisper_xeon.transcript import DecodeOptions, Transcript

_WINDOW_SECONDS = 30
# whisper.cpp's attention reads keys up to a multiple of 256 positions, and takes zeros beyond the last one for sound.
# With two seconds beside a clip, whatever number of positions that was, 1.9 points more of the words were wrong.
_STEP = 256
_LEAST_POSITIONS = 512  # 10 s
_MARGIN_SECONDS = 2

# With less of a window than Whisper was trained on it is less certain where it errs.
LEAST_LANGUAGE = 0.6  # probability of the language, where it is detected
_LEAST_LOGPROB = -0.7  # mean of the tokens
_NO_LIMIT = 1e9


def positions(count: int, available: int) -> int:
    """Return the encoder's positions for a clip of `count` samples; 0 where it takes all the `available` ones."""
    seconds = count / SAMPLE_RATE + _MARGIN_SECONDS
    needed = math.ceil(available * seconds / _WINDOW_SECONDS)
    short = max(_LEAST_POSITIONS, _STEP * math.ceil(needed / _STEP))
    return short if short < available else 0


def first_try(options: DecodeOptions) -> DecodeOptions:
    """Return how a clip is decoded with less than its window: once, and as it comes, for `is_doubtful` to judge."""
    return replace(options, temperature_increment=0.0, compression_ratio_threshold=_NO_LIMIT)


def is_doubtful(transcript: Transcript, options: DecodeOptions) -> bool:
    """Tell whether what was decoded with less than the window must be decoded again with all of it.

    It is where Whisper itself would try again, or nearly so, where it hears silence, and where there is no text.
    """
    tokens = sum(len(segment.tokens) for segment in transcript.segments)
    if not tokens:
        return True
    sure = sum(segment.avg_logprob * len(segment.tokens) for segment in transcript.segments) / tokens
    if sure < max(_LEAST_LOGPROB, options.logprob_threshold):
        return True
    if any(segment.no_speech_probability > options.no_speech_threshold for segment in transcript.segments):
        return True
    return compression_ratio(transcript.text.encode()) > options.compression_ratio_threshold
