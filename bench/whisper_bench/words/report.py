"""Turns words.json into WORDS.md and its plots; measures nothing.

`python -m whisper_bench.words --report` writes them again, for example after a change of a text.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from whisper_bench.words import plots, systems
from whisper_bench.words.figures import PARTS, SETS, Figures
from whisper_bench.words.scoring import SENTENCE_CHARACTERS, SENTENCE_WORDS, Difference, Errors

COMMANDS = {"carried": "make bench-words", "all": "make bench-words BENCH_ARGS='--speech DIR'"}
TITLES = {
    "carried": "The recordings of this repository (`bench/speech`)",
    "all": "All recordings that were at hand where this was written",
}
# Of the issue: points of percent, seconds, shares.
SAME_WORDS, SAME_QUANTIZED, SPEECH_LOST, DETECTION_COST = 0.5, 0.5, 0.3, 0.003
# A language of which fewer words are said is not ranked.
RANKED_WORDS = 50
# Shown side by side where there is no room for all.
BESIDE = (
    systems.SHIPPED,
    systems.EXACT,
    systems.FASTER_WHISPER_GREEDY,
    systems.SHIPPED_BEAMS,
    systems.FASTER_WHISPER,
    systems.OPENAI_WHISPER,
)
EXAMPLES = 6

INTRODUCTION = """\
# The words it hears, beside openai-whisper and faster-whisper

Written by `make bench-words`; every figure is in [words.json](words.json). All systems run OpenAI's `{model}`, made of
one set of float16 weights, on recordings of people whose words are known.
"""

NOTES = """\
## How to read it

* *Word error rate*: words inserted, deleted and substituted, for each word said; characters in Chinese, Japanese and
  Korean. *Simple* normalization: lower case, no punctuation, apostrophes join. *OpenAI's*: `whisper-normalizer`,
  which also makes numbers and spellings of English one form.
* Every system gets the file as it is (whisper-cli a 16 kHz WAV of it) and finds the language itself, as its defaults
  have it. Random choices are seeded.
* A difference is paired: clips are drawn with replacement 10,000 times, the same ones for both; shown are the
  difference and the 2.5th and 97.5th percentile. A tenth of a point is {tenth} words here: read the upper bound, not
  the difference.
* *q5_1* is what packages hold by default, *f16* the weights as published. *As shipped* is greedy with voice
  detection.
* *Speech lost* counts words that are deleted with voice detection less those deleted without it, for each word said.
  A *sentence* is lost if {sentence} words in a row (characters: {characters}), or all of a shorter clip, are gone
  that were there without.
* Recordings without speech are right if the text is empty: `[BLANK_AUDIO]` and `you` are words here.
* Word starts are compared with forced alignment by pocketsphinx, for words that were heard as they were said, in
  English clips that are read. The language is given. Alignment itself was compared with word starts set by hand: in a
  spectrogram (16 ms windows, 2 ms steps) and the waveform of six clips, before their alignment was seen, at the first
  sound of a word: the closure of a stop after a sound, its release after silence.
* `en_long.opus` of the whole set joins clips that are there by themselves, and is left out.
"""

LIMITS = """\
## What this cannot show

`small`, `medium` and the larger models: their weights were not to be had where this was written. Where they are, the
same tables come from

```
PYTHONPATH=app:bench python -m whisper_bench.words --model small --weights faster-whisper-small
```

