"""The environment, read once: `WHISPER_*` variables become one checked, frozen `Settings`.

`SETTINGS` is the only list of settings: parsing, `--help`, `--check-config` and docs/settings.md follow it. A setting
is listed only if it does something. Nothing else in the service reads a `WHISPER_*` variable.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from whisper_package.errors import PackageError
from whisper_package.models import ALIASES, MODEL_CONFIGS, model_name
from whisper_xeon.audio.url_policy import AllowList
from whisper_xeon.engine.cores import MAX_THREADS, available_cores
from whisper_xeon.languages import find_language
from whisper_xeon.transcript import LARGEST_TOKEN, MAX_SUPPRESSED, DecodeOptions
from whisper_xeon.web.errors import ERROR_FORMATS

PREFIX = "WHISPER_"
TOOLING_PREFIX = "WHISPER_XEON_"  # cache directory, test artifacts: not the service's business

# float32 at 16 kHz mono, the form in which audio waits for an engine
_PCM_BYTES_PER_SECOND = 4 * 16000
_MEBIBYTE = 1 << 20
MAX_PROMPT_CHARACTERS = 4096  # of which the model sees the last 223 tokens
_UPLOAD_MB = 512
_LONGEST_AUDIO_S = 86400


class SettingsError(Exception):
    """A variable's value is not allowed; the message is one line naming variable, value and what is allowed."""


@dataclass(frozen=True)
class Setting:
    """One environment variable: what it may hold and what it does."""

    name: str
    default: str  # as a person would write it; empty: not set
    allowed: str
    help: str
    parse: Callable[[str], Any]  # raises ValueError, with a reason or without, when the text is not allowed
    aliases: tuple[str, ...] = ()  # looked at when the variable of this name is not set
    aliases_must_agree: bool = False  # … and, here, also when it is

    @property
    def attribute(self) -> str:
        """Name of the field of `Settings` that holds the value."""
        return self.name[len(PREFIX) :].lower()


@dataclass(frozen=True)
class Settings:
    """What the service was told; one field for each entry of `SETTINGS`, with `auto` already resolved."""

    model_size: str
    artifacts_dir: Path
    host: str
    port: int
    engines: int
    threads: int
    language: str | None  # None: detect
    audio_ctx: str
    beam_size: int
    patience: float
    best_of: int
    temperature_increment: float
    compression_ratio_threshold: float
    logprob_threshold: float
    no_speech_threshold: float
    condition_on_previous_text: bool
    prompt: str | None
    hotwords: str | None
    suppress_tokens: tuple[int, ...]
    adapter: str
    cpu_variant: str | None  # None: the best that the processor runs
    vad: bool  # what a request gets that does not say
    vad_threshold: float
    vad_min_speech_ms: int
    vad_min_silence_ms: int
    vad_speech_pad_ms: int
    queue: int
    max_upload_mb: int
    max_audio_seconds: int
    spool_mb: int
    request_timeout: int  # seconds
    keep_alive: int  # seconds
    strict_fields: bool
    error_format: str
    model_aliases: tuple[str, ...] | None
    cors_origins: tuple[str, ...] | None  # None: no other origin; "*": all
    trusted_proxies: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] | None
    api_key_file: Path | None
    tls_cert: Path | None
    tls_key: Path | None
    allowed_hosts: tuple[str, ...] | None  # None: any name
    audio_url_allow: AllowList | None  # None: no audio_url at all
    log_level: str

    @property
    def max_upload_bytes(self) -> int:
        return self.max_upload_mb * _MEBIBYTE

    @property
    def spool_bytes(self) -> int:
        return self.spool_mb * _MEBIBYTE

    def decode_options(self) -> DecodeOptions:
        """Return what a request is decoded with where it says nothing itself."""
        names = {field.name for field in dataclasses.fields(DecodeOptions)}
        return DecodeOptions(
            **{name: value for name, value in vars(self).items() if name in names and value is not None}
        )


