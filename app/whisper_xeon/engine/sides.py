"""Puts the transcripts of a stereo recording's two sides together to one."""

from __future__ import annotations

import dataclasses

from whisper_xeon.transcript import Transcript

SIDES = ("left", "right")


def merge(left: Transcript, right: Transcript) -> Transcript:
    """Return one transcript of both sides' segments in the order of their starts, each with its `speaker`.

    Its language is that of the side that speaks for longer.
    """
    spoken = [
        dataclasses.replace(segment, speaker=speaker)
        for speaker, transcript in zip(SIDES, (left, right))
        for segment in transcript.segments
    ]
    spoken.sort(key=lambda segment: segment.start)
    speech = [side.speech_seconds for side in (left, right) if side.speech_seconds is not None]
    merged = max(left, right, key=_spoken_seconds).with_segments(spoken)
    return dataclasses.replace(
        merged,
        speech_seconds=sum(speech) if len(speech) == len(SIDES) else None,
        decoded_again=left.decoded_again or right.decoded_again,
    )


def _spoken_seconds(transcript: Transcript) -> float:
    return sum(segment.end - segment.start for segment in transcript.segments)