with the directory that faster-whisper downloads (`model.bin`, `config.json`, `tokenizer.json`, `vocabulary.txt`); all
systems' weights are made of it. They are written to `.build/bench/words/small/`. Conversations, accents and domains
that the recordings do not have are not shown either; `--speech DIR` measures your own: a directory with `refs.json`
and `clips/`, in the form of `bench/speech`.
"""


def write(figures: Figures, output: Path, model: str) -> None:
    """Write WORDS.md and plots/ to `output`."""
    measured = [which for which in SETS if figures.of(which, "words")]
    parts = [INTRODUCTION.format(model=model)]
    # The details of one set are enough: what is carried is a part of all.
    for which in reversed(measured):
        parts += _set(figures, which, output / "plots")
        if which == measured[-1]:
            parts += _details(figures, which, output / "plots")
    words = figures.of(measured[0], "words")
    notes = NOTES.format(
        tenth=round(_all(words, systems.SHIPPED).said / 1000),
        sentence=SENTENCE_WORDS,
        characters=SENTENCE_CHARACTERS,
    )
    parts += [notes, LIMITS, *_provenance(figures, measured)]
    (output / "WORDS.md").write_text("\n".join(parts), encoding="utf-8")


def _set(figures: Figures, which: str, plots_directory: Path) -> Iterator[str]:
    """Yield the paragraphs about one set of recordings."""
    words = figures.of(which, "words")
    yield f"## {TITLES[which]}\n"
    yield (
        f"{words['clips']} clips, {words['seconds'] // 60} minutes, {_all(words, systems.SHIPPED).said:,} words. "
        f"Made with `{COMMANDS[which]}`.\n"
    )
    missing = [part for part in PARTS if not figures.of(which, part)]
    left_out = [
        *(f"part `{part}`" for part in missing),
        *(f"`{name}`" for name in systems.NAMES if name not in words["systems"]),
    ]
    if left_out:
        yield (
            f"Not in this run: {', '.join(left_out)}. What voice detection costs and loses is also measured in "
            "[docs/voice-detection.md](../docs/voice-detection.md).\n"
        )
    yield _table(["figure", "goal", "measured", ""], _goals({part: figures.of(which, part) for part in PARTS}))
    yield f"![Word error rates](plots/words-{which}-rates.png)\n"
    plots.rates(words, plots_directory / f"words-{which}-rates.png")
    yield "### Words\n"
    yield _rates(words)
    yield _differences(words)


def _details(figures: Figures, which: str, plots_directory: Path) -> Iterator[str]:
    """Yield what there is beside the rates: by language and kind, silence, detection, languages, times."""
    words = figures.of(which, "words")
    yield f"![Word error rates by language](plots/words-{which}-languages.png)\n"
    plots.languages(words, plots_directory / f"words-{which}-languages.png")
    for group in ("language", "kind"):
        yield _grouped(words, group)
    yield _worst(words)
    for part, write_part in (("silence", _silence), ("detection", _detection), ("languages", _languages)):
        if found := figures.of(which, part):
            yield write_part(found)
    if times := figures.of(which, "times"):
        yield _times(times)
        yield f"![Distances of word starts](plots/words-{which}-starts.png)\n"
        plots.offsets(times, plots_directory / f"words-{which}-starts.png")
    if cost := figures.of(which, "cost"):
        yield (
            "### What it costs\n\nOn one thread, voice detection takes "
            f"{cost['detection']:.2%} of the audio's length, in processor time. Word times make computing "
            f"{cost['word times']:.2f} times as long.\n"
        )


def _goals(parts: dict[str, dict[str, Any] | None]) -> Iterator[list[str]]:
    """Yield the rows of the issue's table: what, limit, measured, whether it is met."""
    words = parts["words"]
    differences = {(one, other): Difference(*found) for one, other, found in words["differences"]["simple"]}
    for (one, other), found in differences.items():
        limit = SAME_QUANTIZED if (one, other) in systems.QUANTIZED else SAME_WORDS
        yield _bound(f"words: {one} less {other}", found, limit)
    if {systems.SHIPPED_BEAMS, systems.FASTER_WHISPER} <= words["systems"].keys():
        rate, limit = (100 * _all(words, name).rate for name in (systems.SHIPPED_BEAMS, systems.FASTER_WHISPER))
        yield _goal("words: beam 5", f"≤ {limit:.2f} %, faster-whisper's", rate, limit, f"{rate:.2f} %")
    if silence := parts["silence"]:
        for kind in ("recorded", "synthetic"):
            found = silence[kind][systems.SHIPPED]
            count = len(found["texts"])
            yield _goal(f"{kind} without speech that give words", "0", count, 0, f"{count} of {found['of']}")
    if detection := parts["detection"]:
        for condition, found in detection.items():
            if condition in ("as recorded", "origin"):
                continue
            lost = Difference(*found["lost"])
            yield _goal(
                f"speech lost: {condition}", f"bound ≤ {SPEECH_LOST} points", lost.high, SPEECH_LOST, _shown(lost)
            )
            yield _goal(
                f"sentences lost: {condition}",
                "0 clips",
                len(found["sentences"]),
                0,
                f"{len(found['sentences'])} clips",
            )
    if languages := parts["languages"]:
        ours, theirs = (languages[name] for name in (systems.SHIPPED, systems.FASTER_WHISPER))
        yield _goal(
            "languages right",
            f"≥ {theirs['right']} of {theirs['of']}, faster-whisper's",
            -ours["right"],
            -theirs["right"],
            f"{ours['right']} of {ours['of']}",
        )
    if times := parts["times"]:
        ours, theirs = (_distances(times, name) for name in (systems.SHIPPED, systems.FASTER_WHISPER))
        for title, share in (("median", 50), ("95th percentile", 95)):
            value, limit = float(np.percentile(ours, share)), float(np.percentile(theirs, share))
            yield _goal(f"word starts: {title}", f"≤ {limit:.3f} s, faster-whisper's", value, limit, f"{value:.3f} s")
    if cost := parts["cost"]:
        value = cost["detection"]
        yield _goal(
            "voice detection, one thread", f"≤ {DETECTION_COST:.1%} of the audio", value, DETECTION_COST, f"{value:.2%}"
        )


