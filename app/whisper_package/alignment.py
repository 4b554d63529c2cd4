"""The heads of a decoder whose cross attention shows when each word is spoken."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from whisper_package.model_file import HyperParameters

Heads = tuple[tuple[int, int], ...]  # layer and head, both from 0


class _Known(NamedTuple):
    layers: int
    heads_each: int
    n_vocab: int
    heads: str  # layer.head


# As OpenAI published them (whisper/__init__.py).
_KNOWN = {
    "tiny.en": _Known(4, 6, 51864, "1.0 2.0 2.5 3.0 3.1 3.2 3.3 3.4"),
    "tiny": _Known(4, 6, 51865, "2.2 3.0 3.2 3.3 3.4 3.5"),
    "base.en": _Known(6, 8, 51864, "3.3 4.7 5.1 5.5 5.7"),
    "base": _Known(6, 8, 51865, "3.1 4.2 4.3 4.7 5.1 5.2 5.4 5.6"),
    "small.en": _Known(
        12,
        12,
        51864,
        "6.6 7.0 7.3 7.8 8.2 8.5 8.7 9.0 9.4 9.8 9.10 10.0 10.1 10.2 10.3 10.6 10.11 11.2 11.4",
    ),
    "small": _Known(12, 12, 51865, "5.3 5.9 8.0 8.4 8.7 8.8 9.0 9.7 9.9 10.5"),
    "medium.en": _Known(
        24,
        16,
        51864,
        "11.4 14.1 14.12 14.14 15.4 16.0 16.4 16.9 17.12 17.14 18.7 18.10 18.15 20.0 20.3 20.9 20.14 21.12",
    ),
    "medium": _Known(24, 16, 51865, "13.15 15.4 15.15 16.1 20.0 23.4"),
    "large-v2": _Known(
        32,
        20,
        51865,
        "10.12 13.17 16.11 16.12 16.13 17.15 17.16 18.4 18.11 18.19 19.11 21.2 21.3 22.3 22.9 22.12 23.5 23.7 23.13 "
        "25.5 26.1 26.12 27.15",
    ),
    "large-v1": _Known(32, 20, 51865, "9.19 11.2 11.4 11.17 22.7 22.11 22.17 23.2 23.15"),
    "large-v3": _Known(32, 20, 51866, "7.0 10.17 12.18 13.12 16.1 17.14 19.11 21.4 24.1 25.6"),
    "large-v3-turbo": _Known(4, 20, 51866, "2.4 2.11 3.3 3.6 3.11 3.14"),
}


def alignment_heads(model: str, parameters: HyperParameters, stated: Iterable[Iterable[int]] = ()) -> Heads:
    """Return the alignment heads of a network.

    They are those that its source states, else OpenAI's for the model of that name, else for one of that shape: a
    fine-tune keeps them. Of any other network, and of a distilled one that states its teacher's, it is openai-whisper's
    default, all heads of the upper half of the layers.
    """
    p = parameters
    own = tuple((layer, head) for layer, head in stated)
    if own and all(layer < p.n_text_layer and head < p.n_text_head for layer, head in own):
        return own
    shape = (p.n_text_layer, p.n_text_head, p.n_vocab)
    named = [_KNOWN[model]] if model in _KNOWN else []
    for known in [*named, *_KNOWN.values()]:
        if shape == (known.layers, known.heads_each, known.n_vocab):
            pairs = (pair.split(".") for pair in known.heads.split())
            return tuple((int(layer), int(head)) for layer, head in pairs)
    return tuple((layer, head) for layer in range(p.n_text_layer // 2, p.n_text_layer) for head in range(p.n_text_head))
