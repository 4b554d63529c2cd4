"""What the real builder puts into a package: files, manifest, libraries, README example, upload script."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import yaml

from minio_server import CONTAINER
from paths import RECORDINGS, ROOT
from signing import KEY_FILE, PUBLIC, SERIAL, SIGNER
from whisper_build.source_tree import tree_digest
from whisper_build.sources import Cache, default_cache
from whisper_package.digests import file_digest
from whisper_package.manifest import MANIFEST_NAME, SIGNATURE_NAME, encode_manifest
from whisper_package.model_file import check_model_file
from whisper_package.models import MODEL_CONFIGS
from whisper_package.package import Package
from whisper_package.selftest import same_words
from whisper_package.signature import signed
from whisper_store.client import s3_client
from whisper_store.settings import StoreSettings

LIBRARIES = ["libggml-base.so.0", "libggml-cpu.so.0", "libggml.so.0", "libwhisper.so", "libwhisper.so.1"]
VARIANTS = [
    f"cpu/{name}/libggml-cpu.so.0" for name in ("cascadelake", "cooperlake", "icelake", "sapphirerapids", "skylakex")
]
BINARIES = [*LIBRARIES, *VARIANTS, "whisper-cli"]
HOST_LIBRARIES = {"libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1", "libgomp.so.1", "ld-linux-x86-64.so.2"}


@pytest.fixture(scope="module")
def pins() -> dict:
    return yaml.safe_load((ROOT / "versions.yml").read_text("utf-8"))


@pytest.fixture(scope="module")
def whisper_cpp_tree(pins) -> Path:
    """The tree that the package was built from, out of the cache that the build filled."""
    pinned = pins["whisper_cpp"]
    return Cache(default_cache(), print).whisper_cpp(pinned["sources"], pinned["source_sha256"]).path


@pytest.fixture(params=["small", "medium"])
def package(request, artifacts_dir) -> Package:
    return Package.find(artifacts_dir, request.param)


@pytest.fixture
def copied(package, tmp_path) -> Path:
    """The folder of a package, copied as a user would copy it, to a path with a blank."""
    return shutil.copytree(package.directory, tmp_path / "some where" / package.name)


def files(package: Package) -> list[str]:
    """Paths, within the package, of all that is in it, by a look at the disk."""
    found = (path for path in package.directory.rglob("*") if not path.is_dir())
    return [path.relative_to(package.directory).as_posix() for path in found]


def readelf(path: Path, option: str) -> str:
    command = ["readelf", "--wide", option, path]
    return subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}).stdout


def test_package_holds_the_files_of_the_contract(package):
    assert sorted(files(package)) == sorted(
        [
            *LIBRARIES,
            *VARIANTS,
            MODEL_CONFIGS[package.model]["model"],
            "ggml-silero-v6.2.0.bin",
            "NOTICE",
            "README.md",
            "manifest.json",
            "manifest.json.sig",
            "provenance.json",
            "push_to_minio.sh",
            "sbom.cdx.json",
            "selftest.wav",
            "whisper-cli",
        ]
    )


def test_package_matches_its_manifest(package):
    package.verify()


def test_encoding_its_manifest_again_gives_the_same_bytes(package):
    assert encode_manifest(package.manifest) == package.path(MANIFEST_NAME).read_bytes()


def test_the_manifest_names_the_files_that_the_readers_use(package):
    assert package.model_file.is_file()
    assert package.selftest_audio.is_file()
    assert package.vad_file.is_file()


def test_its_weights_are_a_whisper_model(package):
    assert check_model_file(package.model_file).n_vocab == 51865


def test_package_holds_regular_files_only(package):
    assert all(stat.S_ISREG(package.path(name).lstat().st_mode) for name in files(package))


def test_libraries_and_programs_are_executable_and_nothing_else(package):
    executable = {entry["path"] for entry in package.manifest["files"] if entry["executable"]}
    assert executable == {*BINARIES, "push_to_minio.sh"}
    assert {name for name in files(package) if os.access(package.path(name), os.X_OK)} == executable


def test_both_packages_share_their_libraries(small_package, medium_package):
    for name in BINARIES:
        assert file_digest(small_package.path(name)) == file_digest(medium_package.path(name))


def test_packages_are_different_releases(small_package, medium_package):
    assert small_package.release_id != medium_package.release_id


@pytest.mark.parametrize("name", BINARIES)
def test_libraries_are_looked_for_at_the_top_of_the_package(small_package, name):
    dynamic = readelf(small_package.path(name), "--dynamic")
    top = "$ORIGIN/../.." if name in VARIANTS else "$ORIGIN"
    assert re.findall(r"\((RUNPATH|RPATH)\).*\[(.*)\]", dynamic) == [("RUNPATH", top)]


@pytest.mark.parametrize("name", BINARIES)
def test_nothing_is_needed_that_neither_package_nor_host_has(small_package, name):
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", readelf(small_package.path(name), "--dynamic")))
    assert needed <= HOST_LIBRARIES | set(LIBRARIES)


@pytest.mark.parametrize("name", BINARIES)
def test_nothing_is_writable_any_more_when_the_first_byte_is_read(small_package, name):
    path = small_package.path(name)
    segments = readelf(path, "--segments")
    assert re.search(r"GNU_RELRO", segments)
    assert re.search(r"GNU_STACK .* RW +0x", segments)
    assert re.search(r"\(FLAGS_1\).*\bNOW\b", readelf(path, "--dynamic"))


@pytest.mark.parametrize("name", ["libwhisper.so.1", "libggml-base.so.0", "whisper-cli"])
def test_overruns_of_arrays_and_copies_end_the_process(small_package, name):
    asked = re.findall(r"UND (__\w+_chk(?:_fail)?)@", readelf(small_package.path(name), "--dyn-syms"))
    assert "__stack_chk_fail" in asked
    assert len(set(asked)) > 2


@pytest.mark.parametrize("name", BINARIES)
def test_no_path_of_the_builder_is_in_the_binary(small_package, name):
    content = small_package.path(name).read_bytes()
    assert re.findall(rb"(?<![\w.])/(?:src|build|built|builder)/[\w./-]+", content) == []


@pytest.mark.parametrize(
    "symbol",
    [
        "whisper_full_with_state",
        "whisper_init_from_file_with_params_no_state",
        "whisper_vad_init_from_file_with_params",
    ],
)
def test_libwhisper_exports_what_the_adapter_calls(small_package, symbol):
    exported = [line.split() for line in readelf(small_package.path("libwhisper.so.1"), "--dyn-syms").splitlines()]
    assert any(fields[-1] == symbol and "UND" not in fields for fields in exported if fields)


def test_manifest_says_which_instructions_and_parts_were_asked_for(package):
    assert {
        "-DGGML_NATIVE=OFF",
        "-DGGML_AVX=ON",
        "-DGGML_AVX2=ON",
        "-DGGML_FMA=ON",
        "-DGGML_F16C=ON",
        "-DGGML_BMI2=ON",
        "-DBUILD_SHARED_LIBS=ON",
    } <= set(package.manifest["cmake_flags"])


BASELINE_FLAGS = {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "popcnt", "sse4_2", "ssse3"}
AVX512_FLAGS = {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}
AMX_FLAGS = {"amx_bf16", "amx_int8", "amx_tile"}


def test_manifest_names_the_cpu_libraries_with_their_cpu_flags(package):
    variants = package.manifest["variants"]
    assert {each["name"]: each["path"] for each in variants} == {
        "baseline": "libggml-cpu.so.0",
        **{path.split("/")[1]: path for path in VARIANTS},
    }
    assert {each["name"]: set(each["cpu_flags"]) - BASELINE_FLAGS for each in variants} == {
        "baseline": set(),
        "skylakex": AVX512_FLAGS,
        "cascadelake": AVX512_FLAGS | {"avx512_vnni"},
        "icelake": AVX512_FLAGS | {"avx512_vnni", "avx512vbmi"},
        "cooperlake": AVX512_FLAGS | {"avx512_vnni", "avx512_bf16"},
        "sapphirerapids": AVX512_FLAGS | {"avx512_vnni", "avx512_bf16", "avx512vbmi"} | AMX_FLAGS,
    }
    assert all(set(each["cpu_flags"]) >= BASELINE_FLAGS for each in variants)


def test_manifest_names_version_pinned_source_and_kernels(package, pins, tmp_path):
    # As the builder has it: a description is not built from.
    kernels = shutil.copytree(ROOT / "kernels", tmp_path / "kernels", ignore=shutil.ignore_patterns("README.md"))
    assert package.manifest["whisper_cpp"] == {
        "version": pins["whisper_cpp"]["version"],
        "source_sha256": pins["whisper_cpp"]["source_sha256"],
        "patches": [
            {"name": name, "sha256": tree_digest(kernels)}
            for name in re.findall(r"^([a-z]\S*)", (kernels / "kernels.txt").read_text("utf-8"), re.MULTILINE)
        ],
    }


@pytest.mark.parametrize(("library", "key"), [("GLIBC", "glibc"), ("GLIBCXX", "glibcxx")])
def test_minimum_is_the_newest_symbol_version_that_is_needed(package, library, key):
    needed = set()
    for name in BINARIES:
        needs = readelf(package.path(name), "--version-info").partition("Version needs section")[2]
        needed |= {tuple(map(int, found.split("."))) for found in re.findall(rf"Name: {library}_([0-9.]+)", needs)}
    assert package.manifest["minimum"][key] == ".".join(map(str, max(needed)))


def test_nothing_newer_is_needed_than_the_hosts_are_promised_to_need(package):
    assert package.manifest["minimum"] == {"glibc": "2.34", "glibcxx": "3.4.29"}


def header_fields(header: str, structure: str) -> set[str]:
    """Names of a structure of whisper.h, nested ones with their path, read without a compiler."""
    body = re.search(rf"struct {structure} {{(.*?)^    }}", header, re.S | re.M).group(1)
    body = re.sub(r"//.*", "", body)
    fields = set()
    for nested, name in re.findall(r"struct {(.*?)}\s*(\w+);", body, re.S):
        fields |= {f"{name}.{field}" for field in re.findall(r"(\w+)\s*;", nested)}
    body = re.sub(r"struct {.*?}\s*\w+;", "", body, flags=re.S)
    for kind, name in re.findall(r"(\w+)[\s*]+(\w+)\s*;", body):
        if kind in ("whisper_aheads", "whisper_vad_params"):
            fields |= {f"{name}.{field}" for field in header_fields(header, kind)}
        else:
            fields.add(name)
    return fields


@pytest.mark.parametrize(
    "structure",
    [
        "whisper_context_params",
        "whisper_full_params",
        "whisper_token_data",
        "whisper_vad_context_params",
        "whisper_vad_params",
    ],
)
def test_abi_lists_every_field_of_the_header(small_package, whisper_cpp_tree, structure):
    header = (whisper_cpp_tree / "include" / "whisper.h").read_text("utf-8")
    assert set(small_package.manifest["abi"][structure]["fields"]) == header_fields(header, structure)


@pytest.mark.parametrize(
    ("structure", "size"),
    [
        ("whisper_context_params", 48),
        ("whisper_full_params", 304),
        ("whisper_token_data", 56),
        ("whisper_vad_context_params", 12),
        ("whisper_vad_params", 24),
    ],
)
def test_abi_says_the_sizes_of_1_8_5(small_package, structure, size):
    assert small_package.manifest["abi"][structure]["size"] == size


def test_whisper_cli_of_a_copied_folder_hears_the_selftest(package, copied):
    command = ["./whisper-cli", "-m", package.manifest["model"]["file"], "-f", "selftest.wav"]
    command += ["-l", package.manifest["selftest"]["language"], "-bs", "1", "-bo", "1", "-nt", "-np"]
    result = subprocess.run(command, cwd=copied, check=True, capture_output=True, text=True)
    assert same_words(result.stdout, package.selftest_text)


@pytest.fixture
def example(copied) -> Path:
    """The README's Python block, saved beside the folder as the README says."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", (copied / "README.md").read_text("utf-8"), re.S | re.M)
    script = copied.parent / "transcribe.py"
    script.write_text(block, encoding="utf-8")
    return script


