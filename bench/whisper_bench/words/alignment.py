"""Where words begin: forced alignment by pocketsphinx, whose wheel has an English model, as a yardstick.

It is told the words and finds their places, in steps of 10 ms. A clip is left out if the dictionary lacks one of its
words or if the alignment does not reach its end. How far it is off itself is stated beside what is measured with it:
by_hand.json holds word starts that were set by hand.
"""

from __future__ import annotations

import json
from pathlib import Path

import jiwer
import numpy as np
import pocketsphinx

from whisper_bench.words.corpus import Clip
from whisper_bench.words.scoring import simple
from whisper_bench.words.sound import samples
from whisper_bench.words.transcripts import Heard

FRAME_SECONDS = 0.01
# file → [[number of the word in the clip's text, its start in seconds], …]
BY_HAND = Path(__file__).with_name("by_hand.json")

Starts = list[float]  # of each word of a clip's text, in seconds


def align(clips: list[Clip]) -> dict[str, Starts]:
    """Return the starts of all words of each English clip that can be aligned, by file name."""
    found = {clip.file: _align(clip) for clip in clips}
    return {file: starts for file, starts in found.items() if starts}


def _align(clip: Clip) -> Starts:
    # It adapts to what it has heard: one that was used for other clips would find other starts.
    decoder = pocketsphinx.Decoder(loglevel="FATAL", bestpath=False)
    spoken = _words(clip)
    if any(decoder.lookup_word(word) is None for word in spoken):
        return []
    decoder.set_align_text(" ".join(spoken))
    decoder.start_utt()
    decoder.process_raw(np.rint(samples(clip.path) * 32767).astype("<i2").tobytes(), full_utt=True)
    decoder.end_utt()
    segments = [segment for segment in decoder.seg() or () if not segment.word.startswith(("<", "["))]
    if [segment.word.partition("(")[0] for segment in segments] != spoken:
        return []
    return [segment.start_frame * FRAME_SECONDS for segment in segments]


def _words(clip: Clip) -> list[str]:
    """Return the words as the dictionary spells them: in lower case, with apostrophes."""
    text = clip.text.replace("’", "'").lower()
    return "".join(letter if letter.isalnum() or letter == "'" else " " for letter in text).split()


def offsets(clips: list[Clip], starts: dict[str, Starts], heard: dict[str, Heard]) -> dict[str, list[float]]:
    """Return by file how much later each start is than the aligned one, in seconds, of words heard as said."""
    return {clip.file: _offsets(clip, starts[clip.file], heard[clip.file]) for clip in clips if clip.file in starts}


def _offsets(clip: Clip, starts: Starts, heard: Heard) -> list[float]:
    theirs = [(simple(text, "en"), start) for text, start, _ in heard["words"]]
    theirs = [(text, start) for text, start in theirs if text]
    said = [simple(word, "en") for word in _words(clip)]
    # What one writes as two words the other may have as one: as single words they differ, so they are left out.
    listed = [text.replace(" ", "_") for text, _ in theirs]
    if not listed:
        return []
    return [
        round(theirs[heard_at][1] - starts[said_at], 3)
        for chunk in jiwer.process_words([" ".join(said)], [" ".join(listed)]).alignments[0]
        if chunk.type == "equal"
        for said_at, heard_at in zip(
            range(chunk.ref_start_idx, chunk.ref_end_idx), range(chunk.hyp_start_idx, chunk.hyp_end_idx)
        )
    ]


def own_error(starts: dict[str, Starts]) -> list[float]:
    """Return how much later the aligned starts are than those set by hand, in seconds."""
    by_hand = json.loads(BY_HAND.read_text(encoding="utf-8"))
    return [
        starts[file][number] - seconds for file, words in by_hand.items() if file in starts for number, seconds in words
    ]
