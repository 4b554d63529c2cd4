"""The CPU libraries of a package: which one a processor gets, what it takes, and that all hear the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import organize
from instructions import foreign_instructions
from paths import APP, FIXTURES, RECORDINGS, ROOT
from running_service import ADAPTERS, run_cli, running_service, submit, wait_for
from whisper_package.errors import VariantError
from whisper_package.package import Package
from whisper_package.variants import choose_variant, cpu_flags

CPUINFO = FIXTURES / "cpuinfo"

CHOSEN = {
    "haswell": "baseline",
    "broadwell": "baseline",
    "skylake-sp": "skylakex",
    "cascadelake": "cascadelake",
    "cooperlake": "cooperlake",
    "icelake-sp": "icelake",
    "sapphirerapids": "sapphirerapids",
    "emeraldrapids": "sapphirerapids",
    "graniterapids": "sapphirerapids",
    "sierraforest": "baseline",
    "epyc-naples": "baseline",
    "epyc-rome": "baseline",
    "epyc-milan": "baseline",
    "epyc-genoa": "cooperlake",
    "epyc-turin": "cooperlake",
}
NAMES = ["sapphirerapids", "cooperlake", "icelake", "cascadelake", "skylakex", "baseline"]
# What each library really makes use of that the ones after it may not.
BEYOND = {
    "sapphirerapids": ("cooperlake", "icelake", "cascadelake", "skylakex", "baseline"),
    "cooperlake": ("cascadelake", "skylakex", "baseline"),
    "icelake": ("skylakex", "baseline"),
    "cascadelake": ("skylakex", "baseline"),
    "skylakex": ("baseline",),
}


def recorded(processor: str) -> frozenset[str]:
    """Flags of a processor that somebody recorded."""
    return cpu_flags(str(CPUINFO / f"{processor}.txt"))


def variants(package: Package) -> dict[str, dict]:
    return {variant["name"]: variant for variant in package.manifest["variants"]}


def runnable(package: Package) -> list[str]:
    """Names of the variants that this machine can run."""
    return [name for name, each in variants(package).items() if cpu_flags().issuperset(each["cpu_flags"])]


# Which one a processor gets.


def test_the_package_has_a_library_for_each_generation_of_xeon_and_the_best_comes_first(small_package):
    assert list(variants(small_package)) == NAMES


def test_a_library_comes_before_all_that_ask_for_less(small_package):
    flags = [set(variant["cpu_flags"]) for variant in small_package.manifest["variants"]]
    for position, later in enumerate(flags):
        assert not any(later > earlier for earlier in flags[:position])


def test_every_recorded_processor_has_its_choice():
    assert {path.stem for path in CPUINFO.glob("*.txt")} == {*CHOSEN, "ivybridge"}


@pytest.mark.parametrize(("processor", "name"), CHOSEN.items())
def test_a_processor_gets_the_library_of_its_generation(small_package, processor, name):
    chosen = choose_variant(small_package, recorded(processor))
    assert (chosen.name, chosen.path) == (name, variants(small_package)[name]["path"])


@pytest.mark.parametrize(
    ("processor", "reason"),
    [
        ("graniterapids", "the best of the package"),
        ("epyc-turin", "the best that this processor runs; sapphirerapids needs amx_bf16, amx_int8, amx_tile"),
        ("icelake-sp", "the best that this processor runs; cooperlake needs avx512_bf16"),
        (
            "epyc-rome",
            "the best that this processor runs; skylakex needs avx512bw, avx512cd, avx512dq, avx512f, avx512vl",
        ),
    ],
)
def test_the_reason_is_what_the_next_better_library_needs(small_package, processor, reason):
    assert choose_variant(small_package, recorded(processor)).reason == reason


def test_a_processor_without_avx2_is_refused_in_one_line(small_package):
    with pytest.raises(VariantError) as caught:
        choose_variant(small_package, recorded("ivybridge"))
    assert str(caught.value) == (
        "this host's processor lacks abm, avx2, bmi1, bmi2, fma, movbe: whisper_small_xeon needs AVX2 (Intel Haswell "
        "or newer); use another host"
    )


# Another one by name.


def test_a_lesser_library_is_taken_when_it_is_asked_for(small_package):
    chosen = choose_variant(small_package, recorded("sapphirerapids"), "cascadelake")
    assert (chosen.name, chosen.reason) == ("cascadelake", "requested")


def test_auto_asks_for_none(small_package):
    assert choose_variant(small_package, recorded("haswell"), "auto").name == "baseline"


def test_a_library_that_the_processor_cannot_run_is_refused_with_what_it_lacks_and_what_would_do(small_package):
    with pytest.raises(VariantError) as caught:
        choose_variant(small_package, recorded("icelake-sp"), "cooperlake")
    assert str(caught.value) == (
        "this host's processor lacks avx512_bf16 for CPU variant 'cooperlake'; it runs icelake, cascadelake, skylakex, "
        "baseline"
    )


def test_an_unknown_name_is_refused_with_those_that_there_are(small_package):
    with pytest.raises(VariantError, match=f"has no CPU variant 'nehalem'; it has {', '.join(NAMES)}$"):
        choose_variant(small_package, recorded("haswell"), "nehalem")


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("action", [(), ("--self-test",)], ids=["serve", "self-test"])
def test_a_service_told_an_unknown_name_ends_with_status_2_and_one_line(artifacts_dir, adapter, action):
    settings = {"WHISPER_ARTIFACTS_DIR": str(artifacts_dir), "WHISPER_ADAPTER": adapter}
    result = run_cli(*action, **settings, WHISPER_CPU_VARIANT="nehalem")
    assert result.returncode == 2
    assert result.stderr == (
        "whisper-xeon: WHISPER_CPU_VARIANT='nehalem' is not allowed: whisper_small_xeon has no CPU variant 'nehalem'; "
        f"it has {', '.join(NAMES)}\n"
    )


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_service_computes_with_the_library_that_it_is_told_and_says_so(artifacts_dir, small_package, adapter):
    name = runnable(small_package)[-2]
    library = small_package.path(variants(small_package)[name]["path"])
    settings = {"WHISPER_ENGINES": "1", "WHISPER_ADAPTER": adapter, "WHISPER_CPU_VARIANT": name}
    with running_service(artifacts_dir, **settings) as service:
        body = service.get("/version").json
        with submit(service, RECORDINGS / "long.wav"):
            mapped = wait_for(lambda: [path for pid in service.worker_pids() for path in cpu_libraries(pid)])
        log = service.log_text
    assert (body["cpu_variant"], body["cpu_variant_reason"]) == (name, "requested")
    assert set(mapped) == {str(library)}
    assert f'"cpu_variant": "{name}", "cpu_variant_reason": "requested"' in log


def cpu_libraries(pid: int) -> set[str]:
    """Return the files of libggml-cpu that a process has in its memory."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text("utf-8")
    except OSError:
        return set()
    return {line.split(maxsplit=5)[5] for line in maps.splitlines() if line.endswith("libggml-cpu.so.0")}


