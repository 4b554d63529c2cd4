"""Turns a request's `DecodeOptions` into libwhisper's parameters: how it searches, tries again, and what it is told.

With kernel `decoding` the library follows openai-whisper (its decoding.py and transcribe.py) and these parameters mean
what they mean there. Other packages have what whisper.cpp has: its own beam search, the entropy of the last 32 tokens
in place of the compression ratio, and no tokens of one's own to suppress.
"""

from __future__ import annotations

import ctypes
import zlib

from whisper_xeon.engine.errors import UnsupportedOptionError
from whisper_xeon.engine.library import COMPRESSION_RATIO, Library
from whisper_xeon.transcript import NON_SPEECH, DecodeOptions

# enum whisper_sampling_strategy
_GREEDY, _BEAM_SEARCH = 0, 1

# openai-whisper, tokenizer.py, non_speech_tokens: signs that stand for no sound. Musical ones are suppressed also where
# they take several tokens, which then have their first one in common.
_SIGNS = (
    *'"#()*+/:;<=>@[\\]^_`{|}~「」『』',
    *("<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "((", "))", "(((", ")))", "[[", "]]", "{{", "}}"),
    *("♪♪", "♪♪♪"),
)
_MUSIC = "♩♪♫♬♭♮♯"
# Within a word they are speech.
_AT_THE_BEGINNING_OF_A_WORD = (" -", " '")

# A prompt is split by a recursive regular expression: 2,000 bytes are several times what the decoder can see (half its
# text context) and far from overflowing the stack.
MAX_PROMPT_BYTES = 2000
LEAST_TEMPERATURE_STEP = 0.1


def prompt_bytes(prompt: str) -> bytes:
    """Return a prompt as whisper.cpp gets it: its end, in UTF-8; empty for none."""
    data = _utf8(prompt)[-MAX_PROMPT_BYTES:].decode("utf-8", "ignore").encode("utf-8")
    # Whisper's vocabulary begins words with a space.
    return b" " + data if data else b""


def hotwords_bytes(hotwords: str) -> bytes:
    """Return hot words as whisper.cpp gets them: their beginning, in UTF-8; empty for none."""
    data = _utf8(hotwords)[:MAX_PROMPT_BYTES].decode("utf-8", "ignore").encode("utf-8")
    return b" " + data if data else b""


def _utf8(text: str) -> bytes:
    return text.replace("\0", " ").strip().encode("utf-8", "replace")


def temperature_step(options: DecodeOptions) -> float:
    """Return how much the temperature rises with each further try; 0 for no further try.

    As in OpenAI's API, temperature 0 means "raise it when needed", and any other is used as it is. whisper.cpp makes a
    list of all tries first, and one without end of a step that is too small to add up.
    """
    if options.temperature or not options.temperature_increment:
        return 0.0
    return max(options.temperature_increment, LEAST_TEMPERATURE_STEP)


def compression_ratio(text: bytes) -> float:
    """Return how many times longer a text is than when zlib compresses it, openai-whisper's measure of repetition."""
    data = text.decode("utf-8", "replace").strip().encode("utf-8")
    return len(data) / len(zlib.compress(data))


# The library keeps its pointer: it lives as long as the process.
_COMPRESSION_RATIO = COMPRESSION_RATIO(lambda text, size: compression_ratio(ctypes.string_at(text, size)))


class Decoding:
    """Fills the parameters of one library with one model."""

    def __init__(self, library: Library, context: int | None, text_context: int):
        """`text_context`: tokens that the decoder sees, half of which may precede a window's own."""
        self._library = library
        self._context = context
        self._room = text_context // 2 - 1  # beside the token that says that this is the past
        self._non_speech = self._find_non_speech() if library.decodes_as_openai else ()

    def fill(self, state: int | None, params: ctypes.Structure, options: DecodeOptions) -> ctypes.Array[ctypes.c_int32]:
        """Set how to decode, and return what `params` points to: to be kept until the call has returned.

        Raises `UnsupportedOptionError` for what the library cannot do.
        """
        params.strategy = _BEAM_SEARCH if options.beam_size > 1 else _GREEDY
        setattr(params, "beam_search.beam_size", options.beam_size)
        setattr(params, "beam_search.patience", options.patience)
        setattr(params, "greedy.best_of", options.best_of)
        params.temperature = options.temperature
        params.temperature_inc = temperature_step(options)
        params.logprob_thold = options.logprob_threshold
        params.no_speech_thold = options.no_speech_threshold
        params.no_context = True  # of an earlier call
        prompt = self._tokens(prompt_bytes(options.prompt))[-self._room :]
        hotwords = self._tokens(hotwords_bytes(options.hotwords))[: self._room]
        if self._library.decodes_as_openai:
            self._set_state(state, options, hotwords)
        else:
            prompt = self._set_upstream(params, options, hotwords, prompt)
        array = _array(prompt)
        params.prompt_tokens = ctypes.addressof(array)
        params.prompt_n_tokens = len(array)
        return array

    def _set_state(self, state: int | None, options: DecodeOptions, hotwords: list[int]) -> None:
        suppressed = [token for token in options.suppress_tokens if token != NON_SPEECH]
        if NON_SPEECH in options.suppress_tokens:
            suppressed += self._non_speech
        library = self._library
        library.whisper_xeon_set_suppressed(state, _array(suppressed), len(suppressed))
        library.whisper_xeon_set_compression_ratio(state, options.compression_ratio_threshold, _COMPRESSION_RATIO)
        library.whisper_xeon_set_past(state, _array(hotwords), len(hotwords), options.condition_on_previous_text)

    def _set_upstream(
        self, params: ctypes.Structure, options: DecodeOptions, hotwords: list[int], prompt: list[int]
    ) -> list[int]:
        """Do the same as far as whisper.cpp can, and return the tokens of its prompt."""
        if set(options.suppress_tokens) - {NON_SPEECH}:
            raise UnsupportedOptionError(
                "this package cannot suppress tokens of your choice: leave suppress_tokens out, or have the package "
                "built again with the kernel decoding"
            )
        params.suppress_nst = NON_SPEECH in options.suppress_tokens
        given = [*hotwords, *prompt][-self._room :]
        if not options.condition_on_previous_text:
            # The budget fits what is given and nothing else, so that every window sees it and no window's text.
            params.n_max_text_ctx = len(given) + 1 if given else 0
            params.carry_initial_prompt = True
        return given

    def _find_non_speech(self) -> tuple[int, ...]:
        found = {self._tokens(sign.encode())[0] for sign in _AT_THE_BEGINNING_OF_A_WORD}
        for sign in [*_SIGNS, *_MUSIC]:
            for tokens in (self._tokens(sign.encode()), self._tokens(b" " + sign.encode())):
                if len(tokens) == 1 or sign in _MUSIC:
                    found.update(tokens[:1])
        return tuple(sorted(found))

    def _tokens(self, text: bytes) -> list[int]:
        tokens = (ctypes.c_int32 * len(text))()  # no token is shorter than a byte
        count = self._library.whisper_tokenize(self._context, text, tokens, len(tokens))
        return tokens[: max(0, count)]


def _array(tokens: list[int]) -> ctypes.Array[ctypes.c_int32]:
    return (ctypes.c_int32 * len(tokens))(*tokens)
