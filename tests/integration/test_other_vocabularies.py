"""Models that differ from `small` in kind: English ones, and large-v3's 128 mel bins and 100 languages."""

from __future__ import annotations

import pytest

from other_vocabularies import ModelFile, english_only, large_v3
from recordings import samples
from running_service import EXACT, run_cli, running_service
from sealed_packages import variant
from whisper_package.model_file import check_model_file
from whisper_xeon.engine.cli_adapter import WhisperCliAdapter
from whisper_xeon.engine.errors import UnsupportedOptionError
from whisper_xeon.engine.library_adapter import WhisperLibraryAdapter
from whisper_xeon.transcript import DecodeOptions

ADAPTERS = {"library": WhisperLibraryAdapter, "cli": WhisperCliAdapter}


@pytest.fixture(scope="module")
def remade(small_package, tmp_path_factory):
    """Return a function that seals the small package anew around weights of another kind."""

    def make(change):
        folder = tmp_path_factory.mktemp(change.__name__)
        return variant(
            small_package, folder, {small_package.model_file.name: change(small_package.model_file.read_bytes())}
        )

    return make


@pytest.fixture(scope="module")
def english(remade):
    return remade(english_only)


@pytest.fixture(scope="module")
def v3(remade):
    return remade(large_v3)


def test_a_file_is_the_same_when_it_is_put_together_again(small_package):
    data = small_package.model_file.read_bytes()
    assert ModelFile.read(data).bytes() == data


def test_both_kinds_pass_the_check_of_the_file(english, v3):
    assert check_model_file(english.model_file).n_vocab == 51864
    assert check_model_file(v3.model_file)[-2] == 128


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_128_bins_and_100_languages_hear_what_80_and_99_hear(v3, adapter):
    with ADAPTERS[adapter](package=v3) as whisper:
        assert (whisper.multilingual, len(whisper.languages), whisper.languages[-1]) == (True, 100, "yue")
        for name, entry in EXACT.items():
            heard = whisper.transcribe_pcm(samples(name))
            assert (heard.text, heard.language) == (entry["text"], entry["language"])


def test_a_hundredth_language_is_taken_where_the_model_has_it(v3, small_package):
    options = DecodeOptions(language="yue")
    with WhisperLibraryAdapter(package=v3) as whisper:
        assert whisper.transcribe_pcm(samples("en-00.wav"), options).language == "yue"
    with WhisperCliAdapter(package=small_package) as whisper, pytest.raises(UnsupportedOptionError, match="'yue'"):
        whisper.transcribe_pcm(samples("en-00.wav"), options)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_english_model_takes_everything_for_english(english, adapter):
    with ADAPTERS[adapter](package=english) as whisper:
        assert (whisper.multilingual, whisper.languages) == (False, ("en",))
        heard = whisper.transcribe_pcm(samples("de-00.wav"))
        assert (heard.language, heard.language_probability) == ("en", None)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_english_model_refuses_other_languages_and_translation(english, adapter):
    with ADAPTERS[adapter](package=english) as whisper:
        with pytest.raises(UnsupportedOptionError, match="does not know the language 'de': it knows English only"):
            whisper.transcribe_pcm(samples("de-00.wav"), DecodeOptions(language="de"))
        with pytest.raises(UnsupportedOptionError, match="knows English only and cannot translate"):
            whisper.transcribe_pcm(samples("de-00.wav"), DecodeOptions(task="translate"))


@pytest.fixture(scope="module")
def service(english):
    with running_service(english.directory.parent) as running:
        yield running


@pytest.mark.parametrize("language", ["en", "auto", ""])
def test_the_service_answers_english_from_an_english_model(service, language):
    answer = service.transcribe("en-00.wav", ("language", language), ("response_format", "verbose_json"))
    assert (answer.status, answer.json["language"]) == (200, "english")


def test_the_service_refuses_another_language_of_an_english_model(service):
    answer = service.transcribe("de-00.wav", ("language", "de"))
    assert answer.status == 400
    assert answer.error["message"] == "model small does not know the language 'de': it knows English only"


def test_a_setting_that_an_english_model_cannot_follow_stops_the_start(english):
    result = run_cli(WHISPER_ARTIFACTS_DIR=str(english.directory.parent), WHISPER_LANGUAGE="de")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].endswith(
        "WHISPER_LANGUAGE='de' is not allowed: model small knows English only"
    )
