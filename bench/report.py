"""Turns the figures of `make bench` into RESULTS.md and plots; measures nothing."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

import packages
from results import Results
from service import duration

OURS = "ours"


@dataclass(frozen=True)
class Row:
    """One figure: its key in results.json, what it is, its unit, and what it is compared with."""

    figure: str
    title: str
    unit: str
    digits: int = 2
    plot: str = ""  # name of the plot, for those that have one
    compared: bool = True  # by ratios; what is next to nothing is not


@dataclass(frozen=True)
class Goal:
    """What one figure of one contestant is to be, as a multiple of another's, or by itself."""

    title: str
    figure: str
    contestant: str
    other: str  # empty: the figure itself
    limit: float
    at_least: bool = False


SECTIONS = {
    "The library alone, `small`": [
        Row("small: encode", "encode a window of 30 s", "s", plot="encode"),
        Row("small: token", "a token, chosen", "ms", 1, plot="token"),
        Row("small: decode", "a token, `whisper_decode` alone", "ms", 1),
        Row("small: clip", "`whisper_full` on 11 s", "s"),
        Row("small: reading", "reading memory, two threads", "GB/s", 1),
    ],
    "The library alone, `medium`": [
        Row("medium: encode", "encode a window of 30 s", "s"),
        Row("medium: token", "a token, chosen", "ms", 1),
        Row("medium: decode", "a token, `whisper_decode` alone", "ms", 1),
        Row("medium: clip", "`whisper_full` on 11 s", "s"),
    ],
    "Requests, `small`": [
        Row("small: start", "start until ready", "s"),
        Row("small: first", "first request of 11 s", "s"),
        Row("small: later", "later request of 11 s", "s", plot="request"),
        Row("small: 8 clients", "8 clients, clips of 11 s a minute", "", 1, plot="clients"),
        Row("small: 32 clients", "32 clients, clips of 11 s a minute", "", 1),
        Row("small: behind", "3 s behind a file of 10 minutes", "s"),
    ],
    "Memory, `small`": [
        Row("small: memory, 1", "1 engine at its peak", "MB", 0),
        Row("small: memory, 1, 8 threads", "1 engine of 8 threads at its peak", "MB", 0),
        Row("small: memory, a thread", "of it each of 7 threads more", "MB", 1, compared=False),
        Row("small: memory, a thread beyond upstream", "of that beyond upstream's", "MB", 1),
        Row("small: memory, 2", "2 engines at their peak", "MB", 0),
        Row("small: memory, 4", "4 engines at their peak", "MB", 0, plot="memory"),
    ],
    "What the service adds to `whisper_full`, fixture": [
        Row("overhead: round trip less compute", "round trip less the engine's time", "ms", 1),
        Row("overhead: decoding", "of it reading the file into samples", "ms", 1),
        Row("overhead: waiting", "of it waiting for an engine", "ms", 1),
        Row("overhead: round trip less whisper_full", "round trip less `whisper_full` by itself", "ms", 1),
    ],
}

GOALS = [
    Goal("encode, 30 s window", "small: encode", OURS, "faster-whisper", 0.6),
    Goal("encode, AVX2 only", "small: encode", "ours, AVX2", "upstream, AVX2", 0.35),
    Goal("encode, VNNI and no AMX", "small: encode", "ours, VNNI", "faster-whisper, VNNI", 0.6),
    Goal("a token", "small: token", OURS, "faster-whisper", 0.35),
    Goal("a token, VNNI and no AMX", "small: token", "ours, VNNI", "faster-whisper, VNNI", 0.35),
    Goal("8 clients, 11 s clips a minute", "small: 8 clients", OURS, "whisper-server", 3, at_least=True),
    Goal("memory of a thread beyond upstream's, MB", "small: memory, a thread beyond upstream", OURS, "", 16),
    Goal("overhead of the service, ms", "overhead: round trip less whisper_full", OURS, "", 10),
]

CONTESTANTS = {
    "ours": "this project's package or service, the CPU library that this processor takes",
    "ours, VNNI": "the same package's library for VNNI without AMX, as a Xeon of the second generation takes it",
    "ours, AVX2": "the same package's baseline library, as on a processor without AVX-512",
    "ours, audio_ctx auto": "the service with `WHISPER_AUDIO_CTX=auto`: of 11 s the encoder sees 13 and not 30",
    "ours, 2 engines": "the service with 2 engines of 1 thread instead of 1 of 2",
    "upstream": "whisper.cpp of the same source and CPU options without our patches; for memory in our service",
    "upstream, VNNI": "the same without AMX",
    "upstream, AVX2": "its plain AVX2 build: where this project started; for requests in our service",
    "whisper-cli": "the service with `WHISPER_ADAPTER=cli`: the package's own whisper-cli, patches and all, is started "
    "for each request",
    "whisper-server": "whisper.cpp's own server, same source and CPU options, without our patches",
    "faster-whisper": "faster-whisper with int8 weights (CTranslate2), behind Python's `http.server` where it is asked",
    "faster-whisper, VNNI": "the same without AMX",
    "float32 products alone": "floor: the encoder's matrix products in float32, OpenBLAS",
    "int8 products alone": "floor: those with weights in int8, ONNX Runtime's MatMulInteger",
    "reading the weights alone": "floor: the q5_1 weights of a token at the speed at which this memory is read",
}

