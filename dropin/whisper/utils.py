"""The files that openai-whisper writes of a result, byte for byte; and how its command reads values."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TextIO

FORMATS = ("txt", "vtt", "srt", "tsv", "json")
_PAUSE_SECONDS = 3.0  # between words: after it a new subtitle begins, where lines are counted
_ANY = 1000  # characters of a line, or words of a subtitle, that are not limited

Cue = tuple[str, str, str]  # from, to and text
Word = dict[str, Any]


def get_writer(output_format: str, output_dir: str | os.PathLike[str]) -> Writer:
    """Return what writes results into a directory: called with a result, the audio's path and `SubtitleOptions`."""
    if output_format != "all" and output_format not in FORMATS:
        raise ValueError(f"output_format: use {', '.join(FORMATS)} or all, not {output_format!r}")
    return Writer(FORMATS if output_format == "all" else (output_format,), output_dir)


class Writer:
    """Writes one file for each format, named after the audio's."""

    def __init__(self, formats: tuple[str, ...], output_dir: str | os.PathLike[str]):
        self._formats = formats
        self.output_dir = output_dir

    def __call__(
        self,
        result: dict[str, Any],
        audio_path: str | os.PathLike[str],
        options: dict[str, Any] | None = None,
        **subtitles: Any,
    ) -> None:
        """Write `result`. `subtitles`, or `options`, are max_line_width, max_line_count, highlight_words and
        max_words_per_line. Raises `OSError`."""
        name = os.path.splitext(Path(audio_path).name)[0]  # noqa: PTH122 - as there: `call.` has a suffix, too
        for suffix in self._formats:
            with open(Path(self.output_dir, f"{name}.{suffix}"), "w", encoding="utf-8") as file:
                _write(suffix, result, file, options, subtitles)

    def write_result(
        self, result: dict[str, Any], file: TextIO, options: dict[str, Any] | None = None, **subtitles: Any
    ) -> None:
        """Write `result` into a file that is open, in each format."""
        for suffix in self._formats:
            _write(suffix, result, file, options, subtitles)


WriteTXT, WriteVTT, WriteSRT, WriteTSV, WriteJSON = (partial(Writer, (suffix,)) for suffix in FORMATS)


def _write(
    suffix: str, result: dict[str, Any], file: TextIO, options: dict[str, Any] | None, subtitles: dict[str, Any]
) -> None:
    given = {name: value for name, value in subtitles.items() if value}
    _WRITERS[suffix](result, file, {**(options or {}), **given})


def _write_txt(result: dict[str, Any], file: TextIO, options: dict[str, Any]) -> None:
    file.writelines(f"{segment['text'].strip()}\n" for segment in result["segments"])


def _write_tsv(result: dict[str, Any], file: TextIO, options: dict[str, Any]) -> None:
    file.write("start\tend\ttext\n")
    for segment in result["segments"]:
        text = segment["text"].strip().replace("\t", " ")
        file.write(f"{round(1000 * segment['start'])}\t{round(1000 * segment['end'])}\t{text}\n")


def _write_json(result: dict[str, Any], file: TextIO, options: dict[str, Any]) -> None:
    json.dump(result, file)


def _write_vtt(result: dict[str, Any], file: TextIO, options: dict[str, Any]) -> None:
    file.write("WEBVTT\n\n")
    for start, end, text in _cues(result, options, format_timestamp):
        file.write(f"{start} --> {end}\n{text}\n\n")


def _write_srt(result: dict[str, Any], file: TextIO, options: dict[str, Any]) -> None:
    cues = _cues(result, options, lambda seconds: format_timestamp(seconds, True, ","))
    for number, (start, end, text) in enumerate(cues, start=1):
        file.write(f"{number}\n{start} --> {end}\n{text}\n\n")


_WRITERS: dict[str, Callable[[dict[str, Any], TextIO, dict[str, Any]], None]] = {
    "txt": _write_txt,
    "vtt": _write_vtt,
    "srt": _write_srt,
    "tsv": _write_tsv,
    "json": _write_json,
}


