"""Transcribes with a model of this process's own: the service's engines, without its HTTP."""

from __future__ import annotations

import os
from pathlib import Path

from whisper_command.errors import CannotTranscribe, FileFailed
from whisper_package.errors import PackageError
from whisper_package.package import Package
from whisper_xeon.audio.decode import decode
from whisper_xeon.audio.errors import AudioError, DecoderMissing
from whisper_xeon.audio.ffmpeg import require_tools
from whisper_xeon.audio.file_types import FileHint
from whisper_xeon.engine.outcome import EngineError, EngineUnavailable
from whisper_xeon.engine.pool import EnginePool
from whisper_xeon.settings import Settings
from whisper_xeon.transcript import DecodeOptions, Transcript

_LOAD_SECONDS = 600
_LONGEST_AUDIO = 24 * 3600
_DECODE_SECONDS = 3600


class LocalModel:
    """Engines around one loaded model. Use it as a context manager."""

    def __init__(self, settings: Settings, options: DecodeOptions):
        """Load the model that `settings` name. Raises `CannotTranscribe`."""
        self._options = options
        try:
            require_tools()
            package = Package.find(settings.artifacts_dir, settings.model_size)
        except (PackageError, DecoderMissing) as error:
            raise CannotTranscribe(
                f"{error}; name a directory of packages with --artifacts-dir, or a running service with --server"
            ) from None
        self._pool = EnginePool(
            package,
            engines=settings.engines,
            threads=settings.threads,
            queue=settings.engines,
            adapter=settings.adapter,
            audio_ctx=settings.audio_ctx,
            cpu_variant=settings.cpu_variant or "auto",
        )
        self.name = f"{package.model} of {package.directory}"
        # While one file is computed, the next is decoded.
        self.jobs = settings.engines + 1
        self._pool.start()
        if not self._pool.wait_ready(_LOAD_SECONDS):
            failure = self._pool.failure or f"{package.name} did not load within {_LOAD_SECONDS} s"
            self._pool.stop(grace=0)
            raise CannotTranscribe(failure)

    def transcribe(self, source: Path) -> Transcript:
        """Return the transcript of a file. Raises `FileFailed`, `CannotTranscribe` when no other would work either."""
        try:
            fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
            try:
                audio = decode(
                    fd,
                    max_seconds=_LONGEST_AUDIO,
                    timeout=_DECODE_SECONDS,
                    hint=FileHint(name=source.name),
                    sides=self._options.diarize == "channel",
                )
            finally:
                os.close(fd)
            with audio:
                return self._pool.transcribe(audio, self._options).transcript
        except EngineUnavailable as error:
            raise CannotTranscribe(str(error)) from None
        except OSError as error:
            raise FileFailed(f"cannot be read: {error.strerror}") from None
        except (AudioError, EngineError) as error:
            raise FileFailed(str(error)) from None

    def close(self) -> None:
        """End the engines at once."""
        self._pool.stop(grace=0)

    def __enter__(self) -> LocalModel:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
