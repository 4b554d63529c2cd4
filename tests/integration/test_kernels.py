"""Our kernels against ggml's reference path and float64: odd shapes, 1 to 16 threads, sanitizers.

Everything is compiled and run in the builder's own image, so the machine needs no compiler; check.cpp says what holds.
states.cpp looks at the changes to whisper.cpp itself, on the fixtures' model.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from paths import ROOT
from playbook import BUILD, one_at_a_time, run_build

IMAGE = "whisper-xeon-test-builder"
UNPACK = "xz -dc /fixtures/models/ggml-fixture-small.bin.xz >/f16.bin"
QUANTIZE = "/built/whisper-quantize /f16.bin /model.bin"

# name: options of ggml for it (none: this one), CPU flags that it takes to run
PROCESSORS = {
    "this": ("", set()),
    "avx2": ("-DGGML_AVX2=ON", {"avx2"}),
    "skylakex": ("-DGGML_AVX512=ON", {"avx512f", "avx512bw"}),
    "cascadelake": ("-DGGML_AVX512=ON -DGGML_AVX512_VNNI=ON", {"avx512f", "avx512bw", "avx512_vnni"}),
}


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    """Run a shell command in the builder's image and return its output.

    /built is the build of the package, /hooked its source, /kernels this repository's tests/kernels, /fixtures its
    tests/fixtures. What one command compiles, the next one finds: most of ggml is the same for every processor.
    """
    folder = tmp_path_factory.mktemp("kernels")
    run_build(folder)
    build = ["docker", "build", "--target=builder", f"--tag={IMAGE}", "."]
    with one_at_a_time():
        subprocess.run(build, cwd=folder / "work" / "context", check=True, capture_output=True)

    def run(command: str) -> str:
        options = [
            "--rm",
            "--env=OMP_WAIT_POLICY=passive",
            "--env=CCACHE_DIR=/ccache",
            f"--volume={BUILD}/ccache:/ccache",
        ]
        options += [f"--volume={ROOT}/tests/{name}:/{name}:ro" for name in ("kernels", "fixtures")]
        hook = (
            "cp -R /src /hooked; cp -R /builder/kernels /hooked/ggml/src/ggml-cpu/xeon; "
            "for hook in /builder/kernels/hooks/*.patch; do patch -sd /hooked -p1 <$hook; done"
        )
        result = subprocess.run(
            ["docker", "run", *options, IMAGE, "bash", "-ec", f"{hook}\n{command}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1800,
        )
        assert result.returncode == 0, result.stdout[-20000:]
        return result.stdout

    yield run
    subprocess.run(["docker", "image", "rm", IMAGE], capture_output=True)


@pytest.fixture(scope="module")
def variants(builder) -> dict[str, dict]:
    """The CPU libraries of the package by their names."""
    return {each["name"]: each for each in json.loads(builder("cat /built/variants.json"))}


def cpu_flags() -> set[str]:
    text = Path("/proc/cpuinfo").read_text("utf-8")
    return set(re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)[1].split())


def cases(output: str) -> int:
    assert "FAILED" not in output
    return output.count(": ok\n")


def require(flags: Iterable[str]) -> None:
    """Skip a test that needs another processor than this one."""
    missing = set(flags) - cpu_flags()
    if missing:
        pytest.skip(f"this processor lacks {', '.join(sorted(missing))}")


@pytest.mark.parametrize("variant", ["baseline", "skylakex", "cascadelake", "icelake", "cooperlake", "sapphirerapids"])
def test_kernels_of_the_package_agree_with_the_reference_on_1_to_16_threads(builder, variants, variant):
    require(variants[variant]["cpu_flags"])
    folder = Path("/built", variants[variant]["path"]).parent
    compiled = "c++ -O1 -std=c++17 -I /hooked/ggml/include /kernels/check.cpp /built/libggml-{cpu,base}.so.0 -o /check"
    assert cases(builder(f"{compiled}; LD_LIBRARY_PATH={folder}:/built /check 16")) > 40


# Of the numbers above 4 ThreadSanitizer gets 16 alone: all of them would take it minutes on few cores.
@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize(("sanitizer", "threads"), [("ADDRESS", "16"), ("THREAD", "16 12")])
def test_kernels_are_clean_under_a_sanitizer(builder, sanitizer, threads, processor):
    options, flags = PROCESSORS[processor]
    require(flags)
    compiled = f"/kernels/sanitize.sh /hooked /build {sanitizer} check {options}"
    assert cases(builder(f"{compiled}; /build/check {threads}")) > 40


def test_without_its_option_a_kernel_leaves_its_work_to_ggml(builder):
    # check.cpp knows no GELU but ours; on several threads ggml's attention has other bits than on one.
    compiled = "/kernels/sanitize.sh /hooked /build ADDRESS check"
    output = builder(f"KERNELS=gelu {compiled}; /build/check 1")
    assert cases(output) > 40
    products = re.findall(r"^q5_1 .* between them (\S+):", output, re.MULTILINE)
    assert {float(apart) for apart in products} == {0.0}


@pytest.mark.parametrize("variant", ["baseline", "sapphirerapids"])
def test_weights_stay_in_the_layout_that_the_kernels_take(builder, variants, variant):
    require(variants[variant]["cpu_flags"])
    folder = Path("/built", variants[variant]["path"]).parent
    hear = f"LD_LIBRARY_PATH={folder}:/built /built/whisper-cli -m /model.bin -f /fixtures/recordings/en-00.wav"
    output = builder(f"{UNPACK}; for type in q4_0 q5_0 q5_1 q8_0; do {QUANTIZE} $type; {hear}; done")
    assert re.findall(r"(\S+) total size =", output) == ["CPU"] * 4


def test_a_used_state_says_what_a_new_one_says_and_both_are_clean_under_sanitizers(builder):
    compiled = "/kernels/sanitize.sh /hooked /build ADDRESS states"
    recordings = "/fixtures/recordings/en-00.wav /fixtures/recordings/noise.wav"
    output = builder(f"{compiled}; {UNPACK}; {QUANTIZE} q5_1 >/dev/null; /build/states /model.bin {recordings}")
    assert len(re.findall(": ok\nstatus 0,", output)) == 18
    assert output.count(", together: ok") == 18
    assert output.count("words with and without flash attention: ok") == 2
    assert "heads that are not there: ok" in output
