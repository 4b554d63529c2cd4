"""Turns the figures of `make bench` into RESULTS.md and plots; measures nothing.

`python -m whisper_bench.report` writes those of bench/ again from results.json, for example after a change of a text.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

from whisper_bench.locations import BENCH_DIR, WORK_DIR
from whisper_bench.provenance import duration
from whisper_bench.results import Results

OURS = "ours"
WORD_ERRORS = "## Word error rates of the quantizations and of `WHISPER_AUDIO_CTX=auto`, on the fixtures"


@dataclass(frozen=True)
class Row:
    """One figure: its key in results.json, what it is, and how it is shown."""

    figure: str
    title: str
    unit: str
    digits: int = 2
    plot: str = ""  # name of the plot, if it has one
    compared: bool = True  # by ratios, which say nothing about a figure that is close to zero


@dataclass(frozen=True)
class Goal:
    """What one figure of one system must be, as a multiple of a baseline's, or by itself."""

    title: str
    figure: str
    system: str
    baseline: str  # empty: the figure by itself
    limit: float
    at_least: bool = False


TABLES = {
    "The library alone, `small`": [
        Row("small: encode", "encode a window of 30 s", "s", plot="encode"),
        Row("small: token", "one token, including the choice", "ms", 1, plot="token"),
        Row("small: decode", "one token, `whisper_decode` only", "ms", 1),
        Row("small: clip", "`whisper_full` on 11 s", "s"),
        Row("small: reading", "reading memory, two threads", "GB/s", 1),
    ],
    "The library alone, `medium`": [
        Row("medium: encode", "encode a window of 30 s", "s"),
        Row("medium: token", "one token, including the choice", "ms", 1),
        Row("medium: decode", "one token, `whisper_decode` only", "ms", 1),
        Row("medium: clip", "`whisper_full` on 11 s", "s"),
    ],
    "Requests, `small`": [
        Row("small: start", "start until ready", "s"),
        Row("small: first", "first request of 11 s", "s"),
        Row("small: later", "later request of 11 s", "s", plot="request"),
        Row("small: 8 clients", "8 clients, clips of 11 s per minute", "", 1, plot="clients"),
        Row("small: 32 clients", "32 clients, clips of 11 s per minute", "", 1),
        Row("small: behind", "3 s behind a file of 10 minutes", "s"),
    ],
    "Memory, `small`": [
        Row("small: memory, 1", "peak of 1 engine", "MB", 0),
        Row("small: memory, 1, 8 threads", "peak of 1 engine with 8 threads", "MB", 0),
        Row("small: memory per thread", "of which each of the 7 further threads", "MB", 1, compared=False),
        Row("small: memory per thread beyond upstream", "of which beyond upstream", "MB", 1),
        Row("small: memory, 2", "peak of 2 engines", "MB", 0),
        Row("small: memory, 4", "peak of 4 engines", "MB", 0, plot="memory"),
    ],
    "What the service adds to `whisper_full`, fixture": [
        Row("overhead: round trip less compute", "round trip less the engine's time", "ms", 1),
        Row("overhead: decoding", "of which decoding the audio file", "ms", 1),
        Row("overhead: waiting", "of which waiting for an engine", "ms", 1),
        Row("overhead: round trip less whisper_full", "round trip less `whisper_full` by itself", "ms", 1),
    ],
}

GOALS = [
    Goal("encode, 30 s window", "small: encode", OURS, "faster-whisper", 0.6),
    Goal("encode, AVX2 only", "small: encode", "ours, AVX2", "upstream, AVX2", 0.35),
    Goal("encode, VNNI without AMX", "small: encode", "ours, VNNI", "faster-whisper, VNNI", 0.6),
    Goal("one token", "small: token", OURS, "faster-whisper", 0.35),
    Goal("one token, VNNI without AMX", "small: token", "ours, VNNI", "faster-whisper, VNNI", 0.35),
    Goal("8 clients, clips of 11 s per minute", "small: 8 clients", OURS, "whisper-server", 3, at_least=True),
    Goal("memory per thread beyond upstream, MB", "small: memory per thread beyond upstream", OURS, "", 16),
    Goal("overhead of the service, ms", "overhead: round trip less whisper_full", OURS, "", 10),
]

