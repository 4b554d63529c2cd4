"""Measures one set of recordings and adds its figures to words.json; runs in the venv of bench/words-requirements.txt.

`python -m whisper_bench.words` starts it with the packages that it needs.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from whisper_bench import voice
from whisper_bench.provenance import duration
from whisper_bench.words import alignment, corpus, cost, report, scoring, sound, systems, weights
from whisper_bench.words.corpus import Clip
from whisper_bench.words.figures import PARTS, Figures
from whisper_bench.words.scoring import NORMALIZERS, Errors
from whisper_bench.words.transcripts import Heard, System, Transcripts
from whisper_xeon.engine.library_adapter import WhisperLibraryAdapter

# A minute of noise takes long without detection, since each window is tried again at other temperatures.
SYNTHETIC_WITHOUT_DETECTION = 24
# A shorter clip does not say enough to tell its language by.
LANGUAGE_SECONDS = 3
# How many of the clips that go worst, beside a baseline, are named.
WORST = 8
LIBRARIES = ("openai-whisper", "torch", "faster-whisper", "ctranslate2", "pocketsphinx", "jiwer", "whisper-normalizer")


class Measurement:
    """What is measured on one set of recordings; each public method returns the figures of the part of its name."""

    def __init__(self, clips: list[Clip], everybody: list[System], packages: systems.Packages):
        self._spoken, self._silent = corpus.spoken(clips), corpus.without_speech(clips)
        self._systems = {system.name: system for system in everybody}
        self._packages = packages
        self._transcripts = Transcripts()

    def words(self) -> dict[str, Any]:
        """Word errors of everybody, whole and by language and kind, and the differences that goals speak of."""
        errors = {
            how: {
                name: scoring.errors(self._spoken, self._heard(name, self._spoken), normalizer)
                for name in self._systems
            }
            for how, normalizer in NORMALIZERS.items()
        }
        everyone = list(self._systems.values())
        pairs = systems.compared(everyone)
        return {
            "clips": len(self._spoken),
            "seconds": round(sum(clip.seconds for clip in self._spoken)),
            "systems": {system.name: [system.search, system.about] for system in everyone},
            "errors": {
                how: {name: self._grouped(found) for name, found in of_systems.items()}
                for how, of_systems in errors.items()
            },
            "differences": {
                how: [[one, other, scoring.difference(found[one], found[other])] for one, other in pairs]
                for how, found in errors.items()
            },
            "worst": self._worst(errors["simple"][systems.SHIPPED], errors["simple"][systems.FASTER_WHISPER_GREEDY]),
        }

    def silence(self) -> dict[str, Any]:
        """Recordings in which nobody speaks, and how many of them gave words."""
        synthetic = sound.synthetic()
        compared = [systems.FASTER_WHISPER, systems.FASTER_WHISPER_VAD, systems.WITHOUT_DETECTION]
        every_baseline = systems.baselines(list(self._systems.values()))
        recorded = [*every_baseline, systems.SHIPPED, systems.WITHOUT_DETECTION]
        recorded, compared = ([name for name in names if name in self._systems] for names in (recorded, compared))
        return {
            "recorded": {name: self._talkative(name, self._silent) for name in recorded},
            "synthetic": {
                systems.SHIPPED: self._talkative(systems.SHIPPED, synthetic),
                **{name: self._talkative(name, synthetic[:SYNTHETIC_WITHOUT_DETECTION]) for name in compared},
            },
        }

    def detection(self) -> dict[str, Any]:
        """What voice detection costs in words: with it less without it, as recorded and in each hard condition."""
        found = {}
        with WhisperLibraryAdapter(package=self._packages.q5_1, threads=1) as adapter:
            for condition in ("as recorded", *sound.CONDITIONS):
                clips = self._spoken if condition == "as recorded" else sound.under(condition, self._spoken)
                # Where it cuts nothing, Whisper hears the same with it and without.
                cut = [clip for clip in clips if not voice.leaves_whole(adapter, sound.samples(clip.path).copy())]
                on, off = (self._heard(name, cut) for name in (systems.SHIPPED, systems.WITHOUT_DETECTION))
                whole = {clip.file: Errors(scoring.said(clip)) for clip in clips}
                with_it, without = ({**whole, **scoring.errors(cut, heard, scoring.simple)} for heard in (on, off))
                found[condition] = {
                    "cut": [len(cut), len(clips)],
                    "lost": scoring.difference(with_it, without, "deleted"),
                    "all": scoring.difference(with_it, without),
                    "sentences": [
                        c.file for c in cut if scoring.lost_sentence(c, off[c.file]["text"], on[c.file]["text"])
                    ],
                }
        return found

    def languages(self) -> dict[str, Any]:
        """Languages that were detected right, of clips that say enough in one language."""
        clips = [clip for clip in self._spoken if clip.seconds > LANGUAGE_SECONDS and clip.kind != "codeswitch"]
        found = {}
        for name in self._systems:
            heard = self._heard(name, clips)
            wrong = {
                c.file: [c.language, heard[c.file]["language"]]
                for c in clips
                if heard[c.file]["language"] != c.language
            }
            found[name] = {"right": len(clips) - len(wrong), "of": len(clips), "wrong": wrong}
        return found

    def times(self) -> dict[str, Any]:
        """How far word starts are from the aligned ones, in seconds, on English clips that are read."""
        clips = [clip for clip in self._spoken if clip.language == "en" and clip.kind == "read"]
        starts = alignment.align(clips)
        clips = [clip for clip in clips if clip.file in starts]
        found = {"clips": len(clips), "own": alignment.own_error(starts), "offsets": {}}
        for name in filter(self._systems.get, systems.WITH_WORD_TIMES):
            heard = self._transcripts.of(self._systems[name], clips, languages=True, words=True)
            found["offsets"][name] = alignment.offsets(clips, starts, heard)
        return found

    def cost(self) -> dict[str, Any]:
        """What voice detection and word times cost on one thread."""
        english = [clip for clip in self._spoken if clip.language == "en" and clip.kind == "read"]
        return {
            "detection": cost.detection(self._packages.q5_1),
            "word times": cost.word_times(self._packages.q5_1, english),
        }

    def _heard(self, name: str, clips: list[Clip]) -> dict[str, Heard]:
        return self._transcripts.of(self._systems[name], clips)

    def _grouped(self, errors: dict[str, Errors]) -> dict[str, dict[str, Errors]]:
        """Return sums: of `all`, by `language` and by `kind`."""
        return {
            group: {
                value: scoring.total(errors[clip.file] for clip in clips) for value, clips in _by(self._spoken, group)
            }
            for group in ("all", "language", "kind")
        }

    def _worst(self, ours: dict[str, Errors], theirs: dict[str, Errors]) -> list[list[Any]]:
        """Return the clips with most errors beyond a baseline's: file, our errors, theirs, words said."""
        files = sorted(ours, key=lambda file: theirs[file].all - ours[file].all)[:WORST]
        return [[file, ours[file].all, theirs[file].all, ours[file].said] for file in files]

    def _talkative(self, name: str, clips: list[Clip]) -> dict[str, Any]:
        """Return how many recordings without speech gave words, and which words."""
        heard = self._heard(name, clips)
        texts = {file: text for file, answer in heard.items() if (text := answer["text"].strip())}
        return {"of": len(clips), "texts": texts}


