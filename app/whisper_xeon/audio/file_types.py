"""Which files are decoded, and what to do with the others.

Containers are recognized by their content. Telephony's raw formats have none to be recognized by: they are taken by
content type or name, from a fixed table. No container that can refer to another file is on the list: no playlist, no
concatenation.
"""

from __future__ import annotations

import re
from typing import NamedTuple

ACCEPTED = (
    "wav, mp3, m4a, mp4, mov, 3gp, ogg, opus, flac, aac, webm, mkv, aiff, caf, wma, avi, ts, mpg, flv, ac3, dts, "
    "truehd, wv, au or amr"
)

# ffmpeg's names of the containers behind ACCEPTED.
DEMUXERS = "aac,ac3,aiff,amr,asf,au,avi,caf,dts,eac3,flac,flv,matroska,mlp,mov,mp3,mpeg,mpegts,ogg,truehd,w64,wav,wv"
# … and of the audio in them. Pictures and video are never decoded, not even to identify them.
CODECS = (
    "aac,aac_latm,ac3,adpcm_ima_qt,adpcm_ima_wav,adpcm_ms,adpcm_swf,alac,amrnb,amrwb,dca,eac3,flac,g722,g726,g726le,"
    "gsm_ms,libopus,libspeex,mlp,mp1,mp2,mp2float,mp3,mp3float,nellymoser,opus,pcm_alaw,pcm_bluray,pcm_dvd,pcm_f32be,"
    "pcm_f32le,pcm_f64be,pcm_f64le,pcm_mulaw,pcm_s16be,pcm_s16le,pcm_s24be,pcm_s24le,pcm_s32be,pcm_s32le,pcm_s8,"
    "pcm_u8,speex,truehd,vorbis,wavpack,wmalossless,wmapro,wmav1,wmav2,wmavoice"
)


class RawFormat(NamedTuple):
    """Samples without a header."""

    demuxer: str  # ffmpeg's name
    sample_rate: int
    channels: int = 1

    @property
    def layout(self) -> str:
        """ffmpeg's name for the channels."""
        return "stereo" if self.channels == 2 else "mono"

    @property
    def options(self) -> tuple[str, ...]:
        """Options of ffmpeg for such a file."""
        form = ("-ar", str(self.sample_rate), "-ac", str(self.channels)) if self.demuxer != "g722" else ()
        return ("-format_whitelist", self.demuxer, "-f", self.demuxer, *form)


class FileHint(NamedTuple):
    """What a client says about a file beside its bytes; it decides only where the bytes say nothing."""

    content_type: str = ""  # with its parameters
    name: str = ""
    raw: RawFormat | None = None  # how to read it, whatever its type and name


# What the ASR web service reads with encode=false (its load_audio).
WEBSERVICE_PCM = RawFormat("s16le", 16000)

_MULAW = RawFormat("mulaw", 8000)
_ALAW = RawFormat("alaw", 8000)
_G722 = RawFormat("g722", 16000)
# audio/basic is mu-law at 8 kHz (RFC 2046), audio/PCMU, PCMA and G722 are RFC 3551's.
_RAW_TYPES = {
    **dict.fromkeys(("basic", "pcmu", "mulaw", "x-mulaw", "mu-law", "x-mu-law", "ulaw", "x-ulaw"), _MULAW),
    **dict.fromkeys(("pcma", "alaw", "x-alaw", "a-law", "x-a-law"), _ALAW),
    **dict.fromkeys(("g722", "x-g722"), _G722),
}
_RAW_SUFFIXES = {
    **dict.fromkeys(("ulaw", "mulaw", "ul", "mu", "pcmu"), _MULAW),
    **dict.fromkeys(("alaw", "al", "pcma"), _ALAW),
    **dict.fromkeys(("g722", "722"), _G722),
}
_RATES = range(4000, 48001)  # of raw samples, where the content type names one

# How files begin that need no hint.
_CONTAINER = re.compile(
    rb"RIFF|RF64|FORM|OggS|fLaC|ID3|caff|wvpk|FLV|#!AMR|\.snd|\x1aE\xdf\xa3|\x30\x26\xb2\x75|.{4}ftyp", re.DOTALL
)

