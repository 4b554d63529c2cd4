"""The recordings of the tests, as files and as samples."""

from __future__ import annotations

import array

from paths import RECORDINGS
from whisper_xeon.audio.decode import decode, map_samples


def samples(name: str) -> array.array:
    """Decode a recording: 32-bit floats, 16 kHz, one channel."""
    with open(RECORDINGS / name, "rb") as stream, decode(stream.fileno(), max_seconds=600) as audio:
        result = array.array("f")
        result.frombytes(map_samples(audio.fd, audio.samples))
        return result
