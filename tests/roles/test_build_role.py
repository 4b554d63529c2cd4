"""The build as a user runs it: twice, after changes, with mistakes, by hand in the staged context, on a plain host."""

from __future__ import annotations

import contextlib
import json
import lzma
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_forms import tensors, write_huggingface
from other_vocabularies import ModelFile
from paths import RECORDINGS, ROOT
from playbook import Play, run_build, run_playbook
from whisper_build.claim import claim
from whisper_package.digests import file_digest
from whisper_package.model_file import check_model_file
from whisper_package.package import Package
from whisper_package.selftest import same_words

FIXTURES = ROOT / "tests" / "fixtures" / "models"
FIXTURE_SELFTEST = {
    "audio": str(RECORDINGS / "en-00.wav"),
    "language": "en",
    "text": "five eight right eight down hello",
}


class Build:
    """A build of both models with a context and a dist of its own; the Docker layers are those of all builds."""

    def __init__(self, folder: Path):
        self._folder = folder
        self.dist = folder / "dist"
        self.context = folder / "work" / "context"

    def run(self, *arguments: str, check: bool = True, env: dict | None = None, **variables) -> Play:
        """Run build.yml without publishing; variables go over those of the inventory."""
        wanted = {"artifact_build_models": ["small", "medium"], **variables}
        return run_build(self._folder, *arguments, check=check, env=env, **wanted)


@pytest.fixture(scope="module")
def session_build(artifacts_dir, tmp_path_factory) -> Build:
    """A finished build that tests look at and leave as it is."""
    build = Build(tmp_path_factory.mktemp("build"))
    build.run()
    return build


@pytest.fixture
def build(session_build, tmp_path) -> Build:
    """A copy of the finished build that a test may do anything to."""
    copy = Build(tmp_path)
    shutil.copytree(session_build.dist, copy.dist)
    shutil.copytree(session_build.context, copy.context)
    return copy


def publishing_run(tmp_path: Path, *arguments: str, **store: str) -> Play:
    """Run build.yml with publishing and the given inventory variables; the build itself would be a first one."""
    variables = tmp_path / "store.json"
    folders = {
        "artifact_build_dist_dir": str(tmp_path / "dist"),
        "artifact_build_context_dir": str(tmp_path / "context"),
    }
    variables.write_text(json.dumps({**folders, **store}), encoding="utf-8")
    return run_playbook("build.yml", "-e", f"@{variables}", *arguments, check=False)


@pytest.mark.parametrize("mode", [[], ["--check"]], ids=["run", "check mode"])
def test_missing_credentials_are_all_told_before_the_build(tmp_path, mode):
    result = publishing_run(tmp_path, *mode, artifact_store_endpoint="http://127.0.0.1:9")
    assert result.returncode != 0
    assert "artifact_store_access_key, artifact_store_secret_key without a value" in result.said
    assert "Choose the base image" not in result.said


def test_unusable_store_is_told_before_the_build(tmp_path):
    store = {"artifact_store_access_key": "key", "artifact_store_secret_key": "secret-of-nobody"}
    result = publishing_run(tmp_path, artifact_store_endpoint="http://127.0.0.1:9", **store)
    assert result.returncode != 0
    assert "http://127.0.0.1:9 does not answer" in result.said
    assert "Choose the base image" not in result.said


def test_second_run_changes_nothing(build):
    assert build.run().changed == 0


def test_same_inputs_give_the_same_bytes_elsewhere(session_build, artifacts_dir):
    for name in ("whisper_small_xeon", "whisper_medium_xeon"):
        assert file_digest(session_build.dist / name / "manifest.json") == file_digest(
            artifacts_dir / name / "manifest.json"
        )


def test_removed_dist_is_exported_again(build):
    shutil.rmtree(build.dist)
    result = build.run()
    assert "is not built yet" in result.output
    Package.find(build.dist, "small").verify()
    Package.find(build.dist, "medium").verify()