def _goal(title: str, limit: str, value: float, at_most: float, shown: str) -> list[str]:
    return [title, limit, shown, "met" if value <= at_most else "**fell short**"]


def _bound(title: str, found: Difference, at_most: float) -> list[str]:
    return _goal(title, f"bound ≤ {at_most} points", found.high, at_most, _shown(found))


def _rates(words: dict[str, Any]) -> str:
    rows = []
    for name, (search, about) in words["systems"].items():
        simple, openai = (Errors(*words["errors"][how][name]["all"]["all"]) for how in ("simple", "OpenAI's"))
        each = [f"{100 * count / simple.said:.1f}" for count in (simple.inserted, simple.deleted, simple.substituted)]
        language, worst = max(_ranked(words["errors"]["simple"][name]["language"]), key=lambda found: found[1].rate)
        rates = [f"**{simple.rate:.1%}**", *each, f"{openai.rate:.1%}", f"{language} {worst.rate:.0%}"]
        rows.append([name, search, *rates, about])
    head = "system, search, simple, inserted, deleted, substituted, OpenAI's, worst language, what it is"
    return _table(head.split(", "), rows)


def _ranked(languages: dict[str, list[int]]) -> list[tuple[str, Errors]]:
    """Return the languages in which enough is said to be ranked, with their errors."""
    return [(language, Errors(*counts)) for language, counts in languages.items() if counts[0] >= RANKED_WORDS]


def _differences(words: dict[str, Any]) -> str:
    rows = [
        [one, other, _shown(Difference(*simple)), _shown(Difference(*openai))]
        for (one, other, simple), (_, _, openai) in zip(*(words["differences"][how] for how in ("simple", "OpenAI's")))
    ]
    return _table(["system", "less", "simple, points (95 % interval)", "OpenAI's"], rows)


def _grouped(words: dict[str, Any], group: str) -> str:
    errors = words["errors"]["simple"]
    beside = [name for name in BESIDE if name in errors]
    values = sorted(errors[systems.SHIPPED][group], key=lambda value: -errors[systems.SHIPPED][group][value][0])
    rows = [
        [value or "–", str(errors[systems.SHIPPED][group][value][0])]
        + [f"{Errors(*errors[name][group][value]).rate:.1%}" for name in beside]
        for value in values
    ]
    return _table([group, "words", *beside], rows)