def _cues(result: dict[str, Any], options: dict[str, Any], clock: Callable[[float], str]) -> Iterator[Cue]:
    segments = result["segments"]
    if not segments or "words" not in segments[0]:
        for segment in segments:
            yield clock(segment["start"]), clock(segment["end"]), segment["text"].strip().replace("-->", "->")
        return
    for subtitle in _Layout(options).subtitles(segments):
        start, end = clock(subtitle[0]["start"]), clock(subtitle[-1]["end"])
        words = [word["word"] for word in subtitle]
        if options.get("highlight_words"):
            yield from _highlighted(subtitle, words, start, clock)
        else:
            yield start, end, "".join(words)


def _highlighted(subtitle: list[Word], words: list[str], start: str, clock: Callable[[float], str]) -> Iterator[Cue]:
    """Yield a subtitle once for each word, underlined while it is spoken, and plain between words."""
    shown_until = start
    for number, word in enumerate(subtitle):
        begins, ends = clock(word["start"]), clock(word["end"])
        if begins != shown_until:
            yield shown_until, begins, "".join(words)
        # A space or line end before it is not underlined.
        bare = words[number].lstrip()
        before = words[number].removesuffix(bare)
        yield begins, ends, "".join([*words[:number], f"{before}<u>{bare}</u>", *words[number + 1 :]])
        shown_until = ends


class _Layout:
    """Puts words into lines, and lines into subtitles."""

    def __init__(self, options: dict[str, Any]):
        width, self._lines = options.get("max_line_width"), options.get("max_line_count")
        self._each_segment_apart = width is None or self._lines is None
        self._width = width or _ANY
        self._words = options.get("max_words_per_line") or _ANY

    def subtitles(self, segments: list[dict[str, Any]]) -> Iterator[list[Word]]:
        """Yield the words of each subtitle, where a line begins with its line end and without its space."""
        subtitle: list[Word] = []
        used, lines = 0, 1  # characters of the line, and lines of the subtitle
        spoken = _first_start(segments)
        for segment in segments:
            for number, word in enumerate(segment["words"]):
                paused = not self._each_segment_apart and word["start"] - spoken > _PAUSE_SECONDS
                apart = self._each_segment_apart and number % self._words == 0 and bool(subtitle)
                spoken = word["start"]
                text = word["word"]
                if used > 0 and used + len(text) <= self._width and not paused and not apart:
                    used += len(text)
                    subtitle.append(word)
                    continue
                text = text.strip()
                full = bool(subtitle) and self._lines is not None and (paused or lines >= self._lines)
                if full or apart:
                    yield subtitle
                    subtitle, lines = [], 1
                elif used > 0:
                    lines += 1
                    text = f"\n{text}"
                used = len(text.strip())
                subtitle.append({**word, "word": text})
        if subtitle:
            yield subtitle


def _first_start(segments: list[dict[str, Any]]) -> float:
    for segment in segments:
        for word in segment["words"]:
            return word["start"]
    return segments[0]["start"]


def format_timestamp(seconds: float, always_include_hours: bool = False, decimal_marker: str = ".") -> str:
    """Return `[HH:]MM:SS.mmm`; hours are left out while there are none, unless they are always wanted."""
    if seconds < 0:
        raise ValueError("seconds: a time before the beginning")
    minutes, milliseconds = divmod(round(seconds * 1000.0), 60_000)
    hours, minutes = divmod(minutes, 60)
    clock = f"{minutes:02d}:{milliseconds // 1000:02d}{decimal_marker}{milliseconds % 1000:03d}"
    return f"{hours:02d}:{clock}" if always_include_hours or hours else clock


def str2bool(text: str) -> bool:
    """Return what `True` or `False` says; anything else raises `ValueError`."""
    if text not in ("True", "False"):
        raise ValueError(f"use True or False, not {text!r}")
    return text == "True"


def optional_int(text: str) -> int | None:
    """Return a whole number, or None for `None`."""
    return None if text == "None" else int(text)


def optional_float(text: str) -> float | None:
    """Return a number, or None for `None`."""
    return None if text == "None" else float(text)