def run_example(script: Path, *arguments: Path | str) -> subprocess.CompletedProcess:
    # -I: neither this checkout nor the environment may help.
    command = [sys.executable, "-I", script, *arguments]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, env={"PATH": os.environ["PATH"]})


@pytest.mark.parametrize("language", ["de", "en", "es", "fr"])
def test_readme_example_transcribes_a_recording(package, example, exact_recordings, language):
    recording = next(entry for entry in exact_recordings if entry["language"] == language)
    assert same_words(run_example(example, recording["path"]).stdout, recording["text"])


def test_readme_example_says_nothing_but_the_text(example, exact_recordings):
    assert run_example(example, exact_recordings[0]["path"]).stderr == ""


def test_readme_example_leaves_the_package_as_it_is(copied, example, exact_recordings):
    run_example(example, exact_recordings[0]["path"])
    Package(copied).verify()


def test_readme_example_names_the_format_it_needs(example, tmp_path):
    command = ["ffmpeg", "-v", "error", "-i", RECORDINGS / "en-00.wav", "-ar", "8000", tmp_path / "phone.wav"]
    subprocess.run(command, check=True)
    result = run_example(example, tmp_path / "phone.wav")
    assert result.returncode == 1
    assert "is not 16 kHz mono 16-bit WAV" in result.stderr


