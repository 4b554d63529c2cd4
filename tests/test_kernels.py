"""The patched kernels against ggml's reference path and float64: odd shapes, 1 to 16 threads, sanitizers.

Everything is compiled and run in the builder's own image, so the machine needs no compiler; check.cpp says what holds.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from playbook import ROOT, one_at_a_time, run_playbook

IMAGE = "whisper-xeon-test-builder"

# name: options of ggml for it (none: this one), CPU flags that it takes to run
PROCESSORS = {
    "this": ("", set()),
    "avx2": ("-DGGML_AVX2=ON", {"avx2"}),
    "cascadelake": ("-DGGML_AVX512=ON -DGGML_AVX512_VNNI=ON", {"avx512f", "avx512bw", "avx512_vnni"}),
}


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    """Run a shell command in the builder's image and return its output.

    /built is the build of the baseline, /patched its source, /kernels this repository's tests/kernels.
    """
    folder = tmp_path_factory.mktemp("kernels")
    variables = {
        "artifact_build_dist_dir": str(folder / "dist"),
        "artifact_build_context_dir": str(folder / "work" / "context"),
    }
    build = ["docker", "build", "--target=builder", f"--tag={IMAGE}", "."]
    with one_at_a_time():
        run_playbook("build.yml", "--skip-tags", "publish", "-e", json.dumps(variables))
        subprocess.run(build, cwd=folder / "work" / "context", check=True, capture_output=True)

    def run(command: str) -> str:
        options = ["--rm", "--env=OMP_WAIT_POLICY=passive", f"--volume={ROOT}/tests/kernels:/kernels:ro"]
        apply = "cp -R /src /patched; for patch in /builder/patches/*.patch; do patch -sd /patched -p1 <$patch; done"
        result = subprocess.run(
            ["docker", "run", *options, IMAGE, "bash", "-ec", f"{apply}\n{command}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1800,
        )
        assert result.returncode == 0, result.stdout[-20000:]
        return result.stdout

    yield run
    subprocess.run(["docker", "image", "rm", IMAGE], capture_output=True)


def cpu_flags() -> set[str]:
    text = Path("/proc/cpuinfo").read_text("utf-8")
    return set(re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)[1].split())


def cases(output: str) -> int:
    assert "FAILED" not in output
    return output.count(": ok\n")


def test_baseline_kernels_agree_with_the_reference_on_1_to_16_threads(builder):
    libraries = "/built/libggml-cpu.so.0 /built/libggml-base.so.0"
    compiled = f"c++ -O1 -std=c++17 -I /patched/ggml/include /kernels/check.cpp {libraries} -o /check"
    assert cases(builder(f"{compiled}; LD_LIBRARY_PATH=/built /check 16")) > 40


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize(("sanitizer", "threads"), [("ADDRESS", 16), ("THREAD", 4)])
def test_kernels_are_clean_under_a_sanitizer(builder, sanitizer, threads, processor):
    options, flags = PROCESSORS[processor]
    missing = flags - cpu_flags()
    if missing:
        pytest.skip(f"this processor lacks {', '.join(sorted(missing))}")
    assert cases(builder(f"/kernels/sanitize.sh /patched /build {sanitizer} {threads} {options}")) > 40


def test_each_patch_is_a_default_of_the_role():
    defaults = (ROOT / "roles" / "artifact_build" / "defaults" / "main.yml").read_text("utf-8")
    patches = [path.stem for path in sorted((ROOT / "docker" / "builder" / "patches").glob("*.patch"))]
    assert patches
    assert yaml.safe_load(defaults)["artifact_build_patches"] == patches