def test_package_with_a_tampered_and_a_missing_file_is_replaced_and_the_other_left_alone(build):
    with open(build.dist / "whisper_small_xeon" / "libwhisper.so.1", "ab") as stream:
        stream.write(b"!")
    (build.dist / "whisper_small_xeon" / "NOTICE").unlink()
    before = (build.dist / "whisper_medium_xeon").stat().st_ino
    result = build.run()
    assert "libwhisper.so.1 has" in result.said
    Package.find(build.dist, "small").verify()
    assert (build.dist / "whisper_medium_xeon").stat().st_ino == before


def test_check_mode_of_a_first_run_writes_nothing(session_build, tmp_path):
    fresh = Build(tmp_path)
    result = fresh.run("--check", "--diff", env={"WHISPER_XEON_CACHE": str(tmp_path / "cache")})
    assert result.changed > 0
    assert list(tmp_path.iterdir()) == []


def test_check_mode_of_a_finished_build_changes_nothing(build):
    assert build.run("--check").changed == 0


def test_file_that_does_not_belong_leaves_the_context(build):
    (build.context / "secret.txt").write_text("mine")
    build.run()
    assert not (build.context / "secret.txt").exists()


def test_folder_of_someone_else_is_not_taken_for_the_context(build, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("mine")
    result = build.run(check=False, artifact_build_context_dir=str(tmp_path / "home"))
    assert result.returncode != 0
    assert "choose an empty directory" in result.output
    assert (tmp_path / "home" / "thesis.txt").exists()


@pytest.fixture
def other_process():
    """A process that lasts as long as the test, as another run of the playbook would."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def test_context_of_another_build_that_runs_is_refused(build, other_process):
    claim(build.context, other_process.pid)
    result = build.run(check=False)
    assert result.returncode != 0
    assert f"another build (process {other_process.pid}) is using {build.context}: wait for it to end" in result.said


def test_claim_ends_with_its_process(tmp_path, other_process):
    claim(tmp_path / "context", other_process.pid)
    other_process.kill()
    other_process.wait()
    claim(tmp_path / "context", os.getpid())


def test_claim_is_not_inherited_by_a_later_process_of_the_same_number(tmp_path, other_process):
    (tmp_path / ".context.run").write_text(f"{other_process.pid} 1")
    claim(tmp_path / "context", os.getpid())


def override(model: str, **changes) -> dict:
    path = str(FIXTURES / f"ggml-fixture-{model}.bin.xz")
    return {"path": path, "selftest": FIXTURE_SELFTEST, **changes}


def test_a_model_file_of_ones_own_is_the_same_package_plain_or_packed(build, tmp_path):
    before = Package.find(build.dist, "small").release_id
    plain = tmp_path / "ggml-fine-tuned.bin"
    plain.write_bytes(lzma.decompress((FIXTURES / "ggml-fixture-small.bin.xz").read_bytes()))
    overrides = {"small": override("small", path=str(plain)), "medium": override("medium")}
    build.run(artifact_build_model_overrides=overrides)
    package = Package.find(build.dist, "small")
    assert package.release_id == before
    # Nothing like OpenAI's small, which is 768 wide.
    assert check_model_file(package.model_file).n_audio_state == 128


def test_a_hugging_face_directory_is_built_as_it_is(build, tmp_path):
    fixture = ModelFile.read(lzma.decompress((FIXTURES / "ggml-fixture-small.bin.xz").read_bytes()))
    directory = write_huggingface(tmp_path / "calls", fixture.arrays(), fixture.parameters)
    # It lists made-up words.
    (directory / "vocab.json").unlink()
    overrides = {"small": override("small", path=str(directory))}
    build.run(artifact_build_models=["small"], artifact_build_model_overrides=overrides)
    package = Package.find(build.dist, "small")
    assert same_words(package.manifest["selftest"]["text"], FIXTURE_SELFTEST["text"])
    assert build.run(artifact_build_models=["small"], artifact_build_model_overrides=overrides).changed == 0


def test_an_incomplete_directory_is_named_before_the_build(build, tmp_path):
    directory = write_huggingface(tmp_path / "calls", tensors(), shards=2)
    (directory / "model-00001-of-00002.safetensors").unlink()
    overrides = {"small": override("small", path=str(directory))}
    result = build.run(check=False, artifact_build_models=["small"], artifact_build_model_overrides=overrides)
    assert result.returncode != 0
    assert f"{directory} lacks 1 of 2 shards, 'model-00001-of-00002.safetensors' first: get them too" in result.said
    assert "Stage the build context" not in result.said


def test_the_notice_of_a_model_of_ones_own_goes_into_its_package(build):
    overrides = {"small": override("small", notice="Fine-tuned on our own calls.")}
    build.run(artifact_build_models=["small"], artifact_build_model_overrides=overrides)
    package = Package.find(build.dist, "small")
    assert "Fine-tuned on our own calls." in package.path("NOTICE").read_text("utf-8")


def test_text_that_the_model_does_not_hear_stops_the_build(build):
    wrong = override("small", selftest={**FIXTURE_SELFTEST, "text": "one two three"})
    overrides = {"small": wrong, "medium": override("medium")}
    before = file_digest(build.dist / "whisper_small_xeon" / "manifest.json")
    result = build.run(check=False, artifact_build_model_overrides=overrides)
    assert result.returncode != 0
    assert "self-test of small failed: whisper-cli heard 'five eight right eight down hello'" in result.said
    assert "'one two three'" in result.said
    assert file_digest(build.dist / "whisper_small_xeon" / "manifest.json") == before


def test_clip_of_another_format_is_named_with_the_remedy(build, tmp_path):
    phone = tmp_path / "phone.wav"
    command = ["ffmpeg", "-v", "error", "-i", RECORDINGS / "en-00.wav", "-ar", "8000", phone]
    subprocess.run(command, check=True)
    wrong = override("small", selftest={**FIXTURE_SELFTEST, "audio": str(phone)})
    result = build.run(check=False, artifact_build_models=["small"], artifact_build_model_overrides={"small": wrong})
    assert "the self-test clip of small has 8000 Hz, 1 channel(s), 16 bits" in result.said


def builder_reasons(play: Play) -> list[str]:
    """Return the lines of the report of a builder that failed; what Docker says besides stands nowhere."""
    report = [line.strip() for line in play.output.partition("fatal: ")[2].splitlines()]
    reasons = report[report.index("The builder failed:") + 1 : report.index("(-v shows all of its output)")]
    assert 0 < len(reasons) < 4, play.output
    return reasons


def test_file_that_is_no_model_stops_the_build(build, tmp_path):
    noise = tmp_path / "model.bin"
    noise.write_bytes(b"not a model" * 1000)
    wrong = override("small", path=str(noise))
    result = build.run(check=False, artifact_build_models=["small"], artifact_build_model_overrides={"small": wrong})
    assert result.returncode != 0
    assert f"{noise} is not a Whisper model: a ggml file, OpenAI's .pt, a Hugging Face directory" in result.said
    assert "Stage the build context" not in result.said


def test_a_builder_that_does_not_end_is_stopped(build):
    before = file_digest(build.dist / "whisper_small_xeon" / "manifest.json")
    result = build.run(
        check=False, artifact_build_timeout=1, artifact_build_cmake_flags=["-DWHISPER_XEON_TEST_TIMEOUT=1"]
    )
    assert result.returncode != 0
    assert "The builder had not ended after 1 s, so it was stopped and dist is as it was" in result.said
    assert file_digest(build.dist / "whisper_small_xeon" / "manifest.json") == before


def test_a_source_that_a_hook_does_not_fit_is_the_first_that_the_report_names(build, tmp_path):
    source = shutil.copytree(build.context / "whisper.cpp", tmp_path / "whisper.cpp")
    code = source / "src" / "whisper.cpp"
    code.write_text(code.read_text("utf-8").replace("// auto-detect language", "// find the language"), "utf-8")
    result = build.run(check=False, artifact_build_whisper_cpp_path=str(source))
    assert result.returncode != 0
    assert builder_reasons(result)[0].startswith("build.sh: kernels/hooks/encode-once.patch does not fit this whisper")


def test_unknown_model_is_refused_with_the_known_ones_and_how_to_declare_one(build):
    result = build.run(check=False, artifact_build_models=["meduim"])
    assert result.returncode != 0
    assert "artifact_build_models names meduim (did you mean medium?), which is neither a released model" in result.said
    assert "small, small.en, medium" in result.said
    assert "a model of your own is declared in artifact_build_model_overrides" in result.said
    assert "Choose the base image" not in result.said


def test_override_that_would_be_forgotten_for_its_typo_is_refused(build):
    overrides = {"smal": override("small"), "medium": override("medium")}
    result = build.run(check=False, artifact_build_model_overrides=overrides)
    assert result.returncode != 0
    assert "artifact_build_model_overrides names smal, which is not built: did you mean small?" in result.said


def test_missing_model_file_is_named(build):
    overrides = {"small": override("small", path="/nowhere/ggml-small.bin")}
    result = build.run(check=False, artifact_build_models=["small"], artifact_build_model_overrides=overrides)
    assert "/nowhere/ggml-small.bin does not exist" in result.said


def test_option_with_blanks_is_refused(build):
    result = build.run(check=False, artifact_build_cmake_flags=["-DCMAKE_C_FLAGS=-O2 -g"])
    assert "artifact_build_cmake_flags takes options of the form" in result.said


def test_silent_daemon_gives_one_clear_message(build, tmp_path):
    result = build.run(check=False, env={"DOCKER_HOST": f"unix://{tmp_path}/no.sock"})
    assert result.returncode != 0
    assert "Docker does not answer" in result.output


def test_full_disk_is_found_before_the_build(build):
    shutil.rmtree(build.dist)
    result = build.run(check=False, __artifact_build_docker_bytes=10**18)
    assert result.returncode != 0
    assert "make room" in result.output


def test_user_mistakes_show_no_traceback(build):
    result = build.run(check=False, artifact_build_whisper_cpp_path="/nowhere")
    assert result.returncode != 0
    assert "/nowhere does not exist" in result.said
    assert "Traceback" not in result.output


def docker_build(context: Path, *arguments: str) -> str:
    """Run `docker build` and return its plain progress."""
    command = ["docker", "build", "--progress=plain", *arguments, "."]
    result = subprocess.run(command, cwd=context, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert result.returncode == 0, result.stdout[-5000:]
    return result.stdout


def test_changed_model_compiles_nothing(build):
    (build.context / "models" / "small.bin").unlink()
    shutil.copyfile(build.context / "models" / "medium.bin", build.context / "models" / "small.bin")
    log = docker_build(build.context, "--target=builder")
    (compile_step,) = set(re.findall(r"^#(\d+) \[builder.*whisper-xeon-ccache", log, re.M))
    assert f"#{compile_step} CACHED" in log


def test_changed_flag_recompiles_only_what_it_touches(build):
    dockerfile = build.context / "Dockerfile"
    # The first option makes another libggml-cpu and nothing else; the second makes Docker run the step again.
    flags = f"-DGGML_LLAMAFILE=ON -DTEST_RUN={uuid.uuid4().hex}"
    text = dockerfile.read_text("utf-8").replace('ARG CMAKE_FLAGS=""', f'ARG CMAKE_FLAGS="{flags}"')
    dockerfile.write_text(text, encoding="utf-8")
    log = docker_build(build.context, "--target=builder")
    hits, compiled = map(int, re.search(r"Hits:\s+(\d+) /\s+(\d+)", log).groups())
    touched = len(re.findall(r"Building C(?:XX)? object ggml/src/CMakeFiles/ggml-cpu\.dir", log))
    assert 0 < touched < compiled
    assert hits >= compiled - touched


def shell(command: str, folder: Path) -> None:
    result = subprocess.run(
        ["bash", "-c", command], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert result.returncode == 0, result.stdout[-5000:]


@contextlib.contextmanager
def specification(folder: Path) -> Iterator[Path]:
    """Run the specification's two commands, word for word; give where the packages are then."""
    shell("docker build -t whisper-builder .", folder)
    try:
        shell("docker run -v $(pwd)/artifacts:/output whisper-builder cp -r /release_artifacts /output/", folder)
        yield folder / "artifacts" / "release_artifacts"
    finally:
        shell("docker ps --all --quiet --filter ancestor=whisper-builder | xargs --no-run-if-empty docker rm", folder)
        shell("docker image rm whisper-builder", folder)


@pytest.fixture(scope="module")
def extracted(session_build, tmp_path_factory) -> Path:
    """What the specification's two commands, word for word, leave in a copy of the staged context."""
    folder = shutil.copytree(session_build.context, tmp_path_factory.mktemp("by_hand") / "context")
    with specification(folder) as packages:
        yield packages


@pytest.fixture
def clone(tmp_path) -> Path:
    """The files of a clone that `docker build .` and `make builder` after its build need."""
    for name in ("Dockerfile", ".dockerignore", "scripts/export_builder.sh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("buildkit", ["0", "1"])
def test_a_clone_in_which_nothing_was_built_says_what_to_run(clone, buildkit):
    result = subprocess.run(
        ["docker", "build", "-t", "whisper-builder", "."],
        cwd=clone,
        env={**os.environ, "DOCKER_BUILDKIT": buildkit},
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0
    assert re.search(r"run-make-builder-first.*(not found|does not exist)", result.stdout + result.stderr)


def test_commands_of_the_specification_work_at_the_top_of_a_clone(clone, session_build):
    shutil.copytree(session_build.context, clone / ".build" / "context")
    shutil.copytree(session_build.dist, clone / "dist")
    (clone / "dist" / "whisper_small_xeon" / "manifest.json.sig").write_text("a signature\n", encoding="ascii")
    shell("scripts/export_builder.sh", clone)
    with specification(clone) as packages:
        for name in ("whisper_small_xeon", "whisper_medium_xeon"):
            Package(packages / name).verify()
            assert file_digest(packages / name / "manifest.json") == file_digest(
                session_build.dist / name / "manifest.json"
            )
        assert (packages / "whisper_small_xeon" / "manifest.json.sig").read_text("ascii") == "a signature\n"


def test_commands_of_the_specification_give_the_same_packages(extracted, session_build):
    for name in ("whisper_small_xeon", "whisper_medium_xeon"):
        Package(extracted / name).verify()
        assert file_digest(extracted / name / "manifest.json") == file_digest(
            session_build.dist / name / "manifest.json"
        )


def test_context_is_all_that_docker_reads(build):
    (build.context / "private.key").write_text("mine")
    (build.context / "Probe").write_text("FROM scratch\nCOPY . /\n", encoding="utf-8")
    docker_build(build.context, "--file=Probe", "--output=type=local,dest=sent")
    sent = {path.name for path in (build.context / "sent").iterdir()}
    assert sent == {
        "abi_probe.c",
        "app",
        "apt",
        "build.json",
        "build.sh",
        "instructions.py",
        "kernels",
        "models",
        "organize.py",
        "origin.py",
        "package",
        "selftest",
        "vad.bin",
        "whisper.cpp",
    }


def test_what_the_kernels_say_to_readers_is_no_input(session_build):
    assert {path.name for path in (session_build.context / "kernels").rglob("*") if path.is_file()} == {
        path.name for path in (ROOT / "kernels").rglob("*") if path.is_file()
    } - {"README.md"}


def build_sh(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess:
    command = [ROOT / "docker" / "builder" / "build.sh", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def test_build_sh_without_arguments_says_how_it_is_used():
    result = build_sh()
    assert (result.returncode, result.stderr) == (2, "usage: build.sh SOURCE_DIR OUT_DIR [-DOPTION=VALUE ...]\n")


def test_build_sh_names_a_folder_that_is_no_source(tmp_path):
    result = build_sh(tmp_path, tmp_path / "out")
    assert result.returncode == 2
    assert "is not a whisper.cpp tree" in result.stderr


def test_build_sh_names_a_missing_tool(session_build, tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "env", "mkdir", "readlink"):
        (tools / tool).symlink_to(shutil.which(tool))
    result = build_sh(session_build.context / "whisper.cpp", tmp_path / "out", PATH=str(tools))
    assert result.returncode == 2
    assert "cmake is missing: apt-get install build-essential cmake patch" in result.stderr


@pytest.mark.parametrize(
    ("kernels", "reason"),
    [
        (["gemm", "magic"], "artifact_build_kernels names magic: kernels/kernels.txt has gemm, attention,"),
        (
            ["gemm", "layout"],
            "artifact_build_kernels has layout without gemv, on which it builds: add that, or leave layout out",
        ),
    ],
    ids=["unknown", "missing"],
)
def test_kernels_that_cannot_be_built_are_told_before_the_build(kernels, reason):
    result = run_playbook(
        "build.yml", "--skip-tags", "publish", "-e", json.dumps({"artifact_build_kernels": kernels}), check=False
    )
    assert result.returncode != 0
    assert reason in result.said
    assert "Choose the base image" not in result.said


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        (
            "artifact_build_kernels=gemm",
            'artifact_build_kernels is "gemm", which is not a list: on the command line, write '
            """-e '{"artifact_build_kernels": ["gemm"]}'""",
        ),
        (
            "artifact_build_models=small,medium",
            'artifact_build_models is "small,medium", which is not a list: on the command line, write '
            """-e '{"artifact_build_models": ["small", "medium"]}'""",
        ),
        (
            '{"artifact_build_models": []}',
            "artifact_build_models is an empty list, so there is nothing to build: name a model, on the command line "
            """with -e '{"artifact_build_models": ["small"]}'""",
        ),
        (
            "artifact_build_blas=mkl",
            'artifact_build_blas is "mkl": choose one of none, openblas',
        ),
    ],
    ids=["kernels", "models", "no models", "BLAS"],
)
def test_a_value_that_cannot_be_built_is_told_in_one_sentence(argument, reason):
    result = run_playbook("build.yml", "--skip-tags", "publish", "-e", argument, check=False)
    assert result.returncode != 0
    assert reason in result.said
    assert "Choose the base image" not in result.said


def test_apt_reads_the_setting_for_a_ca_bundle(build):
    # The disk is too small only after the context was staged.
    authorities = "/etc/ssl/certs/ca-certificates.crt"
    build.run(check=False, artifact_build_ca_bundle=authorities, __artifact_build_docker_bytes=10**18)
    command = ["apt-config", "--config-file", build.context / "apt/apt.conf.d/90ca-bundle", "shell", "file"]
    shown = subprocess.run([*command, "Acquire::https::CAInfo"], capture_output=True, text=True)
    assert (shown.stdout, shown.stderr) == ("file='/etc/apt/ca-bundle.crt'\n", "")


@pytest.fixture
def compilers(tmp_path) -> str:
    """A PATH on which build.sh finds its tools, even where there are none: it stops at the kernels."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("cmake", "make", "cc", "c++"):
        (tools / tool).symlink_to("/bin/true")
    return f"{tools}:{os.environ['PATH']}"


@pytest.mark.parametrize(
    ("kernels", "reason"),
    [
        ("gemm magic", "build.sh: no kernel is called magic: kernels/kernels.txt has gemm attention "),
        ("gemm layout", "build.sh: kernel layout builds on gemv, which is not chosen: add it, or leave layout out"),
    ],
    ids=["unknown", "missing"],
)
def test_build_sh_names_kernels_that_cannot_be_built(session_build, compilers, tmp_path, kernels, reason):
    result = build_sh(session_build.context / "whisper.cpp", tmp_path / "out", KERNELS=kernels, PATH=compilers)
    assert result.returncode == 2
    assert result.stderr.startswith(reason)


def test_build_sh_names_a_hook_that_does_not_fit(session_build, compilers, tmp_path):
    shutil.copy(ROOT / "docker" / "builder" / "build.sh", tmp_path)
    hooks = tmp_path / "kernels" / "hooks"
    hooks.mkdir(parents=True)
    (tmp_path / "kernels" / "kernels.txt").write_text("other - what nobody needs\n", encoding="utf-8")
    (hooks / "other.patch").write_text(
        "--- a/include/whisper.h\n+++ b/include/whisper.h\n@@ -1,1 +1,1 @@\n-never there\n+neither\n", encoding="utf-8"
    )
    command = [tmp_path / "build.sh", session_build.context / "whisper.cpp", tmp_path / "out"]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": compilers})
    assert result.returncode == 1
    assert "build.sh: kernels/hooks/other.patch does not fit this whisper.cpp" in result.stderr