def test_readme_example_says_what_it_cannot_read(example, tmp_path):
    (tmp_path / "text.wav").write_text("no recording", encoding="utf-8")
    (tmp_path / "empty.wav").touch()
    for name in ("text.wav", "empty.wav", "absent.wav"):
        result = run_example(example, tmp_path / name)
        assert result.stderr.startswith(f"{tmp_path / name} is not a WAV file that can be read: ")
    assert run_example(example).stderr == "usage: python3 transcribe.py call.wav\n"


def test_readme_has_no_placeholder_left(package):
    for name in ("README.md", "NOTICE"):
        assert re.findall(r"@[A-Z_]+@", package.path(name).read_text("utf-8")) == []


def test_notice_carries_the_licence_of_whisper_cpp(package, whisper_cpp_tree):
    licence = (whisper_cpp_tree / "LICENSE").read_text("utf-8").strip()
    assert licence in package.path("NOTICE").read_text("utf-8")


# Parts by others in what is compiled: the file, how it says so, and what NOTICE says.
PARTS = [
    (
        "ggml/src/ggml-cpu/ops.cpp",
        "MIT licensed. Copyright (c) 2023 Jeffrey Quesnelle and Bowen Peng.",
        "2023 Jeffrey Quesnelle and Bowen Peng",
    ),
    ("ggml/src/ggml-cpu/vec.h", "adapted from arm limited optimized routine", "1999-2018, Arm Limited"),
    ("ggml/src/ggml-impl.h", "https://github.com/Maratyszcza/FP16", "2017 Georgia Institute of Technology"),
    ("src/whisper.cpp", "based on\n// https://github.com/openai/whisper/blob/main/whisper/timing.py", "2022 OpenAI"),
    ("examples/miniaudio.h", "Copyright 2025 David Reid", "2025 David Reid"),
    ("examples/miniaudio.h", "MINIMP3", "minimp3"),
    ("examples/stb_vorbis.c", "Copyright (c) 2017 Sean Barrett", "2017 Sean Barrett"),
]
COMPILED = ["ggml/src/*.[ch]*", "ggml/src/ggml-cpu/*.[ch]*", "ggml/src/ggml-cpu/amx/*", "ggml/src/ggml-cpu/arch/x86/*"]
COMPILED += ["src/*.[ch]*", "include/*", "examples/*.[ch]", "examples/*.cpp", "examples/cli/*.cpp"]


