"""Which key goes with a query, where names tell one from the other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# in files of different makers; what both are one part of, a fused projection, has no such name
_KEYS = {
    "q": "k",
    "q_lin": "k_lin",
    "q_proj": "k_proj",
    "q_proj.linear": "k_proj.linear",
    "query": "key",
    "query_proj": "key_proj",
    "to_q": "to_k",
    "wq": "wk",
}
_QUERIES = {key: query for query, key in _KEYS.items()}


def _named(words: Iterable[str]) -> re.Pattern[str]:
    own = "|".join(map(re.escape, words))
    return re.compile(rf"(?P<before>(?:.*\.)?)(?P<own>{own})(?P<end>\.(?:weight|bias))")


_QUERY, _KEY = _named(_KEYS), _named(_QUERIES)


def key_of(name: str) -> str:
    """The name of the key projection beside a query projection; empty if it is none.

    >>> key_of("encoder.layer.0.attention.self.query.weight")
    'encoder.layer.0.attention.self.key.weight'
    >>> key_of("layers.0.attn.qkv.weight")
    ''
    """
    return _beside(name, _QUERY, _KEYS)


def partner_of(name: str) -> str:
    """The name of the key projection beside a query projection, or the other way round.

    >>> partner_of("layers.0.attention.wk.weight")
    'layers.0.attention.wq.weight'
    """
    return key_of(name) or _beside(name, _KEY, _QUERIES)


def _beside(name: str, pattern: re.Pattern[str], others: Mapping[str, str]) -> str:
    match = pattern.fullmatch(name)
    return "" if match is None else match["before"] + others[match["own"]] + match["end"]