# In the order in which tables and plots show them.
SYSTEMS = {
    "ours": "this project's package or service, with the CPU library for this processor",
    "ours, VNNI": "the same package's library for VNNI without AMX, which second-generation Xeons use",
    "ours, AVX2": "the same package's baseline library, for processors without AVX-512",
    "ours, audio_ctx full": "the service with `WHISPER_AUDIO_CTX=full`: for 11 s the encoder sees 30 s, not 15",
    "ours, 2 engines": "the service with 2 engines of 1 thread instead of 1 engine of 2",
    "upstream": "whisper.cpp of the same source and CPU options without our kernels; for memory, in our service",
    "upstream, VNNI": "the same without AMX",
    "upstream, AVX2": "its plain AVX2 build, where this project started; for requests, in our service",
    "whisper-cli": "the service with `WHISPER_ADAPTER=cli`, which starts the package's own whisper-cli (with our "
    "kernels) for each request",
    "whisper-server": "whisper.cpp's own server, same source and CPU options, without our kernels",
    "faster-whisper": "faster-whisper with int8 weights (CTranslate2); for requests, behind Python's `http.server`",
    "faster-whisper, VNNI": "the same without AMX",
    "roofline, float32 products": "only the encoder's matrix products, in float32 with OpenBLAS",
    "roofline, int8 products": "only those with weights, in int8 with ONNX Runtime's MatMulInteger",
    "roofline, reading the weights": "only reading the q5_1 weights that one token needs, at this memory's bandwidth",
}

NOTES = """\
What is compared and what is not:

* All have the same random weights with the real model's dimensions, in float16 before each quantizes them in its own
  way (q5_1 here, int8 there), and produce the same 25 words for any audio: times are real, texts mean nothing. Such
  weights cannot show how well a system transcribes, nor how many tokens real speech takes. The word error rate of q5_1
  is measured on the fixtures below.
* All decode greedily, with the language given and with timestamps, on 2 threads unless a row or a name says otherwise.
  *One token, including the choice* is the time from one token to the next inside `whisper_full`: the decoder with its
  caches, the logits of 51,865 words and the choice. For faster-whisper it is the difference between 34 tokens and 2 in
  CTranslate2's `generate`, which chooses as well; its key and value caches are as long. `whisper_decode` only leaves
  the choice out and exists for whisper.cpp alone; for faster-whisper the whole token is shown there.
* *Later request* and *clients* use HTTP with 16 kHz WAV on the loopback interface. A client sends one clip after the
  other; the rate is taken between the first answer and the last, so neither start nor end counts.
* *3 s behind a file of 10 minutes*: the clip arrives half a second after the file. whisper-server is measured once,
  since it answers only after the file.
* Memory is the summed PSS of all processes (pages shared by n count 1/n each), with as many requests at once as there
  are engines, each with 1 thread unless the row says otherwise: whisper-server with one process per engine,
  faster-whisper with `num_workers`. Three rounds; whisper-server with two and four engines once, since it takes
  longest. 8 threads may be more than there are cores, which makes them slower but not smaller.
* A roofline is the fastest of three calls in each round: what the machine can do, not what it does on average.
* Ratios are medians of the ratios within each round; rounds are interleaved. A system that was measured in fewer rounds
  than ours has no such pairs: its ratio is that of the medians, marked `~`. The spread is lowest to highest.

Which systems are left out where, and why:

* *whisper-cli* loads the model for each request; its *start* is that of the service in front of it, which does not load
  it. One process per request behaves with 32 clients as it does with 8; behind the long file it would wait as *ours*
  does; `make compare` shows its memory beside ours.
* *upstream, AVX2* would add minutes to the loads and to the long file; *whisper-server* shows them without our kernels.
  Its memory is that of *upstream*.
* *upstream* has the libraries that *whisper-server* runs on, which stands for them in the requests. In memory it shows
  how much our kernels take.
* *ours, audio_ctx full* is measured for one request of 11 s; it computes longer audio as *ours* does.
* `medium` has ours, faster-whisper and the build where this project started, the latter once, since a round takes most
  of a minute; `small` shows the rest.
* There is no baseline for the overhead of the service. It is measured with the fixture's network, which computes too
  briefly to hide it.
"""


