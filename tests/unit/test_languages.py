"""Languages by name, code or locale."""

from __future__ import annotations

import pytest

from whisper_xeon.languages import _OTHER_NAMES, LANGUAGES, find_language


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("German", "de"),
        ("GERMAN", "de"),
        ("de", "de"),
        ("De", "de"),
        ("deu", "de"),
        ("ger", "de"),
        ("de-DE", "de"),
        ("de_AT.UTF-8", "de"),
        ("de_DE@euro", "de"),
        ("en-US-x-private", "en"),
        ("es-419", "es"),
        ("zh_TW", "zh"),
        ("zh-Hant-TW", "zh"),
        ("zh-cmn-Hans-CN", "zh"),
        ("zh-yue", "yue"),
        ("chi_yue_HK", "yue"),
        ("zho-yue.UTF-8", "yue"),
        ("zh-IND", "zh"),
        ("eng-IND", "en"),
        ("eng_IND.UTF-8", "en"),
        ("es-LIT", "es"),
        ("de-deu-DE", "de"),
        ("ar-arb", "ar"),
        ("yue-Hant-HK", "yue"),
        ("Mandarin", "zh"),
        ("Chinese (Traditional)", "zh"),
        ("English (US)", "en"),
        ("Haitian Creole", "ht"),
        ("haitian_creole", "ht"),
        ("Castilian", "es"),
        ("pt-BR", "pt"),
        ("iw", "he"),
        ("nb-NO", "no"),
        ("Norwegian Bokmål", "no"),
        ("fil-PH", "tl"),
        ("sr-Latn-RS", "sr"),
        ("haw-US", "haw"),
        ("  Haitian\tcreole ", "ht"),
    ],
)
def test_a_language_is_found_by_name_code_or_locale(text, code):
    assert find_language(text) == code


@pytest.mark.parametrize("text", ["", "klingon", "tlh", "xx-XX", "de-", "-", "de DE de", "d", "1", "deu1"])
def test_what_is_no_language_is_not_found(text):
    assert find_language(text) is None


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_answer_is_understood_as_a_request(code):
    assert find_language(LANGUAGES[code]) == find_language(code) == code


def test_every_other_name_leads_to_a_language_and_none_hides_one():
    assert _OTHER_NAMES.keys() <= LANGUAGES.keys()
    names = [name for names in _OTHER_NAMES.values() for name in names.split(", ")]
    assert len(names) == len(set(names))
    assert not set(names) & {*LANGUAGES, *LANGUAGES.values()}