NOTES = """\
What is compared and what is not:

* All have the same random weights of the model's true dimensions, float16 before each quantizes them its own way
  (q5_1 here, int8 there), and say the same 25 words whatever they hear: times are true, texts mean nothing. How well
  they hear, and how many tokens real speech takes, cannot be compared with such weights. What q5_1 costs in words is
  measured on the fixtures below.
* All are greedy, with the language given, with timestamps, on 2 threads unless a row or a name says otherwise. A
  *token, chosen* is what passes from one token to the next inside `whisper_full`: the decoder with its caches, the
  logits of 51,865 words and the choice. faster-whisper's is the difference of 34 tokens and 2 in CTranslate2's
  `generate`, which chooses as well; its key and value caches are as long. `whisper_decode` alone leaves the choice out
  and exists for whisper.cpp only; faster-whisper has its whole token there.
* *Later request* and *clients* go over HTTP with 16 kHz WAV on the loopback. Clients send one clip after the other; the
  rate is taken between the first answer and the last, so neither start nor end counts.
* *3 s behind a file of 10 minutes*: the clip comes half a second after the file. whisper-server is asked once, since it
  answers only after the file.
* Memory is the summed PSS of all processes (pages that n share count 1/n each), with as many requests at once as there
  are engines, each of 1 thread unless the row says otherwise: whisper-server once for each, faster-whisper with
  `num_workers`. Three rounds; two and four of whisper-server once, since they take longest. 8 threads may be more than
  there are cores, which makes them slower and no smaller.
* A floor is the fastest of three in each round: what the machine can do, not what it does on average.
* Ratios are medians of the ratios within each round, the contestants taking turns. One that was measured in fewer
  rounds than ours has no such pairs: `~` stands before the ratio of the medians. The spread is lowest to highest.

Who is not in every row, and why:

* *whisper-cli* loads the model for each request; its *start* is that of the service in front of it, which loads none.
  With 32 clients a process for each request has no more to show than with 8; behind the long file it would wait as
  *ours* does; its memory stands beside ours in `make compare`.
* *upstream, AVX2* would make the loads and the long file minutes longer; of what is without our patches,
  *whisper-server* is there. Its memory is *upstream*'s.
* *upstream* has the libraries that *whisper-server* runs on, which stands for them in the requests. In memory it shows
  what our patches take.
* *ours, audio_ctx auto* is there for one request of 11 s; longer audio it computes as *ours*.
* `medium` has ours, faster-whisper and where this project started, that once, since a round takes most of a minute;
  `small` shows the rest.
* The overhead of the service has nobody to be compared with. It is measured with the fixture's network, whose own
  computing is too short to hide it.
"""


