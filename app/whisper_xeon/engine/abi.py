"""libwhisper's structures, built from the layout that the package's builder measured and wrote into the manifest.

No offset is written down here: whisper.cpp has changed its layout under an unchanged SONAME before, and a wrong offset
corrupts memory silently. A layout that lacks a field in use, or disagrees about its size, is rejected.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

from whisper_xeon.engine.errors import LibraryLoadError

# Field of the C structure -> C type. Only what is read or written here; the rest of each structure is padding.
_USED: dict[str, dict[str, Any]] = {
    "whisper_full_params": {
        "strategy": ctypes.c_int,
        "n_threads": ctypes.c_int,
        "n_max_text_ctx": ctypes.c_int,
        "translate": ctypes.c_bool,
        "no_context": ctypes.c_bool,
        "no_timestamps": ctypes.c_bool,
        "print_special": ctypes.c_bool,
        "print_progress": ctypes.c_bool,
        "print_realtime": ctypes.c_bool,
        "print_timestamps": ctypes.c_bool,
        "token_timestamps": ctypes.c_bool,
        "thold_pt": ctypes.c_float,
        "audio_ctx": ctypes.c_int,
        "carry_initial_prompt": ctypes.c_bool,
        "max_tokens": ctypes.c_int,
        "prompt_tokens": ctypes.c_void_p,
        "prompt_n_tokens": ctypes.c_int,
        "language": ctypes.c_char_p,
        "detect_language": ctypes.c_bool,
        "suppress_blank": ctypes.c_bool,
        "suppress_nst": ctypes.c_bool,
        "temperature": ctypes.c_float,
        "max_initial_ts": ctypes.c_float,
        "length_penalty": ctypes.c_float,
        "temperature_inc": ctypes.c_float,
        "entropy_thold": ctypes.c_float,
        "logprob_thold": ctypes.c_float,
        "no_speech_thold": ctypes.c_float,
        "greedy.best_of": ctypes.c_int,
        "beam_search.beam_size": ctypes.c_int,
        "beam_search.patience": ctypes.c_float,
        "encoder_begin_callback": ctypes.c_void_p,
        "new_segment_callback": ctypes.c_void_p,
        "progress_callback": ctypes.c_void_p,
        "grammar_penalty": ctypes.c_float,
    },
    "whisper_context_params": {
        "use_gpu": ctypes.c_bool,
        "flash_attn": ctypes.c_bool,
        "gpu_device": ctypes.c_int,
        "dtw_token_timestamps": ctypes.c_bool,
        "dtw_mem_size": ctypes.c_size_t,
    },
    "whisper_token_data": {
        "id": ctypes.c_int32,
        "p": ctypes.c_float,
        "plog": ctypes.c_float,
        "t0": ctypes.c_int64,
        "t1": ctypes.c_int64,
    },
    "whisper_vad_context_params": {
        "n_threads": ctypes.c_int,
        "use_gpu": ctypes.c_bool,
    },
}
# Libraries from before voice detection do not have it.
_OPTIONAL = frozenset({"whisper_vad_context_params"})

# What whisper_full_default_params(WHISPER_SAMPLING_GREEDY) returns; distinct values spread over the structure.
_DEFAULTS = {
    "strategy": 0,
    "n_max_text_ctx": 16384,
    "translate": False,
    "no_context": True,
    "print_progress": True,
    "print_realtime": False,
    "print_timestamps": True,
    "thold_pt": 0.01,
    "max_tokens": 0,
    "audio_ctx": 0,
    "carry_initial_prompt": False,
    "prompt_n_tokens": 0,
    "language": b"en",
    "detect_language": False,
    "suppress_nst": False,
    "temperature": 0.0,
    "temperature_inc": 0.2,
    "entropy_thold": 2.4,
    "logprob_thold": -1.0,
    "no_speech_thold": 0.6,
    "greedy.best_of": 5,
    "beam_search.beam_size": -1,
    "encoder_begin_callback": None,
    "grammar_penalty": 100.0,
}


def build_structures(layouts: dict[str, Any]) -> dict[str, type[ctypes.Structure]]:
    """Return a ctypes class for each structure in use, laid out as the manifest's `abi` says.

    A nested field keeps its dotted name (`greedy.best_of`, by getattr). Raises `LibraryLoadError`.
    """
    return {
        name: _build(name, layouts.get(name), fields)
        for name, fields in _USED.items()
        if name in layouts or name not in _OPTIONAL
    }


def _build(name: str, layout: Any, types: dict[str, Any]) -> type[ctypes.Structure]:
    try:
        size = layout["size"]
        wanted = sorted((layout["fields"][field]["offset"], field, layout["fields"][field]["size"]) for field in types)
    except (KeyError, TypeError):
        missing = sorted(set(types) - set(layout.get("fields", ()))) if isinstance(layout, dict) else []
        raise _mismatch(f"the manifest does not describe {name}" + (f".{missing[0]}" if missing else "")) from None
    fields, end = [], 0
    for offset, field, width in wanted:
        if type(offset) is not int or offset < end or width != ctypes.sizeof(types[field]):
            raise _mismatch(f"{name}.{field} has {width} bytes at offset {offset}")
        fields += _padding(end, offset)
        fields.append((field, types[field]))
        end = offset + width
    if type(size) is not int or not end <= size <= 4096:
        raise _mismatch(f"{name} has {size} bytes")
    # Without slots, a name that is not listed above would become an attribute that the library never sees.
    structure = type(name, (ctypes.Structure,), {"__slots__": (), "_fields_": fields + _padding(end, size)})
    wrong = [field for offset, field, _ in wanted if getattr(structure, field).offset != offset]
    if wrong or ctypes.sizeof(structure) != size:
        raise _mismatch(f"{name} does not have C's alignment")
    return structure


def _padding(start: int, end: int) -> list[tuple[str, Any]]:
    return [(f"_unused_{start}", ctypes.c_ubyte * (end - start))] if end > start else []


def check_defaults(params: ctypes.Structure) -> None:
    """Compare the library's default parameters with their known values. Raises `LibraryLoadError`."""
    for field, expected in _DEFAULTS.items():
        actual = getattr(params, field)
        same = math.isclose(actual, expected, rel_tol=1e-6) if isinstance(expected, float) else actual == expected
        if not same:
            raise _mismatch(f"whisper_full_params.{field} defaults to {actual!r} instead of {expected!r}")


def _mismatch(detail: str) -> LibraryLoadError:
    return LibraryLoadError(f"libwhisper's memory layout is not the expected one ({detail}): build the package again")
