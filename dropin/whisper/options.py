"""openai-whisper's options as whisper-xeon's: honoured, or refused by name with the reason."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass

from whisper.engine import Tuning
from whisper_xeon.languages import find_language
from whisper_xeon.transcript import LARGEST_TOKEN, MAX_SUPPRESSED, NON_SPEECH, DecodeOptions

TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
PREPENDED = "\"'“¿([{-"
APPENDED = "\"'.。,，!！?？:：”)]}、"
_MOST_SEQUENCES = 8  # whisper.cpp's WHISPER_MAX_DECODERS
_LEAST_STEP = 0.01
_NEVER = 1e9  # a threshold that nothing reaches


class Refused(ValueError):
    """An option that cannot be followed: its name, and why."""

    def __init__(self, name: str, reason: str):
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


@dataclass(frozen=True)
class Plan:
    """What a transcription is told. `clips` are start and end in seconds; an end of None is the audio's."""

    decode: DecodeOptions
    tuning: Tuning
    clips: tuple[tuple[float, float | None], ...]


def plan(
    *,
    temperature: float | Iterable[float] = TEMPERATURES,
    compression_ratio_threshold: float | None = 2.4,
    logprob_threshold: float | None = -1.0,
    no_speech_threshold: float | None = 0.6,
    condition_on_previous_text: bool = True,
    initial_prompt: str | None = None,
    carry_initial_prompt: bool = False,
    word_timestamps: bool = False,
    prepend_punctuations: str = PREPENDED,
    append_punctuations: str = APPENDED,
    clip_timestamps: str | Iterable[float] = "0",
    hallucination_silence_threshold: float | None = None,
    task: str = "transcribe",
    language: str | None = None,
    sample_len: int | None = None,
    best_of: int | None = None,
    beam_size: int | None = None,
    patience: float | None = None,
    length_penalty: float | None = None,
    prompt: str | None = None,
    prefix: str | None = None,
    suppress_tokens: str | Iterable[int] | None = "-1",
    suppress_blank: bool = True,
    without_timestamps: bool = False,
    max_initial_timestamp: float | None = 1.0,
    fp16: bool = True,
) -> Plan:
    """Return what openai-whisper's `transcribe` and `DecodingOptions` name. Raises `Refused`.

    `fp16` has no effect on a CPU in the original either. `prompt` is overwritten there, too.
    """
    for name, value, why in (
        ("hallucination_silence_threshold", hallucination_silence_threshold, "silence is not skipped by words here"),
        ("sample_len", sample_len, "a window is always decoded to its end"),
        ("prefix", prefix, "a window's text cannot be begun for it; initial_prompt shows words to expect"),
    ):
        if value is not None:
            raise Refused(name, f"{why}: leave it out")
    for name, value, default in (
        ("prepend_punctuations", prepend_punctuations, PREPENDED),
        ("append_punctuations", append_punctuations, APPENDED),
    ):
        if value != default:
            raise Refused(name, "words end at spaces here, with the punctuation that touches them: leave it out")
    if task not in ("transcribe", "translate"):
        raise Refused("task", f"use transcribe or translate, not {task!r}")
    if logprob_threshold is None and no_speech_threshold is not None:
        raise Refused("logprob_threshold", "None works with a no_speech_threshold of None only: silence needs both")
    if length_penalty is not None and not 0 <= length_penalty <= 1:
        raise Refused("length_penalty", "use 0 to 1; or leave it out for the mean log probability")
    first, step = _temperatures(temperature)
    words = (initial_prompt or "").strip()
    return Plan(
        DecodeOptions(
            language=_language(language),
            task=task,
            temperature=first,
            temperature_increment=step,
            prompt="" if carry_initial_prompt else words,
            hotwords=words if carry_initial_prompt else "",
            word_timestamps=word_timestamps,
            beam_size=_sequences("beam_size", beam_size),
            best_of=_sequences("best_of", best_of),
            patience=_patience(patience, beam_size),
            condition_on_previous_text=condition_on_previous_text,
            suppress_tokens=_tokens(suppress_tokens),
            compression_ratio_threshold=_NEVER if compression_ratio_threshold is None else compression_ratio_threshold,
            logprob_threshold=-_NEVER if logprob_threshold is None else logprob_threshold,
            no_speech_threshold=_NEVER if no_speech_threshold is None else no_speech_threshold,
            vad=False,
        ),
        Tuning(step, length_penalty, suppress_blank, without_timestamps, max_initial_timestamp),
        _clips(clip_timestamps),
    )