def write(results: Results, folder: Path) -> None:
    """Write RESULTS.md and plots/ into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    plots = folder / "plots"
    plots.mkdir(exist_ok=True)
    rows = [row for section in SECTIONS.values() for row in section]
    for row in rows:
        if row.plot and results.figures(row.figure):
            (plots / f"{row.plot}.svg").write_text(plot(row, results), encoding="utf-8")
    (folder / "RESULTS.md").write_text("\n".join(lines(results)) + "\n", encoding="utf-8")


def lines(results: Results) -> Iterator[str]:
    """Yield the lines of RESULTS.md."""
    yield "# How fast it is"
    yield ""
    yield "Written by `make bench`; every round's figures are in [results.json](results.json)."
    yield ""
    yield "| goal | limit | measured | |"
    yield "|---|---|---|---|"
    yield from (goal_line(goal, results) for goal in GOALS)
    for title, rows in SECTIONS.items():
        measured = [row for row in rows if results.figures(row.figure)]
        if not measured:
            continue
        yield ""
        yield f"## {title}"
        yield ""
        yield "| | | median | lowest–highest | ours ÷ it |"
        yield "|---|---|---|---|---|"
        for row in measured:
            yield from figure_lines(row, results)
    notes = results.notes()
    yield ""
    yield "## Who is who"
    yield ""
    yield "| | |"
    yield "|---|---|"
    for name, meaning in CONTESTANTS.items():
        variant = notes.get(f"variant of {name}")
        yield f"| {name} | {meaning}{f' ({variant})' if variant else ''} |"
    yield ""
    yield NOTES
    words = packages.FOLDER / "wer.md"
    if words.exists():
        yield "## What quantizing and `WHISPER_AUDIO_CTX=auto` cost in words, on the fixtures"
        yield ""
        yield words.read_text(encoding="utf-8").strip()
        yield ""
    yield "## Measured on"
    yield ""
    yield "| section | commit | run begun | measured in | machine and command |"
    yield "|---|---|---|---|---|"
    for name, section in results.sections.items():
        # What was measured before these two were kept has neither.
        begun, took = section.get("run", ""), duration(section["seconds"]) if "seconds" in section else ""
        yield f"| {name} | {section['commit']} | {begun} | {took} | {section['origin']} |"
    runs = {section.get("run") for section in results.sections.values()}
    if len(runs) == 1 and None not in runs and len(results.sections) > 1:
        whole = sum(section["seconds"] for section in results.sections.values())
        yield f"| all in one run | | {runs.pop()} | {duration(whole)} | |"


def goal_line(goal: Goal, results: Results) -> str:
    """Return a goal's row."""
    if goal.other:
        found = results.ratio(goal.figure, goal.contestant, goal.other)
    else:
        values = results.figures(goal.figure).get(goal.contestant)
        found = statistics.median(values) if values else None
    sign, factor = ("≥" if goal.at_least else "≤"), (f" × {goal.other}" if goal.other else "")
    if found is None:
        return f"| {goal.title} | {sign} {goal.limit:g}{factor} | not measured | |"
    met = found >= goal.limit if goal.at_least else found <= goal.limit
    return f"| {goal.title} | {sign} {goal.limit:g}{factor} | {found:.2f} | {'met' if met else '**missed**'} |"


def figure_lines(row: Row, results: Results) -> Iterator[str]:
    """Yield one line for each contestant that has the figure."""
    title = row.title
    for name, values in results.figures(row.figure).items():
        spread = f"{min(values):.{row.digits}f}–{max(values):.{row.digits}f}" if len(values) > 1 else "once"
        cells = [title, name, f"{statistics.median(values):.{row.digits}f} {row.unit}".strip(), spread]
        yield f"| {' | '.join(cells)} | {ratio_cell(row, name, results)} |"
        title = ""


def ratio_cell(row: Row, name: str, results: Results) -> str:
    """Return ours over a contestant's, marked where it is not taken round by round."""
    ratio = results.ratio(row.figure, OURS, name) if row.compared and name != OURS else None
    if ratio is None:
        return ""
    return f"{'' if results.paired(row.figure, OURS, name) else '~'}{ratio:.2f}"


def plot(row: Row, results: Results) -> str:
    """Return an SVG of horizontal bars, readable on light and on dark; floors are hatched less."""
    found = {name: statistics.median(values) for name, values in results.figures(row.figure).items()}
    width, left, bar, gap, top = 720, 215, 22, 10, 44
    scale = (width - left - 90) / max(found.values())
    height = top + len(found) * (bar + gap) + 6
    shapes = []
    for number, (name, value) in enumerate(found.items()):
        y = top + number * (bar + gap)
        kind = "ours" if name.startswith("ours") else "floor" if name.endswith("alone") else "other"
        shapes.append(f'<text x="{left - 10}" y="{y + 16}" text-anchor="end">{escape(name)}</text>')
        shapes.append(
            f'<rect class="{kind}" x="{left}" y="{y}" width="{max(1, value * scale):.1f}" height="{bar}" rx="3"/>'
        )
        label = f"{value:.{row.digits}f} {row.unit}".strip()
        shapes.append(f'<text x="{left + value * scale + 8:.1f}" y="{y + 16}">{label}</text>')
    more = "more" if not row.unit else "less"
    title = escape(row.title.replace("`", ""))
    body = "\n".join(shapes)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">
<style>
text {{ font: 14px system-ui, sans-serif; fill: #1f2328 }}
.title {{ font-weight: 600 }}
.ours {{ fill: #1a7f37 }}
.other {{ fill: #8c959f }}
.floor {{ fill: none; stroke: #8c959f; stroke-dasharray: 4 3 }}
@media (prefers-color-scheme: dark) {{
  text {{ fill: #e6edf3 }}
  .ours {{ fill: #3fb950 }}
  .other {{ fill: #6e7681 }}
}}
</style>
<text class="title" x="{left}" y="24">{title}, small ({more} is better)</text>
{body}
</svg>
"""
