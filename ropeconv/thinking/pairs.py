"""Which key goes with a query, where names tell one from the other."""

from __future__ import annotations

import re

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
_QUERY = re.compile(
    rf"(?P<before>(?:.*\.)?)(?P<query>{'|'.join(map(re.escape, _KEYS))})(?P<end>\.(?:weight|bias))"
)


def key_of(name: str) -> str:
    """The name of the key projection beside a query projection; empty if it is none.

    >>> key_of("encoder.layer.0.attention.self.query.weight")
    'encoder.layer.0.attention.self.key.weight'
    >>> key_of("layers.0.attn.qkv.weight")
    ''
    """
    match = _QUERY.fullmatch(name)
    return "" if match is None else match["before"] + _KEYS[match["query"]] + match["end"]