@pytest.mark.parametrize(("source", "words", "said"), PARTS)
def test_notice_names_each_part_that_is_by_others(package, whisper_cpp_tree, source, words, said):
    assert words in (whisper_cpp_tree / source).read_text("utf-8")
    assert said in package.path("NOTICE").read_text("utf-8")


def test_notice_names_everyone_with_a_copyright_notice_in_what_is_compiled(package, whisper_cpp_tree):
    notice = package.path("NOTICE").read_text("utf-8")
    files = [path for pattern in COMPILED for path in whisper_cpp_tree.glob(pattern) if path.is_file()]
    found = {
        holder
        for path in files
        for holder in re.findall(r"copyright (?:\(c\) )?\d[\d, -]*([A-Z][^.\n]*)", path.read_text("utf-8"), re.I)
    }
    assert len(files) > 40
    assert found >= {"David Reid", "Jeffrey Quesnelle and Bowen Peng", "Sean Barrett"}
    assert [holder for holder in found if holder not in notice] == []


def push(folder: Path, *, path: str | None = None, **environment: str) -> subprocess.CompletedProcess:
    command = ["bash", folder / "push_to_minio.sh"]
    base = {"PATH": path or os.environ["PATH"], "HOME": str(folder.parent)}
    return subprocess.run(command, env={**base, **environment}, capture_output=True, text=True, timeout=300)


ELSEWHERE = {"MINIO_ENDPOINT": "http://127.0.0.1:9", "MINIO_ACCESS_KEY": "key", "MINIO_SECRET_KEY": "secret"}


@pytest.mark.parametrize("missing", list(ELSEWHERE))
def test_push_names_the_variable_that_is_missing(copied, missing):
    result = push(copied, **{name: value for name, value in ELSEWHERE.items() if name != missing})
    assert result.returncode == 1
    assert f"{missing} is not set" in result.stderr


def test_push_refuses_a_changed_file_before_it_sends_anything(copied):
    with open(copied / "selftest.wav", "ab") as stream:
        stream.write(b"!")
    result = push(copied, **ELSEWHERE)
    assert result.returncode == 1
    assert "do not match manifest.json" in result.stderr
    assert "selftest.wav" in result.stdout + result.stderr


def test_push_refuses_a_missing_file(copied):
    (copied / "whisper-cli").unlink()
    result = push(copied, **ELSEWHERE)
    assert result.returncode == 1
    assert "do not match manifest.json" in result.stderr


