"""The languages by code, and the codes by name, as openai-whisper's `tokenizer` has them."""

from __future__ import annotations

from whisper_xeon.languages import LANGUAGES

TO_LANGUAGE_CODE = {
    **{name: code for code, name in LANGUAGES.items()},
    "burmese": "my",
    "valencian": "ca",
    "flemish": "nl",
    "haitian": "ht",
    "letzeburgesch": "lb",
    "pushto": "ps",
    "panjabi": "pa",
    "moldavian": "ro",
    "moldovan": "ro",
    "sinhalese": "si",
    "castilian": "es",
    "mandarin": "zh",
}
__all__ = ["LANGUAGES", "TO_LANGUAGE_CODE"]
