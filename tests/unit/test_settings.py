"""WHISPER_* variables: defaults, what is refused and how it is said."""

from __future__ import annotations

import dataclasses
import re

import pytest

from running_service import run_cli
from whisper_xeon.engine.cores import available_cores
from whisper_xeon.settings import (
    SETTINGS,
    Settings,
    SettingsError,
    load_settings,
    settings_problems,
)
from whisper_xeon.transcript import DecodeOptions
from whisper_xeon.web.api_table import documented_fields
from whisper_xeon.web.values import Number, Whole


def load(**environ: str) -> Settings:
    return load_settings(environ)[0]


def test_the_table_and_the_fields_name_the_same_settings():
    assert [setting.attribute for setting in SETTINGS] == [field.name for field in dataclasses.fields(Settings)]


def test_without_variables_the_defaults_hold():
    settings = load()
    assert (settings.model_size, settings.host, settings.port, settings.language) == ("small", "127.0.0.1", 8000, None)
    assert settings.max_upload_bytes == 512 * 1024 * 1024
    assert 6 * 3600 < settings.max_audio_seconds < 7 * 3600


def test_upload_and_audio_fit_into_the_memory_for_them():
    settings = load(WHISPER_SPOOL_MB="300")
    assert (settings.max_upload_mb, settings.max_audio_seconds) == (75, 225 * 1024 * 1024 // 64000)
    assert load(WHISPER_SPOOL_MB="300", WHISPER_MAX_UPLOAD_MB="200").max_audio_seconds == 100 * 1024 * 1024 // 64000
    assert load(WHISPER_SPOOL_MB="1048576").max_audio_seconds == 86400


@pytest.mark.parametrize(
    ("limits", "needed", "larger"),
    [
        ({"WHISPER_MAX_UPLOAD_MB": "25", "WHISPER_MAX_AUDIO_SECONDS": "3600"}, 245, "WHISPER_MAX_AUDIO_SECONDS"),
        ({"WHISPER_MAX_AUDIO_SECONDS": "3600"}, 245, "WHISPER_MAX_AUDIO_SECONDS"),
        ({"WHISPER_MAX_UPLOAD_MB": "200"}, 201, "WHISPER_MAX_UPLOAD_MB"),
    ],
)
def test_memory_without_room_for_the_largest_upload_and_audio_is_refused_with_the_larger_one(limits, needed, larger):
    expected = rf"WHISPER_SPOOL_MB='100' is not allowed: it must be at least {needed}, .* \(or lower {larger}\)"
    with pytest.raises(SettingsError, match=expected):
        load(WHISPER_SPOOL_MB="100", **limits)


@pytest.mark.parametrize(
    ("text", "on"), [("auto", True), ("true", True), ("1", True), ("OFF", False), ("false", False)]
)
def test_voice_detection_has_a_switch(text, on):
    assert load(WHISPER_VAD=text).vad is on


OF_A_REQUEST = {field.sets: field.value for field, _ in documented_fields() if isinstance(field.value, (Number, Whole))}


@pytest.mark.parametrize(
    "setting", [one for one in SETTINGS if one.attribute in OF_A_REQUEST], ids=lambda one: one.attribute
)
def test_a_setting_takes_what_a_request_takes(setting):
    value = OF_A_REQUEST[setting.attribute]
    assert [setting.parse(f"{bound:g}") for bound in (value.low, value.high)] == [value.low, value.high]
    step = 1 if isinstance(value, Whole) else 0.01
    for beyond in (value.low - step, value.high + step):
        with pytest.raises(SettingsError, match=setting.name):
            load(**{setting.name: f"{beyond:g}"})


def test_settings_for_another_host_are_checked_but_for_its_files():
    good = {"WHISPER_API_KEY_FILE": "/on/that/host", "WHISPER_ARTIFACTS_DIR": "/there/too", "WHISPER_QUEUE": "5"}
    assert settings_problems(good) == []
    assert settings_problems({**good, "WHISPER_QUEUE": "-1", "WHISPER_LANGAUGE": "de"}) == [
        "WHISPER_QUEUE='-1' is not allowed: must be a whole number from 0 to 10000",
        "WHISPER_LANGAUGE is not a setting and has no effect: did you mean WHISPER_LANGUAGE?",
    ]


@pytest.mark.parametrize("language", ["de", "German", "de-DE"])
def test_the_language_goes_by_code_name_or_locale(language):
    assert load(WHISPER_LANGUAGE=language).language == "de"


def test_an_empty_variable_counts_as_not_set():
    assert load(WHISPER_PORT="", WHISPER_MODEL_SIZE="").port == 8000


def test_engines_and_threads_share_the_cores_by_default():
    settings = load()
    assert settings.engines * settings.threads <= max(available_cores(), settings.engines)


def test_named_threads_decide_how_many_engines_fit():
    assert load(WHISPER_THREADS="1").engines == available_cores()


@pytest.mark.parametrize(("variable", "value"), [("API_PORT", "9100"), ("WHISPER_PORT", "9100")])
def test_the_port_has_an_alias(variable, value):
    assert load(**{variable: value}).port == 9100


def test_the_setting_wins_over_its_alias():
    assert load(WHISPER_PORT="9100", API_PORT="9200").port == 9100


@pytest.mark.parametrize(
    ("value", "level"), [("true", "debug"), ("1", "debug"), ("false", "info"), ("0", "info"), ("", "info")]
)
def test_debug_is_an_alias_of_the_log_level(value, level):
    assert load(DEBUG=value).log_level == level


@pytest.mark.parametrize(
    ("variables", "adapter"),
    [
        ({}, "library"),
        ({"WHISPER_ADAPTER": "cli"}, "cli"),
        ({"USE_WHISPER_LIBRARY": "false"}, "cli"),
        ({"USE_WHISPER_LIBRARY": "true"}, "library"),
        ({"USE_WHISPER_LIBRARY": "0", "WHISPER_ADAPTER": "cli"}, "cli"),
        ({"USE_WHISPER_LIBRARY": "", "WHISPER_ADAPTER": "cli"}, "cli"),
    ],
)
def test_the_adapter_has_a_switch(variables, adapter):
    assert load(**variables).adapter == adapter


def test_the_voice_detection_is_set_as_a_request_may_set_it():
    settings, options = load(), DecodeOptions()
    for name in ("vad_threshold", "vad_min_speech_ms", "vad_min_silence_ms", "vad_speech_pad_ms"):
        assert getattr(settings, name) == getattr(options, name)
    assert load(WHISPER_VAD_THRESHOLD="0.35").vad_threshold == 0.35


def test_a_switch_that_contradicts_the_adapter_is_refused():
    with pytest.raises(SettingsError) as refusal:
        load(WHISPER_ADAPTER="library", USE_WHISPER_LIBRARY="false")
    assert str(refusal.value) == (
        "USE_WHISPER_LIBRARY='false' is not allowed: WHISPER_ADAPTER says otherwise: set only one"
    )


def test_without_variables_a_request_is_decoded_as_decode_options_say():
    assert load().decode_options() == DecodeOptions()


def test_a_request_starts_from_the_settings():
    options = load(
        WHISPER_LANGUAGE="de",
        WHISPER_BEAM_SIZE="5",
        WHISPER_PATIENCE="1.5",
        WHISPER_BEST_OF="3",
        WHISPER_TEMPERATURE_INCREMENT="0.2",
        WHISPER_COMPRESSION_RATIO_THRESHOLD="3",
        WHISPER_LOGPROB_THRESHOLD="-0.5",
        WHISPER_NO_SPEECH_THRESHOLD="0.7",
        WHISPER_CONDITION_ON_PREVIOUS_TEXT="yes",
        WHISPER_PROMPT="Gespräch mit Frau Özdemir",
        WHISPER_HOTWORDS="Xeon, AVX-512",
        WHISPER_SUPPRESS_TOKENS="-1, 50, 50",
    ).decode_options()
    assert options == DecodeOptions(
        language="de",
        beam_size=5,
        patience=1.5,
        best_of=3,
        temperature_increment=0.2,
        compression_ratio_threshold=3.0,
        logprob_threshold=-0.5,
        no_speech_threshold=0.7,
        condition_on_previous_text=True,
        prompt="Gespräch mit Frau Özdemir",
        hotwords="Xeon, AVX-512",
        suppress_tokens=(-1, 50),
    )


def test_no_token_at_all_may_be_suppressed():
    assert load(WHISPER_SUPPRESS_TOKENS="none").suppress_tokens == ()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::1]", "localhost", "fe80::1%eth0"])
