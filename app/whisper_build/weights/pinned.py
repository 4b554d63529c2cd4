"""What comes from OpenAI's own files whatever the weights come from: the vocabulary and the mel filters.

`whisper/assets` of the source distribution of openai-whisper has both: tiktoken's vocabularies, of English and of all
languages, and the filters that make a spectrogram of 80 or 128 bins.
"""

from __future__ import annotations

import base64
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from whisper_build.downloads import SourceError
from whisper_build.weights.checkpoint import Checkpoint, printable

_ENGLISH_N_VOCAB = 51864
_END_OF_TEXT = b"<|endoftext|>"
# GPT-2's vocabularies are written in printable characters: those stand for themselves, the other bytes for the ones
# from U+0100 on, in order.
_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = tuple(byte for byte in range(0x100) if byte not in _PRINTABLE)
_SPELLING = {**{byte: chr(byte) for byte in _PRINTABLE}, **{byte: chr(0x100 + i) for i, byte in enumerate(_OTHERS)}}


@dataclass(frozen=True)
class Assets:
    """The vocabularies, token by id, and the mel filters, by their number of bins: float32, bins x 201 frequencies."""

    english: list[bytes]
    multilingual: list[bytes]
    filters: dict[int, np.ndarray]

    @classmethod
    def read(cls, archive: Path, subdir: str) -> Assets:
        """Read them from directory `subdir` of a tar archive. Raises `SourceError`."""
        try:
            with tarfile.open(archive) as tar:
                english, multilingual, filters = (
                    _content(tar, f"{subdir}/{name}")
                    for name in ("gpt2.tiktoken", "multilingual.tiktoken", "mel_filters.npz")
                )
            with np.load(io.BytesIO(filters), allow_pickle=False) as loaded:
                # The published files have no negative zero, this file has one: adding zero makes it a positive one.
                by_bins = {bins: (loaded[f"mel_{bins}"] + 0.0).astype("<f4") for bins in (80, 128)}
        except (tarfile.TarError, KeyError, ValueError, EOFError) as error:
            raise SourceError(f"{archive} has no vocabularies and mel filters in {subdir} ({error})") from None
        # Where it is the last ordinary token, OpenAI's tokenizer adds it; in the other vocabulary it is a special one.
        return cls([*_tokens(english), _END_OF_TEXT], _tokens(multilingual), by_bins)

    def tokens(self, n_vocab: int) -> list[bytes]:
        """Return the ordinary tokens of a model with `n_vocab` tokens in all; whisper.cpp makes the special ones."""
        return self.english if n_vocab == _ENGLISH_N_VOCAB else self.multilingual

    def check_vocabulary(self, checkpoint: Checkpoint) -> None:
        """Raise `SourceError` when a source has a vocabulary and it is another one."""
        if checkpoint.vocabulary is None:
            return
        for number, token in enumerate(self.tokens(checkpoint.parameters.n_vocab)):
            found = checkpoint.vocabulary.get(number)
            expected = token.decode() if token == _END_OF_TEXT else "".join(_SPELLING[byte] for byte in token)
            if found != expected:
                raise SourceError(
                    f"{checkpoint.path}: token {number} of the vocabulary is {printable(found)}, OpenAI's is "
                    f"{printable(expected)}: what the model writes would come out as other words. Get the tokenizer "
                    "that belongs to it; a retrained one cannot be served"
                )


def _content(tar: tarfile.TarFile, name: str) -> bytes:
    stream = tar.extractfile(name)
    if stream is None:
        raise KeyError(f"{name} is not a file")
    return stream.read()


def _tokens(tiktoken: bytes) -> list[bytes]:
    """Return the tokens of a tiktoken file, each a line `<base64> <rank>`, in the order of ranks."""
    ranks = {
        int(rank): base64.b64decode(token) for token, rank in (line.split() for line in tiktoken.splitlines() if line)
    }
    if sorted(ranks) != list(range(len(ranks))):
        raise ValueError("ranks are missing")
    return [ranks[rank] for rank in range(len(ranks))]