def _worst(words: dict[str, Any]) -> str:
    rows = [[f"`{file}`", str(ours), str(theirs), str(said)] for file, ours, theirs, said in words["worst"]]
    title = f"Clips that go worst for us beside {systems.FASTER_WHISPER_GREEDY}: errors, simple normalization.\n\n"
    return title + _table(["clip", "ours", "theirs", "words"], rows)


def _silence(found: dict[str, Any]) -> str:
    rows = []
    for name in found["recorded"]:
        cells = [
            f"{len(each['texts'])} of {each['of']}" if (each := found[kind].get(name)) else ""
            for kind in ("recorded", "synthetic")
        ]
        texts = [
            text
            for kind in ("recorded", "synthetic")
            for text in found[kind].get(name, {"texts": {}})["texts"].values()
        ]
        rows.append([name, *cells, ", ".join(f"`{text[:40]}`" for text in dict.fromkeys(texts[:EXAMPLES]))])
    return "### Recordings without speech\n\nHow many give words, and some of these.\n\n" + _table(
        ["system", "recorded", "synthetic, 60 s each", "words"], rows
    )


def _detection(found: dict[str, Any]) -> str:
    rows = [
        [
            condition,
            "{} of {}".format(*each["cut"]),
            _shown(Difference(*each["lost"])),
            _shown(Difference(*each["all"])),
            ", ".join(f"`{file}`" for file in each["sentences"]) or "none",
        ]
        for condition, each in found.items()
        if condition != "origin"
    ]
    return "### Speech lost to voice detection\n\n" + _table(
        [
            "condition",
            "cuts something out of",
            "speech lost, points",
            "all errors, points",
            "clips that lose a sentence",
        ],
        rows,
    )


def _languages(found: dict[str, Any]) -> str:
    rows = [
        [
            name,
            f"{each['right']} of {each['of']}",
            ", ".join(f"`{file}` {heard}" for file, (_, heard) in each["wrong"].items()),
        ]
        for name, each in found.items()
        if name != "origin"
    ]
    return "### Languages detected right\n\n" + _table(["system", "right", "wrong: heard as"], rows)


def _times(found: dict[str, Any]) -> str:
    rows = []
    for name in found["offsets"]:
        distances = _distances(found, name)
        signed = [offset for clip in found["offsets"][name].values() for offset in clip]
        values = [np.percentile(distances, 50), np.percentile(distances, 95), max(distances), statistics.median(signed)]
        rows.append([name, str(len(distances)), *(f"{value:.3f} s" for value in values)])
    own = [abs(offset) for offset in found["own"]]
    text = (
        f"### Word starts\n\nDistances from the starts that forced alignment finds, in {found['clips']} clips. "
        f"Alignment itself is off by {statistics.median(own):.3f} s in the median and {max(own):.2f} s at most, on "
        f"{len(own)} words set by hand.\n\n"
    )
    return text + _table(["system", "words", "median", "95th percentile", "largest", "median, later is positive"], rows)


def _provenance(figures: Figures, measured: list[str]) -> Iterator[str]:
    yield "## Provenance\n"
    rows = []
    versions: dict[str, str] = {}
    for which in measured:
        for part in PARTS:
            if found := figures.of(which, part):
                origin = found["origin"]
                versions.update(origin["versions"])
                rows.append([which, part, origin["commit"], origin["time"], origin["machine"]])
    yield _table(["set", "part", "commit", "time", "machine"], rows)
    yield ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) + ".\n"


def _all(words: dict[str, Any], name: str) -> Errors:
    return Errors(*words["errors"]["simple"][name]["all"]["all"])


def _distances(times: dict[str, Any], name: str) -> list[float]:
    return [abs(offset) for clip in times["offsets"][name].values() for offset in clip]


def _shown(found: Difference) -> str:
    return f"{found.points:+.2f} ({found.low:+.2f} to {found.high:+.2f})"


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', ' ') for cell in row)} |" for row in lines) + "\n"
