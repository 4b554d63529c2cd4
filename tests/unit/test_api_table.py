"""The table of the API holds together, and everything that follows from it says the same."""

from __future__ import annotations

import ast
import dataclasses
import json
from html.parser import HTMLParser

import pytest

from paths import ROOT
from whisper_xeon.formats import Shape, render
from whisper_xeon.shares import NoneLeft, OverLimit
from whisper_xeon.transcript import DecodeOptions, Segment, Transcript, Word
from whisper_xeon.web import docs_page, openapi
from whisper_xeon.web.api_table import (
    ENDPOINTS,
    ERRORS,
    EXAMPLE_ANSWER,
    OPTIONS,
    documented_fields,
    fields_without_effect,
    spelled,
)
from whisper_xeon.web.errors import ERROR_FORMATS
from whisper_xeon.web.failures import FAILURES
from whisper_xeon.web.fields import Asked
from whisper_xeon.web.overload import SHARED, overload
from whisper_xeon.web.values import LEFT_OUT, Members, Number, Switch, Whole

FIELDS = [one for one, _ in documented_fields()]
ASKED = {field.name for field in dataclasses.fields(Asked)}
TRANSCRIBING = [endpoint for endpoint in ENDPOINTS if endpoint.transcribes]


def raised_errors() -> set[tuple[int, str]]:
    """Return status and code of every `HttpError` that app/ makes with both written out."""
    found = set()
    for path in (ROOT / "app" / "whisper_xeon").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "HttpError":
                named = {word.arg: word.value for word in node.keywords}
                if node.args and isinstance(node.args[0], ast.Constant) and isinstance(named["code"], ast.Constant):
                    found.add((node.args[0].value, named["code"].value))
    return found


def test_every_error_of_the_code_is_in_the_table_and_the_other_way_round():
    failures = {(failure.status, failure.code) for failure in FAILURES.values()}
    conditional = {(400, "invalid_form"), (400, "invalid_value")}  # `_malformed` of multipart.py chooses between them
    overloads = {overload(kind(share)) for kind in (NoneLeft, OverLimit) for share in SHARED}
    conditional |= {(error.status, error.code) for error in overloads}
    assert raised_errors() | failures | conditional == {(error.status, error.code) for error in ERRORS}


@pytest.mark.parametrize("one", FIELDS, ids=lambda one: one.name)
def test_a_field_sets_an_option_or_what_a_request_may_ask_for(one):
    members = {member.sets for member in one.value.members.values()} if isinstance(one.value, Members) else set()
    assert members <= OPTIONS
    assert bool(members) or one.sets in OPTIONS | ASKED


def test_every_option_of_the_decoder_can_be_asked_for():
    reached = {one.sets for one in FIELDS} | {"token_logprobs"}  # by include[]
    assert reached >= OPTIONS


@pytest.mark.parametrize("one", [one for one in FIELDS if one.sets in OPTIONS], ids=lambda one: one.name)
def test_a_documented_default_is_the_decoders(one):
    if isinstance(one.value, (Number, Whole)):
        assert one.value.read(one.default) == getattr(DecodeOptions(), one.sets)
    elif one.value == Switch():
        assert one.value.read(one.default or "false") == getattr(DecodeOptions(), one.sets)


@pytest.mark.parametrize("endpoint", TRANSCRIBING, ids=lambda endpoint: endpoint.name)
def test_no_two_fields_of_an_endpoint_share_a_name_in_any_spelling(endpoint):
    names = [spelled(name) for one in endpoint.fields for name in one.names]
    assert len(names) == len(set(names))
    assert spelled(endpoint.file_field) not in names


@pytest.mark.parametrize("one", FIELDS, ids=lambda one: one.name)
def test_a_field_accepts_what_its_schema_offers(one):
    offers = one.value.schema.get("enum") or one.value.schema.get("examples") or []
    for offer in offers:
        one.value.read(offer)


def test_the_fields_without_effect_read_as_nothing():
    assert all(one.value.read("anything") is LEFT_OUT for one in fields_without_effect())
    assert {"user", "length_penalty", "offset_t"} <= {one.name for one in fields_without_effect()}


def test_the_example_is_what_the_formats_write():
    (segment,) = EXAMPLE_ANSWER["segments"]
    words = tuple(Word(one["word"], one["start"], one["end"], one["probability"]) for one in EXAMPLE_ANSWER["words"])
    transcript = Transcript(
        EXAMPLE_ANSWER["text"],
        "en",
        EXAMPLE_ANSWER["language_probability"],
        EXAMPLE_ANSWER["duration"],
        "transcribe",
        (
            Segment(
                *(0, segment["start"], segment["end"], segment["text"], tuple(segment["tokens"])),
                *(segment["avg_logprob"], segment["no_speech_prob"], words),
            ),
        ),
    )
    written = json.loads(render(transcript, "verbose_json", Shape(segments=True, words=True))[0])
    written["segments"][0]["seek"] = segment["seek"]
    assert written == EXAMPLE_ANSWER


@pytest.mark.parametrize("keys", [True, False])
def test_the_openapi_document_has_every_endpoint_field_and_status(keys):
    document = json.loads(json.dumps(openapi.document("1.2.3", keys=keys, urls=True)))
    assert document["info"]["version"] == "1.2.3"
    for endpoint in ENDPOINTS:
        operation = document["paths"][endpoint.path][endpoint.method.lower()]
        assert operation["operationId"] == endpoint.name
        if endpoint.transcribes:
            form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
            assert form.keys() == {endpoint.file_field, *(one.name for one in endpoint.fields)}
            assert ({} in operation["security"]) == (not keys)
            assert {"400", "401", "404", "413", "415", "422", "503", "504"} <= operation["responses"].keys()


def test_the_openapi_document_has_no_audio_url_where_none_may_be_fetched():
    text = json.dumps(openapi.document("1", keys=False, urls=False)["paths"]["/transcribe"]["post"]["requestBody"])
    assert "audio_url" not in text


@pytest.mark.parametrize("error_format", ERROR_FORMATS)
def test_every_reference_of_the_openapi_document_leads_somewhere(error_format):
    document = openapi.document("1", keys=False, urls=True, error_format=error_format)
    named = {part.partition('"')[0] for part in json.dumps(document).split("#/components/schemas/")[1:]}
    assert named == document["components"]["schemas"].keys()


class Page(HTMLParser):
    """Collects what a page names, and which of its elements are left open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.open += [] if tag in ("meta",) else [tag]
        self.ids += [value for name, value in attributes if name == "id"]
        self.targets += [value for name, value in attributes if name in ("href", "src")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def page() -> Page:
    parsed = Page()
    parsed.feed(docs_page.page("1.2.3").decode("utf-8"))
    return parsed


def test_the_page_names_every_endpoint_field_and_error(page):
    assert all(endpoint.path in page.text for endpoint in ENDPOINTS)
    assert all(one.name in page.text for one in [*FIELDS, *fields_without_effect()])
    assert all(error.code in page.text for error in ERRORS)


def test_the_page_is_whole_and_loads_nothing(page):
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert not page.tags & {"script", "img", "link", "iframe", "form"}
    assert all(target in ("openapi.json", ".") or target[1:] in page.ids for target in page.targets)
    assert "default-src 'none'" in docs_page.HEADERS["Content-Security-Policy"]


def test_the_page_shows_no_markdown(page):
    assert "`" not in page.text
    assert "](" not in page.text