_TO_FLAC = "ffmpeg -i FILE -vn audio.flac"
# How other files begin, what they are, and what helps.
_REFUSED = tuple(
    (re.compile(begins, re.DOTALL | re.IGNORECASE), what, remedy)
    for begins, what, remedy in (
        (rb"MAC ", "Monkey's Audio", _TO_FLAC),
        (rb"MPCK|MP\+", "Musepack", _TO_FLAC),
        (rb"TTA[12]", "True Audio", _TO_FLAC),
        (rb"tBaK", "TAK", _TO_FLAC),
        (rb"DSD |FRM8", "DSD", _TO_FLAC),
        (rb"\.RMF|\.ra\xfd", "RealMedia", _TO_FLAC),
        (rb"Creative Voice File", "Creative Voice", _TO_FLAC),
        (rb"NIST_1A", "NIST SPHERE", _TO_FLAC),
        (rb"\x06\x0e\x2b\x34", "MXF", _TO_FLAC),
        (rb"nut/multimedia", "NUT", _TO_FLAC),
        (rb"\xc0\xde\xc2", "Codec 2", _TO_FLAC),
        (rb"(\xef\xbb\xbf)?\s*(#EXTM3U|\[playlist\]|ffconcat|<asx|<smil|(<\?xml[^>]*>\s*)?<(MPD|SmoothStreamingMedia))",
         "a playlist, which names other files", "ffmpeg -i PLAYLIST -vn audio.flac"),
        (rb"v=0\r?\n", "a session description, which names a stream", "ffmpeg -i FILE -vn audio.flac"),
        (rb"MThd", "MIDI, which has notes and no sound", ""),
        (rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|\xfd7zXZ|Rar!|BZh|\x28\xb5\x2f\xfd", "compressed: unpack it", ""),
        (rb"\s*(<!doctype html|<html)", "a web page: send the recording that it links to", ""),
        (rb"\s*--[^\r\n]{1,70}\r?\n(?:[a-z-]+:[^\r\n]*\r?\n){0,8}?Content-Disposition:\s*form-data",
         "a form whose Content-Type was not multipart/form-data with its boundary: let your HTTP client write that "
         "header", ""),
        (rb"\x89PNG|\xff\xd8\xff|GIF8|%PDF", "a picture or document", ""),
    )
)  # fmt: skip
# ffmpeg's options for other raw formats, which nothing in a file tells apart.
_RAW_OPTIONS = {
    **dict.fromkeys(("pcm", "raw", "s16le", "x-pcm", "x-raw"), "-f s16le -ar 16000 -ac 1"),
    **dict.fromkeys(("l16", "s16be"), "-f s16be -ar 16000 -ac 1"),
    **dict.fromkeys(("sln", "slin"), "-f s16le -ar 8000 -ac 1"),
    **dict.fromkeys(("gsm", "x-gsm"), "-f gsm"),
    **dict.fromkeys(("g726", "g726-32"), "-f g726le -code_size 4"),
    "g729": "-f g729",
    "g723": "-f g723_1",
}


def raw_format(head: bytes, hint: FileHint) -> RawFormat | None:
    """Return how to read a file without a header that begins with `head`; None where it says itself what it is."""
    if _CONTAINER.match(head):
        return None
    if hint.raw is not None:
        return hint.raw
    by_type = _RAW_TYPES.get(_subtype(hint))
    if by_type is None:
        return _RAW_SUFFIXES.get(_suffix(hint))
    if by_type is _G722:  # its rate is 8000 in content types for a historical reason (RFC 3551)
        return by_type
    rate, channels = (_parameter(hint, name) for name in ("rate", "channels"))
    return by_type._replace(
        sample_rate=rate if rate and rate in _RATES else by_type.sample_rate, channels=2 if channels == 2 else 1
    )


def why_unreadable(head: bytes, hint: FileHint) -> str:
    """Return a sentence about a file that begins with `head` and in which ffmpeg finds no audio."""
    for begins, what, remedy in _REFUSED:
        if begins.match(head):
            return f"the file is {what}{_remedy(remedy)}; accepted are {ACCEPTED}"
    options = _RAW_OPTIONS.get(_subtype(hint)) or _RAW_OPTIONS.get(_suffix(hint))
    if options:
        return (
            "the file has samples without a header, which can be read in many ways"
            f"{_remedy(f'ffmpeg {options} -i FILE audio.wav')}; accepted are {ACCEPTED}"
        )
    return f"the file cannot be decoded as audio: send {ACCEPTED}, or convert it, for example with {_TO_FLAC}"


def why_undecodable(codec: str, *, encrypted: bool) -> str:
    """Return a sentence about an audio track that ffmpeg finds and cannot decode; the codec's name is ffmpeg's."""
    if encrypted:
        return "the audio in the file is encrypted: send it without copy protection"
    if codec in CODECS.split(",") or not re.fullmatch(r"[a-z0-9_]{1,32}", codec) or codec in ("unknown", "none"):
        return f"the audio in the file is damaged or incomplete: send it again, as {ACCEPTED}"
    return f"the audio in the file ({codec}) cannot be decoded here{_remedy(_TO_FLAC)}; accepted are {ACCEPTED}"


def _remedy(command: str) -> str:
    return f": convert it, for example with {command}" if command else ""


def _subtype(hint: FileHint) -> str:
    kind, _, subtype = hint.content_type.partition(";")[0].strip().lower().partition("/")
    return subtype if kind == "audio" else ""


def _suffix(hint: FileHint) -> str:
    return hint.name.rpartition(".")[2].lower()


def _parameter(hint: FileHint, name: str) -> int | None:
    match = re.search(rf';\s*{name}="?([0-9]{{1,6}})\b', hint.content_type.lower())
    return int(match[1]) if match else None
