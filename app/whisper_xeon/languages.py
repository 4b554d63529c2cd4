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
# fmt: off
_OTHER_NAMES: dict[str, str] = {
    "en": "eng", "zh": "chi, cmn, zho, chinese mandarin, mandarin, mandarin chinese", "de": "deu, ger",
    "es": "spa, castilian", "ru": "rus", "ko": "kor", "fr": "fra, fre", "ja": "jpn", "pt": "por", "tr": "tur",
    "pl": "pol", "ca": "cat, valencian", "nl": "dut, nld, flemish", "ar": "ara, arb", "sv": "swe", "it": "ita",
    "id": "in, ind", "hi": "hin", "fi": "fin", "vi": "vie", "he": "heb, iw", "uk": "ukr", "el": "ell, gre",
    "ms": "may, msa, zsm", "cs": "ces, cze", "ro": "mo, ron, rum, moldavian, moldovan", "da": "dan", "hu": "hun",
    "ta": "tam", "no": "nb, nob, nor, bokmal, bokmål, norwegian bokmal, norwegian bokmål", "th": "tha", "ur": "urd",
    "hr": "hrv", "bg": "bul", "lt": "lit", "la": "lat", "mi": "mao, mri, te reo", "ml": "mal", "cy": "cym, wel",
    "sk": "slk, slo", "te": "tel", "fa": "fas, per, pes, prs, dari, farsi", "lv": "lav, lvs", "bn": "ben, bangla",
    "sr": "sh, srp", "az": "aze, azj", "sl": "slv", "kn": "kan", "et": "ekk, est", "mk": "mac, mkd", "br": "bre",
    "eu": "baq, eus", "is": "ice, isl", "hy": "arm, hye", "ne": "nep, npi", "mn": "khk, mon", "bs": "bos",
    "kk": "kaz", "sq": "alb, sqi", "sw": "swa, swh", "gl": "glg", "mr": "mar", "pa": "pan, panjabi",
    "si": "sin, sinhalese", "km": "khm", "sn": "sna", "yo": "yor", "so": "som", "af": "afr", "oc": "oci",
    "ka": "geo, kat", "be": "bel", "tg": "tgk", "sd": "snd", "gu": "guj", "am": "amh", "yi": "ji, ydd, yid",
    "uz": "uzb, uzn", "fo": "fao", "ht": "hat, haitian", "ps": "pbt, pus, pushto", "tk": "tuk",
    "nn": "nno, norwegian nynorsk", "mt": "mlt", "sa": "san", "lb": "ltz, letzeburgesch", "my": "bur, mya, burmese",
    "bo": "bod, tib", "tl": "fil, tgl, filipino", "mg": "mlg, plt", "as": "asm", "tt": "tat", "ln": "lin",
    "ha": "hau", "ba": "bak", "jw": "jav, jv", "su": "sun", "yue": "cantonese chinese, chinese cantonese",
}
# fmt: on
_CODES = {
    **{name: code for code, names in _OTHER_NAMES.items() for name in names.split(", ")},
    **{name: code for code, name in LANGUAGES.items()},
    **{code: code for code in LANGUAGES},
}
# The language, script, region and variants, or POSIX's encoding and modifier. Cantonese may be an extension of Chinese
# (RFC 5646: zh-yue); three letters elsewhere are a region (ISO 3166: IND, LIT), whatever language they also name.
_LOCALE = re.compile(
    r"(?:(?:zh|zho|chi)[-_](?=yue(?![a-z0-9])))?([a-z]{2,3})(?:[-_][a-z0-9]{1,8})*(?:\.[a-z0-9-]+)?(?:@[a-z0-9]+)?"
)


def find_language(text: str) -> str | None:
    """Return the code of a language given by name, code or locale, in any case; None when Whisper does not know it.

    For example German, de, deu, de-DE and de_DE.UTF-8; zh_TW; "Chinese (Traditional)"; zh-yue.
    """
    text = " ".join(text.lower().split())
    locale = _LOCALE.fullmatch(text)
    candidates = [text, re.sub(r"[-_ ]+", " ", text), re.sub(r" ?\(.*\)", "", text)]
    if locale:
        candidates.append(locale[1])
    return next((_CODES[candidate] for candidate in candidates if candidate in _CODES), None)


def known_to(n_vocab: int) -> tuple[str, ...]:
    """Return the codes of the languages that a model knows, by the size of its vocabulary."""
    return tuple(LANGUAGES)[: n_vocab - 51766] if n_vocab > 51864 else ("en",)