def test_push_refuses_a_file_that_the_manifest_does_not_list(copied):
    (copied / "notes.txt").write_text("mine")
    result = push(copied, **ELSEWHERE)
    assert result.returncode == 1
    assert "not in manifest.json: notes.txt" in result.stderr


def test_push_without_a_client_says_what_to_install(copied, tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    needed = ["awk", "bash", "comm", "cut", "dirname", "find", "mktemp", "readlink", "rm", "sed", "sha256sum", "sort"]
    for tool in needed:
        (tools / tool).symlink_to(shutil.which(tool))
    result = push(copied, path=str(tools), **ELSEWHERE)
    assert result.returncode == 1
    assert "neither mc nor aws is installed" in result.stderr


def test_push_fails_when_the_store_is_not_there(copied):
    assert push(copied, AWS_MAX_ATTEMPTS="1", **ELSEWHERE).returncode != 0


def credentials(settings: StoreSettings) -> dict[str, str]:
    return {
        "MINIO_ENDPOINT": settings.endpoint,
        "MINIO_ACCESS_KEY": settings.access_key,
        "MINIO_SECRET_KEY": settings.secret_key,
        "MINIO_BUCKET": settings.bucket,
    }


@pytest.fixture(scope="module")
def mc(minio, tmp_path_factory) -> Path:
    """The folder of MinIO's own client, taken out of the container of the tests' store."""
    folder = tmp_path_factory.mktemp("mc")
    subprocess.run(["docker", "cp", f"{CONTAINER}:/bin/mc", folder / "mc"], check=True, capture_output=True)
    return folder


@pytest.fixture(params=["aws", "mc"])
def client_path(request, mc) -> str:
    """A PATH on which the one or the other client is found first."""
    clients = {"aws": Path(sys.executable).parent, "mc": mc}
    return f"{clients[request.param]}:/usr/bin:/bin"


def test_pushed_release_is_found_by_its_id(minio, copied, package, client_path):
    result = push(copied, path=client_path, **credentials(minio.settings()))
    assert result.returncode == 0, result.stderr
    release = minio.store("reader").resolve(package.model, release=package.release_id)
    assert release.manifest == package.manifest


def test_pushing_again_leaves_the_release_alone(minio, copied, package, client_path):
    push(copied, path=client_path, **credentials(minio.settings()))
    result = push(copied, path=client_path, **credentials(minio.settings()))
    assert result.returncode == 0, result.stderr
    assert "already" in result.stdout


def test_push_refuses_a_package_that_is_not_signed(copied):
    (copied / SIGNATURE_NAME).unlink()
    result = push(copied, **ELSEWHERE)
    assert result.returncode == 1
    assert "this package is not signed, and no host takes it: set WHISPER_SIGNING_KEY_FILE" in result.stderr


def test_push_refuses_the_signature_of_another_manifest(copied):
    (copied / SIGNATURE_NAME).write_bytes(signed(SIGNER, "small", "0" * 64, "1" * 64, SERIAL))
    result = push(copied, **ELSEWHERE)
    assert result.returncode == 1
    assert "manifest.json.sig is not the signature of this manifest.json" in result.stderr


def test_push_shows_channels_without_what_a_terminal_or_the_shell_would_obey(minio, copied, client_path):
    settings = minio.settings("root", bucket=f"push-{uuid.uuid4().hex[:12]}")
    client = s3_client(settings)
    client.create_bucket(Bucket=settings.bucket)
    for name in ("stable.json", "*.json"):
        client.put_object(Bucket=settings.bucket, Key=f"channels/{name}", Body=b"models\x1b]0;evil\x07\nof it\n")
    result = push(copied, path=client_path, **credentials(settings))
    assert result.returncode == 0, result.stderr
    assert "channels/stable.json:\nmodels]0;evil\nof it\n" in result.stdout
    assert result.stdout.count("channels/") == 1


def test_push_signs_as_whisper_store_does(minio, copied, package, client_path):
    (copied / SIGNATURE_NAME).unlink()
    result = push(copied, path=client_path, WHISPER_SIGNING_KEY_FILE=str(KEY_FILE), **credentials(minio.settings()))
    assert result.returncode == 0, result.stderr
    signature = minio.store("reader").resolve(package.model, release=package.release_id).signature
    assert (signature.release_id, signature.key) == (package.release_id, PUBLIC)


def test_push_prints_no_secret(minio, copied, client_path):
    settings = minio.settings()
    result = push(copied, path=client_path, **credentials(settings))
    assert settings.secret_key not in result.stdout + result.stderr