def _choice(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError
        return text.lower()

    return parse


def _model(text: str) -> str:
    try:
        return model_name(text)
    except PackageError as error:
        raise ValueError(str(error)) from None


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise ValueError
        return int(text)

    return parse


def _number(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if not re.fullmatch(r"-?[0-9]{1,9}(\.[0-9]{0,9})?", text) or not low <= float(text) <= high:
            raise ValueError
        return float(text)

    return parse


def _switch(text: str) -> bool:
    return _choice_or_switch(("true", "false"), on="true", off="false")(text) == "true"


def _words(text: str) -> str:
    if len(text) > MAX_PROMPT_CHARACTERS or "\0" in text:
        raise ValueError
    return text


def _tokens(text: str) -> tuple[int, ...]:
    if text.lower() == "none":
        return ()
    numbers = [number.strip() for number in text.split(",")]
    if len(numbers) > MAX_SUPPRESSED or not all(re.fullmatch(r"-1|[0-9]{1,6}", number) for number in numbers):
        raise ValueError
    tokens = tuple(dict.fromkeys(map(int, numbers)))
    if max(tokens) > LARGEST_TOKEN:
        raise ValueError
    return tokens


def _language(text: str) -> str:
    code = find_language(text)
    if code is None:
        raise ValueError
    return code


def _listed(item: str) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        items = tuple(part.strip() for part in text.split(",") if part.strip())
        if not all(re.fullmatch(item, part) for part in items):
            raise ValueError
        return items

    return parse


def _networks(text: str) -> tuple[Any, ...]:
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())


def _auto_or(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: None if text.lower() == "auto" else parse(text)


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text):
        raise ValueError
    return text.lower()


def _directory(text: str) -> Path:
    if not Path(text).is_dir():
        raise ValueError
    return Path(text)


def _file(text: str) -> Path:
    if not os.access(text, os.R_OK) or Path(text).is_dir():
        raise ValueError
    return Path(text)


def _host(text: str) -> str:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not re.fullmatch(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(%[A-Za-z0-9]+)?", bare):
        raise ValueError
    return bare


def _choice_or_switch(choices: tuple[str, ...], on: str, off: str) -> Callable[[str], str]:
    """A name in one variable is a switch in its alias; either may hold both, so one parser serves both."""
    switch = {**dict.fromkeys(("true", "1", "yes", "on"), on), **dict.fromkeys(("false", "0", "no", "off"), off)}
    choose = _choice(*choices)
    return lambda text: choose(switch.get(text.lower(), text))


_LEVELS = ("debug", "info", "warning", "error")

SETTINGS: tuple[Setting, ...] = (
    Setting(
        "WHISPER_MODEL_SIZE",
        "small",
        f"the name of a model, in upper or lower case: {', '.join((*MODEL_CONFIGS, *ALIASES))}, or that of your own",
        "The model to serve; its package must be in WHISPER_ARTIFACTS_DIR.",
        _model,
    ),
    Setting(
        "WHISPER_ARTIFACTS_DIR",
        ".",
        "an existing directory",
        "The directory that contains the package whisper_<model>_xeon/.",
        _directory,
    ),
    Setting(
        "WHISPER_HOST",
        "127.0.0.1",
        "an IPv4 or IPv6 address, or a host name",
        "The address to listen on. 0.0.0.0 or :: accepts connections from other machines. Ignored with a socket from "
        "systemd.",
        _host,
    ),
    Setting(
        "WHISPER_PORT",
        "8000",
        "a whole number from 1 to 65535",
        "The port to listen on. Ignored with a socket from systemd.",
        _whole(1, 65535),
        ("API_PORT",),
    ),
    Setting(
        "WHISPER_ENGINES",
        "auto",
        "auto or a whole number from 1 to 64",
        f"How many requests are transcribed at the same time. auto: one for every {MAX_THREADS} cores, at least one.",
        _auto_or(_whole(1, 64)),
    ),
    Setting(
        "WHISPER_THREADS",
        "auto",
        "auto or a whole number from 1 to 256",
        "The threads of each engine. auto: the cores that this process may use (affinity, cgroup), divided among the "
        f"engines, at most {MAX_THREADS}.",
        _auto_or(_whole(1, 256)),
    ),
    Setting(
        "WHISPER_LANGUAGE",
        "auto",
        "auto or a language by code, name or locale, such as de, German or de-DE",
        "The language of requests that do not name one. auto: detect it.",
        _auto_or(_language),
    ),
    Setting(
        "WHISPER_AUDIO_CTX",
        "auto",
        "one of auto, full",
        "How much of its window of 30 s the encoder sees of a shorter clip. auto: as much as it needs (10 s of a clip "
        "of up to 8), and all of it where the text is doubtful. full: all of it.",
        _choice("auto", "full"),
    ),
    Setting(
        "WHISPER_BEAM_SIZE",
        "1",
        "a whole number from 1 to 8",
        "The sequences that are followed at a time, at temperature 0. 1: the most likely token is taken (greedy). Each "
        "takes memory in every engine, of small 24 MB, of medium 63 MB, of large ones 105 MB.",
        _whole(1, 8),
    ),
    Setting(
        "WHISPER_PATIENCE",
        "1",
        "a number from 0.1 to 10",
        "Beams are searched until beam size times patience sequences are complete.",
        _number(0.1, 10),
    ),
    Setting(
        "WHISPER_BEST_OF",
        "1",
        "a whole number from 1 to 8",
        "The samples that are drawn above temperature 0; the most likely one is taken.",
        _whole(1, 8),
    ),
    Setting(
        "WHISPER_TEMPERATURE_INCREMENT",
        "0.4",
        "a number from 0 to 1",
        "How much the temperature rises with each further try of a window of 30 s that decoded badly, up to 1: by 0.1 "
        "or more. 0: no further try.",
        _number(0, 1),
    ),
    Setting(
        "WHISPER_COMPRESSION_RATIO_THRESHOLD",
        "2.4",
        "a number from 0 to 100",
        "A window whose text zlib makes more times shorter than this repeats itself: it decoded badly.",
        _number(0, 100),
    ),
    Setting(
        "WHISPER_LOGPROB_THRESHOLD",
        "-1",
        "a number from -100 to 0",
        "A window whose tokens have a lower mean log probability decoded badly.",
        _number(-100, 0),
    ),
    Setting(
        "WHISPER_NO_SPEECH_THRESHOLD",
        "0.6",
        "a number from 0 to 1",
        "A window below the log probability's threshold is silence if its probability of silence is above this one.",
        _number(0, 1),
    ),
    Setting(
        "WHISPER_CONDITION_ON_PREVIOUS_TEXT",
        "false",
        "true or false",
        "Whether a window is shown the text of those before it. Names stay the same more often, and so do mistakes.",
        _switch,
    ),
    Setting(
        "WHISPER_PROMPT",
        "",
        f"text of at most {MAX_PROMPT_CHARACTERS} characters",
        "The text that is taken to come before the audio of requests that send no prompt: names and jargon in their "
        "spelling. The first window sees its last 223 tokens.",
        _words,
    ),
    Setting(
        "WHISPER_HOTWORDS",
        "",
        f"text of at most {MAX_PROMPT_CHARACTERS} characters",
        "Words to expect, shown to every window in front of the prompt or the previous text; the first 223 tokens.",
        _words,
    ),
    Setting(
        "WHISPER_SUPPRESS_TOKENS",
        "-1",
        f"none or at most {MAX_SUPPRESSED} token ids up to {LARGEST_TOKEN} separated by commas, of which -1 means "
        "those that are not speech",
        "The tokens that are never chosen. Not speech: brackets, musical notes and other signs, as in openai-whisper.",
        _tokens,
    ),
    Setting(
        "WHISPER_ADAPTER",
        "library",
        "library or cli (USE_WHISPER_LIBRARY=false means cli)",
        "How whisper.cpp is used. library: the model is loaded once. cli: the package's whisper-cli runs for each "
        "request, to compare with or to fall back on.",
        _choice_or_switch(("library", "cli"), on="library", off="cli"),
        ("USE_WHISPER_LIBRARY",),
        aliases_must_agree=True,
    ),
    Setting(
        "WHISPER_CPU_VARIANT",
        "auto",
        "auto or a CPU variant that the package has and this processor runs, such as baseline or icelake",
        "The CPU library of the package to use. auto: the best one that the processor runs.",
        _auto_or(_name),
    ),
    Setting(
        "WHISPER_VAD",
        "auto",
        "auto or off (also true or false)",
        "Whether what is not speech is skipped, for requests that do not say. auto: where the package can tell, which "
        "those built before voice detection cannot. off: everything is transcribed.",
        lambda text: _choice_or_switch(("auto", "off"), on="auto", off="off")(text) == "auto",
    ),
    Setting(
        "WHISPER_VAD_THRESHOLD",
        "0.5",
        "a number from 0 to 1",
        "The probability from which sound is speech. Lower finds more of it, and more that is none.",
        _number(0, 1),
    ),
    Setting(
        "WHISPER_VAD_MIN_SPEECH_MS",
        "250",
        "a whole number from 0 to 60000",
        "Shorter speech is taken for noise, in ms.",
        _whole(0, 60000),
    ),
    Setting(
        "WHISPER_VAD_MIN_SILENCE_MS",
        "5000",
        "a whole number from 0 to 60000",
        "Silence is skipped where more than this would go, in ms.",
        _whole(0, 60000),
    ),
    Setting(
        "WHISPER_VAD_SPEECH_PAD_MS",
        "400",
        "a whole number from 0 to 60000",
        "What is kept of skipped silence before and after speech, in ms.",
        _whole(0, 60000),
    ),
    Setting(
        "WHISPER_QUEUE",
        "32",
        "a whole number from 0 to 10000",
        "How many requests may wait for an engine. Further requests are answered with 503 and Retry-After.",
        _whole(0, 10000),
    ),
    Setting(
        "WHISPER_MAX_UPLOAD_MB",
        "auto",
        "auto or a whole number from 1 to 4096",
        "The largest upload, or file at an audio_url, in MiB. A larger one is answered with 413. auto: "
        f"{_UPLOAD_MB}, or a quarter of WHISPER_SPOOL_MB if that is less.",
        _auto_or(_whole(1, 4096)),
    ),
    Setting(
        "WHISPER_MAX_AUDIO_SECONDS",
        "auto",
        "auto or a whole number from 1 to 86400",
        "The longest audio, in seconds. Longer audio is answered with 413. auto: what WHISPER_SPOOL_MB holds beside "
        "the largest upload, 6 hours and 59 minutes by default.",
        _auto_or(_whole(1, _LONGEST_AUDIO_S)),
    ),
    Setting(
        "WHISPER_SPOOL_MB",
        "2048",
        "a whole number from 1 to 1048576, with room for one upload and one decoded audio of the largest size",
        "The memory in MiB for uploads and decoded audio (230 MiB per hour) of all requests together. Requests beyond "
        "it are answered with 503.",
        _whole(1, 1048576),
    ),
    Setting(
        "WHISPER_REQUEST_TIMEOUT",
        "600",
        "a whole number from 1 to 86400",
        "The longest time in seconds without progress after the end of an upload; then 504. Progress is a window of 30 "
        "s that an engine has done, of this request or, while it waits, of one before it. whisper-cli does not tell "
        "of windows: with WHISPER_ADAPTER=cli a request has as long as its audio in addition. With audio_url, fetching "
        "the file counts too.",
        _whole(1, 86400),
    ),
    Setting(
        "WHISPER_KEEP_ALIVE",
        "75",
        "a whole number from 1 to 3600",
        "How many seconds a connection may be idle between two requests. More than a proxy in front keeps its own, or "
        "it may send a request into a connection that is being closed.",
        _whole(1, 3600),
    ),
    Setting(
        "WHISPER_STRICT_FIELDS",
        "false",
        "true or false",
        "Whether a request with an unknown field is rejected, with the closest name. false: the field is named in the "
        "header X-Whisper-Ignored and in the log.",
        _switch,
    ),
    Setting(
        "WHISPER_ERROR_FORMAT",
        "openai",
        f"one of {', '.join(ERROR_FORMATS)}",
        'The shape of errors. openai: {"error": {"message", "type", "param", "code"}}. fastapi: {"detail": "…"}, for '
        "clients of a FastAPI service; with 422, detail is a list, as they expect. Status and headers are the same.",
        _choice(*ERROR_FORMATS),
    ),
    Setting(
        "WHISPER_MODEL_ALIASES",
        "",
        "names separated by commas",
        "Further names that a request may call the served model by.",
        _listed(r"[\w.:/@+-]{1,200}"),
    ),
    Setting(
        "WHISPER_CORS_ORIGINS",
        "",
        "* or origins separated by commas, such as https://app.example.com, http://localhost:3000",
        "The web pages that may call the service from a browser, by their origin. Not set: none but its own.",
        _listed(r"\*|[a-z][a-z0-9+.-]*://[^\s/,]+|null"),
    ),
    Setting(
        "WHISPER_TRUSTED_PROXIES",
        "",
        "addresses or networks separated by commas, such as 127.0.0.1, 10.0.0.0/8",
        "The proxies that are believed whose request it is, for the log and for fair shares: by X-Forwarded-For, "
        "Forwarded, or the PROXY protocol. Not set: none.",
        _networks,
    ),
    Setting(
        "WHISPER_API_KEY_FILE",
        "",
        "a readable file",
        "A file with one API key per line, or its digest as sha256:…; then, each after a space, name=, priority= and "
        "limits. Read again when it changes. If set, requests to transcribe must send `Authorization: Bearer <key>`, "
        "or the key as X-API-Key.",
        _file,
    ),
    Setting(
        "WHISPER_TLS_CERT",
        "",
        "a readable file, together with WHISPER_TLS_KEY",
        "The certificate chain, in PEM. If set, the port speaks HTTPS (TLS 1.2 or newer) only. It and the key are read "
        "again when they change.",
        _file,
    ),
    Setting(
        "WHISPER_TLS_KEY",
        "",
        "a readable file, together with WHISPER_TLS_CERT",
        "The certificate's private key, in PEM, without a password.",
        _file,
    ),
    Setting(
        "WHISPER_ALLOWED_HOSTS",
        "",
        "host names or addresses, also with *. before a domain, separated by commas, such as stt.example.com, "
        "*.internal.example.com, 192.0.2.7",
        "The names that requests may call the service by, in the header Host, beside localhost and loopback addresses. "
        "Others are answered with 421, so that no web page can reach it by a name of its own (DNS rebinding). Not set: "
        "any. Probes of a load balancer and scrapes of metrics come by a name, too.",
        _listed(r"(?:\*\.)?[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]+\]?"),
    ),
    Setting(
        "WHISPER_AUDIO_URL_ALLOW",
        "",
        "entries [http://][*.]host[:port][=network] separated by commas, such as media.example.com, "
        "*.cdn.example.com:8443, http://10.0.0.5:9000 or store.example.com=10.0.0.0/8",
        "Where POST /transcribe may fetch an audio_url from. Not set: nowhere. An entry means https unless it says "
        "http://, and only its own port; *. means every host below a domain. A host must have a public address or, "
        "with =network, an address in that network. Link-local addresses and cloud metadata are never connected to.",
        AllowList.parse,
    ),
    Setting(
        "WHISPER_LOG_LEVEL",
        "info",
        "one of " + ", ".join(_LEVELS) + " (DEBUG=true means debug)",
        "The least severe log lines to write to standard error.",
        _choice_or_switch(_LEVELS, on="debug", off="info"),
        ("DEBUG",),
    ),
)


def load_settings(environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """Return the settings of an environment and warnings (one line each) about variables that are not settings.

    An empty variable counts as not set, since compose files pass `${NAME:-}`. Raises `SettingsError`.
    """
    values = {setting.attribute: _value(setting, environ) for setting in SETTINGS}
    cores = available_cores()
    if values["engines"] is None:
        values["engines"] = max(1, cores // (values["threads"] or MAX_THREADS))
    if values["threads"] is None:
        values["threads"] = min(MAX_THREADS, max(1, cores // values["engines"]))
    if values["max_upload_mb"] is None:
        values["max_upload_mb"] = max(1, min(_UPLOAD_MB, values["spool_mb"] // 4))
    if values["max_audio_seconds"] is None:
        room = (values["spool_mb"] - values["max_upload_mb"]) * _MEBIBYTE
        values["max_audio_seconds"] = max(1, min(_LONGEST_AUDIO_S, room // _PCM_BYTES_PER_SECOND))
    settings = Settings(**values)
    _check_spool(settings)
    if (settings.tls_cert is None) != (settings.tls_key is None):
        given, missing = ("CERT", "KEY") if settings.tls_cert else ("KEY", "CERT")
        raise SettingsError(f"WHISPER_TLS_{given} is set without WHISPER_TLS_{missing}: HTTPS takes both")
    return settings, _unknown(environ)


def settings_problems(environ: Mapping[str, str]) -> list[str]:
    """Return what is wrong with settings meant for another host, one line each; also names that are not settings.

    Whether their directories and files exist on that host is not known here.
    """
    paths = {setting.name for setting in SETTINGS if setting.parse in (_file, _directory)}
    try:
        load_settings({name: text for name, text in environ.items() if name not in paths})
    except SettingsError as error:
        return [str(error), *_unknown(environ)]
    return _unknown(environ)


def _value(setting: Setting, environ: Mapping[str, str]) -> Any:
    texts = {variable: environ.get(variable, "").strip() for variable in (setting.name, *setting.aliases)}
    given = [variable for variable, text in texts.items() if text]
    if not given:
        return _parse(setting, setting.name, setting.default) if setting.default else None
    value = _parse(setting, given[0], texts[given[0]])
    for other in given[1:] if setting.aliases_must_agree else ():
        if _parse(setting, other, texts[other]) != value:
            raise SettingsError(f"{other}={texts[other]!r} is not allowed: {given[0]} says otherwise: set only one")
    return value


def _parse(setting: Setting, variable: str, text: str) -> Any:
    try:
        return setting.parse(text)
    except ValueError as error:
        reason = f"{error}; allowed: " if str(error) else "must be "
        raise SettingsError(f"{variable}={text!r} is not allowed: {reason}{setting.allowed}") from None


def _check_spool(settings: Settings) -> None:
    audio_mb = math.ceil(settings.max_audio_seconds * _PCM_BYTES_PER_SECOND / _MEBIBYTE)
    needed = settings.max_upload_mb + audio_mb
    if settings.spool_mb < needed:
        larger = "WHISPER_MAX_UPLOAD_MB" if settings.max_upload_mb > audio_mb else "WHISPER_MAX_AUDIO_SECONDS"
        raise SettingsError(
            f"WHISPER_SPOOL_MB='{settings.spool_mb}' is not allowed: it must be at least {needed}, to hold one "
            f"upload of {settings.max_upload_mb} MiB and {settings.max_audio_seconds} s of decoded audio "
            f"(or lower {larger})"
        )


def _unknown(environ: Mapping[str, str]) -> list[str]:
    names = [setting.name for setting in SETTINGS]
    warnings = []
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable.startswith(TOOLING_PREFIX) or variable in names:
            continue
        near = difflib.get_close_matches(variable, names, n=1)
        hint = f"did you mean {near[0]}?" if near else "--help lists all settings"
        warnings.append(f"{variable} is not a setting and has no effect: {hint}")
    return warnings


def describe_settings() -> str:
    """Return the settings as text for `--help`."""
    lines = ["settings (environment variables):"]
    for setting in SETTINGS:
        alias = f" (also {', '.join(setting.aliases)})" if setting.aliases else ""
        lines += [f"  {setting.name}{alias}", f"      {setting.help}"]
        lines.append(f"      allowed: {setting.allowed}; default: {setting.default or 'not set'}")
    return "\n".join(lines)
