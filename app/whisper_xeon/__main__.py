"""Command line of the service: `python3 -m whisper_xeon` serves; see `--help`.

Exit status: 0 after a requested stop; 1 when the package, the library, the model or the port is at fault; 2 for a
setting that is not allowed; 3 for a package in the old layout. The error is one line.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import os
import resource
import signal
import sys
import threading
import time
from typing import Any, Callable

import whisper_xeon
from whisper_package.errors import OldLayoutError, PackageError, VariantError
from whisper_package.model_file import check_model_file
from whisper_package.package import Package
from whisper_package.selftest import same_words
from whisper_package.variants import choose_variant, cpu_flags
from whisper_xeon import confinement, logs
from whisper_xeon.audio.decode import decode
from whisper_xeon.audio.errors import AudioError
from whisper_xeon.audio.ffmpeg import require_tools
from whisper_xeon.engine import process
from whisper_xeon.engine.errors import WhisperLibraryError
from whisper_xeon.engine.outcome import EngineError
from whisper_xeon.engine.pool import EnginePool
from whisper_xeon.languages import known_to
from whisper_xeon.settings import SETTINGS, Settings, SettingsError, describe_settings, load_settings
from whisper_xeon.systemd import Notifier, SocketActivationError, inherited_socket
from whisper_xeon.transcript import NON_SPEECH, DecodeOptions
from whisper_xeon.web.cors import allow_origins
from whisper_xeon.web.forwarded import TrustedProxies
from whisper_xeon.web.framing import Limits
from whisper_xeon.web.hosts import allow_hosts
from whisper_xeon.web.key_file import KeyFile
from whisper_xeon.web.routes import Application
from whisper_xeon.web.server import Server
from whisper_xeon.web.tls import Certificate, CertificateError

_FAILED = 1
_BAD_SETTING = 2
_OLD_LAYOUT = 3
_SELF_TEST_SECONDS = 900
_POOL_STOP_SECONDS = 2.0
_FAILED_DRAIN_SECONDS = 5.0
_FILE_LIMIT = 8192  # a connection takes one file for itself and up to two for its audio


class StartError(Exception):
    """The service cannot start; the message is one line that says what to do."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    options = _parse(arguments)
    try:
        settings, warnings = load_settings(os.environ)
        confinement.hide_memory()  # before it has anything to hide
        confinement.give_up_calls()
        keys = KeyFile(settings.api_key_file) if settings.api_key_file else None
        if options.check_config:
            _certificate(settings)
            _print_settings(settings, warnings)
            return 0
        if options.self_test:
            logs.configure("critical")  # the one line that says what is wrong is printed here
            _certificate(settings)
            return _self_test(settings)
        logs.configure(settings.log_level)
        for warning in warnings:
            logs.log(logging.WARNING, warning)
        return _serve(settings, keys)
    except SettingsError as error:
        return _complain(error, _BAD_SETTING)
    except OldLayoutError as error:
        return _complain(error, _OLD_LAYOUT)
    except (StartError, PackageError, AudioError, EngineError, WhisperLibraryError) as error:
        return _complain(error, _FAILED)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python3 -m whisper_xeon",
        description="Speech-to-text service around libwhisper. Without options: serve until SIGTERM.",
        epilog=describe_settings(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # a container's entrypoint decides by the options' names
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--version", action="version", version=f"whisper-xeon {whisper_xeon.__version__}")
    action.add_argument("--check-config", action="store_true", help="check the settings, print them, and exit")
    action.add_argument(
        "--self-test",
        action="store_true",
        help="load the package, transcribe its self-test clip, print one line of JSON, and exit",
    )
    return parser.parse_args(arguments)


def _complain(error: Exception, status: int) -> int:
    print(f"whisper-xeon: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return status


def _print_settings(settings: Settings, warnings: list[str]) -> None:
    values = dataclasses.asdict(settings)
    for setting in SETTINGS:
        print(f"{setting.name}={_as_written(values[setting.attribute])}")
    for warning in warnings:
        print(f"whisper-xeon: {warning}", file=sys.stderr)


def _as_written(value: Any) -> str:
    """Return a setting's value in the form that the environment has."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return str(value)


def _package(settings: Settings) -> Package:
    try:
        return Package.find(settings.artifacts_dir, settings.model_size)
    except OldLayoutError:
        raise
    except PackageError as error:
        raise StartError(f"{error} (WHISPER_ARTIFACTS_DIR is {settings.artifacts_dir})") from None


def _pool(settings: Settings, package: Package) -> EnginePool:
    if settings.cpu_variant:
        try:
            choose_variant(package, cpu_flags(), settings.cpu_variant)
        except VariantError as error:
            raise SettingsError(f"WHISPER_CPU_VARIANT={settings.cpu_variant!r} is not allowed: {error}") from None
    return EnginePool(
        package,
        engines=settings.engines,
        threads=settings.threads,
        queue=settings.queue,
        adapter=settings.adapter,
        audio_ctx=settings.audio_ctx,
        cpu_variant=settings.cpu_variant or "auto",
        log=logs.log,
    )


def _self_test(settings: Settings) -> int:
    package = _package(settings)
    start = time.monotonic()
    pool = _pool(dataclasses.replace(settings, engines=1), package)
    try:
        pool.start()
        if not pool.wait_ready(_SELF_TEST_SECONDS):
            raise StartError(pool.failure or f"{package.name} did not load within {_SELF_TEST_SECONDS} s")
        load_s = time.monotonic() - start
        with open(package.selftest_audio, "rb") as clip:
            audio = decode(clip.fileno(), max_seconds=settings.max_audio_seconds)
        with audio:
            options = DecodeOptions(language=package.manifest["selftest"].get("language"))
            result = pool.transcribe(audio, options, deadline=time.monotonic() + _SELF_TEST_SECONDS, cancelled=None)
    except OSError as error:
        raise StartError(f"{package.selftest_audio} cannot be read: {error.strerror}") from None
    finally:
        pool.stop(grace=0)
    text = result.transcript.text
    correct = same_words(text, package.selftest_text)
    report = {
        "ok": correct,
        "model": package.model,
        "release_id": package.release_id,
        "text": text,
        "expected": package.selftest_text,
        "load_s": round(load_s, 3),
        "compute_s": round(result.compute_s, 3),
    }
    print(json.dumps(report), flush=True)
    if not correct:
        raise StartError(f"{package.name} transcribes its self-test clip incorrectly on this host: do not serve it")
    return 0


def _check_language(settings: Settings, package: Package) -> None:
    """Reject a language that the model does not know: every request without a language would fail."""
    if settings.language in (None, "en"):
        return
    known = known_to(check_model_file(package.model_file).n_vocab)
    if settings.language not in known:
        raise SettingsError(
            f"WHISPER_LANGUAGE={settings.language!r} is not allowed: model {package.model} knows "
            f"{'English only' if len(known) == 1 else f'{len(known)} languages, but not this one'}"
        )


def _check_decoding(settings: Settings, package: Package) -> None:
    """Reject tokens to suppress that the package cannot, since every request would fail; log what it does otherwise."""
    follows_openai = "decoding" in package.kernels
    if set(settings.suppress_tokens) - {NON_SPEECH} and (settings.adapter == "cli" or not follows_openai):
        unable = "whisper-cli" if settings.adapter == "cli" else package.name
        raise SettingsError(
            f"WHISPER_SUPPRESS_TOKENS={_as_written(settings.suppress_tokens)!r} is not allowed: {unable} cannot "
            "suppress tokens of your choice: use -1 or none"
        )
    if not follows_openai:
        logs.log(
            logging.INFO,
            "the package has no kernel decoding: beams and further tries are whisper.cpp's own",
        )


def _serve(settings: Settings, keys: KeyFile | None) -> int:
    started_at = time.time()
    _raise_file_limit()
    process.return_memory()
    # The watchdog ends a hung service with SIGABRT; a core dump would contain somebody's speech.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    notifier = Notifier()
    require_tools()
    package = _package(settings)
    _check_language(settings, package)
    _check_decoding(settings, package)
    pool = _pool(settings, package)
    application = Application(settings, package, pool, api_keys=keys, started_at=started_at)
    server = _listen(settings, application)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    # Process 1 of a container ignores a signal that it has no handler for, so its entrypoint blocks these until now.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
    notifier.notify(f"STATUS=loading {package.model}")
    pool.start()
    watcher = threading.Thread(target=_watch, args=(pool, package, server, notifier), daemon=True)
    watcher.start()
    server.run(tick=_sign_of_life(server, pool, notifier), interval=notifier.watchdog_interval or 1.0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # a second signal ends the process at once
    failure = pool.failure if pool.state == "failed" else None
    notifier.notify("STOPPING=1", "STATUS=finishing the running requests")
    drained = server.drain(_FAILED_DRAIN_SECONDS if failure else settings.request_timeout)
    pool.stop(grace=_POOL_STOP_SECONDS if drained else 0)
    if failure:
        raise StartError(failure)
    logs.log(logging.INFO, "stopped")
    return 0


def _raise_file_limit() -> None:
    """Allow more open files than the usual 1024, up to the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILE_LIMIT if hard == resource.RLIM_INFINITY else min(_FILE_LIMIT, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _listen(settings: Settings, application: Application) -> Server:
    try:
        inherited = inherited_socket()
        address = inherited or (settings.host, settings.port)
        limits = Limits(idle=settings.keep_alive)
        reachable = allow_origins(application, settings.cors_origins or ())
        if settings.allowed_hosts is not None:
            reachable = allow_hosts(reachable, settings.allowed_hosts)
        server = Server(
            reachable,
            address,
            limits=limits,
            proxies=TrustedProxies(settings.trusted_proxies or ()),
            certificate=_certificate(settings),
            error_format=settings.error_format,
            answered=application.metrics.answered,
        )
    except SocketActivationError as error:
        raise StartError(f"unusable socket from systemd: {error}") from None
    except OSError as error:
        raise StartError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}; "
            "stop the program that listens there, or set WHISPER_HOST and WHISPER_PORT"
        ) from None
    if not inherited:
        logs.log(logging.INFO, "listening", host=settings.host, port=settings.port)
    return server


def _certificate(settings: Settings) -> Certificate | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    try:
        return Certificate(settings.tls_cert, settings.tls_key)
    except CertificateError as error:
        raise SettingsError(f"WHISPER_TLS_CERT, WHISPER_TLS_KEY: {error}") from None


def _watch(pool: EnginePool, package: Package, server: Server, notifier: Notifier) -> None:
    """Tell systemd once that the model is loaded, or stop the service when it cannot be loaded."""
    while pool.state == "loading":
        pool.wait_ready(1.0)
    if pool.state == "ready":
        notifier.notify("READY=1", f"STATUS=serving {package.model}, release {package.release_id[:12]}")
    elif pool.state == "failed":
        server.stop()


def _sign_of_life(server: Server, pool: EnginePool, notifier: Notifier) -> Callable[[], None]:
    """Return what the accept loop calls in every iteration: feeds systemd's watchdog, stops when the engines are lost.

    It feeds the watchdog only while both threads that nothing replaces run: the accept loop, which makes the call, and
    the supervisor, which has a sign of life of its own.
    """
    next_at = 0.0

    def tick() -> None:
        nonlocal next_at
        if pool.state == "failed":
            server.stop()
        elif notifier.watchdog_interval and time.monotonic() >= next_at and pool.supervised:
            next_at = time.monotonic() + notifier.watchdog_interval
            notifier.notify("WATCHDOG=1")

    return tick


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