def with_past(decode: DecodeOptions, text: str) -> DecodeOptions:
    """Return the options of a clip after others, whose text is its past."""
    return dataclasses.replace(decode, prompt=f"{decode.prompt} {text.strip()}".strip())


def _temperatures(given: float | Iterable[float]) -> tuple[float, float]:
    """Return the first temperature and by how much each further try raises it, 0 for no further try."""
    tries = [float(one) for one in given] if isinstance(given, Iterable) else [float(given)]
    if not tries or not 0 <= tries[0] <= 1:
        raise Refused("temperature", "use 0 to 1")
    if len(tries) == 1:
        return tries[0], 0.0
    step = tries[1] - tries[0]
    if step < _LEAST_STEP:
        raise Refused("temperature_increment_on_fallback", f"use {_LEAST_STEP} or more, or None for no further try")
    even = all(math.isclose(later - one, step, abs_tol=1e-6) for one, later in zip(tries, tries[1:]))
    if not even or tries[-1] + step <= 1 + 1e-6 or tries[-1] > 1 + 1e-6:
        raise Refused("temperature", "several must rise by equal steps as far as 1, as (0.0, 0.2, … 1.0) do")
    return tries[0], step


def _language(given: str | None) -> str | None:
    if given is None or given in ("", "None", "auto"):
        return None
    code = find_language(given)
    if code is None:
        raise Refused("language", f"Whisper knows no language {given!r}; use a name or code, such as German or de")
    return code


def _sequences(name: str, count: int | None) -> int:
    if count is not None and not 1 <= count <= _MOST_SEQUENCES:
        raise Refused(name, f"use 1 to {_MOST_SEQUENCES}")
    return count or 1


def _patience(patience: float | None, beam_size: int | None) -> float:
    if patience is not None and beam_size is None:
        raise Refused("patience", "it needs a beam_size")
    if patience is not None and not 0 < patience <= 10:
        raise Refused("patience", "use more than 0, up to 10")
    return 1.0 if patience is None else patience


def _tokens(given: str | Iterable[int] | None) -> tuple[int, ...]:
    if given is None:
        return ()
    try:
        tokens = tuple(int(one) for one in (given.split(",") if isinstance(given, str) else given) if one != "")
    except ValueError:
        raise Refused("suppress_tokens", "use ids, separated by commas; -1 stands for all that are no speech") from None
    if len(tokens) > MAX_SUPPRESSED or any(not NON_SPEECH <= token <= LARGEST_TOKEN for token in tokens):
        raise Refused("suppress_tokens", f"use at most {MAX_SUPPRESSED} ids of 0 to {LARGEST_TOKEN}, or -1")
    return tokens


def _clips(given: str | Iterable[float]) -> tuple[tuple[float, float | None], ...]:
    try:
        points = [float(one) for one in (given.split(",") if isinstance(given, str) else given) if one != ""] or [0.0]
    except ValueError:
        raise Refused("clip_timestamps", "use seconds, separated by commas: start,end,start,end,…") from None
    ends: list[float | None] = [*points[1::2]] if len(points) % 2 == 0 else [*points[1::2], None]
    clips = tuple(zip(points[::2], ends))
    if any(start < 0 or not math.isfinite(start) or (end is not None and not end > start) for start, end in clips):
        raise Refused("clip_timestamps", "each clip must end after it begins, and begin at 0 or later")
    return clips
