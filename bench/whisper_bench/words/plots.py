"""The plots of WORDS.md, one PNG each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from whisper_bench.words import systems
from whisper_bench.words.scoring import Errors

mpl.use("Agg")
OURS, THEIRS, LIGHT = "#0a6e8a", "#9a9a9a", "#d9d9d9"
LONGEST_OFFSET = 1.0  # seconds; what is further off is counted at the end of the curve


def rates(words: dict[str, Any], path: Path) -> None:
    """Errors of each system as bars: substituted, deleted, inserted."""
    errors = {name: Errors(*found["all"]["all"]) for name, found in words["errors"]["simple"].items()}
    names = list(errors)[::-1]
    figure, axes = plt.subplots(figsize=(9, 0.36 * len(names) + 1.2))
    left = np.zeros(len(names))
    for kind, shade in (("substituted", 1.0), ("deleted", 0.6), ("inserted", 0.3)):
        widths = np.array([100 * getattr(errors[name], kind) / errors[name].said for name in names])
        colours = [mpl.colors.to_rgba(OURS if name.startswith("ours") else THEIRS, shade) for name in names]
        axes.barh(names, widths, left=left, color=colours)
        for y, (width, start) in enumerate(zip(widths, left)):
            if width > 1:
                ink = "white" if shade == 1 else "black"
                axes.text(start + width / 2, y, f"{width:.1f}", ha="center", va="center", fontsize=7, color=ink)
        left += widths
    for y, width in enumerate(left):
        axes.text(width + 0.2, y, f"{width:.1f} %", va="center", fontsize=8)
    axes.set_xlim(0, left.max() * 1.12)
    axes.set_xlabel("word error rate, %: substituted, deleted, inserted (from left to right)")
    _save(figure, path)


def languages(words: dict[str, Any], path: Path) -> None:
    """Rates by language as points: ours as shipped, and the baselines that it is compared with."""
    shown = {
        systems.SHIPPED: (OURS, "o"),
        systems.FASTER_WHISPER_GREEDY: (THEIRS, "s"),
        systems.OPENAI_WHISPER: ("black", "x"),
    }
    found = {name: words["errors"]["simple"][name]["language"] for name in shown}
    said = {language: counts[0] for language, counts in found[systems.SHIPPED].items()}
    listed = sorted(said, key=lambda language: Errors(*found[systems.SHIPPED][language]).rate)
    figure, axes = plt.subplots(figsize=(9, 4))
    for name, (colour, marker) in shown.items():
        values = [100 * Errors(*found[name][language]).rate for language in listed]
        axes.plot(listed, values, marker, color=colour, label=name, markersize=7, alpha=0.8)
    axes.set_xticks(range(len(listed)), [f"{language}\n{said[language]}" for language in listed], fontsize=8)
    axes.set_ylabel("word error rate, %")
    axes.set_xlabel("language, and words (characters for zh, ja, ko) that were said in it")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color=LIGHT)
    axes.legend(frameon=False)
    _save(figure, path)


def offsets(times: dict[str, Any], path: Path) -> None:
    """How many word starts are within how much of the aligned ones."""
    figure, axes = plt.subplots(figsize=(9, 4))
    styles = {systems.SHIPPED: (OURS, "-"), systems.EXACT: (OURS, ":"), systems.FASTER_WHISPER: (THEIRS, "-")}
    for name, by_clip in times["offsets"].items():
        values = np.sort(np.abs([offset for clip in by_clip.values() for offset in clip]))
        colour, line = styles.get(name, ("black", "--"))
        share = 100 * np.arange(1, len(values) + 1) / len(values)
        axes.step(np.minimum(values, LONGEST_OFFSET), share, line, color=colour, label=name, where="post")
    axes.set_xlim(0, LONGEST_OFFSET)
    axes.set_ylim(0, 101)
    axes.set_xlabel("distance from the aligned start, s")
    axes.set_ylabel("word starts within it, %")
    axes.grid(color=LIGHT)
    axes.legend(frameon=False, loc="lower right")
    _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the program's version in it: the same figures give the same file.
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
