"""Loads a package's shared objects and gives their functions types.

The C prototype is above each declaration: `ctypes` checks nothing. A processor that lacks what the objects were
compiled for is rejected before the first of them is mapped: afterwards it would be a SIGILL.
"""

from __future__ import annotations

import collections
import ctypes
import functools
import json
import os
import threading
from pathlib import Path
from typing import Any, Callable

from whisper_package.package import Package
from whisper_package.variants import Variant
from whisper_xeon.engine import abi
from whisper_xeon.engine.errors import LibraryLoadError

# void (*ggml_log_callback)(enum ggml_log_level level, const char * text, void * user_data)
_LOG_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_LOG_LEVEL_WARN = 3  # GGML_LOG_LEVEL_WARN; errors are 4
# float (*whisper_xeon_compression_ratio)(const char * text, int n_bytes)
COMPRESSION_RATIO = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.POINTER(ctypes.c_char), ctypes.c_int)
# bool (*whisper_encoder_begin_callback)(
#     struct whisper_context * ctx, struct whisper_state * state, void * user_data)
ENCODER_BEGIN = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)

_NEWEST_VAD_FUNCTION = "whisper_vad_detect_speech_no_reset"

_loaded: dict[str, Library] = {}
_lock = threading.Lock()


class Library:
    """The functions of libwhisper, typed. Get it with `load`; it stays mapped for the life of the process."""

    def __init__(self, package: Package, variant: Variant):
        structures = abi.build_structures(package.manifest["abi"])
        self.ContextParams = structures["whisper_context_params"]
        self.FullParams = structures["whisper_full_params"]
        self.TokenData = structures["whisper_token_data"]
        self.variant = variant
        self._messages: collections.deque[str] = collections.deque(maxlen=4)
        # Dependencies first and by absolute path: their SONAMEs are then satisfied, and no search path, current
        # directory or LD_LIBRARY_PATH decides what gets loaded.
        listed = {entry["path"] for entry in package.manifest["files"]}
        order = ["libggml-base.so.0", variant.path, "libggml-blas.so.0", "libggml.so.0", "libwhisper.so.1"]
        for name in order:
            if name in listed or name != "libggml-blas.so.0":
                handle = _dlopen(package.path(name).absolute())
        self._declare(handle, package)
        # Libraries from before voice detection lack its functions, and packages from then lack the layout.
        self.detects_speech = "whisper_vad_context_params" in structures and hasattr(handle, _NEWEST_VAD_FUNCTION)
        if self.detects_speech:
            self._declare_vad(handle, structures["whisper_vad_context_params"])
        # Whether whisper_full decodes as openai-whisper does, and has the functions below for what that takes.
        self.decodes_as_openai = "decoding" in package.kernels
        if self.decodes_as_openai:
            self._declare_decoding(handle)
        # Whether several states can decode together.
        self.decodes_together = "together" in package.kernels
        if self.decodes_together:
            self._declare_together(handle)
        # The library's log goes to stderr by default, transcripts included. It is kept for error messages instead; the
        # callback is referenced here because the library holds its pointer for as long as it is mapped.
        self._log_callback = _LOG_CALLBACK(self._keep_message)
        self.whisper_log_set(self._log_callback, None)
        self._check(package)

    def default_params(self) -> ctypes.Structure:
        """Return a `whisper_full_params` with the library's defaults for greedy decoding."""
        pointer = self.whisper_full_default_params_by_ref(0)
        try:
            return self.FullParams.from_buffer_copy(pointer.contents)
        finally:
            self.whisper_free_params(pointer)

    def default_context_params(self) -> ctypes.Structure:
        """Return a `whisper_context_params` with the library's defaults."""
        pointer = self.whisper_context_default_params_by_ref()
        try:
            return self.ContextParams.from_buffer_copy(pointer.contents)
        finally:
            self.whisper_free_context_params(pointer)

    def last_message(self) -> str:
        """Return the last warning or error that the library logged; empty if there was none."""
        return self._messages[-1] if self._messages else ""

    def _keep_message(self, level: int, text: bytes | None, _user_data: int | None) -> None:
        if level >= _LOG_LEVEL_WARN and text:
            self._messages.append(text.decode("utf-8", "replace").strip())

    def _check(self, package: Package) -> None:
        version = (self.whisper_version() or b"").decode("utf-8", "replace")
        expected = package.manifest["whisper_cpp"]["version"]
        if version != expected:
            raise LibraryLoadError(
                f"{package.directory} contains libwhisper {version or 'of an unknown version'}, but its manifest says "
                f"{expected}: fetch the package again"
            )
        abi.check_defaults(self.default_params())

    def _declare_decoding(self, handle: ctypes.CDLL) -> None:
        state, c_int = ctypes.c_void_p, ctypes.c_int
        tokens = ctypes.POINTER(ctypes.c_int32)
        # void whisper_xeon_set_suppressed(struct whisper_state * state, const whisper_token * tokens, int n_tokens)
        self.whisper_xeon_set_suppressed = _function(handle, "whisper_xeon_set_suppressed", None, state, tokens, c_int)
        # void whisper_xeon_set_compression_ratio(
        #     struct whisper_state * state, float thold, whisper_xeon_compression_ratio measure)
        self.whisper_xeon_set_compression_ratio = _function(
            handle, "whisper_xeon_set_compression_ratio", None, state, ctypes.c_float, COMPRESSION_RATIO
        )
        # void whisper_xeon_set_past(
        #     struct whisper_state * state, const whisper_token * hotwords, int n_hotwords,
        #     bool condition_on_previous_text)
        self.whisper_xeon_set_past = _function(
            handle, "whisper_xeon_set_past", None, state, tokens, c_int, ctypes.c_bool
        )
        # float whisper_xeon_full_get_segment_temperature_from_state(struct whisper_state * state, int i_segment)
        self.whisper_xeon_full_get_segment_temperature_from_state = _function(
            handle, "whisper_xeon_full_get_segment_temperature_from_state", ctypes.c_float, state, c_int
        )

    def _declare_together(self, handle: ctypes.CDLL) -> None:
        context = state = together = ctypes.c_void_p
        # struct whisper_xeon_together * whisper_xeon_together_init(struct whisper_context * ctx)
        self.whisper_xeon_together_init = _function(handle, "whisper_xeon_together_init", together, context)
        # void whisper_xeon_together_free(struct whisper_xeon_together * together)
        self.whisper_xeon_together_free = _function(handle, "whisper_xeon_together_free", None, together)
        # void whisper_xeon_join(struct whisper_xeon_together * together, struct whisper_state * state)
        self.whisper_xeon_join = _function(handle, "whisper_xeon_join", None, together, state)
        # void whisper_xeon_leave(struct whisper_state * state)
        self.whisper_xeon_leave = _function(handle, "whisper_xeon_leave", None, state)

    def _declare(self, handle: ctypes.CDLL, package: Package) -> None:
        context = state = ctypes.c_void_p
        samples = ctypes.POINTER(ctypes.c_float)
        tokens = ctypes.POINTER(ctypes.c_int32)
        c_int, c_char_p = ctypes.c_int, ctypes.c_char_p

        function = functools.partial(_function, handle)

        # const char * whisper_version(void)
        self.whisper_version = function("whisper_version", c_char_p)
        # void whisper_log_set(ggml_log_callback log_callback, void * user_data)
        self.whisper_log_set = function("whisper_log_set", None, _LOG_CALLBACK, ctypes.c_void_p)
        # struct whisper_context_params * whisper_context_default_params_by_ref(void)
        self.whisper_context_default_params_by_ref = function(
            "whisper_context_default_params_by_ref", ctypes.POINTER(self.ContextParams)
        )
        # void whisper_free_context_params(struct whisper_context_params * params)
        self.whisper_free_context_params = function(
            "whisper_free_context_params", None, ctypes.POINTER(self.ContextParams)
        )
        # struct whisper_full_params * whisper_full_default_params_by_ref(enum whisper_sampling_strategy strategy)
        self.whisper_full_default_params_by_ref = function(
            "whisper_full_default_params_by_ref", ctypes.POINTER(self.FullParams), c_int
        )
        # void whisper_free_params(struct whisper_full_params * params)
        self.whisper_free_params = function("whisper_free_params", None, ctypes.POINTER(self.FullParams))

        # struct whisper_context * whisper_init_from_file_with_params_no_state(
        #     const char * path_model, struct whisper_context_params params)
        self.whisper_init_from_file_with_params_no_state = function(
            "whisper_init_from_file_with_params_no_state", context, c_char_p, self.ContextParams
        )
        # void whisper_free(struct whisper_context * ctx)
        self.whisper_free = function("whisper_free", None, context)
        # struct whisper_state * whisper_init_state(struct whisper_context * ctx)
        self.whisper_init_state = function("whisper_init_state", state, context)
        # void whisper_free_state(struct whisper_state * state)
        self.whisper_free_state = function("whisper_free_state", None, state)
        # int whisper_n_text_ctx(struct whisper_context * ctx)
        self.whisper_n_text_ctx = function("whisper_n_text_ctx", c_int, context)
        # int whisper_is_multilingual(struct whisper_context * ctx)
        self.whisper_is_multilingual = function("whisper_is_multilingual", c_int, context)
        # whisper_token whisper_token_eot(struct whisper_context * ctx)
        self.whisper_token_eot = function("whisper_token_eot", ctypes.c_int32, context)
        # int whisper_tokenize(
        #     struct whisper_context * ctx, const char * text, whisper_token * tokens, int n_max_tokens)
        self.whisper_tokenize = function("whisper_tokenize", c_int, context, c_char_p, tokens, c_int)

        # whisper_token whisper_token_lang(struct whisper_context * ctx, int lang_id)
        self.whisper_token_lang = function("whisper_token_lang", ctypes.c_int32, context, c_int)
        # float * whisper_get_logits_from_state(struct whisper_state * state)
        self.whisper_get_logits_from_state = function("whisper_get_logits_from_state", samples, state)
        if "align" in package.kernels:
            # int whisper_xeon_set_alignment_heads(
            #     struct whisper_context * ctx, struct whisper_state * state, const int32_t * heads, int n_heads)
            self.whisper_xeon_set_alignment_heads = function(
                "whisper_xeon_set_alignment_heads", c_int, context, state, tokens, c_int
            )
        # int whisper_full_with_state(
        #     struct whisper_context * ctx, struct whisper_state * state, struct whisper_full_params params,
        #     const float * samples, int n_samples)
        self.whisper_full_with_state = function(
            "whisper_full_with_state", c_int, context, state, self.FullParams, samples, c_int
        )

        # int whisper_full_n_segments_from_state(struct whisper_state * state)
        self.whisper_full_n_segments_from_state = function("whisper_full_n_segments_from_state", c_int, state)
        # int64_t whisper_full_get_segment_t0_from_state(struct whisper_state * state, int i_segment)
        self.whisper_full_get_segment_t0_from_state = function(
            "whisper_full_get_segment_t0_from_state", ctypes.c_int64, state, c_int
        )
        # int64_t whisper_full_get_segment_t1_from_state(struct whisper_state * state, int i_segment)
        self.whisper_full_get_segment_t1_from_state = function(
            "whisper_full_get_segment_t1_from_state", ctypes.c_int64, state, c_int
        )
        # const char * whisper_full_get_segment_text_from_state(struct whisper_state * state, int i_segment)
        self.whisper_full_get_segment_text_from_state = function(
            "whisper_full_get_segment_text_from_state", c_char_p, state, c_int
        )
        # float whisper_full_get_segment_no_speech_prob_from_state(struct whisper_state * state, int i_segment)
        self.whisper_full_get_segment_no_speech_prob_from_state = function(
            "whisper_full_get_segment_no_speech_prob_from_state", ctypes.c_float, state, c_int
        )
        # int whisper_full_n_tokens_from_state(struct whisper_state * state, int i_segment)
        self.whisper_full_n_tokens_from_state = function("whisper_full_n_tokens_from_state", c_int, state, c_int)
        # whisper_token_data whisper_full_get_token_data_from_state(
        #     struct whisper_state * state, int i_segment, int i_token)
        self.whisper_full_get_token_data_from_state = function(
            "whisper_full_get_token_data_from_state", self.TokenData, state, c_int, c_int
        )
        # const char * whisper_full_get_token_text_from_state(
        #     struct whisper_context * ctx, struct whisper_state * state, int i_segment, int i_token)
        self.whisper_full_get_token_text_from_state = function(
            "whisper_full_get_token_text_from_state", c_char_p, context, state, c_int, c_int
        )

    def _declare_vad(self, handle: ctypes.CDLL, params: type[ctypes.Structure]) -> None:
        context = ctypes.c_void_p
        samples = ctypes.POINTER(ctypes.c_float)
        function = functools.partial(_function, handle)
        # struct whisper_vad_context_params whisper_vad_default_context_params(void)
        self.whisper_vad_default_context_params = function("whisper_vad_default_context_params", params)
        # struct whisper_vad_context * whisper_vad_init_from_file_with_params(
        #     const char * path_model, struct whisper_vad_context_params params)
        self.whisper_vad_init_from_file_with_params = function(
            "whisper_vad_init_from_file_with_params", context, ctypes.c_char_p, params
        )
        # void whisper_vad_free(struct whisper_vad_context * ctx)
        self.whisper_vad_free = function("whisper_vad_free", None, context)
        # void whisper_vad_reset_state(struct whisper_vad_context * vctx)
        self.whisper_vad_reset_state = function("whisper_vad_reset_state", None, context)
        # bool whisper_vad_detect_speech_no_reset(
        #     struct whisper_vad_context * vctx, const float * samples, int n_samples)
        self.whisper_vad_detect_speech_no_reset = function(
            _NEWEST_VAD_FUNCTION, ctypes.c_bool, context, samples, ctypes.c_int
        )
        # int whisper_vad_n_probs(struct whisper_vad_context * vctx)
        self.whisper_vad_n_probs = function("whisper_vad_n_probs", ctypes.c_int, context)
        # float * whisper_vad_probs(struct whisper_vad_context * vctx)
        self.whisper_vad_probs = function("whisper_vad_probs", samples, context)


