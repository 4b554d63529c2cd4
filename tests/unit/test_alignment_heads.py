"""Which heads of a decoder show when a word is spoken: what a model states, what is known, what is left."""

from __future__ import annotations

import json

import pytest

from whisper_build.downloads import SourceError
from whisper_build.weights.alignment import stated_heads
from whisper_package.alignment import alignment_heads
from whisper_package.model_file import HyperParameters
from whisper_package.models import MODEL_CONFIGS

BASE = HyperParameters(51865, 1500, 512, 8, 6, 448, 512, 8, 6, 80, 1)
LARGE = HyperParameters(51865, 1500, 1280, 20, 32, 448, 1280, 20, 32, 80, 1)
HEADS_OF_BASE = ((3, 1), (4, 2), (4, 3), (4, 7), (5, 1), (5, 2), (5, 4), (5, 6))
# Decoder layers, heads and vocabulary of each model; the others do not matter here.
SHAPES = {
    "tiny": (4, 6, 51865),
    "tiny.en": (4, 6, 51864),
    "base": (6, 8, 51865),
    "base.en": (6, 8, 51864),
    "small": (12, 12, 51865),
    "small.en": (12, 12, 51864),
    "medium": (24, 16, 51865),
    "medium.en": (24, 16, 51864),
    "large-v2": (32, 20, 51865),
    "large-v3": (32, 20, 51866),
    "large-v3-turbo": (4, 20, 51866),
}


def shaped(layers: int, heads: int, n_vocab: int) -> HyperParameters:
    return BASE._replace(n_text_layer=layers, n_text_head=heads, n_vocab=n_vocab)


def test_a_model_has_the_heads_that_openai_published():
    assert alignment_heads("base", BASE) == HEADS_OF_BASE


@pytest.mark.parametrize("model", SHAPES)
def test_each_model_has_some_of_its_own_heads(model):
    layers, heads, n_vocab = SHAPES[model]
    found = alignment_heads(model, shaped(layers, heads, n_vocab))
    assert 5 <= len(set(found)) == len(found) <= 23
    assert all(layer < layers and head < heads for layer, head in found)


def test_every_model_that_a_package_can_hold_is_known():
    assert set(SHAPES) <= set(MODEL_CONFIGS)
    assert len({alignment_heads("mine", shaped(*shape)) for shape in SHAPES.values()}) == len(SHAPES)


def test_a_fine_tune_has_the_heads_of_what_it_was_made_of():
    assert alignment_heads("support-calls-de", BASE) == HEADS_OF_BASE


def test_models_of_one_shape_are_told_apart_by_their_names():
    assert alignment_heads("large-v1", LARGE) != alignment_heads("large-v2", LARGE)
    assert alignment_heads("mine", LARGE) == alignment_heads("large-v2", LARGE)


def test_what_the_model_states_comes_first():
    assert alignment_heads("base", BASE, [[5, 7]]) == ((5, 7),)


def test_a_distilled_model_that_states_its_teachers_heads_has_those_of_its_upper_half():
    distilled = shaped(2, 3, 51866)
    assert alignment_heads("mine", distilled, [[7, 0], [10, 17]]) == ((1, 0), (1, 1), (1, 2))


@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])
def test_a_directory_states_them(name, tmp_path):
    (tmp_path / name).write_text('{"alignment_heads": [[0, 0], [1, 3]]}')
    assert stated_heads(tmp_path) == ((0, 0), (1, 3))


@pytest.mark.parametrize("content", [{}, {"alignment_heads": None}, {"alignment_heads": []}])
def test_a_directory_may_state_none(content, tmp_path):
    (tmp_path / "generation_config.json").write_text(json.dumps(content))
    assert stated_heads(tmp_path) == ()


def test_hugging_faces_settings_of_the_network_state_none(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "generation_config.json").write_text('{"alignment_heads": [[2, 1]]}')
    assert stated_heads(tmp_path) == ((2, 1),)


@pytest.mark.parametrize("content", ["{", "[]", '{"alignment_heads": [1, 2]}', '{"alignment_heads": [[1, -2]]}'])
def test_heads_that_are_no_pairs_are_named(content, tmp_path):
    (tmp_path / "generation_config.json").write_text(content)
    with pytest.raises(SourceError, match=r"generation_config\.json.* alignment_heads"):
        stated_heads(tmp_path)
