"""Sizes of tiny encoders, and of tiny models of several stacks: further entries of `tiny_models`.

Stacks differ in heads and sizes where their model lets them, so that a rule that takes one stack's
sizes for another's is seen.
"""

from __future__ import annotations

from typing import Any

_ROPE = {"rope_type": "default", "rope_theta": 1e4}
_KINDS = ["sliding_attention", "full_attention"]
_EACH_KIND = dict.fromkeys(_KINDS, _ROPE)

FURTHER: dict[str, dict[str, Any]] = {
    "embedding_gemma2_text": {
        "layer_types": _KINDS * 2,
        "per_layer_config": {at: {"head_dim": 12, "num_key_value_heads": 1} for at in (1, 3)},
        "hidden_size_per_layer_input": 6,
        "embedding_dim": 8,
        "rope_parameters": _EACH_KIND,
    },
    "esm": {"position_embedding_type": "rotary"},
    "esmc": {"num_key_value_heads": 6, "attention_bias": True},
    "ultrabert": {"layer_types": _KINDS * 2, "attention_bias": True},
}