def load(package: Package, variant: Variant) -> Library:
    """Load the package's libraries, or return those already loaded from files of the same content.

    A process can load one build: the objects' SONAMEs are the same in every build, and a second one would get half of
    its symbols from the first. Raises `LibraryLoadError`.
    """
    libraries = [(entry["path"], entry["sha256"]) for entry in package.manifest["files"] if ".so" in entry["path"]]
    build = json.dumps([libraries, package.manifest["abi"], variant.path], sort_keys=True)
    with _lock:
        if build not in _loaded:
            if _loaded:
                raise LibraryLoadError(
                    f"this process has already loaded libwhisper from a build other than {package.directory}, or with "
                    "another CPU variant: use one process for each"
                )
            # libgomp reads this when it is mapped. By default its threads spin at every barrier, and one busy neighbour
            # makes a transcription three to four times slower; an idle host loses nothing.
            os.environ.setdefault("OMP_WAIT_POLICY", "passive")
            # Every computation says how many threads it uses. Packing q4_0 and q8_0 weights for AMX, during the load,
            # does not: threads started then would be missing in this process's children, which would wait for them.
            os.environ["OMP_NUM_THREADS"] = "1"
            _loaded[build] = Library(package, variant)
        return _loaded[build]


def _function(handle: ctypes.CDLL, name: str, restype: Any, *argtypes: Any) -> Callable[..., Any]:
    try:
        result = getattr(handle, name)
    except AttributeError:
        raise LibraryLoadError(f"libwhisper does not export {name}: build the package again") from None
    result.restype, result.argtypes = restype, argtypes
    return result


def _dlopen(path: Path) -> ctypes.CDLL:
    if not path.is_file():
        raise LibraryLoadError(f"{path} is missing: fetch the package again")
    try:
        return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        hint = ": apt-get install libgomp1" if "libgomp" in str(error) else ""
        raise LibraryLoadError(f"{path.name} cannot be loaded ({error}){hint}") from None