def _by(clips: list[Clip], group: str) -> Iterable[tuple[str, list[Clip]]]:
    """Yield each value of a group with its clips; the group `all` has one value."""
    values = {clip.file: getattr(clip, group, group) for clip in clips}
    for value in sorted(set(values.values())):
        yield value, [clip for clip in clips if values[clip.file] == value]


def main() -> None:
    """Command line."""
    begun = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--speech", type=Path)
    parser.add_argument("--part", action="append")
    parser.add_argument("--skip", action="append", default=[])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--report", action="store_true")
    for name in systems.Packages.NAMES:
        parser.add_argument(f"--{name}", type=Path, help="directory of the package")
    arguments = parser.parse_args()
    figures = Figures(arguments.output / "words.json")
    if not arguments.report:
        directories = {name: getattr(arguments, name) for name in systems.Packages.NAMES}
        packages = systems.Packages.find(directories, arguments.model)
        everybody = systems.systems(weights.prepare(arguments.model, arguments.weights), packages)
        everybody = [system for system in everybody if system.name not in arguments.skip]
        measurement = Measurement(corpus.load(arguments.speech), everybody, packages)
        which = "carried" if arguments.speech.resolve() == corpus.CARRIED else "all"
        versions = {library: importlib.metadata.version(library) for library in LIBRARIES}
        for part in arguments.part or PARTS:
            print(f"{part}:", file=sys.stderr)
            figures.add(which, part, getattr(measurement, part)(), versions)
    report.write(figures, arguments.output, arguments.model)
    print(f"measuring took {duration(time.monotonic() - begun)}", file=sys.stderr)


if __name__ == "__main__":
    main()
