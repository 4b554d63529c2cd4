"""The languages Whisper knows, for validation and for answers; read without loading any library."""

from __future__ import annotations

import re

# ISO 639-1 code (or Whisper's own) to English name, in the order of the models' language tokens, which models before
# large-v3 have for the first 99 only.
LANGUAGES: dict[str, str] = {
    "en": "english",
    "zh": "chinese",
    "de": "german",
    "es": "spanish",
    "ru": "russian",
    "ko": "korean",
    "fr": "french",
    "ja": "japanese",
    "pt": "portuguese",
    "tr": "turkish",
    "pl": "polish",
    "ca": "catalan",
    "nl": "dutch",
    "ar": "arabic",
    "sv": "swedish",
    "it": "italian",
    "id": "indonesian",
    "hi": "hindi",
    "fi": "finnish",
    "vi": "vietnamese",
    "he": "hebrew",
    "uk": "ukrainian",
    "el": "greek",
    "ms": "malay",
    "cs": "czech",
    "ro": "romanian",
    "da": "danish",
    "hu": "hungarian",
    "ta": "tamil",
    "no": "norwegian",
    "th": "thai",
    "ur": "urdu",
    "hr": "croatian",
    "bg": "bulgarian",
    "lt": "lithuanian",
    "la": "latin",
    "mi": "maori",
    "ml": "malayalam",
    "cy": "welsh",
    "sk": "slovak",
    "te": "telugu",
    "fa": "persian",
    "lv": "latvian",
    "bn": "bengali",
    "sr": "serbian",
    "az": "azerbaijani",
    "sl": "slovenian",
    "kn": "kannada",
    "et": "estonian",
    "mk": "macedonian",
    "br": "breton",
    "eu": "basque",
    "is": "icelandic",
    "hy": "armenian",
    "ne": "nepali",
    "mn": "mongolian",
    "bs": "bosnian",
    "kk": "kazakh",
    "sq": "albanian",
    "sw": "swahili",
    "gl": "galician",
    "mr": "marathi",
    "pa": "punjabi",
    "si": "sinhala",
    "km": "khmer",
    "sn": "shona",
    "yo": "yoruba",
    "so": "somali",
    "af": "afrikaans",
    "oc": "occitan",
    "ka": "georgian",
    "be": "belarusian",
    "tg": "tajik",
    "sd": "sindhi",
    "gu": "gujarati",
    "am": "amharic",
    "yi": "yiddish",
    "lo": "lao",
    "uz": "uzbek",
    "fo": "faroese",
    "ht": "haitian creole",
    "ps": "pashto",
    "tk": "turkmen",
    "nn": "nynorsk",
    "mt": "maltese",
    "sa": "sanskrit",
    "lb": "luxembourgish",
    "my": "myanmar",
    "bo": "tibetan",
    "tl": "tagalog",
    "mg": "malagasy",
    "as": "assamese",
    "tt": "tatar",
    "haw": "hawaiian",
    "ln": "lingala",
    "ha": "hausa",
    "ba": "bashkir",
    "jw": "javanese",
    "su": "sundanese",
    "yue": "cantonese",
}