def test_hosts_may_be_addresses_of_both_families_and_names(host):
    assert load(WHISPER_HOST=host).host == host.strip("[]")


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("WHISPER_MODEL_SIZE", "../small", "small, small.en, medium"),
        ("WHISPER_MODEL_SIZE", "latest", "'latest' is reserved"),
        ("WHISPER_ARTIFACTS_DIR", "/no/such/folder", "must be an existing directory"),
        ("WHISPER_HOST", "a b", "IPv4 or IPv6"),
        ("WHISPER_VAD", "maybe", "auto or off (also true or false)"),
        ("WHISPER_VAD_THRESHOLD", "-0.001", "0 to 1"),
        ("WHISPER_VAD_THRESHOLD", "1.001", "0 to 1"),
        ("WHISPER_VAD_THRESHOLD", "nan", "0 to 1"),
        ("WHISPER_VAD_SPEECH_PAD_MS", "-1", "0 to 60000"),
        ("WHISPER_PORT", "http", "1 to 65535"),
        ("WHISPER_PORT", "65536", "1 to 65535"),
        ("WHISPER_PORT", "-1", "1 to 65535"),
        ("API_PORT", "0", "1 to 65535"),
        ("WHISPER_ENGINES", "0", "auto or a whole number"),
        ("WHISPER_THREADS", "two", "auto or a whole number"),
        ("WHISPER_LANGUAGE", "klingon", "auto or a language by code"),
        ("WHISPER_ADAPTER", "ctypes", "library or cli"),
        ("WHISPER_AUDIO_CTX", "half", "one of auto, full"),
        ("WHISPER_BEAM_SIZE", "9", "1 to 8"),
        ("WHISPER_BEST_OF", "0", "1 to 8"),
        ("WHISPER_PATIENCE", "0", "0.1 to 10"),
        ("WHISPER_TEMPERATURE_INCREMENT", "nan", "0 to 1"),
        ("WHISPER_COMPRESSION_RATIO_THRESHOLD", "-2.4", "0 to 100"),
        ("WHISPER_LOGPROB_THRESHOLD", "1e-3", "-100 to 0"),
        ("WHISPER_NO_SPEECH_THRESHOLD", "1.1", "0 to 1"),
        ("WHISPER_CONDITION_ON_PREVIOUS_TEXT", "sometimes", "true or false"),
        ("WHISPER_PROMPT", "a" * 4097, "at most 4096 characters"),
        ("WHISPER_HOTWORDS", "a" * 4097, "at most 4096 characters"),
        ("WHISPER_SUPPRESS_TOKENS", "-2", "none or at most 512 token ids"),
        ("WHISPER_SUPPRESS_TOKENS", "5,60001", "token ids up to 60000"),
        ("USE_WHISPER_LIBRARY", "maybe", "library or cli"),
        ("WHISPER_QUEUE", "1.5", "0 to 10000"),
        ("WHISPER_MAX_UPLOAD_MB", "0", "1 to 4096"),
        ("WHISPER_MAX_AUDIO_SECONDS", "1e3", "1 to 86400"),
        ("WHISPER_REQUEST_TIMEOUT", "10 s", "1 to 86400"),
        ("WHISPER_SPOOL_MB", "0", "1 to 1048576"),
        ("WHISPER_KEEP_ALIVE", "0", "1 to 3600"),
        ("WHISPER_STRICT_FIELDS", "maybe", "true or false"),
        ("WHISPER_ERROR_FORMAT", "flask", "one of openai, fastapi"),
        ("WHISPER_MODEL_ALIASES", "two words", "names separated by commas"),
        ("WHISPER_CORS_ORIGINS", "app.example.com", "* or origins separated by commas"),
        ("WHISPER_API_KEY_FILE", "/no/such/file", "a readable file"),
        (
            "WHISPER_AUDIO_URL_ALLOW",
            "media.example.com,ftp://a",
            "'ftp://a': it is not a host or an origin; allowed: entries",
        ),
        ("WHISPER_AUDIO_URL_ALLOW", "169.254.169.254", "169.254.169.254/32 is never connected to"),
        ("WHISPER_LOG_LEVEL", "loud", "debug, info, warning, error"),
        ("DEBUG", "maybe", "DEBUG=true"),
    ],
)
def test_a_bad_value_is_refused_naming_variable_value_and_what_is_allowed(variable, value, allowed):
    with pytest.raises(SettingsError) as refusal:
        load(**{variable: value})
    message = str(refusal.value)
    assert message.startswith(f"{variable}={value!r} is not allowed: ")
    assert allowed in message
    assert "\n" not in message