# What it takes.


@pytest.mark.parametrize("name", NAMES)
def test_a_library_has_no_instruction_that_its_flags_do_not_promise(small_package, name):
    variant = variants(small_package)[name]
    assert foreign_instructions(small_package.path(variant["path"]), variant["cpu_flags"]) == []


@pytest.mark.parametrize("file", ["libggml-base.so.0", "libggml.so.0", "libwhisper.so.1", "whisper-cli"])
def test_everything_else_runs_on_the_oldest_processor_that_is_supported(small_package, file):
    flags = variants(small_package)["baseline"]["cpu_flags"]
    assert foreign_instructions(small_package.path(file), flags) == []


@pytest.mark.parametrize(("name", "lesser"), [(name, lesser) for name in BEYOND for lesser in BEYOND[name]])
def test_a_library_is_found_out_by_the_flags_of_a_lesser_one(small_package, name, lesser):
    path = small_package.path(variants(small_package)[name]["path"])
    assert foreign_instructions(path, variants(small_package)[lesser]["cpu_flags"])


@pytest.mark.parametrize(
    ("name", "missing", "instruction"),
    [
        ("sapphirerapids", "amx_bf16", "tdpbf16ps"),
        ("sapphirerapids", "amx_int8", "tdpb"),
        ("cooperlake", "avx512_bf16", "bf16"),
        ("icelake", "avx512_vnni", "vpdpbusd"),
        ("skylakex", "avx512vl", "ymm"),
        ("baseline", "fma", "vfmadd"),
        ("baseline", "f16c", "vcvtph2ps"),
    ],
)
def test_an_instruction_of_a_flag_that_is_not_promised_is_found(small_package, name, missing, instruction):
    variant = variants(small_package)[name]
    flags = [flag for flag in variant["cpu_flags"] if flag != missing]
    found = foreign_instructions(small_package.path(variant["path"]), flags)
    assert any(instruction in each for each in found)


def test_the_builder_refuses_a_library_that_asks_for_more_than_its_flags_say(small_package):
    path = variants(small_package)["skylakex"]["path"]
    flags = variants(small_package)["baseline"]["cpu_flags"]
    with pytest.raises(organize.BuildError, match=rf"{path} has \d+ instructions that a processor with abm .* lacks"):
        organize.check_instructions(small_package.directory, {path: flags})


# All hear the same.


@pytest.fixture(scope="module")
def heard(artifacts_dir):
    """Return what a variant transcribes from every recording, in a process of its own: a process loads one build."""
    code = (
        "import json, sys\n"
        "from recordings import samples\n"
        "from whisper_xeon import WhisperLibraryAdapter\n"
        "options = {'threads': 2, 'audio_ctx': 'full', 'cpu_variant': sys.argv[3]}\n"
        "with WhisperLibraryAdapter(sys.argv[1], sys.argv[2], **options) as whisper:\n"
        "    assert whisper.variant.name == sys.argv[3]\n"
        "    print(json.dumps({name: whisper.transcribe_pcm(samples(name)).text for name in sys.argv[4:]}))\n"
    )

    def run(model: str, name: str, files: list[str]) -> dict[str, str]:
        environment = {**os.environ, "PYTHONPATH": f"{APP}:{ROOT}/tests/support"}
        command = [sys.executable, "-c", code, model, str(artifacts_dir), name, *files]
        return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300).stdout)

    return run


@pytest.mark.parametrize("model", ["small", "medium"])
@pytest.mark.parametrize("name", NAMES)
def test_every_library_that_this_machine_runs_hears_the_words_of_every_recording(
    heard, small_package, recordings, model, name
):
    if name not in runnable(small_package):
        pytest.skip(f"this machine's processor does not run {name}; its instructions are checked above")
    words = heard(model, name, [entry["file"] for entry in recordings])
    assert words == {entry["file"]: entry[model] for entry in recordings}