# What else a language is called: openai-whisper's second names, ISO 639-2 and 639-3, and codes that were renamed.
_OTHER_NAMES: dict[str, str] = {
    **{"burmese": "my", "valencian": "ca", "flemish": "nl", "haitian": "ht", "letzeburgesch": "lb", "pushto": "ps"},
    **{"panjabi": "pa", "moldavian": "ro", "moldovan": "ro", "sinhalese": "si", "castilian": "es", "mandarin": "zh"},
    **{"farsi": "fa", "dari": "fa", "norwegian nynorsk": "nn", "bokmal": "no", "bokmål": "no", "filipino": "tl"},
    **{"norwegian bokmal": "no", "norwegian bokmål": "no", "te reo": "mi", "bangla": "bn"},
    **{"mandarin chinese": "zh", "cantonese chinese": "yue", "chinese cantonese": "yue", "chinese mandarin": "zh"},
    **{"iw": "he", "in": "id", "ji": "yi", "jv": "jw", "mo": "ro", "nb": "no", "sh": "sr", "fil": "tl", "tgl": "tl"},
    **{"eng": "en", "zho": "zh", "chi": "zh", "cmn": "zh", "deu": "de", "ger": "de", "spa": "es", "rus": "ru"},
    **{"kor": "ko", "fra": "fr", "fre": "fr", "jpn": "ja", "por": "pt", "tur": "tr", "pol": "pl", "cat": "ca"},
    **{"nld": "nl", "dut": "nl", "ara": "ar", "arb": "ar", "swe": "sv", "ita": "it", "ind": "id", "hin": "hi"},
    **{"fin": "fi", "vie": "vi", "heb": "he", "ukr": "uk", "ell": "el", "gre": "el", "msa": "ms", "may": "ms"},
    **{"zsm": "ms", "ces": "cs", "cze": "cs", "ron": "ro", "rum": "ro", "dan": "da", "hun": "hu", "tam": "ta"},
    **{"nor": "no", "nob": "no", "tha": "th", "urd": "ur", "hrv": "hr", "bul": "bg", "lit": "lt", "lat": "la"},
    **{"mri": "mi", "mao": "mi", "mal": "ml", "cym": "cy", "wel": "cy", "slk": "sk", "slo": "sk", "tel": "te"},
    **{"fas": "fa", "per": "fa", "pes": "fa", "prs": "fa", "lav": "lv", "lvs": "lv", "ben": "bn", "srp": "sr"},
    **{"aze": "az", "azj": "az", "slv": "sl", "kan": "kn", "est": "et", "ekk": "et", "mkd": "mk", "mac": "mk"},
    **{"bre": "br", "eus": "eu", "baq": "eu", "isl": "is", "ice": "is", "hye": "hy", "arm": "hy", "nep": "ne"},
    **{"npi": "ne", "mon": "mn", "khk": "mn", "bos": "bs", "kaz": "kk", "sqi": "sq", "alb": "sq", "swa": "sw"},
    **{"swh": "sw", "glg": "gl", "mar": "mr", "pan": "pa", "sin": "si", "khm": "km", "sna": "sn", "yor": "yo"},
    **{"som": "so", "afr": "af", "oci": "oc", "kat": "ka", "geo": "ka", "bel": "be", "tgk": "tg", "snd": "sd"},
    **{"guj": "gu", "amh": "am", "yid": "yi", "ydd": "yi", "uzb": "uz", "uzn": "uz", "fao": "fo"},
    **{"hat": "ht", "pus": "ps", "pbt": "ps", "tuk": "tk", "nno": "nn", "mlt": "mt", "san": "sa", "ltz": "lb"},
    **{"mya": "my", "bur": "my", "bod": "bo", "tib": "bo", "mlg": "mg", "plt": "mg", "asm": "as", "tat": "tt"},
    **{"lin": "ln", "hau": "ha", "bak": "ba", "jav": "jw", "sun": "su"},
}
_CODES = {**_OTHER_NAMES, **{name: code for code, name in LANGUAGES.items()}, **{code: code for code in LANGUAGES}}
# The language, an extension of it (RFC 5646: zh-yue), script, region and variants, or POSIX's encoding and modifier.
_LOCALE = re.compile(r"([a-z]{2,3})(?:[-_]([a-z]{3}))?(?:[-_][a-z0-9]{1,8})*(?:\.[a-z0-9-]+)?(?:@[a-z0-9]+)?")


def find_language(text: str) -> str | None:
    """Return the code of a language given by name, code or locale, in any case; None when Whisper does not know it.

    For example German, de, deu, de-DE and de_DE.UTF-8; zh_TW; "Chinese (Traditional)"; zh-yue.
    """
    text = " ".join(text.lower().split())
    locale = _LOCALE.fullmatch(text)
    candidates = [text, re.sub(r"[-_ ]+", " ", text), re.sub(r" ?\(.*\)", "", text)]
    if locale:
        language, extension = locale.groups()
        candidates += [extension or "", language]
    return next((_CODES[candidate] for candidate in candidates if candidate in _CODES), None)


def known_to(n_vocab: int) -> tuple[str, ...]:
    """Return the codes of the languages that a model knows, by the size of its vocabulary."""
    return tuple(LANGUAGES)[: n_vocab - 51766] if n_vocab > 51864 else ("en",)
