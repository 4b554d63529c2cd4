"""The errors of the library adapter; their messages say what is wrong, where, and what to do about it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from whisper_package.errors import ModelFileError, PackageError


class WhisperLibraryError(Exception):
    """libwhisper, or the package around it, cannot do what was requested; base of the errors below."""


class LibraryLoadError(WhisperLibraryError):
    """The shared objects cannot be loaded on this host, or are not the ones that the package's manifest describes."""


class ModelInitError(WhisperLibraryError):
    """The model file is damaged or not a Whisper model, or the library rejected it."""


class UnsupportedOptionError(WhisperLibraryError):
    """This model cannot do what the request asks for, for example decode a language that it was not trained on."""


@contextlib.contextmanager
def adapter_errors() -> Iterator[None]:
    """Raise the errors of the package's reader as the adapter's: about the model file, or about the rest of it."""
    try:
        yield
    except ModelFileError as error:
        raise ModelInitError(str(error)) from None
    except PackageError as error:
        raise LibraryLoadError(str(error)) from None
