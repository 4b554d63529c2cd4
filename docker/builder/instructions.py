"""Which processor a binary needs, read from its instructions: the assembler knows what each of them takes.

Every instruction is disassembled and given to the assembler again, which is told what the processor has. What it
refuses, that processor would refuse too.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterable

# Where the assembler has another word than /proc/cpuinfo.
_EXTENSIONS = {"abm": "lzcnt", "bmi1": "bmi", "sse4_2": "sse4.2"}
# Marks where indirect branches may land; every processor without the feature takes it for a no-op.
_ALWAYS = ("ibt",)
# Padding is of no interest and not always written in a way that can be read back.
_PADDING = re.compile(r"(data16 |cs )*nop[wl]?\b")
_BRANCH = re.compile(r"^((?:bnd |notrack )?(?:j\w+|call|xbegin|loop\w*)) +[0-9a-f]+( <.*>)?$")
_EVEX = "62"


def foreign_instructions(binary: os.PathLike | str, cpu_flags: Iterable[str]) -> list[str]:
    """Return the instructions in `binary`, each once, that a processor with these flags of /proc/cpuinfo lacks."""
    instructions = _disassembled(binary)
    extensions = [_EXTENSIONS.get(flag, flag) for flag in cpu_flags]
    with tempfile.NamedTemporaryFile("w", suffix=".s", encoding="ascii") as source:
        source.write("".join(f"{instruction}\n" for instruction in instructions))
        source.flush()
        march = "+".join(["generic64", *extensions, *_ALWAYS])
        refused = _run("as", f"-march={march}", "-o", os.devnull, source.name, check=False).stderr
    numbers = sorted({int(number) for number in re.findall(r"^\S+\.s:(\d+): Error: ", refused, re.MULTILINE)})
    if not numbers and "rror" in refused:
        raise RuntimeError(f"as could not read what {binary} is made of: {refused.strip()}")
    return [instructions[number - 1] for number in numbers]


def _disassembled(binary: os.PathLike | str) -> list[str]:
    found = {}
    for line in _run("objdump", "--disassemble", "--wide", str(binary)).stdout.splitlines():
        fields = line.split("\t")
        if len(fields) < 3 or _PADDING.match(fields[2]):
            continue
        text = _BRANCH.sub(r"\1 .", fields[2].partition("#")[0].strip())
        # Without the word, the assembler would read the shorter form, which asks for less.
        evex = fields[1].split()[0] == _EVEX and not text.startswith("{")
        found["{evex} " + text if evex else text] = None
    return list(found)


def _run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=check, env={**os.environ, "LC_ALL": "C"})