def write(results: Results, directory: Path) -> None:
    """Write RESULTS.md and plots/ to `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    plots = directory / "plots"
    plots.mkdir(exist_ok=True)
    rows = [row for section in TABLES.values() for row in section]
    for row in rows:
        if row.plot and figures(row, results):
            (plots / f"{row.plot}.svg").write_text(plot(row, results), encoding="utf-8")
    text = "\n".join(lines(results, word_errors(directory))) + "\n"
    (directory / "RESULTS.md").write_text(text, encoding="utf-8")


def word_errors(directory: Path) -> str:
    """Return what `whisper_bench.wer` measured here; if it did not, what RESULTS.md in `directory` has of it."""
    measured, written = WORK_DIR / "wer.md", directory / "RESULTS.md"
    if measured.exists():
        return measured.read_text(encoding="utf-8").strip()
    text = written.read_text(encoding="utf-8") if written.exists() else ""
    return text.partition(f"{WORD_ERRORS}\n\n")[2].partition("\n## ")[0].strip()


def lines(results: Results, words: str) -> Iterator[str]:
    """Yield the lines of RESULTS.md; `words` is the text below `WORD_ERRORS`, which is left out if there is none."""
    yield "# How fast it is"
    yield ""
    yield "Written by `make bench`; every round's figures are in [results.json](results.json)."
    yield ""
    yield "| goal | limit | measured | |"
    yield "|---|---|---|---|"
    yield from (goal_line(goal, results) for goal in GOALS)
    for title, rows in TABLES.items():
        measured = [row for row in rows if figures(row, results)]
        if not measured:
            continue
        yield ""
        yield f"## {title}"
        yield ""
        yield "| | | median | lowest–highest | ours ÷ this |"
        yield "|---|---|---|---|---|"
        for row in measured:
            yield from figure_lines(row, results)
    notes = results.notes()
    yield ""
    yield "## Systems"
    yield ""
    yield "| | |"
    yield "|---|---|"
    for name, meaning in SYSTEMS.items():
        variant = notes.get(f"variant of {name}")
        yield f"| {name} | {meaning}{f' ({variant})' if variant else ''} |"
    yield ""
    yield NOTES
    if words:
        yield WORD_ERRORS
        yield ""
        yield words
        yield ""
    yield "## Provenance"
    yield ""
    yield "| section | commit | start of the run | duration | machine and command |"
    yield "|---|---|---|---|---|"
    for name, section in results.sections.items():
        # Sections that were measured before these two were kept have neither.
        begun, took = section.get("run", ""), duration(section["seconds"]) if "seconds" in section else ""
        yield f"| {name} | {section['commit']} | {begun} | {took} | {section['origin']} |"
    runs = {section.get("run") for section in results.sections.values()}
    if len(runs) == 1 and None not in runs and len(results.sections) > 1:
        whole = sum(section["seconds"] for section in results.sections.values())
        yield f"| all in one run | | {runs.pop()} | {duration(whole)} | |"


def goal_line(goal: Goal, results: Results) -> str:
    """Return a goal's row."""
    if goal.baseline:
        found = results.ratio(goal.figure, goal.system, goal.baseline)
    else:
        values = results.figures(goal.figure).get(goal.system)
        found = statistics.median(values) if values else None
    sign, factor = ("≥" if goal.at_least else "≤"), (f" × {goal.baseline}" if goal.baseline else "")
    if found is None:
        return f"| {goal.title} | {sign} {goal.limit:g}{factor} | not measured | |"
    met = found >= goal.limit if goal.at_least else found <= goal.limit
    return f"| {goal.title} | {sign} {goal.limit:g}{factor} | {found:.2f} | {'met' if met else '**missed**'} |"


def figures(row: Row, results: Results) -> dict[str, list[float]]:
    """Return the values of a row by system, in the order of `SYSTEMS`."""
    order = list(SYSTEMS)
    return dict(sorted(results.figures(row.figure).items(), key=lambda item: order.index(item[0])))


def figure_lines(row: Row, results: Results) -> Iterator[str]:
    """Yield one line for each system that has the figure."""
    title = row.title
    for name, values in figures(row, results).items():
        spread = f"{min(values):.{row.digits}f}–{max(values):.{row.digits}f}" if len(values) > 1 else "once"
        cells = [title, name, f"{statistics.median(values):.{row.digits}f} {row.unit}".strip(), spread]
        yield f"| {' | '.join(cells)} | {ratio_cell(row, name, results)} |"
        title = ""


def ratio_cell(row: Row, name: str, results: Results) -> str:
    """Return ours over a system's, marked if it is not taken round by round."""
    ratio = results.ratio(row.figure, OURS, name) if row.compared and name != OURS else None
    if ratio is None:
        return ""
    return f"{'' if results.paired(row.figure, OURS, name) else '~'}{ratio:.2f}"


def plot(row: Row, results: Results) -> str:
    """Return an SVG of horizontal bars, readable on light and on dark; a roofline is an outline."""
    found = {name: statistics.median(values) for name, values in figures(row, results).items()}
    width, left, bar, gap, top = 720, 225, 22, 10, 44
    scale = (width - left - 90) / max(found.values())
    height = top + len(found) * (bar + gap) + 6
    shapes = []
    for number, (name, value) in enumerate(found.items()):
        y = top + number * (bar + gap)
        kind = next((kind for kind in ("ours", "roofline") if name.startswith(kind)), "baseline")
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
.baseline {{ fill: #8c959f }}
.roofline {{ fill: none; stroke: #8c959f; stroke-dasharray: 4 3 }}
@media (prefers-color-scheme: dark) {{
  text {{ fill: #e6edf3 }}
  .ours {{ fill: #3fb950 }}
  .baseline {{ fill: #6e7681 }}
}}
</style>
<text class="title" x="{left}" y="24">{title}, small ({more} is better)</text>
{body}
</svg>
"""


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    write(Results(BENCH_DIR / "results.json"), BENCH_DIR)