def test_an_unknown_variable_is_warned_about_with_the_nearest_name():
    _, warnings = load_settings({"WHISPER_MODELSIZE": "small"})
    assert warnings == ["WHISPER_MODELSIZE is not a setting and has no effect: did you mean WHISPER_MODEL_SIZE?"]


def test_variables_of_the_tooling_and_of_others_are_none_of_its_business():
    assert load_settings({"WHISPER_XEON_CACHE": "/tmp", "HOME": "/"})[1] == []


@pytest.mark.parametrize("arguments", [(), ("--check-config",), ("--self-test",)])
def test_a_bad_setting_ends_the_start_with_one_line_and_status_2(arguments):
    result = run_cli(*arguments, WHISPER_PORT="eighty")
    assert result.returncode == 2
    assert result.stderr == (
        "whisper-xeon: WHISPER_PORT='eighty' is not allowed: must be a whole number from 1 to 65535\n"
    )


@pytest.mark.parametrize("option", ["--self", "--check"])
def test_an_option_has_its_whole_name(option):
    result = run_cli(option, WHISPER_MODEL_SIZE="medium")
    assert result.returncode == 2
    assert f"unrecognized arguments: {option}" in result.stderr


def test_check_config_prints_every_setting():
    result = run_cli("--check-config", WHISPER_MODEL_SIZE="medium")
    assert result.returncode == 0
    assert [line.split("=")[0] for line in result.stdout.splitlines()] == [setting.name for setting in SETTINGS]
    assert "WHISPER_MODEL_SIZE=medium\n" in result.stdout


def test_check_config_prints_values_as_they_are_written():
    given = {
        "WHISPER_SUPPRESS_TOKENS": "-1,50",
        "WHISPER_CONDITION_ON_PREVIOUS_TEXT": "true",
        "WHISPER_PATIENCE": "1.5",
    }
    lines = run_cli("--check-config", **given).stdout.splitlines()
    assert {f"{name}={value}" for name, value in given.items()} <= set(lines)
    assert "WHISPER_SUPPRESS_TOKENS=none" in run_cli("--check-config", WHISPER_SUPPRESS_TOKENS="none").stdout


def test_check_config_prints_the_places_of_audio_url_as_they_are_understood():
    result = run_cli("--check-config", WHISPER_AUDIO_URL_ALLOW="Media.example.com, store.example.com=10.0.0.0/8")
    assert "WHISPER_AUDIO_URL_ALLOW=https://media.example.com,https://store.example.com=10.0.0.0/8\n" in result.stdout


def test_help_lists_every_setting_with_its_default():
    text = run_cli("--help").stdout
    for setting in SETTINGS:
        assert setting.name in text
        assert setting.help in text


def test_version_is_printed():
    assert re.fullmatch(r"whisper-xeon \d+\.\d+\.\d+\n", run_cli("--version").stdout)
